(* Reduced and packed element types: against numpy, ml_dtypes and ONNX's Cast, on every code and around every rounding. *)

open Bigarray
open Check
module Convert = Sidecaml.Convert

(* --- What support/conversions.py knows ------------------------------------------------------------------------------- *)

let script = Filename.concat (Filename.dirname Sys.executable_name) "support/conversions.py"

let write_known folder =
  let command = Filename.quote_command (Support.Daemon.python ()) [ script; folder ] in
  if Sys.command ("ORT_DISABLE_TELEMETRY=1 " ^ command) <> 0 then failwith ("it failed: " ^ command)

let with_known f =
  let folder = Filename.temp_file "sidecaml-conversions" "" in
  Sys.remove folder;
  Unix.mkdir folder 0o700;
  Fun.protect
    ~finally:(fun () ->
      Array.iter (fun name -> Sys.remove (Filename.concat folder name)) (Sys.readdir folder);
      Unix.rmdir folder)
    (fun () ->
      write_known folder;
      f folder)

let read folder kind name =
  let file = Unix.openfile (Filename.concat folder name) [ O_RDONLY; O_CLOEXEC ] 0 in
  Fun.protect
    ~finally:(fun () -> Unix.close file)
    (fun () -> array1_of_genarray (Unix.map_file file kind c_layout false [| -1 |]))

(* --- The types -------------------------------------------------------------------------------------------------------- *)

type reduced = Reduced : { name : string; dtype : 'e Convert.reduced; kind : (int, 'e) kind; codes : int } -> reduced

let reduced =
  [
    Reduced { name = "float16"; dtype = Float16; kind = int16_unsigned; codes = 65536 };
    Reduced { name = "bfloat16"; dtype = Bfloat16; kind = int16_unsigned; codes = 65536 };
    Reduced { name = "float8e4m3fn"; dtype = Float8e4m3fn; kind = int8_unsigned; codes = 256 };
    Reduced { name = "float8e4m3fnuz"; dtype = Float8e4m3fnuz; kind = int8_unsigned; codes = 256 };
    Reduced { name = "float8e5m2"; dtype = Float8e5m2; kind = int8_unsigned; codes = 256 };
    Reduced { name = "float8e5m2fnuz"; dtype = Float8e5m2fnuz; kind = int8_unsigned; codes = 256 };
    Reduced { name = "float4e2m1"; dtype = Float4e2m1; kind = int8_unsigned; codes = 16 };
    Reduced { name = "float8e8m0"; dtype = Float8e8m0; kind = int8_unsigned; codes = 256 };
  ]

type packed = Packed : { name : string; dtype : 'e Convert.packed; kind : (int, 'e) kind; share : int } -> packed

let packed =
  [
    Packed { name = "int4"; dtype = Int4; kind = int8_signed; share = 2 };
    Packed { name = "uint4"; dtype = Uint4; kind = int8_unsigned; share = 2 };
    Packed { name = "int2"; dtype = Int2; kind = int8_signed; share = 4 };
    Packed { name = "uint2"; dtype = Uint2; kind = int8_unsigned; share = 4 };
  ]

let share (type e) : e Convert.reduced -> int = function Float4e2m1 -> 2 | _ -> 1

(* The code of number [i]: of four bits, two lie in a byte. *)
let code_at dtype (codes : (int, _, c_layout) Array1.t) i =
  if share dtype = 1 then codes.{i} else (codes.{i / 2} lsr (4 * (i land 1))) land 15

let narrow ?saturate ?round dtype kind (x : (float, float32_elt, c_layout) Array1.t) =
  let codes = Array1.create kind c_layout ((Array1.dim x + share dtype - 1) / share dtype) in
  Convert.of_float32 ?saturate ?round dtype (genarray_of_array1 x) (genarray_of_array1 codes);
  codes

let widen dtype codes n =
  let x = Array1.create Float32 c_layout n in
  Convert.to_float32 dtype (genarray_of_array1 codes) (genarray_of_array1 x);
  x

(* Codes 0, 1, 2 and so on, as the type lays them out. *)
let every_code dtype kind codes =
  let per = share dtype in
  Array1.init kind c_layout (codes / per) (fun i -> if per = 1 then i else (2 * i) lor (((2 * i) + 1) lsl 4))

(* --- Against the script ------------------------------------------------------------------------------------------------ *)

let same_number a b = Int32.bits_of_float a = Int32.bits_of_float b || (Float.is_nan a && Float.is_nan b)

let check_values folder (Reduced { name; dtype; kind; codes }) =
  let wanted = read folder Float32 (name ^ ".values") in
  let found = widen dtype (every_code dtype kind codes) codes in
  for code = 0 to codes - 1 do
    if not (same_number found.{code} wanted.{code}) then
      Alcotest.failf "%s: code %#x is %h, not %h" name code wanted.{code} found.{code};
    if not (same_number (Convert.to_float dtype code) wanted.{code}) then Alcotest.failf "%s: code %#x alone" name code
  done

(* A signalling NaN, which numpy hands on as one, and processors make a quiet one of. *)
let is_quieted name ~wanted found =
  name = "float16" && wanted land 0x7e00 = 0x7c00 && wanted land 0x1ff <> 0 && found land 0xfe00 = wanted land 0xfe00 lor 0x200

let check_codes ?saturate ?round folder (Reduced { name; dtype; kind; _ }) suffix =
  let inputs = read folder Float32 (name ^ ".inputs") and wanted = read folder kind (name ^ suffix) in
  let found = narrow ?saturate ?round dtype kind inputs in
  Alcotest.(check int) (name ^ suffix) (Array1.dim inputs) (Array1.dim wanted);
  for i = 0 to Array1.dim inputs - 1 do
    let code = code_at dtype found i in
    if code <> wanted.{i} && not (is_quieted name ~wanted:wanted.{i} code) then
      Alcotest.failf "%s%s: %h becomes %#x, not %#x" name suffix inputs.{i} wanted.{i} code
  done

let every_rounding folder (Reduced { name; _ } as row) =
  let without = check_codes ~saturate:false folder row and saturating = check_codes folder row in
  match name with
  | "float16" | "bfloat16" | "float4e2m1" ->
      without ".plain";
      saturating ".plain"
  | "float8e8m0" ->
      List.iter
        (fun (round, word) ->
          check_codes ~saturate:false ~round folder row (Printf.sprintf ".%s.plain" word);
          check_codes ~round folder row (Printf.sprintf ".%s.saturated" word))
        [ (`Up, "up"); (`Down, "down"); (`Nearest, "nearest") ];
      saturating ".up.saturated"
  | _ ->
      without ".plain";
      saturating ".saturated"

let check_packed folder (Packed { name; dtype; kind; _ }) =
  let inputs = read folder kind (name ^ ".inputs") and numbers = read folder kind (name ^ ".numbers") in
  let wanted = read folder Int8_unsigned (name ^ ".packed") in
  let bytes = Array1.create Int8_unsigned c_layout (Array1.dim wanted) in
  Array1.fill bytes 0xff;
  Convert.pack dtype (genarray_of_array1 inputs) (genarray_of_array1 bytes);
  if bytes <> wanted then Alcotest.failf "%s: other bytes" name;
  let back = Array1.create kind c_layout (Array1.dim numbers) in
  Convert.unpack dtype (genarray_of_array1 bytes) (genarray_of_array1 back);
  if back <> numbers then Alcotest.failf "%s: other numbers" name

let as_elsewhere () =
  with_known @@ fun folder ->
  List.iter (check_values folder) reduced;
  List.iter (every_rounding folder) reduced;
  List.iter (check_packed folder) packed

(* --- By themselves ------------------------------------------------------------------------------------------------------ *)

let round_trip (Reduced { name; dtype; kind; codes }) =
  let gen = QCheck2.Gen.(array_size (int_bound 70) (int_bound (codes - 1))) in
  property (name ^ " codes come back") ~count:200 gen (fun wanted ->
      let numbers = Array1.of_array Float32 c_layout (Array.map (Convert.to_float dtype) wanted) in
      let back = narrow ~saturate:false ~round:`Nearest dtype kind numbers in
      let again = widen dtype back (Array1.dim numbers) in
      Array.for_all Fun.id
        (Array.mapi
           (fun i code ->
             same_number numbers.{i} again.{i} && (Float.is_nan numbers.{i} || code_at dtype back i = code))
           wanted))

let packed_round_trip (Packed { name; dtype; kind; share }) =
  let gen = QCheck2.Gen.(array_size (int_bound 70) (int_bound 255)) in
  property (name ^ " numbers come back") ~count:200 gen (fun bytes ->
      let bytes = Array1.of_array Int8_unsigned c_layout bytes in
      let numbers = Array1.create kind c_layout (share * Array1.dim bytes) in
      Convert.unpack dtype (genarray_of_array1 bytes) (genarray_of_array1 numbers);
      let again = Array1.create Int8_unsigned c_layout (Array1.dim bytes) in
      Convert.pack dtype (genarray_of_array1 numbers) (genarray_of_array1 again);
      again = bytes)

(* More than one stretch of the loop, with an odd end. *)
let long_arrays_are_whole () =
  let n = 100_001 in
  let x = Array1.init Float32 c_layout n (fun i -> float_of_int (i mod 7)) in
  let check (Reduced { name; dtype; kind; _ }) =
    let back = widen dtype (narrow ~round:`Nearest dtype kind x) n in
    let alone = widen dtype (narrow ~round:`Nearest dtype kind (Array1.sub x 0 7)) 7 in
    for i = 0 to n - 1 do
      if back.{i} <> alone.{i mod 7} then Alcotest.failf "%s: element %d" name i
    done
  in
  List.iter check reduced

let any_rank_goes () =
  let x = Array3.create Float32 c_layout 2 3 4 and codes = Array2.create Int16_unsigned c_layout 6 4 in
  Array3.fill x 1.5;
  Convert.of_float32 Float16 (genarray_of_array3 x) (genarray_of_array2 codes);
  Alcotest.(check int) "last" 0x3e00 codes.{5, 3};
  let scalar = Array0.of_value Int8_unsigned c_layout 0x38 and one = Array1.create Float32 c_layout 1 in
  Convert.to_float32 Float8e4m3fn (genarray_of_array0 scalar) (genarray_of_array1 one);
  Alcotest.(check (float 0.)) "a scalar" 1. one.{0};
  let nothing = Array1.create Float32 c_layout 0 and no_codes = Array1.create Int8_unsigned c_layout 0 in
  Convert.of_float32 Float4e2m1 (genarray_of_array1 nothing) (genarray_of_array1 no_codes)

let sizes_are_checked () =
  let floats n = genarray_of_array1 (Array1.create Float32 c_layout n) in
  let bytes n = genarray_of_array1 (Array1.create Int8_unsigned c_layout n) in
  misuse "of_float32" (fun () -> Convert.of_float32 Float8e5m2 (floats 3) (bytes 4)) [ "of_float32"; "3 numbers take 3"; "has 4" ];
  misuse "to_float32" (fun () -> Convert.to_float32 Float4e2m1 (bytes 3) (floats 3)) [ "to_float32"; "3 numbers take 2"; "has 3" ];
  misuse "pack" (fun () -> Convert.pack Uint2 (bytes 5) (bytes 1)) [ "pack"; "5 numbers take 2"; "has 1" ];
  misuse "unpack" (fun () -> Convert.unpack Uint4 (bytes 1) (bytes 3)) [ "unpack"; "3 numbers take 2"; "has 1" ];
  misuse "nothing" (fun () -> Convert.unpack Uint4 (bytes 1) (bytes 0)) [ "0 numbers take 0" ]

let nothing_is_allocated () =
  let x = genarray_of_array1 (Array1.init Float32 c_layout 20_000 float_of_int) in
  let codes = genarray_of_array1 (Array1.create Int16_unsigned c_layout 20_000) in
  let bytes = genarray_of_array1 (Array1.create Int8_unsigned c_layout 10_000) in
  let round () =
    Convert.of_float32 Float16 x codes;
    Convert.of_float32 ~saturate:false Float4e2m1 x bytes;
    Convert.to_float32 Bfloat16 codes x
  in
  Alcotest.(check (float 0.)) "words" 0. (Memory.words_of 10 round)

let tests =
  [
    ( "conversions",
      [
        case "numbers are those of numpy, ml_dtypes and ONNX" as_elsewhere;
        case "long arrays are whole" long_arrays_are_whole;
        case "any rank goes" any_rank_goes;
        case "sizes are checked" sizes_are_checked;
        case "nothing is allocated" nothing_is_allocated;
      ]
      @ List.map round_trip reduced
      @ List.map packed_round_trip packed );
  ]
