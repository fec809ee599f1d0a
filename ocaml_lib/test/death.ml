(* The daemon, or the worker, ends while somebody waits. *)

open Check
module Daemon = Support.Daemon

let with_daemon body =
  let d = Daemon.start ~models:[ "slow" ] () in
  Fun.protect ~finally:(fun () -> Daemon.stop d) (fun () -> body d)

(* Every way to wait that lets other threads run, each on a channel and in a thread of its own, while [kill] strikes. *)
let everybody_learns_of kill () =
  with_daemon @@ fun d ->
  let waits : (Sidecaml.Backend.policy * bool) list =
    [ (`Adaptive, true); (`Spin, false); (`Adaptive, false); (`Block, false) ]
  in
  let open_one (policy, _) = Sidecaml.open_model_exn ~socket:(Daemon.socket d) ~slots:2 ~policy "slow" in
  let submit m =
    let slot = Sidecaml.claim_exn m in
    Calls.set_work m ~slot 10_000_000L;
    Sidecaml.submit_exn m slot
  in
  (* All of them first: the worker takes a new channel between two requests. *)
  let channels = List.map open_one waits in
  List.iter submit channels;
  let outcomes = Array.make (List.length waits) (Ok ()) in
  let wait i (_, polls) m =
    let rec poll () =
      match Sidecaml.poll m 0 with
      | Ok true -> Ok ()
      | Ok false ->
          Thread.yield ();
          poll ()
      | Error e -> Error e
    in
    outcomes.(i) <- (if polls then poll () else Sidecaml.await m 0)
  in
  let threads = List.mapi (fun i (w, m) -> Thread.create (fun () -> wait i w m) ()) (List.combine waits channels) in
  Unix.sleepf 0.05;
  kill d;
  List.iter Thread.join threads;
  Array.iter (fails "outcome" Server_gone) outcomes;
  List.iter
    (fun m ->
      misuse "nothing is left" (fun () -> Sidecaml.release m 0) [ "holds no answer" ];
      Alcotest.check (result Alcotest.int) "no more" (Error Error.Server_gone) (Sidecaml.claim m);
      (match Sidecaml.gone m with None -> Alcotest.fail "no reason" | Some reason -> mentions "reason" reason [ " " ]);
      Sidecaml.close m)
    channels

let kill_workers d = List.iter (fun pid -> Unix.kill pid Sys.sigkill) (Daemon.workers d)

let a_holding_call_learns_of_it () =
  List.iter
    (fun policy ->
      with_daemon @@ fun d ->
      Sidecaml.with_model_exn ~socket:(Daemon.socket d) ~policy ~lock:`Hold "slow" @@ fun m ->
      Calls.work m 10_000_000L;
      let handler _ = Daemon.kill d in
      fails "run" Server_gone (Signals.with_timer ~after_s:0.05 handler (fun () -> Sidecaml.run m));
      fails "again" Server_gone (Sidecaml.run m);
      rejected "nobody is there" (Sidecaml.open_model ~socket:(Daemon.socket d) "slow") Connect [])
    [ `Spin; `Block ]

let what_runs_is_finished_at_shutdown () =
  with_daemon @@ fun d ->
  Sidecaml.with_model_exn ~socket:(Daemon.socket d) "slow" @@ fun m ->
  Calls.work m Calls.some_ms;
  let outcome = Signals.with_timer ~after_s:0.01 (fun _ -> Daemon.ask_to_stop d) (fun () -> Sidecaml.run m) in
  ok "under way" outcome;
  let rec until_gone () = match Sidecaml.run m with Ok () -> until_gone () | Error e -> e in
  Alcotest.check error "then" Server_gone (until_gone ())

let tests =
  [
    ( "death",
      [
        case "of the worker: everybody who waits learns of it" (everybody_learns_of kill_workers);
        case "of the daemon: everybody who waits learns of it" (everybody_learns_of Daemon.kill);
        case "a call that holds the lock learns of it" a_holding_call_learns_of_it;
        case "what runs is finished at shutdown" what_runs_is_finished_at_shutdown;
      ] );
  ]
