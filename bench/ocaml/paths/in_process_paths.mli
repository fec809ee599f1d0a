(** Paths that run the model in this process. *)

val all : (string * (Bench_loop.Arguments.t -> Opened.t)) list
(** By name. They raise [Bench_loop.Failed.Failed] when the model cannot be loaded, or what they need is missing. *)
