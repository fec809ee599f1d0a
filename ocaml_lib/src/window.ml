(* The items of a sequence as requests, so many of them at once: what iter and map are made of.

   Slots are used in turn, so those of the requests under way lie side by side, from [first] on: first those that are
   known to have ended, then those in flight, of which there is never more than a window; and behind them a burst that is
   filled and waits to be submitted. As soon as enough of those in flight have ended it is, before their answers are read:
   the worker has something to do while the program reads and fills. Until they are submitted, filled slots are nothing to
   the channel, and nobody has to give them back.

   Nothing here allocates for an item of iter, but what the sequence itself does. *)

module Make (C : sig
  type t

  val slots : t -> int
  val misuse : t -> string -> ('a, unit, string, 'b) format4 -> 'a

  (* A slot, or how many; or a negative code, of which [refusal] makes the error. *)
  val claim : t -> int
  val claim_wait : t -> int
  val claim_run : t -> int -> int
  val submit_run : t -> int -> deadline:int -> int
  val refusal : t -> string -> int -> Error.t

  val deadline_after : t -> string -> int -> int
  val await : t -> string -> int -> (unit, Error.t) result
  val await_end : t -> int -> unit
  val ended : t -> int -> int -> int
  val answered : t -> int -> int -> int
  val release_run : t -> int -> int -> unit
  val give_up : t -> int -> unit
end) =
struct
  type 'a t = {
    channel : C.t;
    call : string;
    slots : int;
    window : int;
    burst : int;
    timeout_ns : int option;
    fill : int -> 'a -> unit;
    mutable items : 'a array; (* by slot; empty before the first *)
    mutable rest : 'a Seq.t;
    mutable is_over : bool;
    mutable first : int;
    mutable under_way : int;
    mutable ended : int; (* of these, from the first on: known to be in flight no more *)
    mutable answers : int; (* of those: to be read *)
    mutable filled : int; (* after those under way: to be submitted *)
    mutable unsent : int; (* in their place: asked for, and refused by the channel *)
    mutable stopped : Error.t option; (* why no more can be submitted *)
  }

  let make channel call ~window ~burst ~timeout_ns ~fill rest =
    let slots = C.slots channel in
    let window = Option.value window ~default:slots in
    if window < 1 || window > slots then
      C.misuse channel call "a window of %d: the channel has %d slot%s, so 1 to %d" window slots (if slots = 1 then "" else "s") slots;
    let burst = Option.value burst ~default:(if 2 * window <= slots then window else max 1 (window / 2)) in
    if burst < 1 || burst > window then C.misuse channel call "bursts of %d: 1 to %d, the window" burst window;
    Option.iter (fun timeout_ns -> ignore (C.deadline_after channel call timeout_ns)) timeout_ns;
    {
      channel;
      call;
      slots;
      window;
      burst;
      timeout_ns;
      fill;
      items = [||];
      rest;
      is_over = false;
      first = 0;
      under_way = 0;
      ended = 0;
      answers = 0;
      filled = 0;
      unsent = 0;
      stopped = None;
    }

  let after t slot count =
    let slot = slot + count in
    if slot < t.slots then slot else slot - t.slots

  let advance t count =
    t.first <- after t t.first count;
    t.under_way <- t.under_way - count;
    t.ended <- (if t.ended < count then 0 else t.ended - count)

  (* --- Filling ----------------------------------------------------------------------------------------------------- *)

  let keep t slot item = if Array.length t.items = 0 then t.items <- Array.make t.slots item else t.items.(slot) <- item

  (* How many of [most] slots from [slot] on the sequence has filled: none where that is an error, as when the daemon has
     taken the memory back since the slot was claimed. *)
  let rec fill_from t slot filled most =
    if filled >= most then filled
    else
      match t.rest () with
      | Seq.Nil ->
          t.is_over <- true;
          filled
      | Seq.Cons (item, rest) ->
          t.rest <- rest;
          keep t slot item;
          t.fill slot item;
          fill_from t (after t slot 1) (filled + 1) most

  (* What is under way has to end first, when there is something: it may be what holds the slot. *)
  let turn t =
    let slot = C.claim t.channel in
    if slot = -Abi.error_busy && t.under_way = 0 then C.claim_wait t.channel else slot

  (* The next item, if there is one, has nowhere to go. *)
  let stop t code =
    match t.rest () with
    | Seq.Nil -> t.is_over <- true
    | Seq.Cons (item, rest) ->
        t.rest <- rest;
        keep t (after t t.first t.under_way) item;
        t.unsent <- 1;
        t.stopped <- Some (C.refusal t.channel t.call code)

  (* Whether there was a slot. *)
  let fill t =
    let slot = turn t in
    if slot >= 0 then begin
      if t.under_way = 0 then t.first <- slot;
      t.filled <- fill_from t slot 0 (C.claim_run t.channel t.burst)
    end
    else if t.under_way = 0 || not (slot = -Abi.error_full || slot = -Abi.error_busy) then stop t slot;
    slot >= 0

  (* --- Submitting -------------------------------------------------------------------------------------------------- *)

  let deadline t = match t.timeout_ns with None -> 0 | Some timeout_ns -> C.deadline_after t.channel t.call timeout_ns

  let submit t count =
    t.filled <- 0;
    (* Counted beforehand: a backend that runs them at once may raise in the middle. *)
    t.under_way <- t.under_way + count;
    let submitted = C.submit_run t.channel count ~deadline:(deadline t) in
    if submitted < 0 then begin
      t.under_way <- t.under_way - count;
      t.unsent <- count;
      t.stopped <- Some (C.refusal t.channel t.call submitted)
    end

  let submit_filled t = if t.filled > 0 && t.under_way - t.ended + t.filled <= t.window then submit t t.filled

  (* For whole bursts, as what is begun in less room stays small; and once all that has ended is told. *)
  let has_room t = t.filled = 0 && t.ended = 0 && t.slots - t.under_way >= t.burst

  let rec refill t =
    submit_filled t;
    if has_room t && (not t.is_over) && Option.is_none t.stopped && fill t then refill t

  (* --- Answers ----------------------------------------------------------------------------------------------------- *)

  (* Waits for the burst that was handed over first, and hands over the next. *)
  let await_burst t =
    let burst = if t.under_way < t.burst then t.under_way else t.burst in
    C.await_end t.channel (after t t.first (burst - 1));
    t.ended <- C.ended t.channel t.first burst;
    submit_filled t;
    t.answers <- C.answered t.channel t.first burst

  (* Finds how many answers there are to read. Of an error nothing is left in the slot. *)
  let await t =
    if t.ended = 0 then await_burst t else t.answers <- C.answered t.channel t.first t.ended;
    match C.await t.channel t.call t.first with
    | Ok () as answered ->
        t.ended <- Int.max 1 t.ended;
        t.answers <- Int.max 1 t.answers;
        answered
    | Error _ as failed ->
        t.answers <- 0;
        advance t 1;
        failed

  let release t count =
    C.release_run t.channel t.first count;
    t.answers <- t.answers - count;
    advance t count

  let stop_and_raise t exn =
    let backtrace = Printexc.get_raw_backtrace () in
    for i = 0 to t.under_way - 1 do
      C.give_up t.channel (after t t.first i)
    done;
    t.under_way <- 0;
    t.ended <- 0;
    t.answers <- 0;
    t.filled <- 0;
    t.unsent <- 0;
    t.is_over <- true;
    Printexc.raise_with_backtrace exn backtrace

  (* --- iter -------------------------------------------------------------------------------------------------------- *)

  let answered = Ok ()

  let rec answer_from t answer slot left =
    if left > 0 then begin
      answer slot t.items.(slot) answered;
      answer_from t answer (after t slot 1) (left - 1)
    end

  let settle t answer =
    let slot = t.first in
    match await t with
    | Ok () ->
        answer_from t answer slot t.answers;
        release t t.answers
    | Error _ as failed -> answer slot t.items.(slot) failed

  let rec refuse_from t answer slot error =
    if t.unsent > 0 then begin
      t.unsent <- t.unsent - 1;
      answer slot t.items.(slot) (Error error);
      refuse_from t answer (after t slot 1) error
    end

  let rec go_on t answer =
    refill t;
    if t.under_way > 0 then begin
      settle t answer;
      go_on t answer
    end
    else
      match t.stopped with
      | None -> answered
      | Some error ->
          refuse_from t answer t.first error;
          Error error

  let iter t ~answer = match go_on t answer with outcome -> outcome | exception exn -> stop_and_raise t exn

  (* --- map --------------------------------------------------------------------------------------------------------- *)

  let read_one t read =
    let slot = t.first in
    let result = read slot t.items.(slot) in
    release t 1;
    Ok result

  let refuse_one t =
    match t.stopped with
    | Some error when t.unsent > 0 ->
        t.unsent <- t.unsent - 1;
        Some (Error error)
    | _ -> None

  (* None at the end. *)
  let next t read =
    if t.answers = 0 then refill t;
    if t.answers > 0 then Some (read_one t read)
    else if t.under_way = 0 then refuse_one t
    else match await t with Ok () -> Some (read_one t read) | Error e -> Some (Error e)

  let next_or_stop t read = match next t read with found -> found | exception exn -> stop_and_raise t exn

  let map t ~read =
    let position = ref 0 in
    let rec from place () =
      if place <> !position then
        C.misuse t.channel t.call "a result is asked for twice, and its slot is another request's by now: keep what was read";
      match next_or_stop t read with
      | None -> Seq.Nil
      | Some result ->
          position := place + 1;
          Seq.Cons (result, from (place + 1))
    in
    from 0
end
