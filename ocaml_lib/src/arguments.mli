(** What makes no sense in any call, whatever the backend: each raises [Invalid_argument] with a sentence. *)

val text : string -> string -> unit
(** [text what s] refuses a NUL character: the protocol's strings end there for C. *)

val dim : string * int -> unit
val text_bytes : int option -> unit
val timeout_ns : int -> unit
val slots : int -> unit
