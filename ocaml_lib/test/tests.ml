(* The tests of the OCaml library. Those that need a daemon share one; see support/. *)

module Of_every_backend (B : Backends.S) = struct
  module Opening = Opening.Make (B)
  module Views = Views.Make (B)
  module Calls = Calls.Make (B)
  module Slots = Slots.Make (B)
  module Windows = Windows.Make (B)
  module Pools = Pools.Make (B)
  module Memory = Memory.Make (B)
  module State = State.Make (B)
  module Growing = Growing.Make (B)
  module Strings = Strings.Make (B)
  module Reopening = Reopening.Make (B)

  let tests =
    Opening.tests @ Reopening.tests @ Views.tests @ Strings.tests @ Growing.tests @ Calls.tests @ Slots.tests @ Windows.tests
    @ Pools.tests @ Memory.tests @ State.tests
end

let tests_of (module B : Backends.S) =
  let module Tests = Of_every_backend (B) in
  Tests.tests

(* What a mock has not: code that is not the test's own, and the model "slow". *)
module Of_real_models (B : Backends.S) = struct
  module Memory = Memory.Make (B)
  module Strings = Strings.Make (B)
  module Threads = Threads.Make (B)

  let tests = Memory.tests_of_allocation @ Strings.tests_of_text @ Threads.tests
end

module Of_the_daemon = Of_real_models (Backends.Daemon)
module In_this_process = Of_real_models (Backends.In_process)
module Of_the_resilient = Of_real_models (Backends.Resilient)

let of_the_daemon =
  Opening.tests @ Calls.tests @ Slots.tests @ Windows.tests @ Pools.tests @ Memory.tests @ Signals.tests @ Threads.tests @ Death.tests @ Reopening.tests
  @ Breakers.tests @ Resilience.tests

let tests =
  Values.tests @ Conversions.tests @ Npy_files.tests @ Tensor_protos.tests @ List.concat_map tests_of Backends.all
  @ Growing.tests @ Of_the_daemon.tests
  @ In_this_process.tests @ Of_the_daemon.Memory.tests_of_items @ In_this_process.Memory.tests_of_items @ Of_the_resilient.tests @ In_process.tests @ State.tests @ of_the_daemon

let no_child_is_left () =
  match Unix.waitpid [ WNOHANG ] (-1) with
  | exception Unix.Unix_error (ECHILD, _, _) -> ()
  | pid, _ -> failwith (Printf.sprintf "a child process is left: %d" pid)

let () =
  ignore (Support.Daemon.python ());
  Support.Daemon.stopping_shared (fun () -> Alcotest.run ~and_exit:false "sidecaml" tests);
  no_child_is_left ()
