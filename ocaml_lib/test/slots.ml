(* Several requests at once: slots behave as a queue that wraps around. *)

open Bigarray
open Check

(* --- Against a model --------------------------------------------------------------------------------------------- *)

type op = Claim | Submit of int | Await of int | Poll of int | Release of int | Abandon of int

let print_op = function
  | Claim -> "claim"
  | Submit v -> Printf.sprintf "submit %d" v
  | Await i -> Printf.sprintf "await %d" i
  | Poll i -> Printf.sprintf "poll %d" i
  | Release i -> Printf.sprintf "release %d" i
  | Abandon i -> Printf.sprintf "abandon %d" i

type held = Nothing | Request of int | Answer of int

(* What the channel should hold: [next] is the slot whose turn it is. *)
type reference = { held : held array; mutable next : int }

let gen_case =
  let open QCheck2.Gen in
  let* slots = int_range 1 5 in
  let slot = int_bound (slots - 1) in
  let op =
    frequency
      [
        (2, return Claim);
        (6, map (fun v -> Submit v) (int_bound 1000));
        (4, map (fun i -> Await i) slot);
        (2, map (fun i -> Poll i) slot);
        (5, map (fun i -> Release i) slot);
        (1, map (fun i -> Abandon i) slot);
      ]
  in
  pair (return slots) (list_size (int_bound 60) op)

let print_case (slots, ops) = Printf.sprintf "%d slots: %s" slots (String.concat "; " (List.map print_op ops))

module Make (B : Backends.S) = struct
  open Over (B)

  let image m slot = Sidecaml.input2 ~slot m "image" Float32
  let score m slot = (Sidecaml.output2 ~slot m "scores" Float32).{0, 0}

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

  let claim_agrees m r =
    match (r.held.(r.next), claim_when_quiet m) with
    | Nothing, Ok slot -> slot = r.next
    | (Request _ | Answer _), Error Full -> true
    | _ -> false

  let submit_agrees m r value =
    if r.held.(r.next) <> Nothing then claim_agrees m r
    else begin
      let agrees = claim_agrees m r in
      Array2.fill (image m r.next) (float_of_int value);
      Sidecaml.submit_exn m r.next;
      r.held.(r.next) <- Request value;
      r.next <- (r.next + 1) mod Array.length r.held;
      agrees
    end

  let answered m r i value =
    r.held.(i) <- Answer value;
    score m i = float_of_int (2 * value)

  let await_agrees m r i =
    match r.held.(i) with
    | Nothing -> raises_misuse (fun () -> Sidecaml.await m i)
    | Request value | Answer value -> Sidecaml.await m i = Ok () && answered m r i value

  let poll_agrees m r i =
    match r.held.(i) with
    | Nothing -> raises_misuse (fun () -> Sidecaml.poll m i)
    | Answer _ -> Sidecaml.poll m i = Ok true
    | Request value -> ( match Sidecaml.poll m i with Ok true -> answered m r i value | Ok false -> true | Error _ -> false)

  let release_agrees m r i =
    match r.held.(i) with
    | Nothing -> raises_misuse (fun () -> Sidecaml.release m i)
    | Request _ -> true (* whether it is answered by now, only the worker knows *)
    | Answer _ ->
        Sidecaml.release m i;
        r.held.(i) <- Nothing;
        true

  let abandon_agrees m r i =
    if r.held.(i) = Nothing then raises_misuse (fun () -> Sidecaml.abandon m i)
    else begin
      Sidecaml.abandon m i;
      r.held.(i) <- Nothing;
      true
    end

  let step m r = function
    | Claim -> claim_agrees m r
    | Submit value -> submit_agrees m r value
    | Await i -> await_agrees m r i
    | Poll i -> poll_agrees m r i
    | Release i -> release_agrees m r i
    | Abandon i -> abandon_agrees m r i

  let behaves_like_the_model =
    property "any order of steps agrees with a queue" ~print:print_case ~count:150 gen_case (fun (slots, ops) ->
        with_model ~slots "digits" @@ fun m ->
        let r = { held = Array.make slots Nothing; next = 0 } in
        List.for_all (step m r) ops)

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

  let tests =
    [
      group "slots"
        [
          behaves_like_the_model;
          case "full until the oldest is released" full_until_the_oldest_is_released;
          case "steps out of order are explained" steps_out_of_order_are_explained;
          case "dims stay while a request is under way" dims_stay_while_a_request_is_under_way;
          case "a failure leaves nothing to release" a_failure_leaves_nothing_to_release;
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

let tests = [ ("slots", [ case "deadlines are kept" deadlines_are_kept ]) ]
