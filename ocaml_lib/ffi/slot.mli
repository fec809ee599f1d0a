(** One slot's tensors bound to a session: in place wherever a size is known before the run. *)

type t

val make : Core.session -> slot:int -> holds_lock:bool -> Sidecaml.In_process.Tensor.t array -> t
(** Binds nothing yet: the first request tells the dimensions. *)

val run : t -> deadline_ns:int -> bool
val failure : t -> Sidecaml.Error.t

val close : t -> unit
(** Lets go of the session. *)
