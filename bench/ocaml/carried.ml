(** What a call of the voice detector costs where its state is carried, and where the program copies it. *)

open Bench_loop
open Bigarray

(* As [bench/carried.py] has it for the daemon. *)
let carry = [ ("stateN", "state") ]
let rate = 16_000L
let warm_calls = 64

module Measure (B : Sidecaml.Backend.S) = struct
  let run channel = match B.run channel with Ok () -> () | Error e -> Failed.fail "%s" (Sidecaml.Error.to_string e)

  (* From one view to the other: what a program does that carries the state itself. *)
  let copying channel =
    if (B.model channel).carried <> [] then ignore
    else
      let state = B.input3 channel "state" Float32 and next = B.output3 channel "stateN" Float32 in
      fun () -> Array3.blit next state

  let frame = Array2.init Float32 C_layout 1 576 (fun _ i -> sin (float_of_int i /. 7.) /. 2.)

  let measure ?socket ?policy ?lock name count =
    match B.open_model ?socket ?policy ?lock name with
    | Error e -> Failed.fail "%s" (Sidecaml.Error.to_string e)
    | Ok channel ->
        let input = B.input2 channel "input" Float32 and output = B.output2 channel "output" Float32 in
        Array0.set (B.input0 channel "sr" Int64) rate;
        let copy = copying channel and samples = Samples.create count and heard = ref 0. in
        for i = -warm_calls to count - 1 do
          let start = Caller.now_ns () in
          Array2.blit frame input;
          run channel;
          heard := !heard +. output.{0, 0};
          copy ();
          let finish = Caller.now_ns () in
          if i >= 0 then Samples.set samples i (finish - start)
        done;
        B.close channel;
        if not (!heard > 0.) then Failed.fail "the model heard nothing at all";
        samples
end

module Ipc = Measure (Sidecaml.Ipc)
module Ffi = Measure (Sidecaml_ffi)

let over_ipc (arguments : Arguments.t) = Ipc.measure ?socket:arguments.socket ~policy:`Spin (Arguments.name arguments)

let in_process state arguments =
  Sidecaml_ffi.register "vad" ~state ~path:(Arguments.model arguments);
  Ffi.measure ~lock:`Hold "vad"

(* What is carried over the daemon is the named model's affair. *)
let paths =
  [
    ("ipc-carried", over_ipc);
    ("ipc-copied", over_ipc);
    ("ffi-carried", in_process carry);
    ("ffi-copied", in_process []);
  ]

let () =
  Program.main (fun () ->
      let { Arguments.arguments; count; file } = Arguments.measurement "--path" in
      let measure = Choice.find "path" paths arguments.choice in
      Samples.write (measure arguments count) count file;
      Printf.printf "done %d\n" count)
