(* A channel that is opened anew behind the same value. *)

open Bigarray
open Check
module Daemon = Support.Daemon
module Strings = Sidecaml.Strings

module Make (B : Backends.S) = struct
  open Over (B)

  let reopen m = ok "reopen" (Sidecaml.reopen m)

  let views_and_inputs_stay () =
    with_model "digits" @@ fun m ->
    let x = Sidecaml.input2 m "image" Float32 and y = Sidecaml.output2 m "scores" Float32 in
    Array2.fill x 1.;
    ok "run" (Sidecaml.run m);
    for i = 1 to 20 do
      reopen m;
      Alcotest.(check (float 0.)) "input" (float_of_int i) x.{0, 63};
      ok "run" (Sidecaml.run m);
      Alcotest.(check (float 0.)) "the same input" (2. *. float_of_int i) y.{0, 9};
      Array2.fill x (float_of_int (i + 1));
      ok "run" (Sidecaml.run m);
      Alcotest.(check (float 0.)) "another" (2. *. float_of_int (i + 1)) y.{0, 0}
    done

  let dims_stay () =
    with_model ~dims:[ ("N", 8) ] "dynamic_mlp" @@ fun m ->
    Sidecaml.set_dims m "x" [| 3; 64 |];
    let x = Sidecaml.input2 m "x" Float32 in
    Array2.fill x 0.5;
    ok "run" (Sidecaml.run m);
    let rows () =
      let y = Sidecaml.output2 m "y" Float32 in
      List.init (Array2.dim1 y) (fun row -> y.{row, 0})
    in
    let before = rows () in
    reopen m;
    Alcotest.(check (array int)) "dims" [| 3; 64 |] (Sidecaml.input_dims m "x");
    ok "run" (Sidecaml.run m);
    Alcotest.(check (list (float 0.))) "answer" before (rows ())

  let strings_stay () =
    with_model ~dims:[ ("N", 3) ] "texts" @@ fun m ->
    let x = Sidecaml.input_strings m "x" in
    Strings.set_all x [| "a"; ""; "caf\xc3\xa9" |];
    reopen m;
    ok "run" (Sidecaml.run m);
    Alcotest.(check (array string)) "twice" [| "aa"; ""; "caf\xc3\xa9caf\xc3\xa9" |]
      (Strings.to_array (Sidecaml.output_strings m "y"));
    Strings.set_all x [| "b"; "c"; "d" |];
    ok "run" (Sidecaml.run m);
    Alcotest.(check (array string)) "the view is of the new memory" [| "bb"; "cc"; "dd" |]
      (Strings.to_array (Sidecaml.output_strings m "y"))

  let every_slot_is_kept_and_free () =
    with_model ~slots:3 "digits" @@ fun m ->
    let fill slot value = Array2.fill (Sidecaml.input2 ~slot m "image" Float32) value in
    let scores = Array.init 3 (fun slot -> Sidecaml.output2 ~slot m "scores" Float32) in
    List.iter (fun slot -> fill slot (float_of_int (slot + 1))) [ 0; 1; 2 ];
    let first = Sidecaml.claim_exn m in
    Sidecaml.submit_exn m first;
    let second = Sidecaml.claim_exn m in
    Sidecaml.submit_exn m second;
    Sidecaml.await_exn m first;
    reopen m;
    misuse "nothing is held" (fun () -> Sidecaml.release m first) [ "holds no answer" ];
    misuse "nothing is under way" (fun () -> Sidecaml.await m second) [ "neither a request nor an answer" ];
    for slot = 0 to 2 do
      Alcotest.(check int) "in turn from the first" slot (Sidecaml.claim_exn m);
      Sidecaml.submit_exn m slot;
      Sidecaml.await_exn m slot;
      Alcotest.(check (float 0.)) "its own input" (float_of_int (2 * (slot + 1))) scores.(slot).{0, 5};
      Sidecaml.release m slot
    done

  let state_begins_anew () =
    with_model "carried" @@ fun m ->
    Array1.fill (Sidecaml.input1 m "shape" Int64) 8L;
    let x = Sidecaml.input1 m "x" Float32 and y = Sidecaml.output1 m "y" Float32 in
    Array1.fill x 1.;
    let answer () =
      ok "run" (Sidecaml.run m);
      y.{0}
    in
    let first = answer () in
    let second = answer () in
    Alcotest.(check bool) "there is state" true (first <> second);
    reopen m;
    Alcotest.(check (float 0.)) "anew" first (answer ());
    Alcotest.(check (float 0.)) "and on" second (answer ())

  let it_stays_one_channel () =
    let before = descriptors () in
    let m = Sidecaml.open_model_exn ~socket:(socket ()) "digits" in
    let opened = descriptors () in
    Sidecaml.set_stamps m true;
    for _ = 1 to 30 do
      reopen m
    done;
    Alcotest.(check int) "no descriptor more" opened (descriptors ());
    ok "run" (Sidecaml.run m);
    Alcotest.(check bool) "stamps are taken" true ((Sidecaml.stamps m).submitted_ns > 0);
    Sidecaml.close m;
    Alcotest.(check int) "nothing is left" before (descriptors ());
    misuse "closed" (fun () -> Sidecaml.reopen m) [ "reopen"; "closed" ];
    misuse "negative" (fun () -> Sidecaml.reopen_for m ~timeout_ns:(-1)) [ "reopen_for"; "-1 ns" ]

  let tests =
    [
      group "reopening"
        [
          case "views and inputs stay" views_and_inputs_stay; case "dims stay" dims_stay;
          case "strings stay" strings_stay; case "every slot is kept, and free" every_slot_is_kept_and_free;
          case "state begins anew" state_begins_anew; case "it stays one channel" it_stays_one_channel;
        ];
    ]
end

(* --- Of a daemon's ------------------------------------------------------------------------------------------------ *)

let with_daemon models body =
  let d = Daemon.start ~models () in
  Fun.protect ~finally:(fun () -> Daemon.stop d) (fun () -> body d)

let another_daemon_takes_over () =
  with_daemon [ "digits" ] @@ fun d ->
  Sidecaml.with_model_exn ~socket:(Daemon.socket d) ~slots:2 "digits" @@ fun m ->
  let x = Sidecaml.input2 ~slot:1 m "image" Float32 and y = Sidecaml.output2 ~slot:1 m "scores" Float32 in
  Array2.fill x 1.;
  Daemon.kill d;
  rejected "nobody is there" (Sidecaml.reopen m) Connect [];
  Alcotest.(check (float 0.)) "all is as before" 1. x.{0, 0};
  Daemon.start_again d;
  ok "now" (Sidecaml.reopen m);
  Alcotest.(check (option string)) "nothing is wrong" None (Sidecaml.gone m);
  Sidecaml.submit_exn m (Sidecaml.claim_exn m);
  Sidecaml.submit_exn m (Sidecaml.claim_exn m);
  Sidecaml.await_exn m 1;
  Alcotest.(check (float 0.)) "answer" 2. y.{0, 7}

(* Views that outlive their channel, and the collector at any time. *)
let memory_is_the_collectors () =
  with_model "every_rank" @@ fun m ->
  let keep = ref [] in
  for i = 1 to 10 do
    let x = Sidecaml.input3 m "x3" Float64 in
    Array3.fill x (float_of_int i);
    keep := x :: !keep;
    ok "reopen" (Sidecaml.reopen m);
    Gc.compact ();
    List.iter (fun x -> Alcotest.(check (float 0.)) "one memory" (float_of_int i) x.{1, 1, 1}) !keep
  done

(* What a daemon does to the memory of a client that it does not trust: it is zeros from the first byte on. *)
let take_memory_back () =
  let is_segment fd = match Unix.readlink fd with link -> contains link "sidecaml-" | exception Unix.Unix_error _ -> false in
  let zero fd =
    match Unix.openfile fd [ O_RDWR; O_CLOEXEC ] 0 with
    | segment ->
        let magic = Bytes.create 8 in
        let found = Unix.read segment magic 0 8 in
        ignore (Unix.lseek segment 0 SEEK_SET : int);
        if found = 8 && Bytes.to_string magic = "SIDECAML" then ignore (Unix.write segment (Bytes.make 8 '\000') 0 8 : int);
        Unix.close segment
    | exception Unix.Unix_error _ -> ()
  in
  let fds = Array.map (Filename.concat "/proc/self/fd") (Sys.readdir "/proc/self/fd") in
  Array.iter (fun fd -> if is_segment fd then zero fd) fds

let inputs_that_are_lost_are_not_run () =
  with_daemon [ "digits" ] @@ fun d ->
  let module Fallback = Sidecaml.Resilient.With_fallback (Sidecaml.Resilient.Default) (Sidecaml) (Sidecaml.Mock) in
  Fallback.with_model_exn ~socket:(Daemon.socket d) "digits" @@ fun m ->
  ok "run" (Fallback.run m);
  Alcotest.(check bool) "intact" true (Fallback.is_intact m);
  take_memory_back ();
  Alcotest.(check bool) "not any more" false (Fallback.is_intact m);
  rejected "reopen" (Fallback.reopen m) Corrupt [ "digits"; "inputs" ];
  Daemon.kill d;
  Daemon.start_again d;
  rejected "and the call" (Fallback.run m) Corrupt [ "open another" ]

let the_memory_of_a_gone_channel_is_not_corrupt () =
  with_daemon [ "digits" ] @@ fun d ->
  Sidecaml.with_model_exn ~socket:(Daemon.socket d) "digits" @@ fun m ->
  ok "run" (Sidecaml.run m);
  Daemon.kill d;
  take_memory_back ();
  fails "gone" Server_gone (Sidecaml.run m)

(* The daemon stands still for longer than the time that reopening had. *)
let growing_has_the_time_of_the_first_opening () =
  with_daemon [ "positions" ] @@ fun d ->
  Sidecaml.with_model_exn ~socket:(Daemon.socket d) ~dims:[ ("N", 64); ("count", 1) ] "positions" @@ fun m ->
  ok "reopen" (Sidecaml.reopen_for m ~timeout_ns:4_000_000_000);
  Array1.fill (Sidecaml.input1 m "x" Float32) 1.;
  Daemon.pause d ~seconds:7;
  match Sidecaml.run_growing m with
  | Ok `Grown -> ()
  | Ok `Fitted -> Alcotest.fail "it had room"
  | Error e -> Alcotest.fail (Error.to_string e)

let tests =
  [
    ( "reopening",
      [
        case "growing has the time of the first opening" growing_has_the_time_of_the_first_opening;
        case "the memory of a gone channel is not corrupt" the_memory_of_a_gone_channel_is_not_corrupt;
        case "inputs that are lost are not run" inputs_that_are_lost_are_not_run;
        case "another daemon takes over" another_daemon_takes_over;
        case "memory is the collector's" memory_is_the_collectors;
      ] );
  ]
