type refusal = (unit, Error.t) result

type phase =
  | Calm
  | Failing of int (* in a row, less than it takes *)
  | Opened of { since_ns : int; until_ns : int; failures : int; last : Error.t; refusal : refusal }
  (* As opened, but that a call is under way which decides, until it is given up as lost. *)
  | On_trial of { since_ns : int; until_ns : int; failures : int; last : Error.t; refusal : refusal }

type t = { phase : phase Atomic.t; failures : int; cool_down_ns : int }
type state = Closed | Open of { since_ns : int; until_ns : int } | Half_open of { since_ns : int }

let make ?(failures = 3) ?(cool_down_ns = 5_000_000_000) () =
  if failures < 1 then invalid_arg (Printf.sprintf "Sidecaml.Breaker.make: failures: expected at least 1, got %d" failures);
  if cool_down_ns < 0 then invalid_arg (Printf.sprintf "Sidecaml.Breaker.make: a cool-down of %d ns" cool_down_ns);
  { phase = Atomic.make Calm; failures; cool_down_ns }

let is_calm t = match Atomic.get t.phase with Calm -> true | _ -> false

let state t ~now_ns =
  match Atomic.get t.phase with
  | Calm | Failing _ -> Closed
  | Opened { since_ns; until_ns; _ } when now_ns < until_ns -> Open { since_ns; until_ns }
  | Opened { since_ns; _ } | On_trial { since_ns; _ } -> Half_open { since_ns }

let state_to_string = function Closed -> "closed" | Open _ -> "open" | Half_open _ -> "half-open"

let after t now_ns = if t.cool_down_ns > max_int - now_ns then max_int else now_ns + t.cool_down_ns

let refusal since_ns until_ns failures last = Error (Error.Circuit_open { since_ns; until_ns; failures; last })

let opened t ~since_ns ~now_ns ~failures last =
  let until_ns = after t now_ns in
  Opened { since_ns; until_ns; failures; last; refusal = refusal since_ns until_ns failures last }

(* Others may be at it at the same time: [step] again on what they made of it. [None] changes nothing. *)
let rec change t step =
  let before = Atomic.get t.phase in
  match step before with
  | None -> ()
  | Some next -> if not (Atomic.compare_and_set t.phase before next) then change t step

(* --- Calls ------------------------------------------------------------------------------------------------------- *)

let rec admit t ~now_ns =
  match Atomic.get t.phase with
  | Calm | Failing _ -> Ok ()
  | (Opened { until_ns; refusal; _ } | On_trial { until_ns; refusal; _ }) when now_ns < until_ns -> refusal
  | (Opened { since_ns; failures; last; _ } | On_trial { since_ns; failures; last; _ }) as before ->
      let until_ns = after t now_ns in
      let trial = On_trial { since_ns; until_ns; failures; last; refusal = refusal since_ns until_ns failures last } in
      if Atomic.compare_and_set t.phase before trial then Ok () else admit t ~now_ns

let succeeded t = if not (is_calm t) then Atomic.set t.phase Calm

let one_more t ~now_ns error = function
  | Calm -> Some (if t.failures = 1 then opened t ~since_ns:now_ns ~now_ns ~failures:1 error else Failing 1)
  | Failing n when n + 1 < t.failures -> Some (Failing (n + 1))
  | Failing n -> Some (opened t ~since_ns:now_ns ~now_ns ~failures:(n + 1) error)
  | On_trial { since_ns; failures; _ } -> Some (opened t ~since_ns ~now_ns ~failures:(failures + 1) error)
  | Opened _ -> None

let failed t ~now_ns error = change t (one_more t ~now_ns error)

let no_trial ~now_ns = function
  | On_trial { since_ns; failures; last; _ } ->
      Some (Opened { since_ns; until_ns = now_ns; failures; last; refusal = refusal since_ns now_ns failures last })
  | _ -> None

let withdrawn t ~now_ns = change t (no_trial ~now_ns)
