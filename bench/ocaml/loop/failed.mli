(** What goes wrong in a driver. *)

exception Failed of string
(** A sentence for people. *)

val fail : ('a, unit, string, 'b) format4 -> 'a
(** [fail format ...] raises {!Failed}. *)

val text_of : exn -> string
(** [text_of exn] is a sentence for people, for any exception. *)
