(* Outputs whose size only the run can tell: the channel grows, and its value stays the same. *)

open Bigarray
open Check
module Strings = Sidecaml.Strings

module Make (B : Backends.S) = struct
  open Over (B)

  let fill m ones =
    let x = Sidecaml.input1 m "x" Float32 in
    Array1.fill x 0.;
    List.iter (fun i -> x.{i} <- 1.) ones

  let positions m =
    let y = Sidecaml.output2 m "y" Int64 in
    List.init (Array2.dim2 y) (fun i -> Int64.to_int y.{0, i})

  let up_to n = List.init n Fun.id
  let outcome = result (Alcotest.testable (fun ppf o -> Format.pp_print_string ppf (match o with `Fitted -> "fitted" | `Grown -> "grown")) ( = ))
  let fitted what m = Alcotest.check outcome what (Ok `Fitted) (Sidecaml.run_growing m)
  let grown what m = Alcotest.check outcome what (Ok `Grown) (Sidecaml.run_growing m)

  let it_grows_when_it_must () =
    with_model ~dims:[ ("N", 64); ("count", 2) ] "positions" @@ fun m ->
    fill m [ 3; 60 ];
    fitted "at first" m;
    Alcotest.(check (list int)) "two" [ 3; 60 ] (positions m);
    fill m (up_to 3);
    grown "then" m;
    Alcotest.(check (list int)) "three" (up_to 3) (positions m);
    fill m (up_to 64);
    grown "far" m;
    Alcotest.(check (list int)) "all" (up_to 64) (positions m);
    fill m [];
    fitted "none" m;
    Alcotest.(check (list int)) "none" [] (positions m);
    fill m (up_to 64);
    ok "there is room now" (Sidecaml.run m)

  let it_grows_by_half_at_least () =
    with_model ~dims:[ ("N", 64); ("count", 40) ] "positions" @@ fun m ->
    fill m (up_to 41);
    grown "by one" m;
    fill m (up_to 60);
    fitted "half more" m

  let inputs_and_their_dims_move () =
    with_model ~dims:[ ("N", 64); ("count", 1) ] "positions" @@ fun m ->
    Sidecaml.set_dims m "x" [| 7 |];
    fill m [ 2; 4; 6 ];
    let before = Sidecaml.input1 m "x" Float32 in
    grown "run" m;
    Alcotest.(check (list int)) "answer" [ 2; 4; 6 ] (positions m);
    Alcotest.(check (array int)) "dims" [| 7 |] (Sidecaml.input_dims m "x");
    let x = Sidecaml.input1 m "x" Float32 in
    Alcotest.(check (list (float 0.))) "moved" [ 0.; 0.; 1.; 0.; 1.; 0.; 1. ] (List.init 7 (fun i -> x.{i}));
    Alcotest.(check (float 0.)) "the old memory is given back" 0. before.{2};
    x.{0} <- 1.;
    ok "the new one counts" (Sidecaml.run_growing m |> Result.map ignore);
    Alcotest.(check (list int)) "answer" [ 0; 2; 4; 6 ] (positions m)

  (* Two outputs that do not fit, and the text of one of them. *)
  let everything_grows_at_once () =
    with_model ~dims:[ ("N", 30); ("count", 1) ] ~text_bytes:300 "chosen" @@ fun m ->
    let texts = Array.init 30 (fun i -> String.make i (Char.chr (Char.code 'a' + (i mod 26)))) in
    misuse "no room" (fun () -> Strings.set_all (Sidecaml.input_strings m "x") texts) [ "435 bytes"; "room for 300" ];
    let texts = Array.map (fun text -> String.sub text 0 (String.length text / 2)) texts in
    Strings.set_all (Sidecaml.input_strings m "x") texts;
    let keep chosen =
      let keep = Sidecaml.input1 m "keep" Bool in
      for i = 0 to 29 do
        keep.{i} <- Bool.to_int (chosen i)
      done
    in
    let check what chosen =
      let wanted = List.filter chosen (List.init 30 Fun.id) in
      let at = Sidecaml.output2 m "at" Int64 in
      Alcotest.(check (list int)) what wanted (List.init (Array2.dim2 at) (fun i -> Int64.to_int at.{0, i}));
      let found = Strings.to_array (Sidecaml.output_strings m "y") in
      Alcotest.(check (list string)) what (List.map (Array.get texts) wanted) (Array.to_list found)
    in
    let odd i = i mod 2 = 1 in
    keep odd;
    grown "half of them" m;
    check "odd" odd;
    keep (fun _ -> true);
    grown "all of them" m;
    check "all" (fun _ -> true);
    keep (fun _ -> false);
    fitted "none" m;
    check "none" (fun _ -> false)

  let text_and_dims_grow () =
    with_model ~dims:[ ("N", 4); ("count", 1) ] ~text_bytes:40 "chosen" @@ fun m ->
    Strings.set_all (Sidecaml.input_strings m "x") [| "one"; "two"; "three"; "four" |];
    Array1.fill (Sidecaml.input1 m "keep" Bool) 1;
    (match Sidecaml.run m with
    | Error (Output_too_large { outputs; text_bytes; _ }) ->
        Alcotest.(check bool) "dims" true (List.mem_assoc "y" outputs);
        Alcotest.(check int) "the text has room" 0 text_bytes
    | _ -> Alcotest.fail "there was room");
    grown "dims" m;
    Alcotest.(check int) "text has the room that was asked for" 40 (Strings.room (Sidecaml.output_strings m "y"));
    Alcotest.(check (array string)) "moved" [| "one"; "two"; "three"; "four" |]
      (Strings.to_array (Sidecaml.input_strings m "x"))

  let it_stays_one_channel () =
    let descriptors_before = descriptors () in
    let m = Sidecaml.open_model_exn ~socket:(socket ()) ~dims:[ ("N", 8); ("count", 1) ] "positions" in
    let open_descriptors = descriptors () in
    Sidecaml.set_stamps m true;
    fill m (up_to 8);
    grown "run" m;
    Alcotest.(check int) "no descriptor more" open_descriptors (descriptors ());
    Alcotest.(check bool) "stamps are taken" true ((Sidecaml.stamps m).submitted_ns > 0);
    Alcotest.(check bool) "open" true (Sidecaml.is_open m);
    Sidecaml.close m;
    Alcotest.(check bool) "closed" false (Sidecaml.is_open m);
    Alcotest.(check int) "nothing is left" descriptors_before (descriptors ());
    misuse "closed" (fun () -> Sidecaml.run_growing m) [ "run_growing"; "closed" ]

  (* Between a request that failed so and the next one, views may be looked up as ever. *)
  let outputs_without_room_are_looked_up () =
    with_model ~dims:[ ("N", 64); ("count", 2) ] "positions" @@ fun m ->
    fill m (up_to 5);
    (match Sidecaml.run m with
    | Error (Output_too_large { outputs; _ }) ->
        Alcotest.(check (list (pair string (array int)))) "needed" [ ("y", [| 1; 5 |]) ] outputs
    | _ -> Alcotest.fail "there was room");
    Alcotest.(check (array int)) "as at first" [| 1; 2 |] (Sidecaml.output_dims m "y");
    Alcotest.(check int) "its view too" 2 (Array2.dim2 (Sidecaml.output2 m "y" Int64));
    fill m [ 4 ];
    ok "the next" (Sidecaml.run m);
    Alcotest.(check (list int)) "answer" [ 4 ] (positions m)

  let other_errors_stand () =
    with_model "fails_inside" @@ fun m ->
    Array1.fill (Sidecaml.input1 m "shape" Int64) 4L;
    rejected "an engine's" (Sidecaml.run_growing m) Engine [];
    with_model ~slots:2 ~dims:[ ("N", 8); ("count", 8) ] "positions" @@ fun m ->
    misuse "several slots" (fun () -> Sidecaml.run_growing m) [ "run_growing"; "2 slots" ]

  let tests =
    [
      group "growing"
        [
          case "it grows when it must" it_grows_when_it_must;
          case "it grows by half at least" it_grows_by_half_at_least;
          case "inputs and their dims move" inputs_and_their_dims_move;
          case "everything grows at once" everything_grows_at_once;
          case "text and dims grow" text_and_dims_grow;
          case "it stays one channel" it_stays_one_channel;
          case "outputs without room are looked up" outputs_without_room_are_looked_up;
          case "other errors stand" other_errors_stand;
        ];
    ]
end

(* A channel with more room would begin it anew, and nobody would notice. *)
let state_stays_what_it_is () =
  let module Mock = Sidecaml.Mock in
  let tensor name dtype shape : Sidecaml.Model.tensor = { name; dtype; shape } in
  let scalar name = tensor name "float32" [||] in
  let y = tensor "y" "int64" [| Dynamic "count" |] in
  Mock.serve "counting" ~state:[ ("next", "so_far") ]
    ~inputs:[ scalar "wanted"; scalar "so_far" ]
    ~outputs:[ y; scalar "next" ]
    (fun m ~slot ->
      let get name = Array0.get (Mock.input0 ~slot m name Float32) in
      Array0.set (Mock.output0 ~slot m "next" Float32) (get "so_far" +. 1.);
      Result.map
        (fun () -> Array1.fill (Mock.output1 ~slot m "y" Int64) (Int64.of_float (get "so_far")))
        (Mock.fit_output ~slot m "y" [| int_of_float (get "wanted") |]));
  Fun.protect ~finally:(fun () -> Mock.withdraw "counting") @@ fun () ->
  Mock.with_model_exn ~dims:[ ("count", 1) ] "counting" @@ fun m ->
  let ask wanted =
    Array0.set (Mock.input0 m "wanted" Float32) wanted;
    Mock.run_growing m
  in
  let counted = function
    | Ok `Fitted -> Int64.to_int (Mock.output1 m "y" Int64).{0}
    | Ok `Grown -> Alcotest.fail "it grew"
    | Error e -> Alcotest.failf "%s" (Error.to_string e)
  in
  Alcotest.(check int) "first" 0 (counted (ask 1.));
  Alcotest.(check int) "second" 1 (counted (ask 1.));
  (match ask 2. with
  | Error (Output_too_large { outputs; _ }) ->
      Alcotest.(check (list (pair string (array int)))) "needed" [ ("y", [| 2 |]) ] outputs
  | outcome -> ignore (counted outcome));
  Alcotest.(check int) "third" 2 (counted (ask 1.))

let tests = [ ("growing", [ case "state stays what it is" state_stays_what_it_is ]) ]
