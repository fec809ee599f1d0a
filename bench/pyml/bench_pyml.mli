(** A model in CPython, inside this process. *)

include Bench_loop.Path.S

val open_model : string -> t
(** [open_model file] starts the Python of $VIRTUAL_ENV and loads a model, once for the process.
    @raise Bench_loop.Failed.Failed when the model cannot be loaded
    @raise Failure when there is no such Python, or no shared library of it *)
