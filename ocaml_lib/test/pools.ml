(* Channels that threads share out among themselves. *)

open Bigarray
open Check

let in_threads count body =
  let failures = Array.make count None in
  let run i = match body i with () -> () | exception exn -> failures.(i) <- Some exn in
  let threads = List.init count (fun i -> Thread.create run i) in
  List.iter Thread.join threads;
  Array.iter (Option.iter raise) failures

exception Enough

module Make (B : Backends.S) = struct
  open Over (B)
  module Pool = Sidecaml_pool.Make (B)

  let with_pool ?slots ~size name f =
    let pool = Pool.create_exn ~socket:(socket ()) ?slots ~size name in
    Fun.protect ~finally:(fun () -> Pool.close pool) (fun () -> f pool)

  let call m value =
    Array2.fill (Sidecaml.input2 m "image" Float32) value;
    Sidecaml.run_exn m;
    (Sidecaml.output2 m "scores" Float32).{0, 2}

  let free_are what count pool = Alcotest.(check int) what count (Pool.free pool)

  let more_threads_than_channels_take_turns () =
    with_pool ~size:2 "digits" @@ fun pool ->
    let held = Atomic.make 0 in
    in_threads 5 (fun i ->
        for turn = 1 to 40 do
          let value = float_of_int ((100 * i) + turn) in
          let answer =
            Pool.with_channel_exn pool (fun m ->
                if Atomic.fetch_and_add held 1 >= 2 then failwith "a channel is held twice";
                let answer = call m value in
                Atomic.decr held;
                answer)
          in
          if answer <> 2. *. value then failwith "another thread's answer"
        done);
    free_are "all are back" 2 pool

  let none_free_is_full_or_waited_for () =
    with_pool ~size:2 "digits" @@ fun pool ->
    let answer = ref 0. in
    let waiting =
      Pool.with_channel_exn pool @@ fun _ ->
      Pool.with_channel_exn pool @@ fun _ ->
      free_are "none" 0 pool;
      Alcotest.check (result Alcotest.unit) "full" (Error Error.Full) (Pool.try_with_channel pool ignore);
      misuse "for itself" (fun () -> Pool.with_channel pool ignore) [ "this thread holds every channel" ];
      Thread.create (fun () -> answer := Pool.with_channel_exn pool (fun m -> call m 3.)) ()
    in
    Thread.join waiting;
    Alcotest.(check (float 0.)) "whoever waited has it" 6. !answer;
    ok "and so has who did not wait" (Pool.try_with_channel pool ignore)

  let a_thread_gets_the_channel_that_it_had () =
    with_pool ~size:3 "digits" @@ fun pool ->
    let mine = Pool.with_channel_exn pool Fun.id in
    Thread.join (Thread.create (fun () -> Pool.with_channel_exn pool ignore) ());
    for _ = 1 to 5 do
      Alcotest.(check bool) "the same" true (Pool.with_channel_exn pool Fun.id == mine)
    done

  let a_holder_may_raise_with_requests_under_way () =
    with_pool ~size:1 ~slots:3 "digits" @@ fun pool ->
    let submit m =
      let slot = Sidecaml.claim_exn m in
      Sidecaml.submit_exn m slot;
      slot
    in
    for _ = 1 to 5 do
      (match
         Pool.with_channel pool (fun m ->
             let first = submit m in
             Sidecaml.await_exn m first;
             ignore (submit m);
             raise Enough)
       with
      | _ -> Alcotest.fail "no exception"
      | exception Enough -> ());
      free_are "it is back" 1 pool;
      Pool.with_channel_exn pool (fun m ->
          let slots = List.init 3 (fun _ -> let slot = Sidecaml.claim_wait_exn m in Sidecaml.submit_exn m slot; slot) in
          List.iter (fun slot -> Sidecaml.await_exn m slot; Sidecaml.release m slot) slots)
    done

  let closing_closes_what_is_free_and_then_what_is_held () =
    with_pool ~size:2 "digits" @@ fun pool ->
    let is_told = ref false in
    let held, waiting =
      Pool.with_channel_exn pool @@ fun held ->
      Pool.with_channel_exn pool @@ fun _ ->
      let wait () =
        match Pool.with_channel pool ignore with
        | _ -> ()
        | exception Invalid_argument text -> is_told := contains text "the pool is closed"
      in
      let waiting = Thread.create wait () in
      Pool.close pool;
      Alcotest.(check (float 0.)) "its holder goes on" 8. (call held 4.);
      (held, waiting)
    in
    Thread.join waiting;
    Alcotest.(check bool) "who waited is told" true !is_told;
    Alcotest.(check bool) "closed when given back" false (Sidecaml.is_open held);
    free_are "none" 0 pool;
    misuse "closed" (fun () -> Pool.try_with_channel pool ignore) [ "the pool is closed" ];
    Pool.close pool

  let what_cannot_be_made_is_explained () =
    let create ?slots size name = Pool.create ~socket:(socket ()) ?slots ~size name in
    misuse "none" (fun () -> create 0 "digits") [ "a pool of 0 channels" ];
    misuse "an argument of open_model" (fun () -> create ~slots:0 1 "digits") [ "slots" ];
    rejected "no such model" (create 2 "no_such") Unknown_model [ "no_such" ]

  let state_begins_anew_for_each_holder () =
    with_pool ~size:1 "carried" @@ fun pool ->
    let answer m =
      Array1.fill (Sidecaml.input1 m "shape" Int64) 8L;
      Array1.fill (Sidecaml.input1 m "x" Float32) 1.;
      Sidecaml.run_exn m;
      (Sidecaml.output1 m "y" Float32).{0}
    in
    let first, second = Pool.with_channel_exn pool (fun m -> let first = answer m in (first, answer m)) in
    Alcotest.(check bool) "state is carried" true (first <> second);
    Alcotest.(check (float 0.)) "but not to the next" first (Pool.with_channel_exn pool answer)

  let tests =
    [
      group "pools"
        [
          case "more threads than channels take turns" more_threads_than_channels_take_turns;
          case "none free is Full, or waited for" none_free_is_full_or_waited_for;
          case "a thread gets the channel that it had" a_thread_gets_the_channel_that_it_had;
          case "a holder may raise with requests under way" a_holder_may_raise_with_requests_under_way;
          case "closing closes what is free and then what is held" closing_closes_what_is_free_and_then_what_is_held;
          case "what cannot be made is explained" what_cannot_be_made_is_explained;
          case "state begins anew for each holder" state_begins_anew_for_each_holder;
        ];
    ]
end

(* --- Of a daemon's ------------------------------------------------------------------------------------------------ *)

module Pool = Sidecaml_pool.Make (Sidecaml)

(* Closed at the end of a failed try, too: other tests count descriptors. *)
let with_pool ?slots body =
  let pool = Pool.create_exn ~socket:(Support.Daemon.shared ()) ?slots ~size:1 "slow" in
  Fun.protect ~finally:(fun () -> Pool.close pool) (fun () -> body pool)

let a_slot_that_is_still_busy_is_waited_for () =
  with_pool @@ fun pool ->
  Pool.with_channel_exn pool (fun m ->
      Calls.work m Calls.much_longer;
      let slot = Sidecaml.claim_exn m in
      Sidecaml.submit_exn m slot;
      fails "too late" Timeout (Sidecaml.await_for m slot ~timeout_ns:100_000));
  Pool.with_channel_exn pool (fun m ->
      Calls.work m 0L;
      ok "not busy" (Sidecaml.run m))

let every_slot_that_is_still_busy_is_waited_for () =
  with_pool ~slots:2 @@ fun pool ->
  (match
     Pool.with_channel pool (fun m ->
         let slot = Sidecaml.claim_exn m in
         Calls.set_work m ~slot Calls.much_longer;
         Sidecaml.submit_exn m slot;
         Unix.sleepf 0.01 (* it runs by then *);
         Alcotest.(check bool) "a request is under way" false (Sidecaml.is_quiet m);
         raise Enough)
   with
  | _ -> Alcotest.fail "no exception"
  | exception Enough -> ());
  Pool.with_channel_exn pool (fun m -> Alcotest.(check bool) "both may be filled" true (Sidecaml.is_quiet m))

(* Handlers that raise at any point at all, in a pool in which nothing else takes time. *)
let a_signal_never_keeps_a_channel_held () =
  let module Pool = Sidecaml_pool.Make (Backends.Mock) in
  let pool = Pool.create_exn ~socket:(Backends.Mock.socket ()) ~size:1 "digits" in
  let interrupted = ref 0 and missing = ref 0 in
  let saved = Sys.signal Sys.sigalrm (Signal_handle (fun _ -> raise Enough)) in
  let timer s = ignore (Unix.setitimer ITIMER_REAL { it_interval = 0.; it_value = s }) in
  Fun.protect
    ~finally:(fun () ->
      timer 0.;
      Sys.set_signal Sys.sigalrm saved)
    (fun () ->
      for round = 1 to 4000 do
        (match
           timer (1e-6 *. float_of_int (1 + (round mod 40)));
           while true do
             match Pool.try_with_channel pool ignore with Ok () -> () | Error _ -> raise Not_found
           done
         with
        | () -> ()
        | exception Enough -> incr interrupted
        | exception Not_found ->
            incr missing;
            timer 0.);
        ()
      done);
  Alcotest.(check int) "never held by nobody" 0 !missing;
  Alcotest.(check int) "each signal ended one" 4000 !interrupted;
  Alcotest.(check int) "free" 1 (Pool.free pool);
  Pool.close pool

let a_channel_that_is_gone_is_reopened () =
  let daemon = Support.Daemon.start ~models:[ "digits" ] () in
  Fun.protect ~finally:(fun () -> Support.Daemon.stop daemon) @@ fun () ->
  let pool = Pool.create_exn ~socket:(Support.Daemon.socket daemon) ~size:1 "digits" in
  let call () = Pool.with_channel pool Sidecaml.run in
  ok "while it lasts" (Result.join (call ()));
  Support.Daemon.kill daemon;
  fails "the holder is told" Server_gone (Result.join (call ()));
  rejected "nobody to open it anew" (call ()) Connect [];
  Alcotest.(check int) "it is free" 1 (Pool.free pool);
  Support.Daemon.start_again daemon;
  ok "the next one has it reopened" (Result.join (call ()));
  Pool.close pool

let tests =
  [
    ( "pools",
      [
        case "a slot that is still busy is waited for" (patiently a_slot_that_is_still_busy_is_waited_for);
        case "every slot that is still busy is waited for" (patiently every_slot_that_is_still_busy_is_waited_for);
        case "a signal never keeps a channel held" a_signal_never_keeps_a_channel_held;
        case "a channel that is gone is reopened" a_channel_that_is_gone_is_reopened;
      ] );
  ]
