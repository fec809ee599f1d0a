(** Paths through the daemon. *)

val open_with :
  ?policy:Sidecaml.Backend.policy -> ?lock:Sidecaml.Backend.lock -> Bench_loop.Arguments.t -> Opened.t
(** [open_with arguments] opens a channel; the defaults are those that a program gets.
    @raise Bench_loop.Failed.Failed when it cannot be opened, or the model's name is missing *)

val all : (string * (Bench_loop.Arguments.t -> Opened.t)) list
(** By name. They raise as {!open_with}. *)
