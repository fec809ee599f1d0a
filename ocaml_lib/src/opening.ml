(* What follows from one way to open a channel. *)

module Make (O : sig
  type t

  val open_model :
    ?socket:string ->
    ?timeout_ns:int ->
    ?slots:int ->
    ?dims:(string * int) list ->
    ?text_bytes:int ->
    ?policy:Backend.policy ->
    ?lock:Backend.lock ->
    ?priority:Backend.priority ->
    string ->
    (t, Error.t) result

  val close : t -> unit
end) =
struct
  let open_model_exn ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name =
    Error.get_exn (O.open_model ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name)

  let with_channel t f = Fun.protect ~finally:(fun () -> O.close t) (fun () -> f t)

  let with_model ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name f =
    Result.map (fun t -> with_channel t f) (O.open_model ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name)

  let with_model_exn ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name f =
    with_channel (open_model_exn ?socket ?timeout_ns ?slots ?dims ?text_bytes ?policy ?lock ?priority name) f
end
