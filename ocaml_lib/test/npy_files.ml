(* numpy's files: what is written is read back, and nothing that a file holds makes the reader fail badly. *)

open Bigarray
module Dtype = Sidecaml.Dtype

let ints : type a b. (a, b) Dtype.t -> int -> a = function
  | Float32 -> float_of_int
  | Float64 -> float_of_int
  | Float16 -> fun n -> n land 0xffff
  | Bfloat16 -> fun n -> n land 0xffff
  | Int8 -> fun n -> (n land 0xff) - 128
  | Int16 -> fun n -> (n land 0xffff) - 32768
  | Int32 -> Int32.of_int
  | Int64 -> Int64.of_int
  | Uint8 -> fun n -> n land 0xff
  | Uint16 -> fun n -> n land 0xffff
  | Uint32 -> Int32.of_int
  | Uint64 -> Int64.of_int
  | Bool -> fun n -> n land 1
  | Complex64 -> fun n -> { re = float_of_int n; im = -1.5 }
  | Complex128 -> fun n -> { re = 0.25; im = float_of_int n }
  | Float8e4m3fn -> fun n -> n land 0xff
  | Float8e4m3fnuz -> fun n -> n land 0xff
  | Float8e5m2 -> fun n -> n land 0xff
  | Float8e5m2fnuz -> fun n -> n land 0xff
  | Float8e8m0 -> fun n -> n land 0xff
  | Float4e2m1 -> fun n -> n land 0xff
  | Int4 -> fun n -> n land 0xff
  | Uint4 -> fun n -> n land 0xff
  | Int2 -> fun n -> n land 0xff
  | Uint2 -> fun n -> n land 0xff
  | String -> fun n -> n land 0xff

let array_of (Dtype.Any dtype) dims seed =
  let elements = Array.fold_left ( * ) 1 dims in
  let flat = Array1.init (Dtype.kind dtype) c_layout elements (fun i -> ints dtype (seed + (i * 7919))) in
  Npy.Npy (dtype, reshape (genarray_of_array1 flat) dims)

let same (Npy.Npy (a, x)) (Npy.Npy (b, y)) =
  match Dtype.equal a b with Some Equal -> Genarray.dims x = Genarray.dims y && x = y | None -> false

let any_array =
  let open QCheck2.Gen in
  let dims = array_size (int_bound 4) (int_bound 4) in
  map3 (fun dtype dims seed -> array_of dtype dims seed) (oneofl Dtype.all) dims (int_bound 100_000)

let read_back =
  Check.property "what is written is read back" ~count:500 any_array (fun array ->
      let (Npy (dtype, _)) = array in
      match Npy.of_string ~expected:(Any dtype) (Npy.to_string array) with Ok found -> same array found | Error reason -> failwith reason)

(* Damage: some bytes changed, then cut or lengthened. *)
let damaged =
  let open QCheck2.Gen in
  let change s (at, c) =
    let b = Bytes.of_string s in
    if s <> "" then Bytes.set b (at mod String.length s) c;
    Bytes.to_string b
  in
  let* s = map Npy.to_string any_array in
  let* changes = list_size (int_bound 4) (pair (int_bound 200) char) in
  let* keep = int_bound (String.length s) in
  let* cut = bool in
  let s = List.fold_left change s changes in
  return (if cut then String.sub s 0 keep else s)

let hostile =
  Check.property "damage gives an array or a reason" ~count:3000 ~print:String.escaped damaged (fun s ->
      match Npy.of_string s with
      | Ok (Npy (dtype, array)) ->
          Array.fold_left ( * ) 1 (Genarray.dims array) * kind_size_in_bytes (Dtype.kind dtype) <= String.length s
      | Error reason -> reason <> "")

let with_header ?(data = "") text =
  let length = String.length text in
  Printf.sprintf "\x93NUMPY\001\000%c%c%s%s" (Char.chr (length land 255)) (Char.chr (length lsr 8)) text data

let refused what contents parts =
  match Npy.of_string contents with
  | Ok _ -> Alcotest.failf "%s: read" what
  | Error reason -> Check.mentions what reason parts

let reasons_are_told () =
  let dict ?(descr = "<f4") ?(order = "False") shape =
    Printf.sprintf "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }\n" descr order shape
  in
  refused "empty" "" [ "no .npy file" ];
  refused "another format" "PK\003\004 and so on" [ "no .npy file" ];
  refused "version" "\x93NUMPY\009\000\000\000\000\000" [ "version 9" ];
  refused "header beyond the end" "\x93NUMPY\001\000\255\255{" [ "ends early" ];
  refused "a huge header" "\x93NUMPY\002\000\255\255\255\255{" [ "header of 4294967295 bytes" ];
  refused "big-endian" (with_header (dict ~descr:">f4" "(1,)")) [ "big-endian" ];
  refused "strings" (with_header (dict ~descr:"<U7" "(1,)")) [ "<U7" ];
  refused "Fortran order" (with_header (dict ~order:"True" "(2, 2)")) [ "Fortran"; "ascontiguousarray" ];
  refused "records" (with_header "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (), }\n") [ "records" ];
  refused "too short" (with_header (dict "(2,)") ~data:"abcd") [ "4 bytes"; "8" ];
  refused "an overflowing shape" (with_header (dict "(4611686018427387903, 4)")) [ "shorter than its shape" ];
  refused "a size that no integer holds" (with_header (dict "(99999999999999999999,)")) [ "size was expected" ];
  refused "too many dimensions" (with_header (dict ("(" ^ String.concat "" (List.init 17 (fun _ -> "1,")) ^ ")"))) [ "16" ];
  refused "missing keys" (with_header "{'descr': '<f4'}\n") [ "lacks" ]

let files_that_cannot_be_read () =
  match (Npy.read "/nonexistent/x.npy", Npy.read "/proc/self/mem", Npy.write "/nonexistent/x.npy" (array_of (Any Bool) [||] 0)) with
  | Error a, Error _, Error b -> Check.mentions "path" (a ^ b) [ "/nonexistent/x.npy" ]
  | _ -> Alcotest.fail "an impossible file"

let a_full_disk_is_an_error () =
  match Npy.write "/dev/full" (array_of (Any Bool) [||] 0) with
  | Error reason -> Check.mentions "reason" reason [ "/dev/full"; "No space left" ]
  | Ok () -> Alcotest.fail "written to a full disk"

let tests =
  [
    ( "npy",
      [
        read_back;
        hostile;
        Check.case "reasons are told" reasons_are_told;
        Check.case "files that cannot be read" files_that_cannot_be_read;
        Check.case "a full disk is an error" a_full_disk_is_an_error;
      ] );
  ]
