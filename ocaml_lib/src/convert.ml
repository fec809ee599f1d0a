open Bigarray

type ('a, 'b) array = ('a, 'b, c_layout) Genarray.t

type _ reduced =
  | Float16 : int16_unsigned_elt reduced
  | Bfloat16 : int16_unsigned_elt reduced
  | Float8e4m3fn : int8_unsigned_elt reduced
  | Float8e4m3fnuz : int8_unsigned_elt reduced
  | Float8e5m2 : int8_unsigned_elt reduced
  | Float8e5m2fnuz : int8_unsigned_elt reduced
  | Float4e2m1 : int8_unsigned_elt reduced
  | Float8e8m0 : int8_unsigned_elt reduced

type _ packed =
  | Int4 : int8_signed_elt packed
  | Uint4 : int8_unsigned_elt packed
  | Int2 : int8_signed_elt packed
  | Uint2 : int8_unsigned_elt packed

type round = [ `Up | `Down | `Nearest ]

external elements : ('a, 'b) array -> int = "sidecaml_ml_elements" [@@noalloc]
external c_to_float32 : int -> ('a, 'b) array -> ('c, 'd) array -> int -> int -> unit = "sidecaml_ml_to_float32" [@@noalloc]
external c_of_float32 : int -> ('a, 'b) array -> ('c, 'd) array -> int -> int -> unit = "sidecaml_ml_of_float32" [@@noalloc]
external c_unpack : int -> ('a, 'b) array -> ('c, 'd) array -> int -> int -> unit = "sidecaml_ml_unpack" [@@noalloc]
external c_pack : int -> ('a, 'b) array -> ('c, 'd) array -> int -> int -> unit = "sidecaml_ml_pack" [@@noalloc]

external float_of_code : (int[@untagged]) -> (int[@untagged]) -> (float[@unboxed])
  = "sidecaml_ml_float_of_code_byte" "sidecaml_ml_float_of_code_native"
  [@@noalloc]

(* The numbers that the stubs know the types by. *)

let number_of_reduced : type a. a reduced -> int = function
  | Float16 -> 0
  | Bfloat16 -> 1
  | Float8e4m3fn -> 2
  | Float8e4m3fnuz -> 3
  | Float8e5m2 -> 4
  | Float8e5m2fnuz -> 5
  | Float4e2m1 -> 6
  | Float8e8m0 -> 7

let number_of_packed : type a. a packed -> int = function Int4 -> 0 | Uint4 -> 1 | Int2 -> 2 | Uint2 -> 3

(* --- Sizes ---------------------------------------------------------------------------------------------------------- *)

let per_element_or_pair : type a. a reduced -> int = function Float4e2m1 -> 2 | _ -> 1
let per_byte : type a. a packed -> int = function Int4 | Uint4 -> 2 | Int2 | Uint2 -> 4

(* [n] numbers, so many of which share an element of the array of [found]. *)
let check call n ~share found =
  let wanted = (n + share - 1) / share in
  if found <> wanted then
    invalid_arg
      (Printf.sprintf "Sidecaml.Convert.%s: %d numbers take %d elements of the reduced type's array, and it has %d" call n
         wanted found)

(* --- In stretches ---------------------------------------------------------------------------------------------------

   A stretch takes some tens of microseconds, and fills whole bytes of packed types. Between two of them threads may be
   switched and collections begin. *)

let stretch = 8_192

let rec from_to convert mode src dst first n =
  if first < n then begin
    convert mode src dst first (min stretch (n - first));
    from_to convert mode src dst (first + stretch) n
  end

let to_float32 dtype src dst =
  let n = elements dst in
  check "to_float32" n ~share:(per_element_or_pair dtype) (elements src);
  from_to c_to_float32 (number_of_reduced dtype) src dst 0 n

let number_of_round = function `Up -> 0 | `Down -> 1 | `Nearest -> 2

let of_float32 ?(saturate = true) ?(round = `Up) dtype src dst =
  let n = elements src in
  check "of_float32" n ~share:(per_element_or_pair dtype) (elements dst);
  let mode = number_of_reduced dtype + (16 * number_of_round round) + if saturate then 64 else 0 in
  from_to c_of_float32 mode src dst 0 n

let to_float dtype code = float_of_code (number_of_reduced dtype) code

let unpack dtype src dst =
  let n = elements dst in
  check "unpack" n ~share:(per_byte dtype) (elements src);
  from_to c_unpack (number_of_packed dtype) src dst 0 n

let pack dtype src dst =
  let n = elements src in
  check "pack" n ~share:(per_byte dtype) (elements dst);
  from_to c_pack (number_of_packed dtype) src dst 0 n
