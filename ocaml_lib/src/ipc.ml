(* The daemon as a transport: requests go through shared memory. *)

(* Within a noalloc stub: on OCaml 5, every other domain's minor collection waits for it. *)
let longest_spin_ns = 5_000

let default_socket = Control.default_socket

module Daemon = struct
  (* How a channel was opened, so that one with more room can be. *)
  type way = {
    socket : string;
    timeout_ns : int;
    policy : Backend.policy;
    lock : Backend.lock;
    priority : Backend.priority;
    name : string;
  }

  type t = { handle : Core.handle; spin_ns : int; hold : bool; way : way }

  (* --- Open and close -------------------------------------------------------------------------------------------- *)

  let socket_or_default = function Some socket -> socket | None -> default_socket ()
  let models ~socket ~timeout_ns = Control.models ~socket:(socket_or_default socket) ~timeout_ns
  let describe ~socket ~timeout_ns name = Control.describe ~socket:(socket_or_default socket) ~timeout_ns name

  let policy_number = function
    | `Spin -> Abi.policy_spin
    | `Adaptive -> Abi.policy_adaptive
    | `Block -> Abi.policy_block

  let opened ({ handle; model; layout } : Control.opened) ({ policy; lock; _ } as way) : t Transport.opened =
    let requests = { handle; spin_ns = (if policy = `Block then 0 else longest_spin_ns); hold = lock = `Hold; way } in
    { requests; model; views = View.of_layout model layout; slots = layout.slot_count }

  let unmappable (opened : Control.opened) code reason =
    ignore (Core.close opened.handle);
    let message = Printf.sprintf "model %S: mapping the channel's segment: %s" opened.model.name reason in
    Error (Error.Rejected { code; message })

  let open_in ({ socket; timeout_ns; policy; priority; name; _ } as way) ~slots ~dims ~text_bytes =
    let policy = policy_number policy and high_priority = priority = `High in
    match Control.open_model ~socket ~timeout_ns ~slots ~dims ~text_bytes ~policy ~high_priority name with
    | Error _ as e -> e
    | Ok control -> (
        match opened control way with
        | channel -> Ok channel
        | exception Unix.Unix_error (error, _, _) -> unmappable control Error.System (Unix.error_message error)
        | exception Failure reason -> unmappable control Error.Corrupt reason)

  let open_model ~socket ~timeout_ns ~slots ~dims ~text_bytes ~policy ~lock ~priority name =
    open_in { socket = socket_or_default socket; timeout_ns; policy; lock; priority; name } ~slots ~dims ~text_bytes

  let grow t ~dims ~text_bytes = open_in t.way ~slots:1 ~dims ~text_bytes

  (* The time is for this once: a later growing has that of the first opening. *)
  let reopen t ~slots ~dims ~text_bytes ~timeout_ns =
    let as_before (opened : t Transport.opened) = { opened with requests = { opened.requests with way = t.way } } in
    Result.map as_before (open_in { t.way with timeout_ns } ~slots ~dims ~text_bytes)

  (* The claim only tells whether the channel may be used. *)
  let begin_anew t =
    let claimed = Core.claim t.handle in
    if claimed = Transport.closed || claimed = Transport.taken then claimed else -Abi.error_server_gone

  let show t views = Core.show t.handle (View.mappings views)

  let switch t ~by:_ = Ok (if Core.is_open t.handle then 0 else Transport.closed)
  let drop t = ignore (Core.close t.handle)
  let close t = Core.close t.handle
  let is_open t = Core.is_open t.handle

  (* --- Requests -------------------------------------------------------------------------------------------------- *)

  let rec wait t slot deadline =
    let result = if t.hold then Core.wait_holding t.handle slot deadline else Core.wait t.handle slot deadline in
    (* Between two waits, OCaml has run its signal handlers. *)
    if result = -Abi.error_again then wait t slot deadline else result

  let give_up_and_raise t exn =
    let backtrace = Printexc.get_raw_backtrace () in
    ignore (Core.abandon t.handle 0);
    Printexc.raise_with_backtrace exn backtrace

  let run t deadline =
    let begun = Core.start t.handle deadline t.spin_ns in
    if begun <> -Abi.error_pending then begun
    else match wait t 0 deadline with result -> result | exception exn -> give_up_and_raise t exn

  let await t slot deadline =
    let spun = Core.spin t.handle slot t.spin_ns in
    if spun = -Abi.error_pending then wait t slot deadline else spun

  let rec wait_any t deadline =
    let result = Core.wait_any t.handle t.hold deadline in
    if result = -Abi.error_again then wait_any t deadline else result

  let await_any t deadline =
    let spun = Core.spin_any t.handle t.spin_ns in
    if spun = -Abi.error_pending then wait_any t deadline else spun

  let rec claim_wait t deadline =
    let result = Core.claim_wait t.handle t.hold deadline in
    if result = -Abi.error_again then claim_wait t deadline else result

  let rec wait_end t slot deadline =
    if Core.wait_end t.handle t.hold slot deadline = -Abi.error_again then wait_end t slot deadline

  let await_end t slot deadline =
    if Core.spin t.handle slot t.spin_ns = -Abi.error_pending then wait_end t slot deadline

  let claim t = Core.claim t.handle
  let claim_run t most = Core.claim_run t.handle most
  let submit_run t count deadline = Core.submit_run t.handle count deadline
  let ended t slot most = Core.ended t.handle slot most
  let answered t slot most = Core.answered t.handle slot most
  let release_run t slot count = Core.release_run t.handle slot count
  let submit t deadline = Core.submit t.handle deadline
  let poll t slot deadline = Core.poll t.handle slot deadline
  let release t slot = Core.release t.handle slot
  let abandon t slot = Core.abandon t.handle slot

  (* --- Beside them ----------------------------------------------------------------------------------------------- *)

  let set_dims t slot tensor dims = Core.set_dims t.handle slot tensor dims
  let get_dims t slot tensor dims = Core.get_dims t.handle slot tensor dims
  let needed t slot tensor dims = Core.needed t.handle slot tensor dims
  let text_needed t slot = Core.text_needed t.handle slot

  let failure t slot code =
    let message = Core.message t.handle slot in
    ignore (Core.release t.handle slot);
    Error.of_number (-code) ~message

  let reset t = Core.reset t.handle
  let set_stamps t wanted = Core.set_stamps t.handle wanted
  let stamps t slot four = Core.stamps t.handle slot four
  let gone t = match Core.gone t.handle with 0, _ -> None | _, text -> Some text
  let is_intact t = Core.is_intact t.handle
  let gone_error t = match Core.gone t.handle with 0, _ -> None | number, message -> Some (Error.of_number number ~message)
end

include Channel.Make (Daemon)
