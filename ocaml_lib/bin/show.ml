open Bigarray
module Dtype = Sidecaml.Dtype

let most_shown = 16

let float_of_float16 bits =
  let sign = if bits land 0x8000 = 0 then 1. else -1. in
  let exponent = (bits lsr 10) land 0x1f and fraction = float_of_int (bits land 0x3ff) in
  match exponent with
  | 0 -> sign *. ldexp fraction (-24)
  | 31 -> if fraction = 0. then sign *. infinity else nan
  | _ -> sign *. ldexp (1024. +. fraction) (exponent - 25)

let float_of_bfloat16 bits = Int32.float_of_bits (Int32.shift_left (Int32.of_int bits) 16)

let element : type a b. (a, b) Dtype.t -> a -> string = function
  | Float32 -> Printf.sprintf "%.7g"
  | Float64 -> Printf.sprintf "%.15g"
  | Float16 -> fun bits -> Printf.sprintf "%.4g" (float_of_float16 bits)
  | Bfloat16 -> fun bits -> Printf.sprintf "%.3g" (float_of_bfloat16 bits)
  | Int8 -> string_of_int
  | Int16 -> string_of_int
  | Int32 -> Int32.to_string
  | Int64 -> Int64.to_string
  | Uint8 -> string_of_int
  | Uint16 -> string_of_int
  | Uint32 -> Printf.sprintf "%lu"
  | Uint64 -> Printf.sprintf "%Lu"
  | Bool -> fun byte -> string_of_bool (byte <> 0)

let tensor name (Npy.Npy (dtype, array)) =
  let dims = Genarray.dims array in
  let elements = Array.fold_left ( * ) 1 dims in
  let flat = reshape_1 array elements in
  let shown = List.init (min elements most_shown) (fun i -> element dtype flat.{i}) in
  let more = if elements > most_shown then Printf.sprintf " ... (%d more)" (elements - most_shown) else "" in
  let shape = String.concat "," (List.map string_of_int (Array.to_list dims)) in
  Printf.sprintf "%s %s[%s]\n  %s%s\n" name (Dtype.name dtype) shape (String.concat " " shown) more

let percentiles microseconds =
  let sorted = Array.copy microseconds in
  Array.sort compare sorted;
  let last = Array.length sorted - 1 in
  let at share = sorted.(min last (int_of_float (share *. float_of_int (last + 1)))) in
  Printf.sprintf "p50 %.2f us  p90 %.2f us  p99 %.2f us  p99.9 %.2f us  max %.2f us" (at 0.5) (at 0.9) (at 0.99)
    (at 0.999) sorted.(last)
