(* The reader of the conformance suite's files: the same tensor from whichever field, and a reason for what is damaged. *)

open Onnx_files

let tensor data_type dims elements : Tensor_proto.t = { data_type; dims; elements }

let read what file =
  match Tensor_proto.of_string file with Ok tensor -> tensor | Error reason -> Alcotest.failf "%s: %s" what reason

let same what file wanted = if read what file <> wanted then Alcotest.failf "%s: read as another tensor" what

(* A field: its number and form in one byte, then the value. *)
let field number form value = Printf.sprintf "%c%s" (Char.chr ((number lsl 3) lor form)) value
let number n value = field n 0 value
let bytes n value = field n 2 (Printf.sprintf "%c%s" (Char.chr (String.length value)) value)
let kind k = number 2 (String.make 1 (Char.chr k))
let dims sizes = String.concat "" (List.map (fun d -> number 1 (String.make 1 (Char.chr d))) sizes)

(* Of 64 bits. *)
let minus_one = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"

let elements_are_read_from_every_field () =
  let one = "\x00\x00\x80\x3f" in
  let f32 = tensor 1 [| 2 |] (Raw (one ^ one)) in
  same "raw_data" (dims [ 2 ] ^ kind 1 ^ bytes 9 (one ^ one)) f32;
  same "float_data, packed" (dims [ 2 ] ^ kind 1 ^ bytes 4 (one ^ one)) f32;
  same "float_data, one by one" (dims [ 2 ] ^ kind 1 ^ field 4 5 one ^ field 4 5 one) f32;
  same "the type comes last" (bytes 4 (one ^ one) ^ dims [ 2 ] ^ kind 1) f32;
  same "packed dims" (bytes 1 "\x01\x02" ^ kind 1 ^ bytes 4 (one ^ one)) { f32 with dims = [| 1; 2 |] };
  same "complex64" (kind 14 ^ bytes 4 (one ^ one)) (tensor 14 [||] (Raw (one ^ one)));
  same "int32_data" (dims [ 2 ] ^ kind 6 ^ bytes 5 ("\x05" ^ minus_one)) (tensor 6 [| 2 |] (Raw "\005\000\000\000\xff\xff\xff\xff"));
  same "int8 in int32_data" (dims [ 2 ] ^ kind 3 ^ bytes 5 ("\x05" ^ minus_one)) (tensor 3 [| 2 |] (Raw "\x05\xff"));
  same "float16 in int32_data" (dims [ 1 ] ^ kind 10 ^ bytes 5 "\x80\x78") (tensor 10 [| 1 |] (Raw "\x00\x3c"));
  same "int4 in int32_data" (dims [ 3 ] ^ kind 22 ^ bytes 5 "\x21\x03") (tensor 22 [| 3 |] (Raw "\x21\x03"));
  same "int64_data" (dims [ 1 ] ^ kind 7 ^ bytes 7 minus_one) (tensor 7 [| 1 |] (Raw (String.make 8 '\xff')));
  same "double_data" (dims [ 1 ] ^ kind 11 ^ bytes 10 "abcdefgh") (tensor 11 [| 1 |] (Raw "abcdefgh"));
  same "uint32 in uint64_data" (dims [ 1 ] ^ kind 12 ^ bytes 11 "\x07") (tensor 12 [| 1 |] (Raw "\007\000\000\000"));
  same "string_data" (dims [ 2 ] ^ kind 8 ^ bytes 6 "" ^ bytes 6 "\xff") (tensor 8 [| 2 |] (Strings [| ""; "\xff" |]));
  same "nothing" (dims [ 3; 0 ] ^ kind 1) (tensor 1 [| 3; 0 |] (Raw ""));
  same "unknown fields" (bytes 8 "name" ^ bytes 12 "for people" ^ kind 2 ^ bytes 9 "\001") (tensor 2 [||] (Raw "\001"))

let refused what file parts =
  match Tensor_proto.of_string file with
  | Ok _ -> Alcotest.failf "%s: read" what
  | Error reason -> Check.mentions what reason parts

let reasons_are_told () =
  let huge = "\xff\xff\xff\xff\xff\xff\xff\xff\x7f" in
  refused "no type" "" [ "type 0" ];
  refused "an unknown type" (kind 99 ^ bytes 9 "x") [ "type 99" ];
  refused "a length beyond the end" (field 9 2 "\x7fabc") [ "127"; "3 are there" ];
  refused "a length of 64 bits" (field 9 2 minus_one) [ "are there" ];
  refused "an endless number" (number 1 (String.make 11 '\xff')) [ "64 bits" ];
  refused "a number cut off" "\x08\x80" [ "ends early" ];
  refused "an unknown form" "\x0b" [ "form 3" ];
  refused "field 0" "\x00\x00" [ "numbered 0" ];
  refused "too little" (dims [ 2 ] ^ kind 1 ^ bytes 9 "1234567") [ "shorter" ];
  refused "too much" (dims [ 1 ] ^ kind 1 ^ bytes 9 "12345678") [ "8 bytes"; "make 4" ];
  refused "strings missing" (dims [ 2 ] ^ kind 8 ^ bytes 6 "one") [ "shorter" ];
  refused "dimensions that overflow" (number 1 huge ^ number 1 huge ^ kind 1 ^ bytes 9 "1234") [ "dimension" ];
  refused "a negative dimension" (number 1 minus_one ^ kind 1) [ "dimension" ];
  refused "elements elsewhere" (kind 1 ^ number 14 "\x01") [ "another file" ];
  refused "text as a number" (kind 8 ^ number 6 "\x01") [ "bytes were expected" ];
  refused "packed floats cut off" (dims [ 1 ] ^ kind 1 ^ bytes 4 "abc") [ "ends early" ]

let any_tensor =
  let open QCheck2.Gen in
  let* dims = array_size (int_bound 3) (int_bound 4) in
  let count = Array.fold_left ( * ) 1 dims in
  let text = string_size ~gen:char (int_bound 5) in
  let of_type data_type =
    match Tensor_proto.bits data_type with
    | Some bits -> map (fun raw -> Tensor_proto.Raw raw) (string_size ~gen:char (return (((count * bits) + 7) / 8)))
    | None -> map (fun texts -> Tensor_proto.Strings texts) (array_size (return count) text)
  in
  let* data_type = oneofl (List.filter_map (fun (Sidecaml.Dtype.Any d) -> Tensor_proto.number_of_name (Sidecaml.Dtype.name d)) Sidecaml.Dtype.all @ [ 8; 14; 15; 17; 21; 22; 25 ]) in
  map (tensor data_type dims) (of_type data_type)

let read_back =
  Check.property "what is written is read back" ~count:500 any_tensor (fun tensor ->
      read "written" (Tensor_proto.to_string tensor) = tensor)

let damaged =
  let open QCheck2.Gen in
  let change s (at, c) =
    let b = Bytes.of_string s in
    if s <> "" then Bytes.set b (at mod String.length s) c;
    Bytes.to_string b
  in
  let* s = map Tensor_proto.to_string any_tensor in
  let* changes = list_size (int_bound 4) (pair (int_bound 40) char) in
  let* keep = int_bound (String.length s) in
  let* cut = bool in
  let s = List.fold_left change s changes in
  return (if cut then String.sub s 0 keep else s)

let size (t : Tensor_proto.t) =
  match t.elements with
  | Raw raw -> String.length raw
  | Strings strings -> Array.fold_left (fun n s -> n + String.length s) 0 strings

let hostile =
  Check.property "damage gives a tensor or a reason" ~count:5000 ~print:String.escaped damaged (fun s ->
      match Tensor_proto.of_string s with Ok tensor -> size tensor <= 16 * String.length s | Error reason -> reason <> "")

let noise =
  let open QCheck2.Gen in
  Check.property "noise gives a tensor or a reason" ~count:5000 ~print:String.escaped (string_size ~gen:char (int_bound 30))
    (fun s -> match Tensor_proto.of_string s with Ok _ -> true | Error reason -> reason <> "")

let tests =
  [
    ( "tensor protos",
      [
        Check.case "elements are read from every field" elements_are_read_from_every_field;
        Check.case "reasons are told" reasons_are_told;
        read_back;
        hostile;
        noise;
      ] );
  ]
