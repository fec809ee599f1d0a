(* The daemon, or the worker, ends while somebody waits. *)

open Check
module Daemon = Support.Daemon

let with_daemon body =
  let d = Daemon.start ~models:[ "slow" ] () in
  Fun.protect ~finally:(fun () -> Daemon.stop d) (fun () -> body d)

let submit m work =
  let slot = Sidecaml.claim_exn m in
  Calls.set_work m ~slot work;
  Sidecaml.submit_exn m slot;
  slot

(* Every way to wait that lets other threads run, each on a channel and in a thread of its own, while [kill] strikes;
   what became of each, and its channel. *)
let while_everybody_waits_for work kill check =
  with_daemon @@ fun d ->
  let waits : (Sidecaml.Backend.policy * bool) list =
    [ (`Adaptive, true); (`Spin, false); (`Adaptive, false); (`Block, false) ]
  in
  let open_one (policy, _) = Sidecaml.open_model_exn ~socket:(Daemon.socket d) ~slots:2 ~policy "slow" in
  (* All of them first: the worker takes a new channel between two requests. *)
  let channels = List.map open_one waits in
  List.iter (fun m -> ignore (submit m work)) channels;
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
  List.iteri (fun i m -> check outcomes.(i) m) channels;
  List.iter Sidecaml.close channels

let everybody_learns_of_the_daemon's_death () =
  while_everybody_waits_for 10_000_000L Daemon.kill @@ fun outcome m ->
  fails "outcome" Server_gone outcome;
  misuse "nothing is left" (fun () -> Sidecaml.release m 0) [ "holds no answer" ];
  Alcotest.check (result Alcotest.int) "no more" (Error Error.Server_gone) (Sidecaml.claim m);
  Alcotest.(check bool) "as an error" true (Sidecaml.gone_error m <> None);
  match Sidecaml.gone m with None -> Alcotest.fail "no reason" | Some reason -> mentions "reason" reason [ " " ]

let any_tells_of_each_that_is_lost () =
  with_daemon @@ fun d ->
  Sidecaml.with_model_exn ~socket:(Daemon.socket d) ~slots:3 ~policy:`Block "slow" @@ fun m ->
  let slots = List.init 3 (fun _ -> submit m 10_000_000L) in
  let any () = Signals.with_timer ~after_s:0.05 (fun _ -> Daemon.kill d) (fun () -> Sidecaml.await_any m) in
  let first = any () in
  let each = first :: List.map (fun _ -> Sidecaml.await_any m) (List.tl slots) in
  Alcotest.(check (list (Check.result int))) "each" (List.map Result.ok slots) each;
  List.iter (fun slot -> fails "lost" Server_gone (Sidecaml.await m slot)) slots;
  misuse "no other" (fun () -> Sidecaml.await_any m) [ "not known yet" ];
  Alcotest.check (result Alcotest.int) "no turn comes" (Error Error.Server_gone) (Sidecaml.claim_wait m)

let sequence_ends_with_the_daemon ?window () =
  with_daemon @@ fun d ->
  Sidecaml.with_model_exn ~socket:(Daemon.socket d) ~slots:4 "slow" @@ fun m ->
  let asked = ref 0 and answers = ref 0 and lost = ref 0 in
  let rec for_ever () =
    incr asked;
    Seq.Cons (1L, for_ever)
  in
  let answer _ _ = function
    | Ok () ->
        incr answers;
        if !answers = 20 then Daemon.kill d
    | Error Error.Server_gone -> incr lost
    | Error e -> Alcotest.fail (Error.to_string e)
  in
  fails "iter" Server_gone (Sidecaml.iter ?window m ~fill:(fun slot work -> Calls.set_work m ~slot work) ~answer for_ever);
  Alcotest.(check int) "each item is told of" !asked (!answers + !lost);
  Alcotest.(check bool) "what was under way is lost" true (!lost > 0);
  let read _ _ = Alcotest.fail "there is nothing to read" in
  let results = Sidecaml.map m ~fill:(fun _ _ -> ()) ~read (List.to_seq [ 1L; 1L ]) in
  Alcotest.(check int) "a map begins with its end" 1 (List.length (List.of_seq results))

(* Of a window of two of the four slots, the others are filled ahead. *)
let a_sequence_of_requests_ends_with_the_daemon () =
  sequence_ends_with_the_daemon ();
  sequence_ends_with_the_daemon ~window:2 ()

let kill_workers d = List.iter (fun pid -> Unix.kill pid Sys.sigkill) (Daemon.workers d)

let a_killed_worker_is_a_slow_call () =
  while_everybody_waits_for Calls.some_ms kill_workers @@ fun outcome m ->
  ok "outcome" outcome;
  Sidecaml.release m 0;
  ok "the next one" (Sidecaml.await m (submit m 1L))

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
  let slot = Sidecaml.claim_exn m in
  Calls.set_work m ~slot Calls.some_ms;
  Sidecaml.submit_exn m slot;
  Daemon.ask_to_stop d;
  ok "under way" (Sidecaml.await m slot);
  Sidecaml.release m slot;
  let rec until_gone () = match Sidecaml.run m with Ok () -> until_gone () | Error e -> e in
  Alcotest.check error "then" Server_gone (until_gone ())

let tests =
  [
    ( "death",
      [
        case "of the worker: everybody who waits is answered" a_killed_worker_is_a_slow_call;
        case "of the daemon: everybody who waits learns of it" everybody_learns_of_the_daemon's_death;
        case "of the daemon: any tells of each that is lost" any_tells_of_each_that_is_lost;
        case "of the daemon: a sequence of requests ends" a_sequence_of_requests_ends_with_the_daemon;
        case "a call that holds the lock learns of it" a_holding_call_learns_of_it;
        case "what runs is finished at shutdown" what_runs_is_finished_at_shutdown;
      ] );
  ]
