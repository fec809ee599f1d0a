(* As many requests as a worker can answer: a window of slots, filled and read while others run. With a number, so many
   requests; what came out goes to standard output, how fast it was to standard error. *)

open Bigarray

let window = 32

(* Two windows of slots: while one is with the worker, the other is filled and read. Views are looked up once, so that
   nothing is allocated for a request. *)
let run_all m count =
  let of_slots view = Array.init (Sidecaml.slots m) view in
  let images = of_slots (fun slot -> Sidecaml.input2 ~slot m "image" Float32) in
  let scores = of_slots (fun slot -> Sidecaml.output2 ~slot m "scores" Float32) in
  let right = ref 0 in
  let fill slot value = Array2.fill images.(slot) value in
  let answer slot value = function
    | Ok () -> if scores.(slot).{0, 0} = 2. *. value then incr right
    | Error e -> Printf.eprintf "%g: %s\n" value (Sidecaml.Error.to_string e)
  in
  let rec items i () = if i = count then Seq.Nil else Seq.Cons (float_of_int (i mod 1000), items (i + 1)) in
  match Sidecaml.iter m ~burst:window ~fill ~answer (items 0) with
  | Ok () -> !right
  | Error e -> failwith (Sidecaml.Error.to_string e)

let () =
  let count = if Array.length Sys.argv > 1 then int_of_string Sys.argv.(1) else 10_000 in
  Sidecaml.with_model_exn ~slots:(2 * window) "digits" @@ fun m ->
  let start = Sidecaml.now_ns () in
  let right = run_all m count in
  let seconds = float_of_int (Sidecaml.now_ns () - start) /. 1e9 in
  Printf.printf "%d of %d answers are right\n" right count;
  Printf.eprintf "%.0f requests a second\n" (float_of_int count /. seconds)
