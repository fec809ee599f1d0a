(** What a client asks for, and what must come of it.

    Each request carries a number that the model gives back beside its answer, and never the same twice. Outputs are
    overwritten before the request is submitted: an answer that nobody computed is none. *)

type t = {
  fill : slot:int -> id:int -> unit;  (** writes the inputs, and spoils the outputs *)
  check : slot:int -> id:int -> (unit, string) result;  (** in the order of the ids *)
}

val names : string list

val find : string -> table:string option -> Sidecaml.t -> t
(** [find name ~table channel] is the job of that name on a channel that was just opened. [table]: inputs and answers that
    were computed beforehand.

    Raises [Failure] for an unknown name. *)

val dims : string -> (string * int) list
(** [dims name] are the largest dimensions that the job needs. *)
