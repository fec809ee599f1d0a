(** Element types, each tied to the Bigarray that carries it.

    [Sidecaml.input2 model "image" Float32] gives a [(float, Bigarray.float32_elt, Bigarray.c_layout) Bigarray.Array2.t],
    known statically, so that element accesses compile to plain loads and stores.

    OCaml has no Bigarray of some element types. They are carried by one of the same size, and the program sees the
    bits:

    - {!Float16} and {!Bfloat16} as [int16_unsigned]: the 16 bits of the number;
    - {!Uint32} as [int32] and {!Uint64} as [int64]: the same bits, so that numbers above the signed maximum look
      negative (see [Int32.unsigned_to_int] and [Printf]'s [%lu]);
    - {!Bool} as [int8_unsigned]: 0 is false, 1 is true, nothing else may be written. *)

type (_, _) t =
  | Float32 : (float, Bigarray.float32_elt) t
  | Float64 : (float, Bigarray.float64_elt) t
  | Float16 : (int, Bigarray.int16_unsigned_elt) t
  | Bfloat16 : (int, Bigarray.int16_unsigned_elt) t
  | Int8 : (int, Bigarray.int8_signed_elt) t
  | Int16 : (int, Bigarray.int16_signed_elt) t
  | Int32 : (int32, Bigarray.int32_elt) t
  | Int64 : (int64, Bigarray.int64_elt) t
  | Uint8 : (int, Bigarray.int8_unsigned_elt) t
  | Uint16 : (int, Bigarray.int16_unsigned_elt) t
  | Uint32 : (int32, Bigarray.int32_elt) t
  | Uint64 : (int64, Bigarray.int64_elt) t
  | Bool : (int, Bigarray.int8_unsigned_elt) t

type any = Any : ('a, 'b) t -> any  (** An element type that is known only at run time. *)

(** That two pairs of types are the same. *)
type (_, _, _, _) eq = Equal : ('a, 'b, 'a, 'b) eq

val equal : ('a, 'b) t -> ('c, 'd) t -> ('a, 'b, 'c, 'd) eq option
(** [equal a b] is [Some Equal] when [a] and [b] are the same element type: [equal Uint16 Float16] is [None], although
    one Bigarray carries both. *)

val kind : ('a, 'b) t -> ('a, 'b) Bigarray.kind
(** [kind dtype] is that of the Bigarray that carries it. *)

val bytes : ('a, 'b) t -> int
(** [bytes dtype] is the size of one element. *)

val name : ('a, 'b) t -> string
(** [name Float32] is ["float32"]. *)

val of_name : string -> any option
(** [of_name "float32"] is [Some (Any Float32)]. *)

val all : any list
(** Every element type. *)
