(** Arrays in numpy's [.npy] files, as far as models use them: little-endian, C order, every element type of
    {!Sidecaml.Dtype}.

    numpy has no bfloat16: its two bytes are written as [V2], as numpy does for types of other packages, and read back
    from that. *)

type t = Npy : ('a, 'b) Sidecaml.Dtype.t * ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t -> t

val read : string -> (t, string) result
(** [read path] is a file's array. Whatever the file holds, the outcome is an array or a sentence that names the file and
    what is wrong with it; no more memory is taken than the file is large. *)

val write : string -> t -> (unit, string) result
(** [write path array] writes a file, replacing what was there. *)

val of_string : string -> (t, string) result
(** [of_string contents] reads what a file would hold. *)

val to_string : t -> string
(** [to_string array] is what a file would hold. *)
