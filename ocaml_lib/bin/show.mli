(** Tensors and times as text. *)

val tensor : string -> Npy.t -> string
(** [tensor name array] is a line with name, type and dimensions, and a line with the first elements. *)

val percentiles : float array -> string
(** [percentiles microseconds] is one line: p50, p90, p99, p99.9 and the largest. *)
