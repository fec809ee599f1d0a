(** Any backend as a path: the code that measures does not know which. *)

module Make (_ : Sidecaml.Backend.S) : sig
  include Bench_loop.Path.S

  val open_model :
    ?socket:string -> ?policy:Sidecaml.Backend.policy -> ?lock:Sidecaml.Backend.lock -> string -> t
  (** As {!Sidecaml.Backend.S.open_model}, with one slot.
      @raise Bench_loop.Failed.Failed when the model cannot be opened *)
end
