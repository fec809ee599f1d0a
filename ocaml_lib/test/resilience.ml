(* Clients that outlive their daemon. *)

open Bigarray
open Check
module Daemon = Support.Daemon
module Resilient = Sidecaml.Resilient
module Breaker = Sidecaml.Breaker
module Mock = Sidecaml.Mock

let ms = 1_000_000

(* What a test needs to be quick: failures are told after 300 ms. *)
let quick = { Resilient.default with patience_ns = 300 * ms; longest_pause_ns = 20 * ms }

(* --- A model that fails as it is told to ------------------------------------------------------------------------------ *)

let name = "unsteady"
let failing : Error.t list ref = ref []
let runs = ref 0

let serve ?state () =
  let x : Sidecaml.Model.tensor = { name = "x"; dtype = "float32"; shape = [| Fixed 2 |] } in
  let inputs = x :: (if state = None then [] else [ { x with name = "kept" } ]) in
  let outputs = { x with name = "y" } :: (if state = None then [] else [ { x with name = "next" } ]) in
  Mock.serve name ?state ~inputs ~outputs (fun m ~slot ->
      incr runs;
      match !failing with
      | e :: rest ->
          failing := rest;
          Error e
      | [] ->
          let see name = (Mock.input1 ~slot m name Float32).{0} in
          let total = see "x" +. if state = None then 0. else see "kept" in
          Array1.fill (Mock.output1 ~slot m "y" Float32) total;
          if state <> None then Array1.fill (Mock.output1 ~slot m "next" Float32) total;
          Ok ())

let unsteadily ?state body =
  serve ?state ();
  failing := [];
  runs := 0;
  Fun.protect ~finally:(fun () -> Mock.withdraw name) body

let times n error = List.init n (fun _ -> error)

(* For those that succeed at last, on a machine that stands still meanwhile, too. *)
let steadfast = { quick with patience_ns = 4 * second_ns }

module Quick = struct
  let settings = steadfast
end

module Unsteady = Resilient.Make (Quick) (Mock)

let it_runs_again () =
  unsteadily @@ fun () ->
  Unsteady.with_model_exn name @@ fun m ->
  let x = Unsteady.input1 m "x" Float32 and y = Unsteady.output1 m "y" Float32 in
  Array1.fill x 3.;
  failing := times 5 Error.Server_gone;
  ok "run" (Unsteady.run m);
  Alcotest.(check (float 0.)) "answer" 3. y.{1};
  Alcotest.(check int) "runs" 6 !runs;
  Alcotest.(check int) "reopened" 5 (Unsteady.reopened m);
  Alcotest.(check string) "the breaker" "closed" (Breaker.state_to_string (Breaker.state (Unsteady.breaker m) ~now_ns:(Unsteady.now_ns ())));
  List.iter
    (fun (what, run) ->
      failing := [ Error.Server_gone ];
      ok what (run m))
    [
      ("run_for", Unsteady.run_for ~timeout_ns:(60 * second_ns));
      ("run_until", fun m -> Unsteady.run_until m ~deadline_ns:(Unsteady.now_ns () + (60 * second_ns)));
      ("run_growing", fun m -> Result.map ignore (Unsteady.run_growing m));
      ("run_exn", fun m -> Ok (Unsteady.run_exn m));
    ];
  failing := [ Error.Server_gone ];
  Alcotest.(check bool) "what ran again may have moved" true (Unsteady.run_growing m = Ok `Grown);
  Alcotest.(check bool) "what did not has not" true (Unsteady.run_growing m = Ok `Fitted)

let other_errors_are_the_callers () =
  unsteadily @@ fun () ->
  Unsteady.with_model_exn name @@ fun m ->
  let engine = Error.Rejected { code = Engine; message = "no" } in
  List.iter
    (fun e ->
      failing := [ e ];
      runs := 0;
      fails "error" e (Unsteady.run m);
      Alcotest.(check int) "once" 1 !runs)
    [ Error.Worker_crashed; Timeout; engine ];
  Alcotest.(check int) "not reopened" 0 (Unsteady.reopened m)

let crashes_when_they_are_asked_for () =
  let module Again = Resilient.Make (struct let settings = { steadfast with after_crash = true } end) (Mock) in
  unsteadily @@ fun () ->
  Again.with_model_exn name @@ fun m ->
  failing := times 2 Error.Worker_crashed;
  ok "run" (Again.run m);
  Alcotest.(check int) "runs" 3 !runs;
  Alcotest.(check int) "the channel is as good as ever" 0 (Again.reopened m)

(* The daemon gave the channel up for what its requests did; a mock is never gone, so it has to say so. *)
let what_crashes_workers_is_not_run_again () =
  let module Evicted = struct
    include Mock

    let gone_error _ = Some Error.Worker_crashed
  end in
  let module M =
    Resilient.With_fallback
      (struct
        let settings = { steadfast with breaker = (fun () -> Breaker.make ~failures:1 ()) }
      end)
      (Evicted)
      (Mock)
  in
  unsteadily @@ fun () ->
  M.with_model_exn name @@ fun m ->
  failing := times 1 Error.Server_gone;
  fails "the truth" Worker_crashed (M.run m);
  Alcotest.(check int) "once, and nowhere else" 1 !runs;
  Alcotest.(check int) "nor reopened for it" 0 (M.reopened m);
  failing := times 1 Error.Server_gone;
  ok "the next one reopens" (M.run m);
  Alcotest.(check int) "reopened" 1 (M.reopened m);
  let module Again =
    Resilient.With_fallback
      (struct
        let settings =
          { quick with patience_ns = 2 * ms; after_crash = true; breaker = (fun () -> Breaker.make ~failures:1 ~cool_down_ns:max_int ()) }
      end)
      (Evicted)
      (Mock)
  in
  Again.with_model_exn name @@ fun m ->
  failing := times 1_000 Error.Worker_crashed;
  fails "tried for a while" Worker_crashed (Again.run m);
  failing := [];
  match Again.run m with
  | Error (Circuit_open { last = Worker_crashed; _ }) -> ()
  | _ -> Alcotest.fail "not even while the breaker is open"

let patience_has_an_end () =
  let module M = Resilient.Make (struct let settings = steadfast end) (Mock) in
  unsteadily @@ fun () ->
  M.with_model_exn name @@ fun m ->
  failing := times 1_000_000 Error.Server_gone;
  fails "run" Server_gone (M.run m);
  Alcotest.(check bool) "more than once" true (!runs > 1);
  let before = M.now_ns () in
  fails "the deadline is the end" Server_gone (M.run_for m ~timeout_ns:(20 * ms));
  Alcotest.(check bool) "not before" true (M.now_ns () - before >= 20 * ms)

(* --- The breaker ------------------------------------------------------------------------------------------------------ *)

module Short = Resilient.Make (struct
  let settings =
    {
      quick with
      patience_ns = 2 * ms;
      breaker = (fun () -> Breaker.make ~failures:3 ~cool_down_ns:(1500 * ms) ());
    }
end) (Mock)

let after_failures_in_a_row_calls_fail_at_once () =
  unsteadily @@ fun () ->
  Short.with_model_exn name @@ fun m ->
  let now = Short.now_ns in
  let state () = Breaker.state_to_string (Breaker.state (Short.breaker m) ~now_ns:(now ())) in
  failing := times 1_000_000 Error.Server_gone;
  for _ = 1 to 3 do
    Alcotest.(check string) "closed" "closed" (state ());
    fails "run" Server_gone (Short.run m)
  done;
  let before = now () in
  runs := 0;
  (match Short.run m with
  | Error (Circuit_open { since_ns; until_ns; failures; last }) ->
      Alcotest.(check bool) "since" true (since_ns <= before);
      Alcotest.(check int) "until" (1500 * ms) (until_ns - since_ns);
      Alcotest.(check int) "failures" 3 failures;
      Alcotest.check error "last" Server_gone last
  | outcome -> Alcotest.failf "not refused: %s" (match outcome with Ok () -> "Ok" | Error e -> Error.to_string e));
  Alcotest.(check int) "nothing was tried" 0 !runs;
  until "it cools down" (fun () -> state () = "half-open");
  (match Short.run m with Error Server_gone -> () | _ -> Alcotest.fail "one is tried");
  Alcotest.(check bool) "and was in vain" true (match Short.run m with Error (Circuit_open { failures = 4; _ }) -> true | _ -> false);
  failing := [];
  until "it cools down" (fun () -> state () = "half-open");
  ok "tried" (Short.run m);
  Alcotest.(check string) "closed" "closed" (state ());
  failing := [ Error.Server_gone ];
  ignore (Short.run m : (unit, Error.t) result)

let channels_may_share_a_breaker () =
  let one = Breaker.make ~failures:1 ~cool_down_ns:max_int () in
  let module M = Resilient.Make (struct let settings = { quick with patience_ns = 0; breaker = (fun () -> one) } end) (Mock) in
  unsteadily @@ fun () ->
  M.with_model_exn name @@ fun a ->
  M.with_model_exn name @@ fun b ->
  failing := [ Error.Server_gone ];
  fails "one" Server_gone (M.run a);
  match M.run b with Error (Circuit_open _) -> () | _ -> Alcotest.fail "the other does not know"

exception Enough

(* During the pauses too, and a call that was to decide is not missed. *)
let handlers_may_raise () =
  let module M = Resilient.Make (struct
    let settings =
      {
        quick with
        patience_ns = 60 * second_ns;
        first_pause_ns = second_ns;
        longest_pause_ns = second_ns;
        breaker = (fun () -> Breaker.make ~failures:1 ~cool_down_ns:0 ());
      }
  end) (Mock) in
  unsteadily @@ fun () ->
  M.with_model_exn name @@ fun m ->
  Breaker.failed (M.breaker m) ~now_ns:(M.now_ns ()) Server_gone;
  for _ = 1 to 2 do
    failing := times 1_000 Error.Server_gone;
    match Signals.with_timer ~after_s:0.02 (fun _ -> raise Enough) (fun () -> M.run m) with
    | _ -> Alcotest.fail "it came to an end"
    | exception Enough -> ()
  done;
  failing := [];
  ok "the next is tried" (M.run m)

(* --- State ------------------------------------------------------------------------------------------------------------ *)

let state = [ ("next", "kept") ]

let state_is_not_begun_anew_unasked () =
  unsteadily ~state @@ fun () ->
  Unsteady.with_model_exn name @@ fun m ->
  let x = Unsteady.input1 m "x" Float32 and y = Unsteady.output1 m "y" Float32 in
  Array1.fill x 1.;
  ok "first" (Unsteady.run m);
  ok "second" (Unsteady.run m);
  Alcotest.(check (float 0.)) "sum" 2. y.{0};
  failing := [ Error.Server_gone ];
  runs := 0;
  fails "run" Server_gone (Unsteady.run m);
  Alcotest.(check int) "once" 1 !runs;
  ok "the program's choice" (Unsteady.reopen m);
  ok "first again" (Unsteady.run m);
  Alcotest.(check (float 0.)) "anew" 1. y.{0}

let state_begins_anew_where_it_may () =
  let module M = Resilient.Make (struct let settings = { steadfast with state = `Begin_anew } end) (Mock) in
  unsteadily ~state @@ fun () ->
  M.with_model_exn name @@ fun m ->
  let x = M.input1 m "x" Float32 and y = M.output1 m "y" Float32 in
  Array1.fill x 1.;
  ok "first" (M.run m);
  ok "second" (M.run m);
  failing := [ Error.Server_gone ];
  ok "goes on" (M.run m);
  Alcotest.(check (float 0.)) "anew" 1. y.{0};
  Alcotest.(check int) "and says so" 1 (M.reopened m)

(* --- Slots ------------------------------------------------------------------------------------------------------------ *)

let claim_begins_again_when_nothing_is_held () =
  unsteadily @@ fun () ->
  Unsteady.with_model_exn ~slots:2 name @@ fun m ->
  let put slot value = Array1.fill (Unsteady.input1 ~slot m "x" Float32) value in
  let get slot = (Unsteady.output1 ~slot m "y" Float32).{0} in
  let a = Unsteady.claim_exn m in
  put a 1.;
  Unsteady.submit_exn m a;
  failing := [ Error.Server_gone ];
  let b = Unsteady.claim_exn m in
  put b 2.;
  Unsteady.submit_exn m b;
  fails "its own error" Server_gone (Unsteady.await m b);
  ok "the other's answer" (Unsteady.await m a);
  Unsteady.release m a;
  let c = Unsteady.claim_exn m in
  Unsteady.submit_exn m c;
  ok "goes on" (Unsteady.await m c);
  Alcotest.(check (float 0.)) "with the input that is there" (if c = a then 1. else 2.) (get c);
  Unsteady.release m c

(* --- With daemons ------------------------------------------------------------------------------------------------------- *)

let with_daemon = Reopening.with_daemon

module Patient = Resilient.Make (struct let settings = { Resilient.default with patience_ns = 90 * second_ns } end) (Sidecaml)

(* [change], in the middle of which somebody is in a call. A daemon ends with the thread that started it, so that is not the
   other way round. *)
let while_calling call change =
  let outcome = ref None in
  let thread = Thread.create (fun () -> outcome := Some (try Ok (call ()) with exn -> Error exn)) () in
  change ();
  Thread.join thread;
  match !outcome with Some (Ok ()) -> () | Some (Error exn) -> raise exn | None -> Alcotest.fail "no outcome"

(* What was under way is lost and said to be; the rest goes on. *)
let a_sequence_goes_on_after_a_restart () =
  with_daemon [ "digits" ] @@ fun d ->
  Patient.with_model_exn ~socket:(Daemon.socket d) ~slots:4 "digits" @@ fun m ->
  let images = Array.init 4 (fun slot -> Patient.input2 ~slot m "image" Float32) in
  let scores = Array.init 4 (fun slot -> Patient.output2 ~slot m "scores" Float32) in
  let fill slot value = Array2.fill images.(slot) value in
  let restart () =
    Daemon.kill d;
    Daemon.start_again d
  in
  let numbers = List.init 60 float_of_int in
  let check_all what found =
    let outcome value = function
      | Ok score -> Alcotest.(check (float 0.)) what (2. *. value) score
      | Error Error.Server_gone -> ()
      | Error e -> Alcotest.fail (Error.to_string e)
    in
    Alcotest.(check int) "every item" (List.length numbers) (List.length found);
    List.iter2 outcome numbers found;
    let lost = List.length (List.filter Result.is_error found) in
    if lost = 0 || lost > 5 then Alcotest.failf "%s: %d requests were lost" what lost
  in
  let found = ref [] in
  let answer slot _ outcome =
    found := Result.map (fun () -> scores.(slot).{0, 1}) outcome :: !found;
    if List.length !found = 30 then restart ()
  in
  ok "iter" (Patient.iter m ~fill ~answer (List.to_seq numbers));
  check_all "iter" (List.rev !found);
  Alcotest.(check int) "reopened" 1 (Patient.reopened m);
  let read slot value =
    if value = 30. then restart ();
    scores.(slot).{0, 1}
  in
  check_all "map" (List.of_seq (Patient.map m ~fill ~read (List.to_seq numbers)));
  Alcotest.(check int) "reopened again" 2 (Patient.reopened m)

(* Inputs change from call to call; nothing is lost, and each answer is that of its own input. *)
let a_restart_is_a_slow_call () =
  with_daemon [ "digits" ] @@ fun d ->
  Patient.with_model_exn ~socket:(Daemon.socket d) "digits" @@ fun m ->
  let x = Patient.input2 m "image" Float32 and y = Patient.output2 m "scores" Float32 in
  let ask i =
    Array2.fill x (float_of_int i);
    ok "run" (Patient.run m);
    Alcotest.(check (float 0.)) "answer" (float_of_int (2 * i)) y.{0, i mod 10}
  in
  let descriptors_before = descriptors () in
  for round = 1 to 3 do
    for i = 1 to 20 do
      ask (i + (100 * round))
    done;
    Daemon.kill d;
    while_calling
      (fun () -> ask round)
      (fun () ->
        Unix.sleepf 0.05;
        Daemon.start_again d);
    (* On a busy machine none of these calls may have begun before the daemon was there again. *)
    ask round;
    Alcotest.(check int) "reopened" round (Patient.reopened m)
  done;
  ask 9;
  Alcotest.(check int) "no descriptor more" descriptors_before (descriptors ())

(* The daemon is stopped by the book: it finishes what runs, says that it shuts down, and another takes over. *)
let so_is_a_restart_by_the_book () =
  with_daemon [ "digits" ] @@ fun d ->
  Patient.with_model_exn ~socket:(Daemon.socket d) "digits" @@ fun m ->
  let x = Patient.input2 m "image" Float32 and y = Patient.output2 m "scores" Float32 in
  Array2.fill x 4.;
  let ask_until_it_is_another () =
    while Patient.reopened m = 0 do
      ok "run" (Patient.run_for m ~timeout_ns:(90 * second_ns));
      Alcotest.(check (float 0.)) "answer" 8. y.{0, 3}
    done
  in
  while_calling ask_until_it_is_another (fun () ->
      Daemon.ask_to_stop d;
      Daemon.wait_stopped d;
      Daemon.start_again d)

let several_threads_come_back () =
  with_daemon [ "digits" ] @@ fun d ->
  let stop = Atomic.make false and failures = Atomic.make 0 in
  let calls = Array.init 4 (fun _ -> Atomic.make 0) in
  let work i () =
    Patient.with_model_exn ~socket:(Daemon.socket d) "digits" @@ fun m ->
    let x = Patient.input2 m "image" Float32 and y = Patient.output2 m "scores" Float32 in
    while not (Atomic.get stop && Patient.reopened m > 0) do
      Array2.fill x (float_of_int i);
      (match Patient.run m with Ok () when y.{0, 0} = float_of_int (2 * i) -> () | _ -> Atomic.incr failures);
      Atomic.incr calls.(i - 1);
      Thread.yield ()
    done
  in
  let threads = List.init 4 (fun i -> Thread.create (work (i + 1)) ()) in
  until "all work" (fun () -> Array.for_all (fun calls -> Atomic.get calls > 10) calls);
  Daemon.kill d;
  Daemon.start_again d;
  Atomic.set stop true;
  List.iter Thread.join threads;
  Alcotest.(check int) "failures" 0 (Atomic.get failures)

let opening_may_wait_for_a_daemon () =
  let module Waiting = Resilient.Make (struct let settings = { Resilient.default with wait = true } end) (Sidecaml) in
  with_daemon [ "digits" ] @@ fun d ->
  Daemon.kill d;
  rejected "nobody is there" (Patient.open_model ~socket:(Daemon.socket d) "digits") Connect [];
  rejected "nor comes" (Waiting.open_model ~socket:(Daemon.socket d) ~timeout_ns:(20 * ms) "digits") Connect [];
  while_calling
    (fun () ->
      Waiting.with_model_exn ~socket:(Daemon.socket d) ~timeout_ns:(90 * second_ns) "digits" @@ fun m ->
      ok "run" (Waiting.run m))
    (fun () -> Daemon.start_again d)

(* --- Falling back -------------------------------------------------------------------------------------------------------- *)

module Falling = Resilient.With_fallback (struct
  let settings =
    {
      quick with
      patience_ns = 20 * ms;
      state = `Begin_anew;
      breaker = (fun () -> Breaker.make ~failures:1 ~cool_down_ns:(10 * ms) ());
    }
end) (Sidecaml) (Sidecaml_ffi)

let answered = Alcotest.testable (fun ppf a -> Format.pp_print_string ppf (match a with `Primary -> "primary" | `Fallback -> "fallback")) ( = )

let through_the_fallback d body =
  ignore (Backends.In_process.socket ());
  Fun.protect ~finally:(fun () -> Daemon.stop d) body

let the_model_in_this_process_answers () =
  let d = Daemon.start ~models:[ "digits" ] () in
  through_the_fallback d @@ fun () ->
  Falling.with_model_exn ~socket:(Daemon.socket d) "digits" @@ fun m ->
  let x = Falling.input2 m "image" Float32 and y = Falling.output2 m "scores" Float32 in
  let ask who value =
    Array2.fill x value;
    ok "run" (Falling.run m);
    Alcotest.check answered "by" who (Falling.answered_by m);
    Alcotest.(check (float 0.)) "answer" (2. *. value) y.{0, 4}
  in
  ask `Primary 1.;
  Daemon.kill d;
  List.iter (ask `Fallback) [ 2.; 3.; 4.; 5. ];
  ok "with a deadline" (Falling.run_for m ~timeout_ns:(60 * second_ns));
  Daemon.start_again d;
  until "the daemon answers again" (fun () ->
      ok "run" (Falling.run m);
      Falling.answered_by m = `Primary);
  ask `Primary 6.

let views_of_dynamic_outputs_are_of_who_answered () =
  let d = Daemon.start ~models:[ "positions"; "dynamic_mlp" ] () in
  through_the_fallback d @@ fun () ->
  let socket = Daemon.socket d in
  Falling.with_model_exn ~socket ~dims:[ ("N", 16); ("count", 2) ] "positions" @@ fun m ->
  Falling.with_model_exn ~socket ~dims:[ ("N", 8) ] "dynamic_mlp" @@ fun mlp ->
  let find ones =
    Falling.set_dims m "x" [| 12 |];
    let x = Falling.input1 m "x" Float32 in
    Array1.fill x 0.;
    List.iter (fun i -> x.{i} <- 1.) ones;
    (match Falling.run_growing m with Ok _ -> () | Error e -> Alcotest.fail (Error.to_string e));
    let y = Falling.output2 m "y" Int64 in
    Alcotest.(check (list int)) "found" ones (List.init (Array2.dim2 y) (fun i -> Int64.to_int y.{0, i}));
    Alcotest.(check (array int)) "dims" [| 1; List.length ones |] (Falling.output_dims m "y")
  in
  let rows n =
    Falling.set_dims mlp "x" [| n; 64 |];
    Array2.fill (Falling.input2 mlp "x" Float32) 0.25;
    ok "run" (Falling.run mlp);
    let y = Falling.output2 mlp "y" Float32 in
    Alcotest.(check int) "rows" n (Array2.dim1 y);
    List.init (Array2.dim2 y) (fun i -> y.{n - 1, i})
  in
  find [ 3 ];
  find [ 1; 2; 3; 4; 5 ];
  let before = rows 5 in
  Daemon.kill d;
  find [ 0; 11 ];
  find [ 0; 1; 2; 3; 4; 5; 6; 7; 8 ];
  Alcotest.check answered "by" `Fallback (Falling.answered_by m);
  Alcotest.(check (list (float 0.))) "the same bits" before (rows 5);
  Alcotest.check answered "by" `Fallback (Falling.answered_by mlp)

let its_errors_are_told () =
  let module Absent = Resilient.With_fallback (Quick) (Sidecaml) (Mock) in
  with_daemon [ "digits" ] @@ fun d ->
  Absent.with_model_exn ~socket:(Daemon.socket d) "digits" @@ fun m ->
  Daemon.kill d;
  Mock.withdraw "digits";
  rejected "it has none" (Absent.run m) Unknown_model [ "digits" ];
  let x : Sidecaml.Model.tensor = { name = "image"; dtype = "float32"; shape = [| Fixed 2 |] } in
  Mock.serve "digits" ~inputs:[ x ] ~outputs:[] (fun _ ~slot:_ -> Ok ());
  rejected "it is another" (Absent.run m) Invalid [ "another signature" ];
  Mock.withdraw "digits"

(* --- SIGPIPE -------------------------------------------------------------------------------------------------------------- *)

(* Its default would end the program. *)
let nothing_raises_sigpipe () =
  let seen = ref 0 in
  let before = Sys.signal Sys.sigpipe (Signal_handle (fun _ -> incr seen)) in
  Fun.protect ~finally:(fun () -> Sys.set_signal Sys.sigpipe before) @@ fun () ->
  with_daemon [ "digits" ] @@ fun d ->
  let path = Daemon.socket d in
  let channels = List.map (fun policy -> Sidecaml.open_model_exn ~socket:path ~slots:2 ~policy "digits") [ `Spin; `Block; `Adaptive ] in
  let slots = List.map (fun m -> Sidecaml.claim_exn m) channels in
  Daemon.kill d;
  (* Whatever writes to whom is gone: doorbells, and sockets. *)
  List.iter2
    (fun m slot ->
      ignore (Sidecaml.submit m slot : (unit, Error.t) result);
      ignore (Sidecaml.await m slot : (unit, Error.t) result);
      ignore (Sidecaml.claim m : (int, Error.t) result);
      ignore (Sidecaml.reopen m : (unit, Error.t) result);
      Sidecaml.close m)
    channels slots;
  let listener = Unix.socket ~cloexec:true PF_UNIX SOCK_SEQPACKET 0 in
  Sys.remove path;
  Unix.bind listener (ADDR_UNIX path);
  Unix.listen listener 8;
  let accepting =
    Thread.create
      (fun () ->
        for _ = 1 to 5 do
          Unix.close (fst (Unix.accept ~cloexec:true listener))
        done;
        Unix.close listener)
      ()
  in
  (match Sidecaml.open_model ~socket:path ~timeout_ns:(300 * ms) "digits" with
  | Error _ -> ()
  | Ok _ -> Alcotest.fail "opened");
  (* Should it have come to an end before the five. *)
  for _ = 1 to 5 do
    ignore (Sidecaml.describe ~socket:path ~timeout_ns:ms "digits" : (Sidecaml.Model.t, Error.t) result)
  done;
  Thread.join accepting;
  Sys.remove path;
  Alcotest.(check int) "signals" 0 !seen

let senseless_settings_are_misuse () =
  misuse "patience" (fun () -> let module M = Resilient.Make (struct let settings = { quick with patience_ns = -1 } end) (Mock) in M.models ()) [ "patience_ns"; "-1" ]

let tests =
  [
    ( "resilience",
      [
        case "it runs again" it_runs_again; case "other errors are the caller's" other_errors_are_the_callers;
        case "crashes, when they are asked for" crashes_when_they_are_asked_for;
        case "what crashes workers is not run again" what_crashes_workers_is_not_run_again;
        case "patience has an end" patience_has_an_end;
        case "after failures in a row, calls fail at once" after_failures_in_a_row_calls_fail_at_once;
        case "channels may share a breaker" channels_may_share_a_breaker; case "handlers may raise" handlers_may_raise;
        case "state is not begun anew unasked" state_is_not_begun_anew_unasked;
        case "state begins anew where it may" state_begins_anew_where_it_may;
        case "claim begins again when nothing is held" claim_begins_again_when_nothing_is_held;
        case "senseless settings are misuse" senseless_settings_are_misuse;
        case "a restart is a slow call" a_restart_is_a_slow_call;
        case "a sequence goes on after a restart" a_sequence_goes_on_after_a_restart;
        case "so is a restart by the book" so_is_a_restart_by_the_book;
        case "several threads come back" several_threads_come_back;
        case "opening may wait for a daemon" opening_may_wait_for_a_daemon;
        case "the model in this process answers" the_model_in_this_process_answers;
        case "views of dynamic outputs are of who answered" views_of_dynamic_outputs_are_of_who_answered;
        case "the fallback's errors are told" its_errors_are_told; case "nothing raises SIGPIPE" nothing_raises_sigpipe;
      ] );
  ]
