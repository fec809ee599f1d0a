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

let bytes dtype = kind_size_in_bytes (kind dtype)

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
  ]

let of_name wanted = List.find_opt (fun (Any dtype) -> name dtype = wanted) all
