(* The programs of the tutorial (ocaml_lib/doc/index.mld), whole. *)

open Bigarray

let score m slot = (Sidecaml.output2 ~slot m "scores" Float32).{0, 0}

(* --- Deadlines ---------------------------------------------------------------------------------------------------- *)

let with_deadline m =
  Array2.fill (Sidecaml.input2 m "image" Float32) 0.125;
  match Sidecaml.run_for m ~timeout_ns:60_000_000_000 with
  | Ok () -> Printf.printf "in time: %g\n" (score m 0)
  | Error Timeout -> print_endline "too late"
  | Error Busy -> print_endline "the one before is still running"
  | Error e -> failwith (Sidecaml.Error.to_string e)

(* --- Several requests at once ------------------------------------------------------------------------------------- *)

let ask m value =
  let slot = Sidecaml.claim_exn m in
  Array2.fill (Sidecaml.input2 ~slot m "image" Float32) value;
  Sidecaml.submit_exn m slot;
  slot

let answer m slot =
  Sidecaml.await_exn m slot;
  let score = score m slot in
  Sidecaml.release m slot;
  score

let both m =
  let first = ask m 0.25 in
  let second = ask m 0.5 in
  let a = answer m first in
  Printf.printf "both: %g and %g\n" a (answer m second)

(* --- Dimensions that change --------------------------------------------------------------------------------------- *)

let rows m n =
  Sidecaml.set_dims m "x" [| n; 64 |];
  Array2.fill (Sidecaml.input2 m "x" Float32) 1.;
  Sidecaml.run_exn m;
  Printf.printf "rows: %d in, %d out\n" n (Array2.dim1 (Sidecaml.output2 m "y" Float32))

(* --- Types that OCaml has no numbers for -------------------------------------------------------------------------- *)

let small_integers m =
  let wanted = Array1.of_array Int8_signed c_layout [| 1; -2; 3 |] in
  let x = Sidecaml.input1 m "x" Int4 (* two bytes *) and y = Sidecaml.output2 m "y" Int8 in
  Sidecaml.Convert.pack Int4 (genarray_of_array1 wanted) (genarray_of_array1 x);
  Sidecaml.run_exn m;
  Printf.printf "packed in %d bytes: %d %d %d\n" (Array1.dim x) y.{0, 0} y.{0, 1} y.{0, 2}

(* --- Strings ------------------------------------------------------------------------------------------------------ *)

let twice m =
  Sidecaml.Strings.set_all (Sidecaml.input_strings m "x") [| "ha"; "caf\xc3\xa9" |];
  Sidecaml.run_exn m;
  Sidecaml.Strings.iter (Printf.printf "text: %s\n") (Sidecaml.output_strings m "y")

(* --- Outputs as large as they come out ---------------------------------------------------------------------------- *)

let positions m =
  Array1.fill (Sidecaml.input1 m "x" Float32) 1.;
  match Sidecaml.run_growing m with
  | Ok (`Fitted | `Grown) ->
      let y = Sidecaml.output2 m "y" Int64 in
      Printf.printf "found: %d\n" (Array2.dim2 y)
  | Error e -> prerr_endline (Sidecaml.Error.to_string e)

let () =
  Sidecaml.with_model_exn "digits" with_deadline;
  Sidecaml.with_model_exn ~slots:2 "digits" both;
  Sidecaml.with_model_exn ~dims:[ ("N", 32) ] "dynamic_mlp" (fun m -> List.iter (rows m) [ 5; 32; 1 ]);
  Sidecaml.with_model_exn ~dims:[ ("N", 1) ] "packed" small_integers;
  Sidecaml.with_model_exn ~dims:[ ("N", 2) ] "texts" twice;
  Sidecaml.with_model_exn ~dims:[ ("N", 40); ("count", 8) ] "positions" positions
