(** What a call costs beside a thread of the same domain that computes. *)

open Bench_loop
open Bench_paths

let paths =
  ("ipc-hold", Ipc_paths.open_with ~lock:`Hold ?policy:None)
  :: ("ipc-release", Ipc_paths.open_with ~lock:`Release ?policy:None)
  :: List.filter (fun (name, _) -> name = "ffi-locked" || name = "ffi-released") In_process_paths.all

let warm_calls = 3

(* Calls that keep the lock never let the other thread run on OCaml 4, where a loop without allocation cannot be made to
   yield. What a program does between calls can: so does this one, now and then. *)
let yield_every = 25

let measure (type a) (module P : Path.S with type t = a) (path : a) count =
  let samples = Samples.create count in
  let timed i =
    if i mod yield_every = 0 then Thread.yield ();
    let start = Caller.now_ns () in
    P.run path;
    let finish = Caller.now_ns () in
    if i >= 0 then Samples.set samples i (finish - start)
  in
  Busy.beside (fun () ->
      for i = -warm_calls to count - 1 do
        timed i
      done);
  samples

let () =
  Program.main (fun () ->
      let { Arguments.arguments; count; file } = Arguments.measurement "--path" in
      let (Opened.Opened ((module P), path)) = Choice.find "path" paths arguments.choice arguments in
      Fun.protect
        ~finally:(fun () -> P.close path)
        (fun () ->
          Tensor.fill_all (P.inputs path) 0;
          Samples.write (measure (module P) path count) count file);
      Printf.printf "done %d\n" count)
