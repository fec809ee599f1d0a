(** How long a domain's minor collections take, each of which needs all domains, while another domain infers. *)

open Bench_loop
open Bench_paths

let alone work = work ()
let beside_path path arguments = Other_domain.inferring (fun () -> path arguments)
let beside_ffi name = beside_path (List.assoc name In_process_paths.all)

let scenarios =
  [
    ("alone", fun _ -> alone);
    ("asleep", fun _ -> Other_domain.asleep);
    ("ffi-locked", beside_ffi "ffi-locked");
    ("ffi-released", beside_ffi "ffi-released");
    ("ipc-released", beside_path (Ipc_paths.open_with ~lock:`Release ?policy:None));
    ("ipc-block", beside_path (Ipc_paths.open_with ~policy:`Block ?lock:None));
  ]

let warm_collections = 10

(* Words of a block, with its header. *)
let block_words = 2

(* Garbage of three quarters of the minor heap: not enough for a collection, which the caller then asks for. *)
let fill words =
  for _ = 1 to words / 4 * 3 / block_words do
    ignore (Sys.opaque_identity (ref 0))
  done

let collections () = (Gc.quick_stat ()).minor_collections

let collect words =
  fill words;
  let start = Caller.now_ns () in
  Gc.minor ();
  Caller.now_ns () - start

let measure count =
  let words = (Gc.get ()).minor_heap_size and samples = Samples.create count in
  for _ = 1 to warm_collections do
    ignore (collect words)
  done;
  let before = collections () in
  for i = 0 to count - 1 do
    Samples.set samples i (collect words)
  done;
  let took_place = collections () - before in
  if took_place <> count then
    Failed.fail "%d collections took place while %d were measured: some samples are none, or hold several" took_place
      count;
  samples

let () =
  Program.main (fun () ->
      let { Arguments.arguments; count; file } = Arguments.measurement "--scenario" in
      let scenario = Choice.find "scenario" scenarios arguments.choice in
      let samples = scenario arguments (fun () -> measure count) in
      Samples.write samples count file;
      Printf.printf "done %d\n" count)
