open Bigarray
module Dtype = Sidecaml.Dtype

let most_shown = 16

let reduced dtype code = Printf.sprintf "%.4g" (Sidecaml.Convert.to_float dtype code)
let signed bits code = string_of_int (if code >= 1 lsl (bits - 1) then code - (1 lsl bits) else code)
let complex : _ format -> Complex.t -> string = fun format { re; im } -> Printf.sprintf format re im

let element : type a b. (a, b) Dtype.t -> a -> string = function
  | Float32 -> Printf.sprintf "%.7g"
  | Float64 -> Printf.sprintf "%.15g"
  | Float16 -> reduced Float16
  | Bfloat16 -> fun code -> Printf.sprintf "%.3g" (Sidecaml.Convert.to_float Bfloat16 code)
  | Float8e4m3fn -> reduced Float8e4m3fn
  | Float8e4m3fnuz -> reduced Float8e4m3fnuz
  | Float8e5m2 -> reduced Float8e5m2
  | Float8e5m2fnuz -> reduced Float8e5m2fnuz
  | Float8e8m0 -> reduced Float8e8m0
  | Float4e2m1 -> reduced Float4e2m1
  | Int4 -> signed 4
  | Int2 -> signed 2
  | Uint4 -> string_of_int
  | Uint2 -> string_of_int
  | Complex64 -> complex "%.7g%+.7gj"
  | Complex128 -> complex "%.15g%+.15gj"
  | String -> string_of_int
  | Int8 -> string_of_int
  | Int16 -> string_of_int
  | Int32 -> Int32.to_string
  | Int64 -> Int64.to_string
  | Uint8 -> string_of_int
  | Uint16 -> string_of_int
  | Uint32 -> Printf.sprintf "%lu"
  | Uint64 -> Printf.sprintf "%Lu"
  | Bool -> fun byte -> string_of_bool (byte <> 0)

let lines name type_name dims element =
  let elements = Array.fold_left ( * ) 1 dims in
  let shown = List.init (min elements most_shown) element in
  let more = if elements > most_shown then Printf.sprintf " ... (%d more)" (elements - most_shown) else "" in
  let shape = String.concat "," (List.map string_of_int (Array.to_list dims)) in
  Printf.sprintf "%s %s[%s]\n  %s%s\n" name type_name shape (String.concat " " shown) more

(* Element [i] of what is packed. *)
let code_at : type a b. (a, b) Dtype.t -> (a, b, c_layout) Array1.t -> int -> a =
 fun dtype flat i ->
  let packed (bytes : (int, int8_unsigned_elt, c_layout) Array1.t) : int =
    let bits = Dtype.bits dtype in
    (bytes.{i * bits / 8} lsr (i * bits mod 8)) land ((1 lsl bits) - 1)
  in
  match dtype with
  | Int4 -> packed flat
  | Uint4 -> packed flat
  | Int2 -> packed flat
  | Uint2 -> packed flat
  | Float4e2m1 -> packed flat
  | _ -> flat.{i}

let tensor name dims (Npy.Npy (dtype, array)) =
  let flat = reshape_1 array (Array.fold_left ( * ) 1 (Genarray.dims array)) in
  lines name (Dtype.name dtype) dims (fun i -> element dtype (code_at dtype flat i))

let strings name dims strings =
  lines name "string" dims (fun i -> Printf.sprintf "%S" (Sidecaml.Strings.get strings i))

let percentiles microseconds =
  let sorted = Array.copy microseconds in
  Array.sort compare sorted;
  let last = Array.length sorted - 1 in
  let at share = sorted.(min last (int_of_float (share *. float_of_int (last + 1)))) in
  Printf.sprintf "p50 %.2f us  p90 %.2f us  p99 %.2f us  p99.9 %.2f us  max %.2f us" (at 0.5) (at 0.9) (at 0.99)
    (at 0.999) sorted.(last)
