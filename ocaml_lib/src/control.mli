(** The control socket: what a backend that talks to a daemon asks it. Blocking; each call has a connection of its own. *)

val default_socket : unit -> string

val models : socket:string -> timeout_ns:int -> (Model.t list, Error.t) result

val describe : socket:string -> timeout_ns:int -> string -> (Model.t, Error.t) result

type opened = { handle : Core.handle; model : Model.t; layout : Core.layout }

val open_model :
  socket:string ->
  timeout_ns:int ->
  slots:int ->
  dims:(string * int) list ->
  text_bytes:int option ->
  policy:int ->
  high_priority:bool ->
  string ->
  (opened, Error.t) result
