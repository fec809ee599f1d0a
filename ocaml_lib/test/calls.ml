(* One request at a time: run and run_for. *)

open Bigarray
open Check

(* Matrix products for about this long, give or take a lot. *)
let some_ms = 2_000L
let much_longer = 20_000L

let set_work m ~slot n = Array0.set (Sidecaml.input0 ~slot m "n" Int64) n
let work m n = set_work m ~slot:0 n

let wait_quiet m = until "quiet" (fun () -> not (Sidecaml.is_busy m))

let policies : (Sidecaml.Backend.policy * Sidecaml.Backend.lock) list =
  [ (`Spin, `Hold); (`Spin, `Release); (`Adaptive, `Hold); (`Adaptive, `Release); (`Block, `Hold); (`Block, `Release) ]

module Make (B : Backends.S) = struct
  open Over (B)

  let every_policy_gets_the_answer () =
    List.iter
      (fun (policy, lock) ->
        with_model ~policy ~lock "digits" @@ fun m ->
        let x = Sidecaml.input2 m "image" Float32 and y = Sidecaml.output2 m "scores" Float32 in
        for i = 1 to 50 do
          Array2.fill x (float_of_int i);
          ok "run" (if i mod 2 = 0 then Sidecaml.run m else Sidecaml.run_for m ~timeout_ns:(60 * second_ns));
          Alcotest.(check (float 0.)) "answer" (float_of_int (2 * i)) y.{0, 9}
        done)
      policies

  let a_failing_model_says_why () =
    with_model "fails_inside" @@ fun m ->
    let x = Sidecaml.input1 m "x" Float32 and shape = Sidecaml.input1 m "shape" Int64 in
    Array1.fill x 1.;
    shape.{0} <- 4L;
    shape.{1} <- 4L;
    for _ = 1 to 3 do
      rejected "it cannot fit" (Sidecaml.run m) Engine [ "Reshape" ]
    done;
    (match Sidecaml.run_exn m with
    | () -> Alcotest.fail "no exception"
    | exception Error.Error (Rejected { code = Engine; _ }) -> ());
    shape.{0} <- 2L;
    shape.{1} <- 3L;
    ok "the next one" (Sidecaml.run m);
    Alcotest.(check (float 0.)) "answer" 7. (Sidecaml.output1 m "y" Float32).{0}

  let answers_stay_until_the_next_run () =
    with_model "digits" @@ fun m ->
    let x = Sidecaml.input2 m "image" Float32 and y = Sidecaml.output2 m "scores" Float32 in
    Array2.fill x 1.;
    ok "run" (Sidecaml.run m);
    Array2.fill x 5.;
    Alcotest.(check (float 0.)) "still the answer" 2. y.{0, 0};
    ok "run" (Sidecaml.run m);
    Alcotest.(check (float 0.)) "the next" 10. y.{0, 0}

  let run_wants_one_slot () =
    with_model ~slots:2 "digits" @@ fun m ->
    misuse "run" (fun () -> Sidecaml.run m) [ "2 slots"; "claim" ];
    misuse "run_for" (fun () -> Sidecaml.run_for m ~timeout_ns:1) [ "2 slots"; "claim" ]

  let stamps_are_in_order () =
    with_model "digits" @@ fun m ->
    let before = Sidecaml.now_ns () in
    ok "run" (Sidecaml.run m);
    let none = Sidecaml.stamps m in
    Alcotest.(check (list int)) "not asked for" [ 0; 0; 0; 0 ]
      [ none.submitted_ns; none.seen_ns; none.started_ns; none.finished_ns ];
    Sidecaml.set_stamps m true;
    ok "run" (Sidecaml.run m);
    let four = Sidecaml.stamps m in
    let times = [ before; four.submitted_ns; four.seen_ns; four.started_ns; four.finished_ns; Sidecaml.now_ns () ] in
    Alcotest.(check (list int)) "in order" (List.sort compare times) times

  let tests =
    [
      group "calls"
        [
          case "every policy gets the answer" every_policy_gets_the_answer;
          case "a failing model says why" a_failing_model_says_why;
          case "answers stay until the next run" answers_stay_until_the_next_run;
          case "run wants one slot" run_wants_one_slot;
          case "stamps are in order" stamps_are_in_order;
        ];
    ]
end

(* --- Of a daemon's ------------------------------------------------------------------------------------------------ *)

let a_long_call_gets_the_answer () =
  List.iter
    (fun (policy, lock) ->
      with_model ~policy ~lock "slow" @@ fun m ->
      work m some_ms;
      ok "run" (Sidecaml.run m);
      (* A product with the permutation that moves columns by one, 2000 times: 2000 mod 128 = 80. *)
      Alcotest.(check (float 0.)) "moved" 1. (Sidecaml.output2 m "y" Float32).{0, 80})
    policies

let a_timeout_leaves_the_slot_busy_until_quiet () =
  List.iter
    (fun (policy, lock) ->
      with_model ~policy ~lock "slow" @@ fun m ->
      work m some_ms;
      (* Until it is begun: what has not begun is cancelled, and leaves nothing busy. *)
      let rec begun tries =
        (match Sidecaml.run_for m ~timeout_ns:5_000_000 with
        | Ok () when tries > 0 -> () (* this process was not run for as long *)
        | outcome -> too_late "timeout" outcome);
        if not (Sidecaml.is_busy m) then begun (tries - 1)
      in
      begun 100;
      let rec next () =
        match Sidecaml.run m with
        | Error Busy ->
            Unix.sleepf 0.001;
            next ()
        | outcome -> ok "once it is quiet" outcome
      in
      next ();
      Alcotest.(check (float 0.)) "answer" 1. (Sidecaml.output2 m "y" Float32).{0, 80})
    policies

let no_time_is_a_timeout () =
  with_model "slow" @@ fun m ->
  work m some_ms;
  too_late "0 ns" (Sidecaml.run_for m ~timeout_ns:0);
  wait_quiet m;
  work m 0L;
  ok "all the time there is" (Sidecaml.run_for m ~timeout_ns:max_int);
  misuse "negative" (fun () -> Sidecaml.run_for m ~timeout_ns:(-1)) [ "slow"; "-1 ns" ]

let tests =
  [
    ( "calls",
      [
        case "a long call gets the answer" a_long_call_gets_the_answer;
        case "a timeout leaves the slot busy until quiet" a_timeout_leaves_the_slot_busy_until_quiet;
        case "no time is a timeout" no_time_is_a_timeout;
      ] );
  ]
