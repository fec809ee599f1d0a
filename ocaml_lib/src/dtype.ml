open Bigarray

type (_, _) t =
  | Float32 : (float, float32_elt) t
  | Float64 : (float, float64_elt) t
  | Float16 : (int, int16_unsigned_elt) t
  | Bfloat16 : (int, int16_unsigned_elt) t
  | Int8 : (int, int8_signed_elt) t
  | Int16 : (int, int16_signed_elt) t
  | Int32 : (int32, int32_elt) t
  | Int64 : (int64, int64_elt) t
  | Uint8 : (int, int8_unsigned_elt) t
  | Uint16 : (int, int16_unsigned_elt) t
  | Uint32 : (int32, int32_elt) t
  | Uint64 : (int64, int64_elt) t
  | Bool : (int, int8_unsigned_elt) t
  | Complex64 : (Complex.t, complex32_elt) t
  | Complex128 : (Complex.t, complex64_elt) t
  | Float8e4m3fn : (int, int8_unsigned_elt) t
  | Float8e4m3fnuz : (int, int8_unsigned_elt) t
  | Float8e5m2 : (int, int8_unsigned_elt) t
  | Float8e5m2fnuz : (int, int8_unsigned_elt) t
  | Float8e8m0 : (int, int8_unsigned_elt) t
  | Float4e2m1 : (int, int8_unsigned_elt) t
  | Int4 : (int, int8_unsigned_elt) t
  | Uint4 : (int, int8_unsigned_elt) t
  | Int2 : (int, int8_unsigned_elt) t
  | Uint2 : (int, int8_unsigned_elt) t
  | String : (int, int8_unsigned_elt) t

type any = Any : ('a, 'b) t -> any
type (_, _, _, _) eq = Equal : ('a, 'b, 'a, 'b) eq

let equal : type a b c d. (a, b) t -> (c, d) t -> (a, b, c, d) eq option =
 fun x y ->
  match (x, y) with
  | Float32, Float32 -> Some Equal
  | Float64, Float64 -> Some Equal
  | Float16, Float16 -> Some Equal
  | Bfloat16, Bfloat16 -> Some Equal
  | Int8, Int8 -> Some Equal
  | Int16, Int16 -> Some Equal
  | Int32, Int32 -> Some Equal
  | Int64, Int64 -> Some Equal
  | Uint8, Uint8 -> Some Equal
  | Uint16, Uint16 -> Some Equal
  | Uint32, Uint32 -> Some Equal
  | Uint64, Uint64 -> Some Equal
  | Bool, Bool -> Some Equal
  | Complex64, Complex64 -> Some Equal
  | Complex128, Complex128 -> Some Equal
  | Float8e4m3fn, Float8e4m3fn -> Some Equal
  | Float8e4m3fnuz, Float8e4m3fnuz -> Some Equal
  | Float8e5m2, Float8e5m2 -> Some Equal
  | Float8e5m2fnuz, Float8e5m2fnuz -> Some Equal
  | Float8e8m0, Float8e8m0 -> Some Equal
  | Float4e2m1, Float4e2m1 -> Some Equal
  | Int4, Int4 -> Some Equal
  | Uint4, Uint4 -> Some Equal
  | Int2, Int2 -> Some Equal
  | Uint2, Uint2 -> Some Equal
  | String, String -> Some Equal
  | _ -> None

let kind : type a b. (a, b) t -> (a, b) kind = function
  | Float32 -> float32
  | Float64 -> float64
  | Float16 -> int16_unsigned
  | Bfloat16 -> int16_unsigned
  | Int8 -> int8_signed
  | Int16 -> int16_signed
  | Int32 -> int32
  | Int64 -> int64
  | Uint8 -> int8_unsigned
  | Uint16 -> int16_unsigned
  | Uint32 -> int32
  | Uint64 -> int64
  | Bool -> int8_unsigned
  | Complex64 -> complex32
  | Complex128 -> complex64
  | Float8e4m3fn -> int8_unsigned
  | Float8e4m3fnuz -> int8_unsigned
  | Float8e5m2 -> int8_unsigned
  | Float8e5m2fnuz -> int8_unsigned
  | Float8e8m0 -> int8_unsigned
  | Float4e2m1 -> int8_unsigned
  | Int4 -> int8_unsigned
  | Uint4 -> int8_unsigned
  | Int2 -> int8_unsigned
  | Uint2 -> int8_unsigned
  | String -> int8_unsigned

let bits : type a b. (a, b) t -> int = function
  | String -> 0
  | Int2 | Uint2 -> 2
  | Int4 | Uint4 | Float4e2m1 -> 4
  | dtype -> 8 * kind_size_in_bytes (kind dtype)

let is_flat : type a b. (a, b) t -> bool = function
  | String | Int2 | Uint2 | Int4 | Uint4 | Float4e2m1 -> true
  | _ -> false

(* In this order no number wraps before the result does. *)
let size_in_bytes : type a b. (a, b) t -> elements:int -> int =
 fun dtype ~elements ->
  match dtype with
  | String -> 8 * (elements + 1)
  | _ ->
      let bits = bits dtype in
      if bits >= 8 then elements * (bits / 8) else ((elements / 8) * bits) + (((elements mod 8 * bits) + 7) / 8)

let name : type a b. (a, b) t -> string = function
  | Float32 -> "float32"
  | Float64 -> "float64"
  | Float16 -> "float16"
  | Bfloat16 -> "bfloat16"
  | Int8 -> "int8"
  | Int16 -> "int16"
  | Int32 -> "int32"
  | Int64 -> "int64"
  | Uint8 -> "uint8"
  | Uint16 -> "uint16"
  | Uint32 -> "uint32"
  | Uint64 -> "uint64"
  | Bool -> "bool"
  | Complex64 -> "complex64"
  | Complex128 -> "complex128"
  | Float8e4m3fn -> "float8e4m3fn"
  | Float8e4m3fnuz -> "float8e4m3fnuz"
  | Float8e5m2 -> "float8e5m2"
  | Float8e5m2fnuz -> "float8e5m2fnuz"
  | Float8e8m0 -> "float8e8m0"
  | Float4e2m1 -> "float4e2m1"
  | Int4 -> "int4"
  | Uint4 -> "uint4"
  | Int2 -> "int2"
  | Uint2 -> "uint2"
  | String -> "string"

let all =
  [
    Any Float32;
    Any Float64;
    Any Float16;
    Any Bfloat16;
    Any Int8;
    Any Int16;
    Any Int32;
    Any Int64;
    Any Uint8;
    Any Uint16;
    Any Uint32;
    Any Uint64;
    Any Bool;
    Any Complex64;
    Any Complex128;
    Any Float8e4m3fn;
    Any Float8e4m3fnuz;
    Any Float8e5m2;
    Any Float8e5m2fnuz;
    Any Float8e8m0;
    Any Float4e2m1;
    Any Int4;
    Any Uint4;
    Any Int2;
    Any Uint2;
    Any String;
  ]

let of_name wanted = List.find_opt (fun (Any dtype) -> name dtype = wanted) all
