(** One of several, by name. *)

val find : string -> (string * 'a) list -> string -> 'a
(** [find "path" known name] is the one of that name.
    @raise Failed.Failed when there is none *)
