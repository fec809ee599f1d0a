(** Nanoseconds of calls. *)

type t

val create : int -> t
(** [create count] has room for [count] samples; its memory has been touched.
    @raise Failed.Failed when there is no memory *)

val set : t -> int -> int -> unit
(** [set samples i ns] does not check [i], and allocates nothing. *)

val write : t -> int -> string -> unit
(** [write samples count path] writes the first [count] samples as little-endian uint64.
    Raises as {!Output_file.write}. *)
