(** Bigarrays as their bytes: an element that passes through OCaml's floats may come out with other bits (NaNs). *)

type ('a, 'b) array = ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t

val fill : ('a, 'b) array -> string -> unit
(** [fill array bytes] writes all of an array.

    Raises [Invalid_argument] when it is not as large as the bytes. *)

val contents : ('a, 'b) array -> string
(** [contents array] is its bytes. *)
