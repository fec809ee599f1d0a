(** The loop that measures. *)

type plan = {
  touch : int;  (** bytes of the caller's own memory that it touches between calls *)
  count : int;  (** most calls to time: 1 or more *)
  budget_ns : int;  (** no further call begins after so long, but 20 are made *)
}

module Make (P : Path.S) : sig
  val once : P.t -> unit
  (** [once path] is one call. *)

  val measure : P.t -> plan -> Samples.t * int
  (** [measure path plan] warms up and times calls: the samples, and how many there are. Each takes filling every
      input, running, and reading every output.
      @raise Failed.Failed when a call fails, or allocates although the path says that it does not *)

  val outputs : P.t -> int -> out_channel -> unit
  (** [outputs path seeds out] writes the bytes of every output for each seed.
      @raise Failed.Failed when a call fails *)
end
