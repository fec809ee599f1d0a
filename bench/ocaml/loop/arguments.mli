(** The command lines. A path takes of them what it needs. *)

type t = {
  choice : string;  (** of the path, or what else there is to choose *)
  model : string option;  (** the model's file *)
  name : string option;  (** of the model in the daemon *)
  socket : string option;  (** the daemon's *)
  server_core : int option;  (** for the other side, where it is a thread of this process *)
}

val driver : unit -> t
(** [driver ()] reads the command line of a driver, which chooses by [--path].
    @raise Failed.Failed for arguments that cannot be read, or without the choice *)

type measurement = { arguments : t; count : int; file : string  (** for the samples *) }

val measurement : string -> measurement
(** [measurement "--scenario"] reads the command line of a program that measures once.
    @raise Failed.Failed as {!driver}, or without count or file *)

val model : t -> string
(** [model t] is there.
    @raise Failed.Failed when it is missing *)

val name : t -> string
(** As {!model}. *)

val server_core : t -> int
(** As {!model}. *)
