(** The lines between a driver and whoever runs the benchmark. *)

module Make (P : Path.S) : sig
  val serve : P.t -> unit
  (** [serve path] calls once, says [ready], obeys the lines of standard input until it ends, and closes [path].
      @raise Failed.Failed when something fails, or a line is no command *)
end
