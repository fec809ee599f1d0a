(** The path that the driver has. *)

val pyml : Bench_loop.Arguments.t -> unit
(** [pyml arguments] loads the model and obeys commands: see [Bench_loop.Commands].
    @raise Bench_loop.Failed.Failed when something fails, or pyml was missing when this was built *)
