(** Tensors and times as text. *)

val tensor : string -> int array -> Npy.t -> string
(** [tensor name dims array] is a line with name, type and dimensions, and a line with the first elements. *)

val strings : string -> int array -> Sidecaml.Strings.t -> string
(** [strings name dims elements] is the same of strings, in quotation marks. *)

val percentiles : float array -> string
(** [percentiles microseconds] is one line: p50, p90, p99, p99.9 and the largest. *)
