open Bench_loop
open Bench_paths

(* A sleep that ends with `stop`: the other end of the pipe is closed. *)
let asleep work =
  let awaited, open_end = Unix.pipe ~cloexec:true () in
  let domain = Domain.spawn (fun () -> ignore (Unix.read awaited (Bytes.create 1) 0 1)) in
  Fun.protect work ~finally:(fun () ->
      Unix.close open_end;
      Domain.join domain;
      Unix.close awaited)

let infer open_path ready stop =
  let (Opened.Opened ((module P), path)) = open_path () in
  Fun.protect
    ~finally:(fun () -> P.close path)
    (fun () ->
      Tensor.fill_all (P.inputs path) 0;
      while not (Atomic.get stop) do
        P.run path;
        Atomic.set ready true
      done)

let inferring open_path work =
  let ready = Atomic.make false and stop = Atomic.make false in
  (* Also when it fails, or nobody would learn of it. *)
  let domain =
    Domain.spawn (fun () ->
        Fun.protect ~finally:(fun () -> Atomic.set ready true) (fun () -> infer open_path ready stop))
  in
  while not (Atomic.get ready) do
    Unix.sleepf 0.001
  done;
  let result = Fun.protect work ~finally:(fun () -> Atomic.set stop true) in
  Domain.join domain;
  result
