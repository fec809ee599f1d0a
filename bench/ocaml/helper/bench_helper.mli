(** A model in this process, run by a helper thread that spins on another core: see helper.h. *)

include Bench_loop.Path.S

val open_model : core:int -> string -> t
(** [open_model ~core path] loads a model.
    @raise Failure and [Bench_loop.Failed.Failed] when that cannot be done *)
