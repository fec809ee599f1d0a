(** What an open makes of a model's dynamic dimensions, in the daemon's words. *)

val bind : Model.t -> (string * int) list -> (int array list, Error.t) result
(** [bind model dims] are the largest dimensions of every tensor, inputs first, where [dims] gives the maximum of each
    dynamic dimension; [Bad_dims] for one without maximum, a maximum without dimension, and an unusable number. *)

val maximum : (string * int) list -> Model.dim -> int
(** [maximum dims dim] is the largest size of a dimension that {!bind} found nothing wrong with. *)

val text_bytes : Model.tensor -> int array -> int option -> int
(** [text_bytes tensor max_dims given] is the room for text of one slot: what was given, or a default, for a tensor of
    strings; 0 for another. *)

val places_of_state : int
(** Carried state has that many, however many slots there are. *)

val bytes :
  slots:int -> dims:(string * int) list -> text_bytes:int option -> Model.t -> int array list -> (int, Error.t) result
(** [bytes ~slots ~dims ~text_bytes model max_dims] is what the tensors take, [max_dims] being what {!bind} made of [dims],
    and the carried state; [No_memory] when no machine has that. *)
