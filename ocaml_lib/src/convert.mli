(** Whole arrays of element types that OCaml has no numbers for, from and to those that it has.

    {[
      let x = Sidecaml.input2 m "image" Float16 in
      Sidecaml.Convert.of_float32 Float16 (genarray_of_array2 pixels) (genarray_of_array2 x)
    ]}

    Both arrays have the same number of elements, in C order; their dimensions may differ, so that an array of any rank
    goes to a flat one and back. [genarray_of_array1] and its like cost nothing. The arrays must not overlap.

    No function here allocates, and none raises but [Invalid_argument] for arrays whose sizes do not fit. The runtime lock
    is kept; from OCaml 4.14 on, other threads and other domains' collections get their turn every few thousand elements. *)

type ('a, 'b) array = ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t

(** {1 Numbers with fewer bits than float32} *)

(** Each named as in {!Dtype}, and tied to the Bigarray that carries it. [Float4e2m1] is packed: two numbers a byte, the
    first in the low four bits, [(n + 1) / 2] bytes for [n] numbers. *)
type _ reduced =
  | Float16 : Bigarray.int16_unsigned_elt reduced
  | Bfloat16 : Bigarray.int16_unsigned_elt reduced
  | Float8e4m3fn : Bigarray.int8_unsigned_elt reduced
  | Float8e4m3fnuz : Bigarray.int8_unsigned_elt reduced
  | Float8e5m2 : Bigarray.int8_unsigned_elt reduced
  | Float8e5m2fnuz : Bigarray.int8_unsigned_elt reduced
  | Float4e2m1 : Bigarray.int8_unsigned_elt reduced
  | Float8e8m0 : Bigarray.int8_unsigned_elt reduced

type round = [ `Up | `Down | `Nearest ]

val to_float32 : 'elt reduced -> (int, 'elt) array -> (float, Bigarray.float32_elt) array -> unit
(** [to_float32 Float16 src dst] is exact. NaN stays NaN, with its sign where the type has one for it. *)

val of_float32 :
  ?saturate:bool -> ?round:round -> 'elt reduced -> (float, Bigarray.float32_elt) array -> (int, 'elt) array -> unit
(** [of_float32 Float16 src dst] rounds to the nearest number that the type has, and of two that are as near to the one
    whose last bit is 0: what ONNX's operator Cast does.

    What is too large for [Float16] and [Bfloat16] becomes infinity, and for [Float4e2m1] the largest number (6), as does
    infinity itself; its NaN becomes a zero of the other sign.

    @param saturate for the types of 8 bits: what is too large, infinity too, becomes the largest number (and for
      [Float8e8m0] what is too small, zero and negative numbers too, the smallest). Otherwise it becomes infinity where
      the type has one ([Float8e5m2]), else NaN. Default: [true], as Cast.
    @param round for [Float8e8m0] alone, which has powers of two: away from zero, towards it, or to the nearest, upwards
      where two are as near. Default: [`Up], as Cast. *)

val to_float : 'elt reduced -> int -> float
(** [to_float Float16 0x3c00] is [1.], that of one code. Of [Float4e2m1] it takes the four low bits. *)

(** {1 Integers with fewer bits than a byte} *)

(** Packed in bytes, the first number in the low bits: two a byte of four bits, four of two bits. Each is tied to the
    Bigarray that it unpacks to. *)
type _ packed =
  | Int4 : Bigarray.int8_signed_elt packed
  | Uint4 : Bigarray.int8_unsigned_elt packed
  | Int2 : Bigarray.int8_signed_elt packed
  | Uint2 : Bigarray.int8_unsigned_elt packed

val unpack : 'elt packed -> (int, Bigarray.int8_unsigned_elt) array -> (int, 'elt) array -> unit
(** [unpack Int4 src dst] writes as many numbers as [dst] has elements: [src] has the bytes that they take, no more. *)

val pack : 'elt packed -> (int, 'elt) array -> (int, Bigarray.int8_unsigned_elt) array -> unit
(** [pack Int4 src dst] keeps the low bits of numbers that do not fit (as Cast: 200 becomes -56 in 8 bits). Bits beyond
    the last number become 0. *)
