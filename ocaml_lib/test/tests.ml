(* The tests of the OCaml library. Those that need a daemon share one; see support/. *)

let tests =
  Values.tests @ Npy_files.tests @ Opening.tests @ Views.tests @ Calls.tests @ Slots.tests @ Memory.tests
  @ Signals.tests @ Threads.tests @ Death.tests

let no_child_is_left () =
  match Unix.waitpid [ WNOHANG ] (-1) with
  | exception Unix.Unix_error (ECHILD, _, _) -> ()
  | pid, _ -> failwith (Printf.sprintf "a child process is left: %d" pid)

let () =
  ignore (Support.Daemon.python ());
  Support.Daemon.stopping_shared (fun () -> Alcotest.run ~and_exit:false "sidecaml" tests);
  no_child_is_left ()
