(* What only the in-process backend does: its files, its library, runs that a deadline ends; and that it gives the
   daemon's bits and says what the daemon says. *)

open Bigarray
open Check
module Ffi = Sidecaml_ffi

(* The models that the shared daemon has. *)
let registered () = ignore (Backends.In_process.socket ())

let with_registered ?dims ?lock name f =
  registered ();
  Ffi.with_model_exn ?dims ?lock name f

(* --- The same bits ------------------------------------------------------------------------------------------------ *)

let bits_of row_of_output = List.init 10 (fun i -> Int32.bits_of_float row_of_output.{i})

module Answers (B : Backends.S) = struct
  (* Of random rows, so many a call. *)
  let to_rows state counts =
    B.with_model_exn ~socket:(B.socket ()) ~dims:[ ("N", 8) ] "dynamic_mlp" @@ fun m ->
    let answer n =
      B.set_dims m "x" [| n; 64 |];
      let x = B.input2 m "x" Float32 in
      for i = 0 to n - 1 do
        for j = 0 to 63 do
          x.{i, j} <- Random.State.float state 2. -. 1.
        done
      done;
      B.run_exn m;
      let y = B.output2 m "y" Float32 in
      List.concat (List.init n (fun i -> bits_of (Array2.slice_left y i)))
    in
    List.map answer counts
end

module From_daemon = Answers (Backends.Daemon)
module From_here = Answers (Backends.In_process)

let its_answers_have_the_daemons_bits =
  property "its answers have the daemon's bits" ~count:20
    QCheck2.Gen.(pair int (list_size (int_range 1 10) (int_range 1 8)))
    (fun (seed, counts) ->
      let state () = Random.State.make [| seed |] in
      From_daemon.to_rows (state ()) counts = From_here.to_rows (state ()) counts)

(* --- The same words ------------------------------------------------------------------------------------------------- *)

module Failures (B : Backends.S) = struct
  let text what = function Ok _ -> Alcotest.failf "%s: %s: no failure" B.label what | Error e -> Error.to_string e
  let open_model ?slots ?dims name = B.open_model ~socket:(B.socket ()) ?slots ?dims name

  let of_run ?dims name prepare =
    B.with_model_exn ~socket:(B.socket ()) ?dims name @@ fun m ->
    prepare m;
    text name (B.run m)

  let in_a_kernel () = of_run "fails_inside" (fun m -> Array1.fill (B.input1 m "shape" Int64) 4L)

  let of_dims () =
    of_run ~dims:[ ("N", 8) ] "same_rows" (fun m ->
        B.set_dims m "a" [| 2; 2 |];
        B.set_dims m "b" [| 3; 2 |])

  let of_room () =
    of_run ~dims:[ ("count", 2) ] "data_dependent" (fun m -> Array1.fill (B.input1 m "x" Float32) 1.)

  (* Both with the output in place and without it. *)
  let of_shape () =
    B.with_model_exn ~socket:(B.socket ()) ~dims:[ ("N", 2) ] "positives" @@ fun m ->
    Array1.fill (B.input1 m "x" Float32) 1.;
    ok "it fits" (B.run m);
    Array1.fill (B.input1 m "x" Float32) (-1.);
    ok "it is smaller" (B.run m);
    string_of_int (Array1.dim (B.output1 m "y" Float32))

  let of_time () =
    B.with_model_exn ~socket:(B.socket ()) "slow" @@ fun m ->
    Array0.set (B.input0 m "n" Int64) 20_000L;
    match B.run_for m ~timeout_ns:5_000_000 with
    (* A worker that knows how long such a run takes refuses it. *)
    | Error (Error.Timeout | Rejected { code = Deadline; _ }) -> "too late"
    | outcome -> text "slow" outcome

  let of_state () =
    B.with_model_exn ~socket:(B.socket ()) ~dims:[ ("N", 8) ] "carried_rows" @@ fun m ->
    Array1.fill (B.input1 m "shape" Int64) 8L;
    ok "the first" (B.run m);
    B.set_dims m "x" [| 3; 8 |];
    text "state" (B.run m)

  let all () =
    [
      ("of state", of_state ());
      ("in a kernel", in_a_kernel ());
      ("of dims", of_dims ());
      ("of room", of_room ());
      ("of shape", of_shape ());
      ("of time", of_time ());
      ("an unknown model", text "digitz" (open_model "digitz"));
      ("no dims", text "no dims" (open_model "dynamic_mlp"));
      ("unknown dims", text "K" (open_model ~dims:[ ("N", 1); ("K", 2) ] "dynamic_mlp"));
      ("dims for none", text "K" (open_model ~dims:[ ("K", 2) ] "digits"));
      ("a dim of 0", text "0" (open_model ~dims:[ ("N", 0) ] "dynamic_mlp"));
    ]
end

module Daemons_failures = Failures (Backends.Daemon)
module Own_failures = Failures (Backends.In_process)

let it_says_what_the_daemon_says () =
  Alcotest.(check (list (pair string string))) "failures" (Daemons_failures.all ()) (Own_failures.all ())

(* --- Files ------------------------------------------------------------------------------------------------------------ *)

let in_folder f =
  let folder = Filename.temp_file "sidecaml-files" "" in
  Sys.remove folder;
  Unix.mkdir folder 0o700;
  let remove () =
    Array.iter (fun name -> Sys.remove (Filename.concat folder name)) (Sys.readdir folder);
    Unix.rmdir folder
  in
  Fun.protect ~finally:remove (fun () -> f (Filename.concat folder))

let write path text =
  let channel = open_out_bin path in
  Fun.protect ~finally:(fun () -> close_out channel) (fun () -> output_string channel text)

let of_daemon name = Filename.concat (Filename.dirname (Support.Daemon.shared ())) (name ^ ".onnx")

let read path =
  let channel = open_in_bin path in
  Fun.protect ~finally:(fun () -> close_in channel) (fun () -> really_input_string channel (in_channel_length channel))

let a_path_is_a_name () =
  let path = of_daemon "digits" in
  Ffi.with_model_exn path @@ fun m ->
  Alcotest.(check string) "name" path (Ffi.model m).name;
  Array2.fill (Ffi.input2 m "image" Float32) 1.;
  ok "run" (Ffi.run m);
  Alcotest.(check (float 0.)) "answer" 2. (Ffi.output2 m "scores" Float32).{0, 9}

let files_that_are_no_models_are_explained () =
  in_folder @@ fun path ->
  let refused name parts =
    rejected name (Ffi.open_model (path name)) Model_failed (("model '" ^ path name ^ "' could not be loaded: ") :: parts)
  in
  refused "missing.onnx" [ "missing.onnx cannot be read: No such file or directory" ];
  write (path "empty.onnx") "";
  refused "empty.onnx" [ "empty.onnx is empty: expected a model's file" ];
  write (path "text.onnx") "this is no model";
  refused "text.onnx" [ "text.onnx could not be loaded as an ONNX model"; "Protobuf parsing failed" ];
  rejected "a folder" (Ffi.open_model (Filename.dirname (path "") ^ "/")) Model_failed [ "is a directory" ];
  let whole = read (of_daemon "dynamic_mlp") in
  write (path "cut.onnx") (String.sub whole 0 (String.length whole / 2));
  refused "cut.onnx" [ "Protobuf parsing failed" ];
  write (path "whole.onnx") whole;
  Ffi.with_model_exn ~dims:[ ("N", 1) ] (path "whole.onnx") (fun m -> ok "the next one" (Ffi.run m))

let a_file_that_changed_is_loaded_again () =
  in_folder @@ fun path ->
  let file = path "model.onnx" in
  let replace name =
    write (path "new") (read (of_daemon name));
    Sys.rename (path "new") file
  in
  let first_input m = (List.hd (Ffi.model m).inputs).name in
  replace "digits";
  Ffi.with_model_exn file @@ fun before ->
  Alcotest.(check string) "the first" "image" (first_input before);
  replace "every_rank";
  Ffi.with_model_exn file (fun m -> Alcotest.(check string) "the next" "x0" (first_input m));
  Array2.fill (Ffi.input2 before "image" Float32) 1.;
  ok "the first still runs" (Ffi.run before)

let models_that_fail_are_listed_with_the_reason () =
  in_folder @@ fun path ->
  write (path "empty.onnx") "";
  registered ();
  Ffi.register "empty" ~path:(path "empty.onnx");
  let state (m : Sidecaml.Model.t) = if m.name = "empty" then Some m.state else None in
  let reason = path "empty.onnx" ^ " is empty: expected a model's file" in
  Alcotest.(check bool) "listed" true (List.filter_map state (Ffi.models_exn ()) = [ Failed reason ]);
  Alcotest.(check bool) "described" true ((Ffi.describe_exn "empty").state = Failed reason);
  Ffi.forget "empty"

(* --- Deadlines, locks, threads ---------------------------------------------------------------------------------------- *)

let a_deadline_ends_a_run_and_the_next_call_works () =
  List.iter
    (fun lock ->
      with_registered ~lock "slow" @@ fun m ->
      let work n = Array0.set (Ffi.input0 m "n" Int64) n in
      for _ = 1 to 5 do
        work 2_000_000L;
        fails "the long one" Timeout (Ffi.run_for m ~timeout_ns:3_000_000);
        work 2_000L;
        ok "the next" (Ffi.run_for m ~timeout_ns:(60 * second_ns));
        Alcotest.(check (float 0.)) "answer" 1. (Ffi.output2 m "y" Float32).{0, 80}
      done)
    [ `Hold; `Release ]

let threads_share_a_model () =
  registered ();
  Threads.in_threads 4 (fun i ->
      Ffi.with_model_exn ~lock:`Release "digits" @@ fun m ->
      let x = Ffi.input2 m "image" Float32 and y = Ffi.output2 m "scores" Float32 in
      for call = 1 to 500 do
        let value = float_of_int ((i * 1000) + call) in
        Array2.fill x value;
        Ffi.run_exn m;
        if y.{0, 5} <> 2. *. value then failwith "another thread's answer"
      done)

(* --- Signals ------------------------------------------------------------------------------------------------------- *)

exception Tick

(* Handlers that raise in the middle of calls, until so many have. *)
let between_ticks wanted body =
  let armed = ref false and ticks = ref 0 in
  let handler _ =
    if !armed then begin
      armed := false;
      raise Tick
    end
  in
  let once () =
    (try
       armed := true;
       body ()
     with Tick -> incr ticks);
    armed := false
  in
  Signals.with_timer ~again:true ~after_s:0.000_13 handler (fun () ->
      while !ticks < wanted do
        once ()
      done)

(* More sets of dims than bindings are kept: some are dropped all the time. *)
let exceptions_leave_the_channel_as_it_was () =
  with_registered ~dims:[ ("N", 64) ] "dynamic_mlp" @@ fun m ->
  let expected = From_here.to_rows (Random.State.make [| 7 |]) [ 1 ] in
  let state = Random.State.make_self_init () in
  between_ticks 300 (fun () ->
      Ffi.set_dims m "x" [| 1 + Random.State.int state 60; 64 |];
      Ffi.run_exn m);
  Ffi.set_dims m "x" [| 1; 64 |];
  let x = Ffi.input2 m "x" Float32 and state = Random.State.make [| 7 |] in
  for j = 0 to 63 do
    x.{0, j} <- Random.State.float state 2. -. 1.
  done;
  ok "the channel serves on" (Ffi.run m);
  let answer = bits_of (Array2.slice_left (Ffi.output2 m "y" Float32) 0) in
  Alcotest.(check bool) "with the same bits" true ([ answer ] = expected)

(* The model does not keep to the shape that it declares, so that a run may be taken back and made again. *)
let exceptions_leave_no_answer_of_an_earlier_run () =
  with_registered ~dims:[ ("N", 64) ] "positives" @@ fun m ->
  let x = Ffi.input1 m "x" Float32 and value = ref 0. in
  let ask positives =
    value := !value +. 1.;
    for i = 0 to 63 do
      x.{i} <- (if i < positives then !value else -1.)
    done;
    Ffi.run m
  in
  between_ticks 300 (fun () -> ignore (ask 7));
  ok "all of them" (ask 64);
  let y = Ffi.output1 m "y" Float32 in
  Alcotest.(check (float 0.)) "this run's answer" !value y.{63}

(* At one moment after the other of the time that it takes. *)
let exceptions_leave_a_channel_that_grows_whole () =
  registered ();
  let module Strings = Sidecaml.Strings in
  let fill m texts =
    Strings.set_all (Ffi.input_strings m "x") texts;
    Array1.fill (Ffi.input1 m "keep" Bool) 1
  in
  let serves_on m =
    let texts = [| "other"; "texts"; "than"; "before" |] in
    fill m texts;
    ok "the channel serves on" (Result.map ignore (Ffi.run_growing m));
    Alcotest.(check (array string)) "what it is asked" texts (Strings.to_array (Ffi.output_strings m "y"))
  in
  let with_filled f =
    Ffi.with_model_exn ~dims:[ ("N", 4); ("count", 1) ] ~text_bytes:(1 lsl 20) "chosen" @@ fun m ->
    fill m [| "one"; "two"; "three"; "four" |];
    f m
  in
  let armed = ref false and ticks = ref 0 in
  let tick _ =
    if !armed then begin
      armed := false;
      incr ticks;
      raise Tick
    end
  in
  let grow_until after_s =
    with_filled @@ fun m ->
    let grow () =
      armed := true;
      let outcome = Ffi.run_growing m in
      (* What the tests' own functions finish with may not be interrupted. *)
      armed := false;
      ok "it grows" (Result.map ignore outcome)
    in
    (try Signals.with_timer ~after_s tick grow with Tick -> ());
    armed := false;
    serves_on m
  in
  let took _ =
    let begun = Unix.gettimeofday () in
    with_filled (fun m -> ok "it grows" (Result.map ignore (Ffi.run_growing m)));
    Unix.gettimeofday () -. begun
  in
  (* The machine may stand still during one. *)
  let longest_s = 2. *. List.fold_left min infinity (List.init 5 took) in
  let moments = 400 in
  for i = 1 to moments do
    grow_until (longest_s *. float_of_int i /. float_of_int moments)
  done;
  Alcotest.(check bool) "some were in time" true (!ticks > 0)

(* Attaches what the channel grows by, and is then interrupted as by a signal. *)
module Interrupted = struct
  module Tensor = Sidecaml.In_process.Tensor

  exception Now

  let now = ref false
  let wanted = ref 1

  module Engine = struct
    type t = { mutable tensors : Tensor.t array }

    let model =
      let tensor name dim : Sidecaml.Model.tensor = { name; dtype = "int64"; shape = [| dim |] } in
      Sidecaml.In_process.model "counts" ~engine:"test" ~inputs:[ tensor "x" (Fixed 1) ] ~outputs:[ tensor "y" (Dynamic "count") ]

    let models () = Ok [ model ]
    let describe _ = Ok model
    let open_model ~lock:_ _ = Ok ({ tensors = [||] }, Result.get_ok (Sidecaml.In_process.carry ~state:[] model))

    let attach t ~slots:_ tensors =
      t.tensors <- tensors;
      if !now then begin
        now := false;
        raise Now
      end;
      Ok ()

    let has_room t = (Tensor.max_dims t.tensors.(1)).(0) >= !wanted

    let run t ~slot ~deadline_ns:_ =
      has_room t
      && begin
           Tensor.set_dims t.tensors.(1) ~slot [| !wanted |];
           true
         end

    let failure _ ~slot:_ = Sidecaml.Error.Output_too_large { outputs = [ ("y", [| !wanted |]) ]; text_bytes = 0; message = "" }
    let close _ = ()
  end

  include Sidecaml.In_process.Make (Engine)
end

let an_interrupted_growth_leaves_the_channel_its_engine () =
  let module I = Interrupted in
  I.with_model_exn ~dims:[ ("count", 1) ] "counts" @@ fun m ->
  let runs wanted outcome =
    I.wanted := wanted;
    Alcotest.(check bool) "outcome" true (I.run_growing m = Ok outcome);
    Alcotest.(check (array int)) "of this run" [| wanted |] (I.output_dims m "y")
  in
  runs 1 `Fitted;
  I.wanted := 4;
  I.now := true;
  (match I.run_growing m with _ -> Alcotest.fail "not interrupted" | exception I.Now -> ());
  runs 1 `Fitted;
  runs 4 `Grown;
  runs 3 `Fitted

(* --- Memory ---------------------------------------------------------------------------------------------------------- *)

let resident_mib () =
  let channel = open_in "/proc/self/statm" in
  let line = Fun.protect ~finally:(fun () -> close_in channel) (fun () -> input_line channel) in
  Scanf.sscanf line "%d %d" (fun _ pages -> pages * 4 / 1024)

(* Of 16 MiB each way. *)
let closed_channels_take_no_memory () =
  registered ();
  let before = resident_mib () in
  for _ = 1 to 60 do
    Ffi.with_model_exn ~dims:[ ("N", 2 lsl 20) ] "same_rows" (fun m ->
        Array2.fill (Ffi.input2 m "a" Float32) 1.;
        ok "run" (Ffi.run m))
  done;
  Alcotest.(check bool) "resident" true (resident_mib () - before < 200)

(* --- The library ------------------------------------------------------------------------------------------------------ *)

let one_library_is_in_use () =
  match Ffi.library () with
  | Error e -> Alcotest.fail (Error.to_string e)
  | Ok (version, path) ->
      mentions "version" version [ "1." ];
      ok "the same one again" (Ffi.use_library path);
      rejected "another" (Ffi.use_library "/nonexistent/libonnxruntime.so") Invalid
        [ "/nonexistent/libonnxruntime.so was asked for"; path; "a process has one ONNX Runtime" ]

let tests =
  [
    ( "in process only",
      [
        its_answers_have_the_daemons_bits;
        case "it says what the daemon says" it_says_what_the_daemon_says;
        case "a path is a name" a_path_is_a_name;
        case "files that are no models are explained" files_that_are_no_models_are_explained;
        case "a file that changed is loaded again" a_file_that_changed_is_loaded_again;
        case "models that fail are listed with the reason" models_that_fail_are_listed_with_the_reason;
        case "a deadline ends a run and the next call works" a_deadline_ends_a_run_and_the_next_call_works;
        case "threads share a model" threads_share_a_model;
        case "exceptions leave the channel as it was" exceptions_leave_the_channel_as_it_was;
        case "exceptions leave no answer of an earlier run" exceptions_leave_no_answer_of_an_earlier_run;
        case "exceptions leave a channel that grows whole" exceptions_leave_a_channel_that_grows_whole;
        case "an interrupted growth leaves the channel its engine" an_interrupted_growth_leaves_the_channel_its_engine;
        case "closed channels take no memory" closed_channels_take_no_memory;
        case "one library is in use" one_library_is_in_use;
      ] );
  ]
