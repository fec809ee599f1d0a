(** What an open makes of a model's dynamic dimensions, in the daemon's words. *)

val bind : Model.t -> (string * int) list -> (int array list, Error.t) result
(** [bind model dims] are the largest dimensions of every tensor, inputs first, where [dims] gives the maximum of each
    dynamic dimension; [Bad_dims] for one without maximum, a maximum without dimension, and an unusable number. *)

val maximum : (string * int) list -> Model.dim -> int
(** [maximum dims dim] is the largest size of a dimension that {!bind} found nothing wrong with. *)

val bytes : slots:int -> Model.t -> int array list -> (int, Error.t) result
(** [bytes ~slots model max_dims] is what the tensors take; [No_memory] when no machine has that. *)
