(* Who owns what, and that calls leave the collector alone. *)

open Bigarray
open Check

let calls = 10_000

let words_of rounds round =
  let measure n =
    let before = Gc.minor_words () in
    for _ = 1 to n do
      round ()
    done;
    Gc.minor_words () -. before
  in
  (* The first request of each slot, of which there are two at most, may prepare what the later ones use. *)
  round ();
  round ();
  let overhead = measure 0 in
  measure rounds -. overhead

let expect_ok = function Ok () -> () | Error e -> failwith (Error.to_string e)

module Make (B : Backends.S) = struct
  open Over (B)

  let calls_allocate_nothing () =
    List.iter
      (fun (policy, lock) ->
        with_model ~policy ~lock "digits" @@ fun m ->
        let none what round = Alcotest.(check (float 0.)) what 0. (words_of calls round) in
        none "run" (fun () -> expect_ok (Sidecaml.run m));
        none "run_for" (fun () -> expect_ok (Sidecaml.run_for m ~timeout_ns:(60 * second_ns))))
      [ (`Adaptive, `Release); (`Adaptive, `Hold); (`Spin, `Release) ];
    with_model ~policy:`Block "digits" @@ fun m ->
    Alcotest.(check (float 0.)) "asleep" 0. (words_of 1_000 (fun () -> expect_ok (Sidecaml.run m)))

  let steps_allocate_nothing () =
    with_model ~slots:2 "digits" @@ fun m ->
    let round timeout_ns =
      match Sidecaml.claim m with
      | Error e -> failwith (Error.to_string e)
      | Ok slot ->
          expect_ok (if timeout_ns = 0 then Sidecaml.submit m slot else Sidecaml.submit_for m slot ~timeout_ns);
          (match Sidecaml.poll m slot with Ok _ -> () | Error e -> failwith (Error.to_string e));
          expect_ok (if timeout_ns = 0 then Sidecaml.await m slot else Sidecaml.await_for m slot ~timeout_ns);
          Sidecaml.release m slot
    in
    Alcotest.(check (float 0.)) "without a timeout" 0. (words_of calls (fun () -> round 0));
    Alcotest.(check (float 0.)) "with a timeout" 0. (words_of calls (fun () -> round (60 * second_ns)))

  let any_allocates_nothing () =
    with_model ~slots:2 "digits" @@ fun m ->
    let claimed () = match Sidecaml.claim_wait m with Ok slot -> slot | Error e -> failwith (Error.to_string e) in
    let round await_any () =
      expect_ok (Sidecaml.submit m (claimed ()));
      match await_any () with
      | Error e -> failwith (Error.to_string e)
      | Ok slot ->
          expect_ok (Sidecaml.await m slot);
          Sidecaml.release m slot
    in
    Alcotest.(check (float 0.)) "await_any" 0. (words_of calls (round (fun () -> Sidecaml.await_any m)));
    let await_any () = Sidecaml.await_any_for m ~timeout_ns:(60 * second_ns) in
    Alcotest.(check (float 0.)) "await_any_for" 0. (words_of calls (round await_any))

  (* The words of a call, and none for an item. *)
  let items_allocate_nothing () =
    with_model ~slots:8 "digits" @@ fun m ->
    let images = Array.init 8 (fun slot -> Sidecaml.input2 ~slot m "image" Float32) in
    let left = ref 0 in
    let rec items () =
      decr left;
      if !left < 0 then Seq.Nil else node
    and node = Seq.Cons ("item", items) in
    let fill slot _ = Array2.unsafe_set images.(slot) 0 0 1. in
    let answer _ _ outcome = expect_ok outcome in
    let words ?window count =
      left := count;
      let before = Gc.minor_words () in
      expect_ok (Sidecaml.iter ?window m ~fill ~answer items);
      Gc.minor_words () -. before
    in
    ignore (words 100);
    Alcotest.(check (float 0.)) "words" (words 100) (words calls);
    Alcotest.(check (float 0.)) "words, filled ahead" (words ~window:4 100) (words ~window:4 calls)

  (* The same dimensions each time, as those of a stream of batches of one size. *)
  let dims_that_repeat_allocate_nothing () =
    with_model ~dims:[ ("N", 8) ] "dynamic_mlp" @@ fun m ->
    let dims = [| 3; 64 |] in
    let round () =
      Sidecaml.set_dims m "x" dims;
      let x = Sidecaml.input2 m "x" Float32 in
      Array2.unsafe_set x 0 0 1.;
      expect_ok (Sidecaml.run m);
      ignore (Sys.opaque_identity (Sidecaml.output2 m "y" Float32))
    in
    Alcotest.(check (float 0.)) "words" 0. (words_of 1_000 round);
    let others = [| 5; 64 |] in
    let set () =
      Sidecaml.set_dims m "x" others;
      Sidecaml.set_dims m "x" dims
    in
    Alcotest.(check (float 0.)) "set_dims, of others" 0. (words_of 1_000 set);
    match Sidecaml.run_growing m with
    | Ok `Fitted ->
        let growing () = match Sidecaml.run_growing m with Ok `Fitted -> () | _ -> failwith "it did not fit" in
        Alcotest.(check (float 0.)) "run_growing" 0. (words_of 1_000 growing)
    | _ -> Alcotest.fail "it did not fit"

  let state_that_is_carried_allocates_nothing () =
    let none what round = Alcotest.(check (float 0.)) what 0. (words_of 1_000 round) in
    with_model "carried" (fun m ->
        Array1.fill (Sidecaml.input1 m "shape" Int64) 8L;
        none "run" (fun () -> expect_ok (Sidecaml.run m));
        none "reset" (fun () ->
            Sidecaml.reset m;
            expect_ok (Sidecaml.run m)));
    with_model ~dims:[ ("N", 4) ] "carried_rows" @@ fun m ->
    Array1.fill (Sidecaml.input1 m "shape" Int64) 8L;
    Sidecaml.set_dims m "x" [| 3; 8 |];
    none "rows" (fun () -> expect_ok (Sidecaml.run m))

  let a_late_read_sees_zeros () =
    let m = Sidecaml.open_model_exn ~socket:(Support.Daemon.shared ()) "digits" in
    let x = Sidecaml.input2 m "image" Float32 and y = Sidecaml.output2 m "scores" Float32 in
    Array2.fill x 1.;
    ok "run" (Sidecaml.run m);
    Sidecaml.close m;
    Alcotest.(check (float 0.)) "input" 0. x.{0, 0};
    Alcotest.(check (float 0.)) "output" 0. y.{0, 0};
    Array2.fill x 3.;
    Alcotest.(check (float 0.)) "a late write harms nobody" 3. x.{0, 63}

  let the_collector_may_run_at_any_time () =
    let control = Gc.get () in
    Fun.protect
      ~finally:(fun () -> Gc.set control)
      (fun () ->
        Gc.set { control with minor_heap_size = 4096; space_overhead = 20 };
        with_model ~slots:3 "digits" @@ fun m ->
        for i = 1 to 60 do
          let slot = Sidecaml.claim_exn m in
          let x = Sidecaml.input2 ~slot m "image" Float32 in
          Gc.compact ();
          Array2.fill x (float_of_int i);
          Gc.minor ();
          Sidecaml.submit_exn m slot;
          if i mod 3 = 0 then Gc.compact ();
          ignore (Sys.opaque_identity (List.init 3000 string_of_int));
          Sidecaml.await_exn m slot;
          let y = Sidecaml.output2 ~slot m "scores" Float32 in
          Gc.compact ();
          Alcotest.(check (float 0.)) "answer" (float_of_int (2 * i)) y.{0, 3};
          Sidecaml.release m slot
        done)

  let tests =
    [
      group "memory"
        [
          case "a late read sees zeros" a_late_read_sees_zeros;
          case "the collector may run at any time" the_collector_may_run_at_any_time;
        ];
    ]

  (* Not of a mock, which runs the test's own code. *)
  let tests_of_allocation =
    [
      group "allocation"
        [
          case "calls allocate nothing" calls_allocate_nothing; case "steps allocate nothing" steps_allocate_nothing;
          case "any allocates nothing" any_allocates_nothing;
          case "dims that repeat allocate nothing" dims_that_repeat_allocate_nothing;
          case "state that is carried allocates nothing" state_that_is_carried_allocates_nothing;
        ];
    ]

  (* Not of what notes how far a sequence has come. *)
  let tests_of_items = [ group "items" [ case "items allocate nothing" items_allocate_nothing ] ]
end

(* --- Of a daemon's ------------------------------------------------------------------------------------------------ *)

(* Words that so many rounds allocate, beyond what measuring takes. *)
let errors_that_are_expected_allocate_nothing () =
  with_model ~slots:1 "slow" @@ fun m ->
  Calls.work m Calls.some_ms;
  let slot = Sidecaml.claim_exn m in
  Sidecaml.submit_exn m slot;
  let full () = match Sidecaml.claim m with Error Full -> () | _ -> failwith "not full" in
  Alcotest.(check (float 0.)) "Full" 0. (words_of calls full)

(* Not inlined, so that no register keeps the channel. *)
let[@inline never] output_of_dropped_channel () =
  let m = Sidecaml.open_model_exn ~socket:(Support.Daemon.shared ()) "digits" in
  Array2.fill (Sidecaml.input2 m "image" Float32) 1.;
  ok "run" (Sidecaml.run m);
  Sidecaml.output2 m "scores" Float32

let a_dropped_channel_is_let_go_and_its_views_stay () =
  Gc.full_major ();
  let before = descriptors () in
  let y = output_of_dropped_channel () in
  until "the collector finds it" (fun () ->
      Gc.full_major ();
      descriptors () = before);
  Alcotest.(check (float 0.)) "still the answer" 2. y.{0, 9}

let mappings () =
  let channel = open_in "/proc/self/maps" in
  let rec count n = match input_line channel with
    | line -> count (if contains line "sidecaml" then n + 1 else n)
    | exception End_of_file -> n
  in
  Fun.protect ~finally:(fun () -> close_in channel) (fun () -> count 0)

let channels_leave_nothing () =
  Gc.full_major ();
  let before = descriptors () and maps = mappings () in
  with_model "digits" (fun _ -> Alcotest.(check bool) "segments show in maps" true (mappings () > maps));
  for _ = 1 to 50 do
    with_model ~slots:3 "digits" (fun m ->
        Sidecaml.submit_exn m (Sidecaml.claim_exn m);
        Sidecaml.submit_exn m (Sidecaml.claim_exn m))
  done;
  for _ = 1 to 50 do
    match Sidecaml.open_model ~socket:(Support.Daemon.shared ()) "no_such" with
    | Ok _ -> Alcotest.fail "opened"
    | Error _ -> ()
  done;
  Alcotest.(check int) "descriptors" before (descriptors ());
  until "the collector unmaps" (fun () ->
      Gc.full_major ();
      mappings () <= maps)

let tests =
  [
    ( "memory",
      [
        case "errors that are expected allocate nothing" errors_that_are_expected_allocate_nothing;
        case "a dropped channel is let go and its views stay" a_dropped_channel_is_let_go_and_its_views_stay;
        case "channels leave nothing" channels_leave_nothing;
      ] );
  ]
