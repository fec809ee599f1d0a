(* Outputs whose size only the run can tell: the channel grows, and its value stays the same. *)

open Bigarray
open Check

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
          case "it stays one channel" it_stays_one_channel;
          case "other errors stand" other_errors_stand;
        ];
    ]
end
