(** How long requests take when there are many: one by one and in batches of the program's own, in process; and through
    the daemon, with a window of them in flight. A sample is the time of [group] requests, filled and read. *)

open Bench_loop
module Model = Sidecaml.Model

(* As [bench/throughput/requests.py] has it: the requests of a sample, and how many are in flight at most. *)
let group = 32
let dim = "N"
let warm_groups = 64

module Tensors (B : Sidecaml.Backend.S) = struct
  let ok = function Ok value -> value | Error error -> Failed.fail "%s" (Sidecaml.Error.to_string error)

  let opened ?socket ?slots ?policy ?lock rows name =
    ok (B.open_model ?socket ?slots ~dims:[ (dim, rows) ] ?policy ?lock name)

  (* The models of this program have one input and one output, of float32. *)
  let input ?slot channel =
    let tensor = List.hd (B.model channel).Model.inputs in
    [| Tensor.of_genarray (B.input ?slot channel tensor.name Float32) |]

  let output ?slot channel =
    let tensor = List.hd (B.model channel).Model.outputs in
    [| Tensor.of_genarray (B.output ?slot channel tensor.name Float32) |]
end

module Ffi = Tensors (Sidecaml_ffi)
module Ipc = Tensors (Sidecaml.Ipc)

let measured count run =
  let samples = Samples.create count in
  for i = -warm_groups to count - 1 do
    let start = Caller.now_ns () in
    run i;
    let finish = Caller.now_ns () in
    if i >= 0 then Samples.set samples i (finish - start)
  done;
  samples

(* [rows] requests a call, so [group / rows] calls a sample; [touches] whether they are filled and read. *)
let in_process ~rows ~touches arguments count =
  Sidecaml_ffi.register "model" ~path:(Arguments.model arguments);
  let channel = Ffi.opened ~lock:`Hold rows "model" in
  let input = Ffi.input channel and output = Ffi.output channel in
  Tensor.fill_all input 1;
  let call i =
    if touches then Tensor.fill_all input i;
    (match Sidecaml_ffi.run channel with Ok () -> () | Error _ as failed -> Ffi.ok failed);
    if touches then Tensor.read_all output
  in
  measured count (fun i ->
      for call_number = 1 to group / rows do
        call (i + call_number)
      done)

let rec numbers next last () = if next = last then Seq.Nil else Seq.Cons (next, numbers (next + 1) last)

(* With two groups of slots one is filled while the other is in flight, all of it; with one, halves take turns. *)
let windowed ~groups ~burst policy (arguments : Arguments.t) count =
  let slots = groups * group in
  let channel = Ipc.opened ?socket:arguments.socket ~slots ~policy ~lock:`Hold 1 (Arguments.name arguments) in
  let inputs = Array.init slots (fun slot -> Ipc.input ~slot channel) in
  let outputs = Array.init slots (fun slot -> Ipc.output ~slot channel) in
  let samples = Samples.create count and start = ref (Caller.now_ns ()) in
  let answer slot item outcome =
    Ipc.ok outcome;
    Tensor.read_all outputs.(slot);
    if (item + 1) mod group = 0 then (
      let finish = Caller.now_ns () and sample = (item / group) - warm_groups in
      if sample >= 0 then Samples.set samples sample (finish - !start);
      start := finish)
  in
  let fill slot item = Tensor.fill_all inputs.(slot) item in
  Ipc.ok (Sidecaml.Ipc.iter channel ~window:group ~burst ~fill ~answer (numbers 0 ((count + warm_groups) * group)));
  Sidecaml.Ipc.close channel;
  samples

let paths =
  [
    ("engine-1", in_process ~rows:1 ~touches:false);
    ("engine-32", in_process ~rows:group ~touches:false);
    ("single", in_process ~rows:1 ~touches:true);
    ("assembled", in_process ~rows:group ~touches:true);
    ("window-spin", windowed ~groups:2 ~burst:group `Spin);
    ("window-adaptive", windowed ~groups:2 ~burst:group `Adaptive);
    ("window-halves", windowed ~groups:1 ~burst:(group / 2) `Spin);
  ]

let () =
  Program.main (fun () ->
      let { Arguments.arguments; count; file } = Arguments.measurement "--path" in
      let measure = Choice.find "path" paths arguments.choice in
      Samples.write (measure arguments count) count file;
      Printf.printf "done %d\n" count)
