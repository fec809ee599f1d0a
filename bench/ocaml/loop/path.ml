(** A way of running a model: what is measured. *)

module type S = sig
  type t

  val inputs : t -> Tensor.t array
  (** [inputs t], in the model's order. *)

  val outputs : t -> Tensor.t array
  (** [outputs t], in the model's order. *)

  val wake : t -> unit
  (** [wake t] comes before a series of calls. *)

  val run : t -> unit
  (** [run t] runs the model on the inputs.
      @raise Failed.Failed when it fails *)

  val rest : t -> unit
  (** [rest t] comes after a series of calls: from then on nothing of [t] uses the processor. *)

  val close : t -> unit

  val allocates : bool
  (** Whether {!run} allocates in the OCaml heap. *)
end
