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

let () =
  Sidecaml.with_model_exn "digits" with_deadline;
  Sidecaml.with_model_exn ~slots:2 "digits" both;
  Sidecaml.with_model_exn ~dims:[ ("N", 32) ] "dynamic_mlp" (fun m -> List.iter (rows m) [ 5; 32; 1 ])
