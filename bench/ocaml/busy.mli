(** A thread that computes in OCaml without pause. *)

val beside : (unit -> 'a) -> 'a
(** [beside work] is [work ()], with such a thread beside it until then. *)
