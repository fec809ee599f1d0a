(* The tests of the OCaml library. Those that need a daemon share one; see support/. *)

let () =
  ignore (Support.Daemon.python ());
  Alcotest.run "sidecaml"
    (Values.tests @ Npy_files.tests @ Opening.tests @ Views.tests @ Calls.tests @ Slots.tests @ Memory.tests
   @ Signals.tests @ Threads.tests @ Death.tests)
