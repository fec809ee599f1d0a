(* Requests of a sequence: iter and map. *)

open Bigarray
open Check

module Make (B : Backends.S) = struct
  open Over (B)

  (* The model's answer is twice the value. *)
  type digits = {
    m : Sidecaml.t;
    images : (float, float32_elt, c_layout) Array2.t array;
    scores : (float, float32_elt, c_layout) Array2.t array;
  }

  let with_digits slots f =
    with_model ~slots "digits" @@ fun m ->
    let of_slots view = Array.init slots view in
    f
      {
        m;
        images = of_slots (fun slot -> Sidecaml.input2 ~slot m "image" Float32);
        scores = of_slots (fun slot -> Sidecaml.output2 ~slot m "scores" Float32);
      }

  let fill d slot value = Array2.fill d.images.(slot) (float_of_int value)
  let score d slot = int_of_float d.scores.(slot).{0, 3}
  let numbers count = List.to_seq (List.init count Fun.id)

  let answers_of ?window ?burst ?timeout_ns m ~fill ~read items =
    let found = ref [] in
    let answer slot item outcome = found := (item, Result.map (fun () -> read slot) outcome) :: !found in
    let outcome = Sidecaml.iter ?window ?burst ?timeout_ns m ~fill ~answer items in
    (outcome, List.rev !found)

  let answers ?window ?burst ?timeout_ns d items = answers_of ?window ?burst ?timeout_ns d.m ~fill:(fill d) ~read:(score d) items

  let expected count = List.init count (fun i -> (i, Ok (2 * i)))
  let pairs = Alcotest.(list (pair int (Check.result int)))

  let gen_case =
    let open QCheck2.Gen in
    let* slots = int_range 1 12 in
    let* window = int_range 1 slots in
    let* burst = int_range 1 window in
    let* count = int_bound 40 in
    return (slots, window, burst, count)

  let print_case (slots, window, burst, count) = Printf.sprintf "%d slots, window %d, bursts of %d, %d items" slots window burst count

  let every_item_has_its_answer =
    property "every item has its answer, in order, whatever the window" ~print:print_case ~count:60 gen_case
      (fun (slots, window, burst, count) ->
        with_digits slots @@ fun d ->
        let twice () =
          let results = Sidecaml.map ~window ~burst d.m ~fill:(fill d) ~read:(fun slot item -> (item, score d slot)) (numbers count) in
          answers ~window ~burst d (numbers count) = (Ok (), expected count)
          && List.of_seq results = List.init count (fun i -> Ok (i, 2 * i))
        in
        twice () && twice ())

  (* In bursts: those that may be in flight and one that is filled, as far as there are slots for all of it. *)
  let most_ahead (slots, window, burst, count) = min count (burst * min (slots / burst) ((window / burst) + 1))

  let the_sequence_is_read_so_far_ahead =
    property "the sequence is read a burst ahead of the window, and no further" ~print:print_case ~count:40 gen_case
      (fun ((slots, window, burst, count) as case) ->
        with_digits slots @@ fun d ->
        let asked = ref 0 and told = ref 0 and ahead = ref 0 in
        let note item =
          incr asked;
          ahead := max !ahead (!asked - !told);
          item
        in
        let answer _ _ outcome =
          ok "answer" outcome;
          incr told
        in
        ok "iter" (Sidecaml.iter ~window ~burst d.m ~fill:(fill d) ~answer (Seq.map note (numbers count)));
        !told = count && !ahead = most_ahead case)

  let default_bursts_fill_the_window_where_there_is_room () =
    let ahead slots window =
      with_digits slots @@ fun d ->
      let asked = ref 0 and first = ref 0 in
      let note item =
        incr asked;
        item
      in
      let answer _ item _ = if item = 0 then first := !asked in
      ok "iter" (Sidecaml.iter ~window d.m ~fill:(fill d) ~answer (Seq.map note (numbers 40)));
      !first
    in
    Alcotest.(check int) "two windows" 8 (ahead 8 4);
    Alcotest.(check int) "not quite: halves, and one of them ahead" 6 (ahead 7 4);
    Alcotest.(check int) "one window: halves" 4 (ahead 4 4);
    Alcotest.(check int) "one slot" 1 (ahead 1 1)

  type seen = { submitted : int; finished : int; told : int }

  let times_of ~window ~burst m ~fill items =
    Sidecaml.set_stamps m true;
    let found = ref [] in
    let answer slot _ outcome =
      ok "answer" outcome;
      let told = Sidecaml.now_ns () and stamps = Sidecaml.stamps ~slot m in
      found := { submitted = stamps.submitted_ns; finished = stamps.finished_ns; told } :: !found
    in
    ok "iter" (Sidecaml.iter ~window ~burst m ~fill ~answer items);
    Array.of_list (List.rev !found)

  let in_flight_at time seen =
    Array.fold_left (fun count s -> if s.submitted <= time && time < s.finished then count + 1 else count) 0 seen

  let never_more_than window seen = Array.for_all (fun s -> in_flight_at s.submitted seen <= window) seen

  (* What is filled ahead goes out before the answers that it waited for are read. *)
  let is_kept_busy (slots, window, burst, _) seen =
    let in_bursts = window / burst * burst in
    let is_ahead i s = i + in_bursts >= Array.length seen || seen.(i + in_bursts).submitted <= s.told in
    in_bursts + burst > slots || Array.for_all Fun.id (Array.mapi is_ahead seen)

  let the_window_is_kept_and_the_worker_busy =
    property "a window is in flight, and never more" ~print:print_case ~count:40 gen_case
      (fun ((slots, window, burst, count) as case) ->
        with_digits slots @@ fun d ->
        let seen = times_of ~window ~burst d.m ~fill:(fill d) (numbers count) in
        Array.length seen = count && never_more_than window seen && is_kept_busy case seen)

  (* A model that the daemon runs in batches: bit for bit what each request gets alone. *)
  let answers_are_those_of_requests_alone () =
    let dims = [ ("N", 1) ] and items = List.init 200 (fun i -> float_of_int ((i * 37 mod 101) - 50) /. 7.) in
    let rows slot m = (Sidecaml.input2 ~slot m "x" Float32, Sidecaml.output2 ~slot m "y" Float32) in
    let fill_row (x, _) value =
      for i = 0 to 63 do
        x.{0, i} <- value /. float_of_int (i + 1)
      done
    in
    let read_row (_, y) = List.init 10 (fun i -> Int32.bits_of_float y.{0, i}) in
    let alone =
      with_model ~dims "dynamic_mlp" @@ fun m ->
      let row = rows 0 m in
      List.map
        (fun value ->
          fill_row row value;
          ok "run" (Sidecaml.run m);
          read_row row)
        items
    in
    with_model ~slots:32 ~dims "dynamic_mlp" @@ fun m ->
    let slots = Array.init 32 (fun slot -> rows slot m) in
    let fill slot value = fill_row slots.(slot) value and read slot _ = read_row slots.(slot) in
    List.iter
      (fun burst ->
        let together = List.of_seq (Sidecaml.map ~burst m ~fill ~read (List.to_seq items)) in
        Alcotest.(check (list (Check.result (list int32)))) "the same bits" (List.map Result.ok alone) together)
      [ 32; 16; 5 ]

  let a_failure_is_its_item_s_alone () =
    with_model ~slots:3 "fails_inside" @@ fun m ->
    let fill slot rows =
      let shape = Sidecaml.input1 ~slot m "shape" Int64 in
      Array1.fill (Sidecaml.input1 ~slot m "x" Float32) 1.;
      shape.{0} <- rows;
      shape.{1} <- 3L
    in
    let items = [ 2L; 9L; 2L; 2L; 9L; 9L; 2L ] in
    let is_answered = List.map (fun rows -> rows = 2L) items in
    let found = ref [] in
    let answer _ rows outcome =
      (match outcome with Ok () -> () | Error _ -> rejected "the wrong shape" outcome Engine []);
      found := (rows, Result.is_ok outcome) :: !found
    in
    ok "iter" (Sidecaml.iter m ~fill ~answer (List.to_seq items));
    Alcotest.(check (list bool)) "iter" is_answered (List.rev_map snd !found);
    let results = List.of_seq (Sidecaml.map m ~fill ~read:(fun _ rows -> rows) (List.to_seq items)) in
    Alcotest.(check (list bool)) "map" is_answered (List.map Result.is_ok results);
    Alcotest.check (result Alcotest.int) "nothing is held" (Ok (7 * 2 mod 3)) (Sidecaml.claim m)

  let gen_failing =
    let open QCheck2.Gen in
    let* ((_, _, _, count) as case) = gen_case in
    let* fails = list_repeat count (map (fun n -> n = 0) (int_bound 3)) in
    return (case, fails)

  let failures_are_where_they_were =
    let print (case, fails) = print_case case ^ ": " ^ String.concat "" (List.map (fun fail -> if fail then "x" else ".") fails) in
    property "failures are those of their items, whatever the window" ~print ~count:40 gen_failing
      (fun ((slots, window, burst, count), fails) ->
        with_model ~slots "fails_inside" @@ fun m ->
        let asked = ref 0 and told = ref 0 and ahead = ref 0 in
        let fill slot fail =
          incr asked;
          ahead := max !ahead (!asked - !told);
          let shape = Sidecaml.input1 ~slot m "shape" Int64 in
          Array1.fill (Sidecaml.input1 ~slot m "x" Float32) 1.;
          shape.{0} <- if fail then 9L else 2L;
          shape.{1} <- 3L
        in
        let answer _ fail = function
          | Ok () when not fail -> incr told
          | Error (Error.Rejected { code = Engine; _ }) when fail -> incr told
          | Ok () -> Alcotest.fail "it should have failed"
          | Error e -> Alcotest.fail (Error.to_string e)
        in
        ok "iter" (Sidecaml.iter ~window ~burst m ~fill ~answer (List.to_seq fails));
        let read _ fail = if fail then Alcotest.fail "a failure was read" in
        let results = List.of_seq (Sidecaml.map ~window ~burst m ~fill:(fun slot fail -> decr asked; fill slot fail) ~read (List.to_seq fails)) in
        !told = count
        && !ahead <= min slots (window + burst)
        && List.map Result.is_error results = fails)

  let every_item_is_told_of_whatever_its_time =
    let gen = QCheck2.Gen.(pair gen_case (oneofl [ 0; 1_000; 20_000; 100_000; 60 * second_ns ])) in
    let print (case, timeout_ns) = Printf.sprintf "%s, %d ns" (print_case case) timeout_ns in
    property "every item is told of, whatever its time" ~print ~count:60 gen (fun ((slots, window, burst, count), timeout_ns) ->
        with_digits slots @@ fun d ->
        let outcome, found = answers ~window ~burst ~timeout_ns d (numbers count) in
        let is_right i = function
          | item, Ok score -> item = i && score = 2 * i
          | item, Error (Error.Timeout | Error.Rejected { code = Deadline; _ }) -> item = i
          | _, Error e -> Alcotest.fail (Error.to_string e)
        in
        outcome = Ok ()
        && List.length found = count
        && List.for_all Fun.id (List.mapi is_right found)
        && answers ~window ~burst d (numbers count) = (Ok (), expected count))

  let windows_that_make_no_sense_are_explained () =
    with_digits 4 @@ fun d ->
    let iter ?window ?burst ?timeout_ns () = answers ?window ?burst ?timeout_ns d (numbers 3) in
    misuse "larger than the slots" (fun () -> iter ~window:5 ()) [ "iter"; "window of 5"; "4 slots" ];
    misuse "none" (fun () -> iter ~window:0 ()) [ "window of 0" ];
    misuse "larger than the window" (fun () -> iter ~window:2 ~burst:3 ()) [ "bursts of 3"; "1 to 2" ];
    misuse "no burst" (fun () -> iter ~burst:0 ()) [ "bursts of 0" ];
    misuse "negative" (fun () -> iter ~timeout_ns:(-1) ()) [ "timeout of -1" ];
    let map window = Sidecaml.map ~window d.m ~fill:(fill d) ~read:(fun _ item -> item) (numbers 3) in
    misuse "map" (fun () -> map 5) [ "map"; "window of 5" ];
    Sidecaml.close d.m;
    misuse "closed" (fun () -> iter ()) [ "the channel is closed" ]

  let a_slot_of_the_program_s_own_stops_it () =
    with_digits 3 @@ fun d ->
    let submit () =
      let slot = Sidecaml.claim_exn d.m in
      Sidecaml.submit_exn d.m slot;
      slot
    in
    let own = submit () in
    let outcome, found = answers d (numbers 2) in
    Alcotest.check (result Alcotest.unit) "there is room for two" (Ok ()) outcome;
    Alcotest.check pairs "two" (expected 2) found;
    let outcome, found = answers d (numbers 5) in
    Alcotest.check (result Alcotest.unit) "its turn" (Error Error.Full) outcome;
    Alcotest.check pairs "told of the item that was asked for" [ (0, Error Error.Full) ] found;
    let outcome, found = answers ~window:1 d (numbers 5) in
    Alcotest.check (result Alcotest.unit) "its turn, of a window of one" (Error Error.Full) outcome;
    Alcotest.check pairs "told as well" [ (0, Error Error.Full) ] found;
    let results = Sidecaml.map d.m ~fill:(fill d) ~read:(fun _ item -> item) (numbers 5) in
    Alcotest.(check (list (Check.result int))) "map" [ Error Error.Full ] (List.of_seq results);
    Sidecaml.await_exn d.m own;
    Sidecaml.release d.m own;
    Alcotest.check pairs "all" (expected 5) (snd (answers d (numbers 5)))

  (* What it leaves of a burst is filled ahead, submitted and answered. *)
  let a_slot_of_the_program_s_own_cuts_a_burst () =
    with_digits 4 @@ fun d ->
    let own = Sidecaml.claim_exn d.m in
    Sidecaml.submit_exn d.m own;
    let outcome, found = answers ~window:2 ~burst:2 d (numbers 9) in
    Alcotest.check (result Alcotest.unit) "its turn" (Error Error.Full) outcome;
    Alcotest.check pairs "three, and one that was asked for" (expected 3 @ [ (3, Error Error.Full) ]) found;
    Sidecaml.await_exn d.m own;
    Sidecaml.release d.m own;
    Alcotest.check pairs "all" (expected 9) (snd (answers ~window:2 ~burst:2 d (numbers 9)))

  exception Enough

  let what_raises_goes_through_and_leaves_nothing () =
    with_digits 4 @@ fun d ->
    let goes_through what call = match call () with _ -> Alcotest.failf "%s: no exception" what | exception Enough -> () in
    let raise_at n item = if item = n then raise Enough in
    let iter ~fill ~answer items = Sidecaml.iter d.m ~fill ~answer items in
    goes_through "fill" (fun () ->
        iter (numbers 20) ~answer:(fun _ _ _ -> ()) ~fill:(fun slot item -> raise_at 9 item; fill d slot item));
    goes_through "answer" (fun () -> iter (numbers 20) ~answer:(fun _ item _ -> raise_at 5 item) ~fill:(fill d));
    goes_through "the sequence" (fun () ->
        iter (Seq.map (fun item -> raise_at 7 item; item) (numbers 20)) ~answer:(fun _ _ _ -> ()) ~fill:(fill d));
    goes_through "read" (fun () ->
        Seq.iter ignore (Sidecaml.map d.m ~fill:(fill d) ~read:(fun _ item -> raise_at 6 item) (numbers 20)));
    Alcotest.check pairs "and the channel serves on" (expected 20) (snd (answers d (numbers 20)))

  let gen_raising =
    let open QCheck2.Gen in
    let* ((_, _, _, count) as case) = gen_case in
    let* item = int_bound count in
    let* place = oneofl [ `Fill; `Answer; `Sequence; `Read ] in
    return (case, item, place)

  (* What raised is the end of the results. *)
  let rec consume results =
    match results () with
    | Seq.Nil -> ()
    | Cons (_, rest) -> consume rest
    | exception Enough -> if results () = Seq.Nil then raise Enough else Alcotest.fail "it goes on after an exception"

  let nothing_is_left_whatever_raises =
    let print (case, item, place) =
      let name = match place with `Fill -> "fill" | `Answer -> "answer" | `Sequence -> "the sequence" | `Read -> "read" in
      Printf.sprintf "%s, %s raises at item %d" (print_case case) name item
    in
    property "nothing is left, whatever raises and when" ~print ~count:60 gen_raising (fun ((slots, window, burst, count), at, place) ->
        with_digits slots @@ fun d ->
        let raise_in here item = if place = here && item = at then raise Enough in
        let fill slot item =
          raise_in `Fill item;
          fill d slot item
        in
        let items = Seq.map (fun item -> raise_in `Sequence item; item) (numbers count) in
        let call () =
          if place = `Read then
            consume (Sidecaml.map ~window ~burst d.m ~fill ~read:(fun _ item -> raise_in `Read item) items)
          else ok "iter" (Sidecaml.iter ~window ~burst d.m ~fill ~answer:(fun _ item _ -> raise_in `Answer item) items)
        in
        (match call () with () -> at = count | exception Enough -> at < count)
        && answers ~window ~burst d (numbers count) = (Ok (), expected count)
        && answers d (numbers count) = (Ok (), expected count))

  let a_result_is_there_once () =
    with_digits 2 @@ fun d ->
    let results = Sidecaml.map d.m ~fill:(fill d) ~read:(fun slot _ -> score d slot) (numbers 3) in
    match results () with
    | Seq.Nil -> Alcotest.fail "nothing"
    | Cons (first, rest) ->
        Alcotest.check (result Alcotest.int) "the first" (Ok 0) first;
        misuse "again" (fun () -> results ()) [ "map"; "twice" ];
        Alcotest.(check (list (Check.result int))) "the others" [ Ok 2; Ok 4 ] (List.of_seq rest)

  let tests =
    [
      group "windows"
        [
          every_item_has_its_answer;
          the_sequence_is_read_so_far_ahead;
          case "default bursts fill the window where there is room" default_bursts_fill_the_window_where_there_is_room;
          the_window_is_kept_and_the_worker_busy;
          case "answers are those of requests alone" answers_are_those_of_requests_alone;
          case "a failure is its item's alone" a_failure_is_its_item_s_alone;
          failures_are_where_they_were;
          every_item_is_told_of_whatever_its_time;
          case "windows that make no sense are explained" windows_that_make_no_sense_are_explained;
          case "a slot of the program's own stops it" a_slot_of_the_program_s_own_stops_it;
          case "a slot of the program's own cuts a burst" a_slot_of_the_program_s_own_cuts_a_burst;
          nothing_is_left_whatever_raises;
          case "what raises goes through and leaves nothing" what_raises_goes_through_and_leaves_nothing;
          case "a result is there once" a_result_is_there_once;
        ];
    ]
end

(* --- Of a daemon's ------------------------------------------------------------------------------------------------ *)

let deadlines_are_each_request_s () =
  with_model ~slots:2 "slow" @@ fun m ->
  let late = ref 0 in
  let answer _ _ = function
    | Ok () -> ()
    | Error (Error.Timeout | Rejected { code = Deadline; _ }) -> incr late
    | Error e -> Alcotest.fail (Error.to_string e)
  in
  let fill slot work = Calls.set_work m ~slot work in
  ok "iter" (Sidecaml.iter m ~timeout_ns:1_000_000 ~fill ~answer (List.to_seq [ Calls.much_longer; Calls.much_longer ]));
  Alcotest.(check bool) "too late" true (!late >= 1);
  late := 0;
  ok "slots are waited for" (Sidecaml.iter m ~fill ~answer (List.to_seq [ 0L; 0L; 0L ]));
  Alcotest.(check int) "in time" 0 !late

(* Bursts of two: the first is late, and the second is filled by then. *)
let deadlines_count_from_when_a_burst_is_handed_over () =
  with_model ~slots:4 "slow" @@ fun m ->
  let told = ref [] in
  let answer _ work outcome = told := (work, Result.is_ok outcome) :: !told in
  let fill slot work = Calls.set_work m ~slot work in
  let works = [ Calls.much_longer; Calls.much_longer; 0L; 0L; 0L ] in
  ok "iter" (Sidecaml.iter m ~window:2 ~timeout_ns:1_000_000 ~fill ~answer (List.to_seq works));
  Alcotest.(check (list int64)) "each is told of, in order" works (List.rev_map fst !told);
  Alcotest.(check bool) "too late" true (List.exists (fun (work, is_answered) -> work = Calls.much_longer && not is_answered) !told);
  ok "nothing is held" (Sidecaml.iter m ~fill ~answer:(fun _ _ -> ok "answer") (List.to_seq [ 0L; 0L; 0L; 0L; 0L ]))

module Of_the_daemon = Make (Backends.Daemon)

(* Requests that take a while: the next burst is filled long before. *)
let a_window_of_slow_requests_is_kept () =
  List.iter
    (fun (slots, window, burst) ->
      Backends.Daemon.with_model_exn ~socket:(Backends.Daemon.socket ()) ~slots "slow" @@ fun m ->
      let fill slot work = Array0.set (Backends.Daemon.input0 ~slot m "n" Int64) work in
      let seen = Of_the_daemon.times_of ~window ~burst m ~fill (List.to_seq (List.init 24 (fun _ -> 20L))) in
      Alcotest.(check bool) "never more" true (Of_the_daemon.never_more_than window seen);
      Alcotest.(check bool) "the next before the answers are read" true
        (Of_the_daemon.is_kept_busy (slots, window, burst, 24) seen))
    [ (4, 2, 2); (8, 4, 4); (8, 3, 1); (6, 4, 2); (8, 2, 1) ]

(* The second burst is run when it is submitted, which is before the first is read. *)
let a_model_that_raises_in_a_burst_leaves_nothing () =
  let module Mock = Sidecaml.Mock in
  let runs = ref 0 in
  let x : Sidecaml.Model.tensor = { name = "x"; dtype = "float32"; shape = [| Fixed 1 |] } in
  let answer _ ~slot:_ =
    incr runs;
    if !runs = 4 then raise Exit else Ok ()
  in
  Mock.serve "raises" ~inputs:[ x ] ~outputs:[ { x with name = "y" } ] answer;
  Fun.protect ~finally:(fun () -> Mock.withdraw "raises") @@ fun () ->
  Mock.with_model_exn ~slots:4 "raises" @@ fun m ->
  let told = ref 0 in
  let iter () = Mock.iter m ~window:2 ~fill:(fun _ _ -> ()) ~answer:(fun _ _ _ -> incr told) (List.to_seq [ 1; 2; 3; 4; 5; 6 ]) in
  (match iter () with _ -> Alcotest.fail "no exception" | exception Exit -> ());
  Alcotest.(check int) "nothing was read" 0 !told;
  ok "and it serves on" (iter ());
  Alcotest.(check int) "all" 6 !told

let tests =
  [
    ( "windows",
      [
        case "a model that raises in a burst leaves nothing" a_model_that_raises_in_a_burst_leaves_nothing;
        case "deadlines are each request's" deadlines_are_each_request_s;
        case "deadlines count from when a burst is handed over" deadlines_count_from_when_a_burst_is_handed_over;
        case "a window of slow requests is kept" a_window_of_slow_requests_is_kept;
      ] );
  ]
