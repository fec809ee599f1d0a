(** Files that are written. *)

val write : string -> (out_channel -> unit) -> unit
(** [write path use] makes the file anew: [use] writes the content.
    @raise Sys_error when it cannot be opened
    @raise Failed.Failed when it cannot be written *)
