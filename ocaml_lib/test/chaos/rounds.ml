type failure = { id : int; error : Sidecaml.Error.t }

(* Longer than any recovery: a request without an answer by then is lost. *)
let patience_ns = 60_000_000_000

(* What is known of the request in each slot. *)
type window = { ids : int array; starts : int array; order : int array }

let window slots = { ids = Array.make slots 0; starts = Array.make slots 0; order = Array.init slots Fun.id }

let shuffle order =
  for i = Array.length order - 1 downto 1 do
    let j = Random.int (i + 1) in
    let kept = order.(i) in
    order.(i) <- order.(j);
    order.(j) <- kept
  done

exception Lost of failure

let ok id = function Ok value -> value | Error error -> raise (Lost { id; error })

let submit channel (job : Job.t) ledger w id =
  let slot = ok id (Sidecaml.claim channel) in
  job.fill ~slot ~id;
  w.ids.(slot) <- id;
  w.starts.(slot) <- Sidecaml.now_ns ();
  Ledger.add ledger Submitted;
  ok id (Sidecaml.submit channel slot);
  slot

let checked (job : Job.t) ledger ~slot ~id =
  match job.check ~slot ~id with
  | Ok () -> ()
  | Error why ->
      Ledger.add ledger Wrong;
      Printf.eprintf "request %d: %s\n%!" id why

let await channel job ledger w slot =
  let id = w.ids.(slot) in
  (match Sidecaml.await_for channel slot ~timeout_ns:patience_ns with
  | Ok () ->
      Ledger.took ledger ~start_ns:w.starts.(slot) ~end_ns:(Sidecaml.now_ns ()) ~id;
      checked job ledger ~slot ~id;
      Sidecaml.release channel slot;
      Ledger.add ledger Answered
  | Error Worker_crashed ->
      Ledger.add ledger Crashed;
      Printf.eprintf "request %d: answered Worker_crashed\n%!" id
  | Error error -> raise (Lost { id; error }))

let round channel job ledger w ~in_order first =
  for i = 0 to Array.length w.order - 1 do
    w.order.(i) <- submit channel job ledger w (first + i)
  done;
  if not in_order then shuffle w.order;
  Array.iter (await channel job ledger w) w.order

let rec rest us =
  let until = Sidecaml.now_ns () + (us * 1000) in
  try Unix.sleepf (float_of_int us /. 1e6)
  with Unix.Unix_error (EINTR, _, _) -> rest (max 0 ((until - Sidecaml.now_ns ()) / 1000))

let run channel job ledger ~first ~in_order ~pause_us ~stop =
  let w = window (Sidecaml.slots channel) in
  let rec from first =
    if not (stop ()) then begin
      round channel job ledger w ~in_order first;
      if pause_us > 0 then rest pause_us;
      from (first + Array.length w.order)
    end
  in
  match from first with
  | () -> Ok ()
  | exception Lost failure ->
      Ledger.add ledger Failed;
      Error failure
