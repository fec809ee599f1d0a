(* Signals that arrive in the middle of a wait. *)

open Check

(* The signal comes once, or again and again. One that comes when [body] has ended changes nothing any more: how long bodies
   take is the processor's affair. *)
let with_timer ?(again = false) ~after_s handler body =
  let has_ended = ref false in
  let saved = Sys.signal Sys.sigalrm (Signal_handle (fun number -> if not !has_ended then handler number)) in
  let set s = ignore (Unix.setitimer ITIMER_REAL { it_interval = (if again then s else 0.); it_value = s }) in
  Fun.protect
    ~finally:(fun () ->
      set 0.;
      Sys.set_signal Sys.sigalrm saved)
    (fun () ->
      set after_s;
      let result = body () in
      has_ended := true;
      result)

let handlers_run_while_a_call_waits () =
  List.iter
    (fun (policy, lock) ->
      with_model ~policy ~lock "slow" @@ fun m ->
      Calls.work m Calls.much_longer;
      let seen = ref 0 in
      (* The call lasts until the handler has run three times; this process may not be run for as long as the call takes. *)
      let handler _ =
        incr seen;
        if !seen = 3 then raise Exit
      in
      let rec interrupted tries =
        seen := 0;
        match with_timer ~again:true ~after_s:0.004 handler (fun () -> Sidecaml.run m) with
        | _ when tries > 1 -> interrupted (tries - 1)
        | _ -> Alcotest.fail "the call ended by itself"
        | exception Exit -> ()
      in
      interrupted 5;
      Alcotest.(check int) "seen" 3 !seen)
    Calls.policies

let an_exception_gives_the_request_up () =
  List.iter
    (fun (policy, lock) ->
      with_model ~policy ~lock "slow" @@ fun m ->
      Calls.work m Calls.some_ms;
      (match with_timer ~after_s:0.005 (fun _ -> raise Exit) (fun () -> Sidecaml.run m) with
      | Ok () -> ()
      | Error e -> Alcotest.fail (Error.to_string e)
      | exception Exit -> ());
      Calls.wait_quiet m;
      Calls.work m 0L;
      ok "the next one" (Sidecaml.run m))
    Calls.policies

let an_await_can_be_taken_up_again () =
  with_model ~slots:2 "slow" @@ fun m ->
  let slot = Sidecaml.claim_exn m in
  Calls.set_work m ~slot Calls.some_ms;
  Sidecaml.submit_exn m slot;
  (match with_timer ~after_s:0.005 (fun _ -> raise Exit) (fun () -> Sidecaml.await m slot) with
  | Ok () -> ()
  | Error e -> Alcotest.fail (Error.to_string e)
  | exception Exit -> ());
  ok "await" (Sidecaml.await m slot);
  Sidecaml.release m slot

let an_await_of_any_can_be_taken_up_again () =
  List.iter
    (fun (policy, lock) ->
      with_model ~slots:2 ~policy ~lock "slow" @@ fun m ->
      let slot = Sidecaml.claim_exn m in
      Calls.set_work m ~slot Calls.some_ms;
      Sidecaml.submit_exn m slot;
      (match with_timer ~after_s:0.005 (fun _ -> raise Exit) (fun () -> Sidecaml.await_any m) with
      | Ok _ -> ()
      | Error e -> Alcotest.fail (Error.to_string e)
      | exception Exit -> Alcotest.check (result Alcotest.int) "it goes on" (Ok slot) (Sidecaml.await_any m));
      Sidecaml.abandon m slot;
      let slot = Sidecaml.claim_exn m in
      Calls.set_work m ~slot 0L;
      Sidecaml.submit_exn m slot;
      Alcotest.check (result Alcotest.int) "any" (Ok slot) (Sidecaml.await_any m);
      Sidecaml.release m slot)
    Calls.policies

let exception_ends_requests ?window () =
  with_model ~slots:4 "slow" @@ fun m ->
  let rec for_ever () = Seq.Cons (Calls.some_ms, for_ever) in
  let fill slot work = Calls.set_work m ~slot work in
  (match
     with_timer ~after_s:0.02 (fun _ -> raise Exit) (fun () -> Sidecaml.iter ?window m ~fill ~answer:(fun _ _ -> ok "answer") for_ever)
   with
  | _ -> Alcotest.fail "there is no end"
  | exception Exit -> ());
  ok "nothing is held" (Sidecaml.iter m ~fill ~answer:(fun _ _ -> ok "answer") (List.to_seq [ 0L; 0L; 0L; 0L; 0L; 0L ]))

let an_exception_ends_a_sequence_of_requests () =
  exception_ends_requests ();
  exception_ends_requests ~window:2 ()

let a_handler_may_use_another_channel () =
  with_model "slow" @@ fun m ->
  with_model "digits" @@ fun other ->
  Calls.work m Calls.some_ms;
  let ran = ref 0 in
  let handler _ =
    ok "in the handler" (Sidecaml.run other);
    incr ran
  in
  for _ = 1 to 5 do
    if !ran = 0 then ok "the call itself" (with_timer ~again:true ~after_s:0.005 handler (fun () -> Sidecaml.run m))
  done;
  Alcotest.(check bool) "it ran" true (!ran > 0)

let an_exception_leaves_no_channel_half_closed () =
  let bytes = Bytes.create (1 lsl 26) in
  let before = descriptors () in
  let m = Sidecaml.open_model_exn ~socket:(Support.Daemon.shared ()) "digits" in
  (* No handler runs during the fill, so that the signal is still pending when closing begins. *)
  (try
     with_timer ~after_s:0.001
       (fun _ -> raise Exit)
       (fun () ->
         Bytes.unsafe_fill bytes 0 (Bytes.length bytes) 'x';
         Sidecaml.close m;
         until "the signal" (fun () -> false))
   with Exit -> ());
  Sidecaml.close m;
  Alcotest.(check int) "descriptors" before (descriptors ())

let tests =
  [
    ( "signals",
      [
        case "handlers run while a call waits" handlers_run_while_a_call_waits;
        case "an exception gives the request up" an_exception_gives_the_request_up;
        case "an await can be taken up again" an_await_can_be_taken_up_again;
        case "an await of any can be taken up again" an_await_of_any_can_be_taken_up_again;
        case "an exception ends a sequence of requests" an_exception_ends_a_sequence_of_requests;
        case "a handler may use another channel" a_handler_may_use_another_channel;
        case "an exception leaves no channel half closed" an_exception_leaves_no_channel_half_closed;
      ] );
  ]
