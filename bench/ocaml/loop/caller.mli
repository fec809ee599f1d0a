(** The caller itself: its clock and its own memory. *)

type memory
(** Private memory of the caller's. *)

external now_ns : unit -> (int[@untagged]) = "bench_now_byte" "bench_now_native" [@@noalloc]
(** [now_ns ()] is the time in nanoseconds, of CLOCK_MONOTONIC. *)

val memory : int -> memory
(** [memory bytes] is fresh memory.
    @raise Failed.Failed when there is not so much *)

external touch : memory -> unit = "bench_touch" [@@noalloc]
(** [touch memory] reads and writes a word of each of its cache lines. *)
