(** Element types, each tied to the Bigarray that carries it.

    [Sidecaml.input2 model "image" Float32] gives a [(float, Bigarray.float32_elt, Bigarray.c_layout) Bigarray.Array2.t],
    known statically, so that element accesses compile to plain loads and stores.

    OCaml has no Bigarray of some element types. They are carried by one of the same size, and the program sees the
    bits:

    - {!Float16} and {!Bfloat16} as [int16_unsigned]: the 16 bits of the number;
    - {!Uint32} as [int32] and {!Uint64} as [int64]: the same bits, so that numbers above the signed maximum look
      negative (see [Int32.unsigned_to_int] and [Printf]'s [%lu]);
    - {!Bool} as [int8_unsigned]: 0 is false, 1 is true, nothing else may be written;
    - the types of 8 bits as [int8_unsigned]: the bits of the number;
    - {!Int4}, {!Uint4}, {!Int2}, {!Uint2} and {!Float4e2m1} as the bytes that they are packed in, as [int8_unsigned]: the
      first number in the low bits, over the whole tensor in C order. Whatever the tensor's dimensions, its view is flat,
      of {!size_in_bytes} elements: for [input1] and [output1], as for [input] and [output];
    - {!String} as the bytes of its place, flat in the same way. {!Strings} reads and writes them.

    {!Convert} makes float32 and int8 of those that OCaml has no numbers for, and back. *)

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
  | Complex64 : (Complex.t, Bigarray.complex32_elt) t
  | Complex128 : (Complex.t, Bigarray.complex64_elt) t
  | Float8e4m3fn : (int, Bigarray.int8_unsigned_elt) t
  | Float8e4m3fnuz : (int, Bigarray.int8_unsigned_elt) t
  | Float8e5m2 : (int, Bigarray.int8_unsigned_elt) t
  | Float8e5m2fnuz : (int, Bigarray.int8_unsigned_elt) t
  | Float8e8m0 : (int, Bigarray.int8_unsigned_elt) t
  | Float4e2m1 : (int, Bigarray.int8_unsigned_elt) t
  | Int4 : (int, Bigarray.int8_unsigned_elt) t
  | Uint4 : (int, Bigarray.int8_unsigned_elt) t
  | Int2 : (int, Bigarray.int8_unsigned_elt) t
  | Uint2 : (int, Bigarray.int8_unsigned_elt) t
  | String : (int, Bigarray.int8_unsigned_elt) t

type any = Any : ('a, 'b) t -> any  (** An element type that is known only at run time. *)

(** That two pairs of types are the same. *)
type (_, _, _, _) eq = Equal : ('a, 'b, 'a, 'b) eq

val equal : ('a, 'b) t -> ('c, 'd) t -> ('a, 'b, 'c, 'd) eq option
(** [equal a b] is [Some Equal] when [a] and [b] are the same element type: [equal Uint16 Float16] is [None], although
    one Bigarray carries both. *)

val kind : ('a, 'b) t -> ('a, 'b) Bigarray.kind
(** [kind dtype] is that of the Bigarray that carries it. *)

val bits : ('a, 'b) t -> int
(** [bits dtype] is the size of one element: less than 8 of a type that is packed, 0 of {!String}. *)

val size_in_bytes : ('a, 'b) t -> elements:int -> int
(** [size_in_bytes dtype ~elements] is that of a tensor; of {!String} that of the table before the text. *)

val is_flat : ('a, 'b) t -> bool
(** [is_flat dtype]: whether its views are flat arrays of bytes, whatever the tensor's dimensions. *)

val name : ('a, 'b) t -> string
(** [name Float32] is ["float32"]. *)

val of_name : string -> any option
(** [of_name "float32"] is [Some (Any Float32)]. *)

val all : any list
(** Every element type. *)
