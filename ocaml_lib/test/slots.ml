(* Several requests at once: slots behave as a queue that wraps around. *)

open Bigarray
open Check

(* --- Against a model --------------------------------------------------------------------------------------------- *)

type op =
  | Claim
  | Claim_wait
  | Submit of int
  | Submit_late of int (* with a deadline that is over *)
  | Submit_many of int list
  | Await of int
  | Await_any
  | Await_any_late
  | Poll of int
  | Release of int
  | Abandon of int

let print_op = function
  | Claim -> "claim"
  | Claim_wait -> "claim_wait"
  | Submit_late v -> Printf.sprintf "submit_for %d ~timeout_ns:0" v
  | Await_any -> "await_any"
  | Await_any_late -> "await_any_for ~timeout_ns:0"
  | Submit v -> Printf.sprintf "submit %d" v
  | Submit_many values -> Printf.sprintf "submit %s" (String.concat ", " (List.map string_of_int values))
  | Await i -> Printf.sprintf "await %d" i
  | Poll i -> Printf.sprintf "poll %d" i
  | Release i -> Printf.sprintf "release %d" i
  | Abandon i -> Printf.sprintf "abandon %d" i

type held = Nothing | Request of int | Late of int | Answer of int

(* What the channel should hold: [next] is the slot whose turn it is; [untold] are requests whose end was not told. *)
type reference = { held : held array; mutable next : int; untold : bool array }

let gen_case most_slots =
  let open QCheck2.Gen in
  let* slots = int_range 1 most_slots in
  let slot = int_bound (slots - 1) in
  let op =
    frequency
      [
        (2, return Claim);
        (2, return Claim_wait);
        (6, map (fun v -> Submit v) (int_bound 1000));
        (1, map (fun v -> Submit_late v) (int_bound 1000));
        (3, map (fun values -> Submit_many values) (list_size (int_range 2 (slots + 1)) (int_bound 1000)));
        (5, return Await_any);
        (1, return Await_any_late);
        (4, map (fun i -> Await i) slot);
        (2, map (fun i -> Poll i) slot);
        (5, map (fun i -> Release i) slot);
        (1, map (fun i -> Abandon i) slot);
      ]
  in
  pair (return slots) (list_size (int_bound 60) op)

let print_case (slots, ops) = Printf.sprintf "%d slots: %s" slots (String.concat "; " (List.map print_op ops))

(* How many requests the model's instance has run together with others so far; one of its channels is open. *)
let batched model =
  let script = Filename.concat (Filename.dirname Sys.executable_name) "support/batched.py" in
  let command = Filename.quote_command (Support.Daemon.python ()) [ script; Support.Daemon.shared (); model ] in
  let output = Unix.open_process_in command in
  let count = try input_line output with End_of_file -> "" in
  match Unix.close_process_in output with
  | WEXITED 0 -> int_of_string (String.trim count)
  | WEXITED _ | WSIGNALED _ | WSTOPPED _ -> Alcotest.failf "%s failed" command

module Make (B : Backends.S) = struct
  open Over (B)

  (* A model whose answers are known. *)
  type subject = {
    model : string;
    dims : (string * int) list;
    fill : Sidecaml.t -> int -> int -> unit;
    is_answer : Sidecaml.t -> int -> int -> bool;
  }

  let image m slot = Sidecaml.input2 ~slot m "image" Float32
  let score m slot = (Sidecaml.output2 ~slot m "scores" Float32).{0, 0}

  let digits =
    {
      model = "digits";
      dims = [];
      fill = (fun m slot value -> Array2.fill (image m slot) (float_of_int value));
      is_answer = (fun m slot value -> score m slot = float_of_int (2 * value));
    }

  (* One row or two, which the daemon runs together. *)
  let same_rows =
    let fill m slot value =
      let fill name number =
        Sidecaml.set_dims ~slot m name [| 1 + (value mod 2); 2 |];
        Array2.fill (Sidecaml.input2 ~slot m name Float32) (float_of_int number)
      in
      fill "a" value;
      fill "b" (value + 1)
    in
    let is_answer m slot value =
      let y = Sidecaml.output2 ~slot m "y" Float32 in
      let is_right row column = y.{row, column} = float_of_int ((2 * value) + 1) in
      Array2.dim1 y = 1 + (value mod 2)
      && is_right 0 0 && is_right 0 1
      && is_right (value mod 2) 0
      && is_right (value mod 2) 1
    in
    { model = "same_rows"; dims = [ ("N", 2) ]; fill; is_answer }

  let submit m value =
    let slot = Sidecaml.claim_exn m in
    Array2.fill (image m slot) value;
    Sidecaml.submit_exn m slot;
    slot

  let raises_misuse call = match call () with _ -> false | exception Invalid_argument _ -> true

  (* An abandoned request may still run. *)
  let rec claim_when_quiet m =
    match Sidecaml.claim m with
    | Error Busy ->
        Unix.sleepf 0.0005;
        claim_when_quiet m
    | outcome -> outcome

  let claim_agrees claim m r =
    match (r.held.(r.next), claim m) with
    | Nothing, Ok slot -> slot = r.next
    | (Request _ | Late _ | Answer _), Error Error.Full -> true
    | _ -> false

  let submit_agrees subject m r value hand_over held =
    let agrees = claim_agrees claim_when_quiet m r in
    if r.held.(r.next) = Nothing then begin
      subject.fill m r.next value;
      hand_over m r.next;
      r.held.(r.next) <- held;
      r.untold.(r.next) <- true;
      r.next <- (r.next + 1) mod Array.length r.held
    end;
    agrees

  let let_go r i =
    r.held.(i) <- Nothing;
    r.untold.(i) <- false

  let answered subject m r i value =
    r.held.(i) <- Answer value;
    r.untold.(i) <- false;
    subject.is_answer m i value

  (* The worker may have been faster than the deadline, or have refused the request because of it. *)
  let ended_late subject m r i value = function
    | Ok () -> answered subject m r i value
    | Error (Error.Timeout | Rejected { code = Deadline; _ }) ->
        let_go r i;
        true
    | Error _ -> false

  let await_agrees subject m r i =
    match r.held.(i) with
    | Nothing -> raises_misuse (fun () -> Sidecaml.await m i)
    | Late value -> ended_late subject m r i value (Sidecaml.await m i)
    | Request value | Answer value -> Sidecaml.await m i = Ok () && answered subject m r i value

  let some_untold r = Array.exists Fun.id r.untold

  let await_any_agrees ?(may_be_late = false) subject await_any m r =
    if not (some_untold r) then raises_misuse (fun () -> await_any m)
    else
      match await_any m with
      | Ok slot when r.untold.(slot) -> await_agrees subject m r slot && not r.untold.(slot)
      | Error Error.Timeout -> may_be_late
      | Ok _ | Error _ -> false

  let poll_agrees subject m r i =
    match r.held.(i) with
    | Nothing -> raises_misuse (fun () -> Sidecaml.poll m i)
    | Answer _ -> Sidecaml.poll m i = Ok true
    | Late value -> (
        match Sidecaml.poll m i with Ok true -> answered subject m r i value | Ok false -> true | Error e -> ended_late subject m r i value (Error e))
    | Request value -> ( match Sidecaml.poll m i with Ok true -> answered subject m r i value | Ok false -> true | Error _ -> false)

  let release_agrees m r i =
    match r.held.(i) with
    | Nothing -> raises_misuse (fun () -> Sidecaml.release m i)
    | Request _ | Late _ -> true (* whether it is answered by now, only the worker knows *)
    | Answer _ ->
        Sidecaml.release m i;
        let_go r i;
        true

  let abandon_agrees m r i =
    if r.held.(i) = Nothing then raises_misuse (fun () -> Sidecaml.abandon m i)
    else begin
      Sidecaml.abandon m i;
      let_go r i;
      true
    end

  let step subject m r = function
    | Claim -> claim_agrees claim_when_quiet m r
    | Claim_wait -> claim_agrees Sidecaml.claim_wait m r
    | Submit value -> submit_agrees subject m r value Sidecaml.submit_exn (Request value)
    | Submit_late value -> submit_agrees subject m r value (Sidecaml.submit_for_exn ~timeout_ns:0) (Late value)
    | Submit_many values ->
        List.for_all (fun value -> submit_agrees subject m r value Sidecaml.submit_exn (Request value)) values
    | Await i -> await_agrees subject m r i
    | Await_any -> await_any_agrees subject Sidecaml.await_any m r
    | Await_any_late -> await_any_agrees ~may_be_late:true subject (Sidecaml.await_any_for ~timeout_ns:0) m r
    | Poll i -> poll_agrees subject m r i
    | Release i -> release_agrees m r i
    | Abandon i -> abandon_agrees m r i

  let agrees subject (slots, ops) =
    with_model ~slots ~dims:subject.dims subject.model @@ fun m ->
    let r = { held = Array.make slots Nothing; next = 0; untold = Array.make slots false } in
    List.for_all (step subject m r) ops

  let behaves_like_the_model =
    property "any order of steps agrees with a queue" ~print:print_case ~count:150 (gen_case 5) (agrees digits)

  let behaves_like_the_model_in_batches =
    property "and where requests run together" ~print:print_case ~count:150 (gen_case 12) (agrees same_rows)

  (* --- By hand ------------------------------------------------------------------------------------------------------ *)

  let full_until_the_oldest_is_released () =
    with_model ~slots:3 "digits" @@ fun m ->
    let slots = List.map (submit m) [ 1.; 2.; 3. ] in
    Alcotest.(check (list int)) "in turn" [ 0; 1; 2 ] slots;
    let full what = Alcotest.check (result Alcotest.int) what (Error Error.Full) (Sidecaml.claim m) in
    full "every slot";
    List.iter (fun slot -> ok "await" (Sidecaml.await m slot)) [ 2; 0; 1 ];
    Sidecaml.release m 1;
    full "slot 0's turn";
    Sidecaml.release m 0;
    Alcotest.check (result Alcotest.int) "free" (Ok 0) (Sidecaml.claim m);
    Alcotest.(check (float 0.)) "the others stay" 6. (score m 2)

  let steps_out_of_order_are_explained () =
    with_model ~slots:2 "digits" @@ fun m ->
    misuse "submit" (fun () -> Sidecaml.submit m 0) [ "digits"; "slot 0 is not claimed" ];
    misuse "await" (fun () -> Sidecaml.await m 0) [ "slot 0 holds neither" ];
    misuse "poll" (fun () -> Sidecaml.poll m 1) [ "slot 1 holds neither" ];
    misuse "await_any" (fun () -> Sidecaml.await_any m) [ "no slot holds a request" ];
    misuse "a negative time" (fun () -> Sidecaml.await_any_for m ~timeout_ns:(-1)) [ "timeout of -1" ];
    misuse "release" (fun () -> Sidecaml.release m 0) [ "slot 0 holds no answer" ];
    misuse "abandon" (fun () -> Sidecaml.abandon m 0) [ "slot 0 holds neither" ];
    misuse "no such slot" (fun () -> Sidecaml.await m 2) [ "no slot 2"; "has 2" ];
    misuse "max_int" (fun () -> Sidecaml.release m max_int) [ "no slot" ];
    misuse "negative" (fun () -> Sidecaml.submit m (-1)) [ "no slot -1" ];
    let slot = Sidecaml.claim_exn m in
    misuse "another" (fun () -> Sidecaml.submit m (1 - slot)) [ "not the one that claim gave"; "slot 0" ];
    Sidecaml.submit_exn m slot;
    misuse "twice" (fun () -> Sidecaml.submit m slot) [ "not claimed" ];
    Sidecaml.await_exn m slot;
    Sidecaml.await_exn m slot;
    Sidecaml.release m slot;
    misuse "released" (fun () -> Sidecaml.release m slot) [ "holds no answer" ]

  let dims_stay_while_a_request_is_under_way () =
    with_model ~slots:2 ~dims:[ ("N", 4) ] "dynamic_mlp" @@ fun m ->
    let slot = Sidecaml.claim_exn m in
    Sidecaml.set_dims ~slot m "x" [| 2; 64 |];
    Sidecaml.submit_exn m slot;
    (match Sidecaml.set_dims ~slot m "x" [| 3; 64 |] with
    | () -> () (* answered by then *)
    | exception Invalid_argument text -> mentions "set_dims" text [ "under way in slot 0" ]);
    Sidecaml.await_exn m slot;
    Alcotest.(check (array int)) "its own" [| 2; 10 |] (Sidecaml.output_dims ~slot m "y");
    Alcotest.(check (array int)) "the other's" [| 4; 64 |] (Sidecaml.input_dims ~slot:1 m "x")

  let a_failure_leaves_nothing_to_release () =
    with_model ~slots:2 "fails_inside" @@ fun m ->
    let slot = Sidecaml.claim_exn m in
    Array1.fill (Sidecaml.input1 ~slot m "shape" Int64) 4L;
    Sidecaml.submit_exn m slot;
    rejected "await" (Sidecaml.await m slot) Engine [];
    misuse "release" (fun () -> Sidecaml.release m slot) [ "holds no answer" ];
    let slot = Sidecaml.claim_exn m in
    Array1.fill (Sidecaml.input1 ~slot m "shape" Int64) 4L;
    Sidecaml.submit_exn m slot;
    let rec poll () = match Sidecaml.poll m slot with Ok false -> poll () | outcome -> outcome in
    rejected "poll" (poll ()) Engine [];
    Alcotest.check (result Alcotest.int) "free again" (Ok 0) (Sidecaml.claim m)

  let any_tells_of_each_request_once () =
    with_model ~slots:3 "digits" @@ fun m ->
    List.iter (fun value -> ignore (submit m value)) [ 1.; 2.; 3. ];
    let slots = List.init 3 (fun _ -> Sidecaml.await_any_exn m) in
    Alcotest.(check (list int)) "each of them" [ 0; 1; 2 ] (List.sort compare slots);
    misuse "no other" (fun () -> Sidecaml.await_any m) [ "no slot holds a request whose end is not known yet" ];
    List.iter (fun slot -> Alcotest.(check (float 0.)) "answer" (float_of_int (2 * (slot + 1))) (score m slot)) slots;
    List.iter (fun slot -> ok "once more" (Sidecaml.await m slot)) slots;
    List.iter (Sidecaml.release m) slots;
    let slot = submit m 4. in
    ok "await tells, too" (Sidecaml.await m slot);
    misuse "told" (fun () -> Sidecaml.await_any m) [ "not known yet" ]

  let any_may_be_a_failure () =
    with_model ~slots:2 "fails_inside" @@ fun m ->
    let slot = Sidecaml.claim_exn m in
    Array1.fill (Sidecaml.input1 ~slot m "shape" Int64) 4L;
    Sidecaml.submit_exn m slot;
    Alcotest.check (result Alcotest.int) "its slot" (Ok slot) (Sidecaml.await_any m);
    rejected "how it ended" (Sidecaml.await m slot) Engine [];
    misuse "nothing is left" (fun () -> Sidecaml.await m slot) [ "holds neither" ]

  (* Nobody awaits it: its slot stays taken, and closing gives it up. *)
  let a_request_that_is_never_awaited_holds_its_slot () =
    with_model ~slots:2 "digits" @@ fun m ->
    let never = submit m 1. in
    let slot = submit m 2. in
    Sidecaml.await_exn m slot;
    Sidecaml.release m slot;
    Alcotest.check (result Alcotest.int) "full at its turn" (Error Error.Full) (Sidecaml.claim m);
    Alcotest.check (result Alcotest.int) "nobody waits for that" (Error Error.Full) (Sidecaml.claim_wait m);
    ok "and it can still be awaited" (Sidecaml.await m never);
    Sidecaml.close m;
    misuse "closed" (fun () -> Sidecaml.await_any m) [ "the channel is closed" ];
    misuse "closed" (fun () -> Sidecaml.claim_wait m) [ "the channel is closed" ]

  let closing_gives_up_what_is_under_way () =
    with_model ~slots:3 "digits" @@ fun m ->
    List.iter (fun value -> ignore (submit m value)) [ 1.; 2.; 3. ];
    Sidecaml.close m;
    misuse "await" (fun () -> Sidecaml.await m 0) [ "the channel is closed" ];
    misuse "await_any" (fun () -> Sidecaml.await_any m) [ "the channel is closed" ];
    misuse "release" (fun () -> Sidecaml.release m 0) [ "the channel is closed" ];
    Sidecaml.close m

  let tests =
    [
      group "slots"
        [
          behaves_like_the_model;
          behaves_like_the_model_in_batches;
          case "full until the oldest is released" full_until_the_oldest_is_released;
          case "steps out of order are explained" steps_out_of_order_are_explained;
          case "dims stay while a request is under way" dims_stay_while_a_request_is_under_way;
          case "a failure leaves nothing to release" a_failure_leaves_nothing_to_release;
          case "any tells of each request once" any_tells_of_each_request_once;
          case "any may be a failure" any_may_be_a_failure;
          case "a request that is never awaited holds its slot" a_request_that_is_never_awaited_holds_its_slot;
          case "closing gives up what is under way" closing_gives_up_what_is_under_way;
        ];
    ]
end

(* --- Of a daemon's ------------------------------------------------------------------------------------------------ *)

let deadlines_are_kept () =
  with_model ~slots:4 "slow" @@ fun m ->
  let submit timeout_ns n =
    let slot = Sidecaml.claim_exn m in
    Calls.set_work m ~slot n;
    (match timeout_ns with
    | Some timeout_ns -> Sidecaml.submit_for_exn m slot ~timeout_ns
    | None -> Sidecaml.submit_exn m slot);
    slot
  in
  let long = submit None Calls.some_ms in
  let by_request = submit (Some 1_000_000) 0L in
  let by_await = submit None 0L in
  let by_poll = submit (Some 2_000_000) 0L in
  fails "await keeps the request's" Timeout (Sidecaml.await m by_request);
  fails "await_for keeps its own" Timeout (Sidecaml.await_for m by_await ~timeout_ns:1_000_000);
  until "poll keeps the request's" (fun () ->
      match Sidecaml.poll m by_poll with
      | Ok false -> false
      | outcome -> outcome = Error Timeout || Alcotest.fail "an answer ahead of its turn");
  misuse "nothing is left" (fun () -> Sidecaml.release m by_poll) [ "holds no answer" ];
  ok "the long one" (Sidecaml.await m long)

(* Long enough that the worker says no before the time is over on a busy machine, too. *)
let what_there_is_no_time_for_is_refused_before_it_runs () =
  with_model ~slots:2 "slow" @@ fun m ->
  Sidecaml.set_stamps m true;
  let submit timeout_ns =
    let slot = Sidecaml.claim_wait_exn m in
    Calls.set_work m ~slot 60_000L;
    Sidecaml.submit_for_exn m slot ~timeout_ns;
    slot
  in
  let took () =
    let begun = Sidecaml.now_ns () and slot = submit (60 * second_ns) in
    ok "there is time" (Sidecaml.await m slot);
    Sidecaml.release m slot;
    Sidecaml.now_ns () - begun
  in
  (* Runs of requests with deadlines are measured, and two long ones in a row are believed. The shortest had no stop. *)
  let shortest = List.fold_left min max_int (List.init 3 (fun _ -> took ())) in
  let slot = submit (shortest / 2) in
  rejected "no time" (Sidecaml.await m slot) Deadline [ "could not have been answered by its deadline" ];
  let stamps = Sidecaml.stamps ~slot m in
  Alcotest.(check bool) "it was seen" true (stamps.seen_ns > 0);
  Alcotest.(check (list int)) "and not run" [ 0; 0 ] [ stamps.started_ns; stamps.finished_ns ];
  misuse "nothing is left" (fun () -> Sidecaml.release m slot) [ "holds no answer" ];
  ignore (took ())

let any_keeps_deadlines () =
  with_model ~slots:3 "slow" @@ fun m ->
  let submit n hand_over =
    let slot = Sidecaml.claim_exn m in
    Calls.set_work m ~slot n;
    hand_over m slot;
    slot
  in
  let long = submit Calls.much_longer Sidecaml.submit_exn in
  let late = submit 0L (Sidecaml.submit_for_exn ~timeout_ns:1_000_000) in
  Alcotest.check (result Alcotest.int) "its own" (Error Error.Timeout) (Sidecaml.await_any_for m ~timeout_ns:0);
  Alcotest.check (result Alcotest.int) "the request's" (Ok late) (Sidecaml.await_any m);
  fails "how it ended" Timeout (Sidecaml.await m late);
  Alcotest.check (result Alcotest.int) "the other" (Ok long) (Sidecaml.await_any m);
  ok "answered" (Sidecaml.await m long)

let a_turn_is_waited_for () =
  with_model "slow" @@ fun m ->
  Calls.work m Calls.some_ms;
  List.iter
    (fun _ ->
      let slot = Sidecaml.claim_exn m in
      Sidecaml.submit_exn m slot;
      (* Not with the request: the worker would refuse it. *)
      fails "too late" Timeout (Sidecaml.await_for m slot ~timeout_ns:100_000);
      (match Sidecaml.claim_wait_for m ~timeout_ns:1 with
      | Ok _ | Error Timeout -> ()
      | Error e -> Alcotest.fail (Error.to_string e));
      Alcotest.check (result Alcotest.int) "its turn" (Ok 0) (Sidecaml.claim_wait m);
      Alcotest.(check bool) "quiet" false (Sidecaml.is_busy m))
    [ 1; 2; 3 ]

(* The properties above would show nothing of batches if none were formed. *)
let many_at_once_run_together () =
  let slots = 12 in
  with_model ~slots ~dims:[ ("N", 1) ] "same_rows" @@ fun m ->
  let before = batched "same_rows" in
  (* Filled once, so that submitting takes less than a run of any worker's. *)
  for slot = 0 to slots - 1 do
    Array2.fill (Sidecaml.input2 ~slot m "a" Float32) (float_of_int slot);
    Array2.fill (Sidecaml.input2 ~slot m "b" Float32) 1.
  done;
  for _ = 1 to 50 do
    let submit _ =
      let slot = Sidecaml.claim_exn m in
      Sidecaml.submit_exn m slot;
      slot
    in
    List.iter
      (fun slot ->
        Sidecaml.await_exn m slot;
        Alcotest.(check (float 0.)) "its own" (float_of_int (slot + 1)) (Sidecaml.output2 ~slot m "y" Float32).{0, 1};
        Sidecaml.release m slot)
      (List.init slots submit)
  done;
  Alcotest.(check bool) "some of them" true (batched "same_rows" - before > slots)

let tests =
  [
    ( "slots",
      [
        case "many at once run together" (patiently many_at_once_run_together);
        case "deadlines are kept" (patiently deadlines_are_kept);
        case "what there is no time for is refused before it runs"
          (patiently what_there_is_no_time_for_is_refused_before_it_runs);
        case "any keeps deadlines" (patiently any_keeps_deadlines);
        case "a turn is waited for" a_turn_is_waited_for;
      ] );
  ]
