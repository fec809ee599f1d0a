(** The backends that the same tests run on, each with the models of [support/serve.py]. *)

module type S = sig
  include Sidecaml.Backend.S

  val label : string

  val socket : unit -> string
  (** [socket ()] makes sure that the models are there; backends without a daemon take no notice of it. *)

  val computes : string -> bool
  (** [computes name]: whether it has that model. *)

  val too_large : Sidecaml.Error.code
  (** What it calls more memory than it gives. *)
end

module Daemon : S
module In_process : S
module Mock : S

module Resilient : S
(** The daemon, behind {!Sidecaml.Resilient}. *)

val all : (module S) list
