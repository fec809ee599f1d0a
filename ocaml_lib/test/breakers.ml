(* The circuit breaker against a machine that is written down plainly. *)

open Check
module Breaker = Sidecaml.Breaker

type op = Admit | Succeed | Fail | Withdraw | Wait of int

let gen =
  let open QCheck2.Gen in
  let op =
    frequency
      [ (4, pure Admit); (1, pure Succeed); (5, pure Fail); (1, pure Withdraw); (4, map (fun ns -> Wait ns) (int_range 0 30)) ]
  in
  quad (int_range 1 4) (int_range 0 40) (int_range 1 1_000) (list_size (int_range 0 80) op)

let print (failures, cool_down, start, ops) =
  let text = function
    | Admit -> "admit"
    | Succeed -> "succeed"
    | Fail -> "fail"
    | Withdraw -> "withdraw"
    | Wait ns -> Printf.sprintf "wait %d" ns
  in
  Printf.sprintf "%d failures, cool-down %d, from %d: %s" failures cool_down start (String.concat ", " (List.map text ops))

(* [opened]: since when, and until when nothing is tried; [on_trial]: one call is, and others wait until then. *)
type model = { now : int; failed : int; opened : (int * int) option; on_trial : bool }

let admits m = match m.opened with Some (_, until) -> m.now >= until | None -> true

let next failures cool_down m = function
  | Wait ns -> { m with now = m.now + ns }
  | Succeed -> { m with failed = 0; opened = None; on_trial = false }
  | Admit -> (
      match m.opened with
      | Some (since, until) when m.now >= until -> { m with opened = Some (since, m.now + cool_down); on_trial = true }
      | _ -> m)
  | Withdraw -> (
      match m.opened with
      | Some (since, _) when m.on_trial -> { m with opened = Some (since, m.now); on_trial = false }
      | _ -> m)
  | Fail -> (
      match m.opened with
      | Some (since, _) when m.on_trial ->
          { m with failed = m.failed + 1; opened = Some (since, m.now + cool_down); on_trial = false }
      | Some _ -> m
      | None ->
          let failed = m.failed + 1 in
          { m with failed; opened = (if failed >= failures then Some (m.now, m.now + cool_down) else None) })

let agrees breaker m =
  let expected : Breaker.state =
    match m.opened with
    | None -> Closed
    | Some (since_ns, until_ns) when m.now < until_ns && not m.on_trial -> Open { since_ns; until_ns }
    | Some (since_ns, _) -> Half_open { since_ns }
  in
  Breaker.state breaker ~now_ns:m.now = expected && Breaker.is_calm breaker = (m.opened = None && m.failed = 0)

let it_is_as_written_down (failures, cool_down_ns, now, ops) =
  let breaker = Breaker.make ~failures ~cool_down_ns () in
  let refuses m = function
    | Ok () -> admits m
    | Error (Error.Circuit_open c) ->
        (not (admits m)) && m.opened = Some (c.since_ns, c.until_ns) && c.failures = m.failed && c.last = Server_gone
    | Error _ -> false
  in
  let step m op =
    let right =
      match op with
      | Admit -> refuses m (Breaker.admit breaker ~now_ns:m.now)
      | Succeed -> Breaker.succeeded breaker; true
      | Fail -> Breaker.failed breaker ~now_ns:m.now Server_gone; true
      | Withdraw -> Breaker.withdrawn breaker ~now_ns:m.now; true
      | Wait _ -> true
    in
    let m = next failures cool_down_ns m op in
    (m, right && agrees breaker m)
  in
  let follow (m, right) op = if right then step m op else (m, false) in
  snd (List.fold_left follow ({ now; failed = 0; opened = None; on_trial = false }, true) ops)

let one_call_at_a_time_is_tried () =
  let breaker = Breaker.make ~failures:1 ~cool_down_ns:1_000 () in
  Breaker.failed breaker ~now_ns:1 Server_gone;
  let admitted = Atomic.make 0 in
  let ask () = if Breaker.admit breaker ~now_ns:2_000 = Ok () then Atomic.incr admitted in
  List.iter Thread.join (List.init 20 (fun _ -> Thread.create ask ()));
  Alcotest.(check int) "of 20 threads" 1 (Atomic.get admitted)

let times_do_not_wrap () =
  let breaker = Breaker.make ~failures:1 ~cool_down_ns:max_int () in
  Breaker.failed breaker ~now_ns:10 Timeout;
  match Breaker.admit breaker ~now_ns:(max_int - 1) with
  | Error (Circuit_open { since_ns = 10; last = Timeout; _ }) -> ()
  | _ -> Alcotest.fail "not open for ever"

let senseless_settings_are_misuse () =
  misuse "failures" (fun () -> Breaker.make ~failures:0 ()) [ "failures"; "at least 1" ];
  misuse "cool-down" (fun () -> Breaker.make ~cool_down_ns:(-1) ()) [ "cool-down of -1 ns" ]

let tests =
  [
    ( "breaker",
      [
        property "it is as written down" ~print ~count:5_000 gen it_is_as_written_down;
        case "one call at a time is tried" one_call_at_a_time_is_tried; case "times do not wrap" times_do_not_wrap;
        case "senseless settings are misuse" senseless_settings_are_misuse;
      ] );
  ]
