(** Arrays in numpy's [.npy] files, as far as models use them: little-endian, C order, every element type of
    {!Sidecaml.Dtype}.

    Types that numpy has not are written as bytes without a meaning, as numpy does for types of other packages: [V2] of
    bfloat16, [V1] of those of 8 bits. Packed types are flat arrays of the bytes that hold them, as their views are, and
    written as such ([u1]). [expected] says which of several types that are written alike a file holds. *)

type t = Npy : ('a, 'b) Sidecaml.Dtype.t * ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t -> t

val read : ?expected:Sidecaml.Dtype.any -> string -> (t, string) result
(** [read path] is a file's array. Whatever the file holds, the outcome is an array or a sentence that names the file and
    what is wrong with it; no more memory is taken than the file is large. *)

val write : string -> t -> (unit, string) result
(** [write path array] writes a file, replacing what was there. *)

val of_string : ?expected:Sidecaml.Dtype.any -> string -> (t, string) result
(** [of_string contents] reads what a file would hold. *)

val to_string : t -> string
(** [to_string array] is what a file would hold. *)
