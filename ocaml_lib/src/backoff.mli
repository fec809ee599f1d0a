(** Pauses between attempts: exponential with full jitter, so that programs do not come back in step. *)

type t
(** One series of attempts, with an end. *)

val start : first_ns:int -> longest_ns:int -> until_ns:int -> t
(** [start ~first_ns ~longest_ns ~until_ns] pauses from 0 to [first_ns] at first, then to twice that, and so on up to
    [longest_ns], until a time of CLOCK_MONOTONIC. *)

val left_ns : t -> int
(** [left_ns t] is the time until the end; 0 after it. *)

val sleep : t -> bool
(** [sleep t] pauses, not beyond the end; whether there is time left then. Signal handlers run meanwhile. *)
