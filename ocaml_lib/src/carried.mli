(** Which tensors of a model are its state, and what is left for programs to see. *)

type t = {
  whole : Model.t;
  visible : Model.t;
  pairs : (int * int) array;
      (** Of each pair, the numbers of its input and output in the whole model, inputs first; in the order of
          [visible.carried]. *)
}

val none : Model.t -> t
(** [none model] carries nothing. *)

val carry : Model.t -> (string * string) list -> (t, string) result
(** [carry model pairs] takes the pairs, (output, input), out of what is visible; or what is wrong with them, in the words
    in which a daemon says it of its configuration. *)
