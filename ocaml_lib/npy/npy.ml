open Bigarray
module Dtype = Sidecaml.Dtype

type t = Npy : ('a, 'b) Dtype.t * ('a, 'b, c_layout) Genarray.t -> t

exception Bad of string

let bad format = Printf.ksprintf (fun text -> raise (Bad text)) format
let magic = "\x93NUMPY"
let longest_header = 65_536
let most_dims = 16 (* Bigarray's *)

(* --- Element types ----------------------------------------------------------------------------------------------- *)

let descr : type a b. (a, b) Dtype.t -> string = function
  | Float32 -> "<f4"
  | Float64 -> "<f8"
  | Float16 -> "<f2"
  | Bfloat16 -> "|V2"
  | Int8 -> "|i1"
  | Int16 -> "<i2"
  | Int32 -> "<i4"
  | Int64 -> "<i8"
  | Uint8 -> "|u1"
  | Uint16 -> "<u2"
  | Uint32 -> "<u4"
  | Uint64 -> "<u8"
  | Bool -> "|b1"
  | Complex64 -> "<c8"
  | Complex128 -> "<c16"
  | Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz | Float8e8m0 -> "|V1"
  | Float4e2m1 | Int4 | Uint4 | Int2 | Uint2 | String -> "|u1"

(* The byte order of single bytes, and of bytes without a meaning, is written in several ways. *)
let same_descr found wanted =
  let meaning descr = String.sub descr 1 (String.length descr - 1) in
  String.length found >= 3
  && meaning found = meaning wanted
  && (found.[0] = wanted.[0] || (found.[0] <> '>' && (found.[2] = '1' || found.[1] = 'V')))

(* Of several types that are written alike, the one that was expected. *)
let dtype_of_descr expected found =
  let is_it (Dtype.Any dtype) = same_descr found (descr dtype) in
  match List.find_opt is_it (Option.to_list expected @ Dtype.all) with
  | Some any -> any
  | None when found <> "" && found.[0] = '>' -> bad "its numbers are big-endian (%S): save it little-endian" found
  | None -> bad "elements of type %S: no model takes them" found

let get : type a b. (a, b) Dtype.t -> string -> int -> a =
 fun dtype s i ->
  match dtype with
  | Float32 -> Int32.float_of_bits (String.get_int32_le s i)
  | Float64 -> Int64.float_of_bits (String.get_int64_le s i)
  | Float16 -> String.get_uint16_le s i
  | Bfloat16 -> String.get_uint16_le s i
  | Int8 -> String.get_int8 s i
  | Int16 -> String.get_int16_le s i
  | Int32 -> String.get_int32_le s i
  | Int64 -> String.get_int64_le s i
  | Uint8 -> String.get_uint8 s i
  | Uint16 -> String.get_uint16_le s i
  | Uint32 -> String.get_int32_le s i
  | Uint64 -> String.get_int64_le s i
  | Bool -> String.get_uint8 s i
  | Complex64 -> { re = Int32.float_of_bits (String.get_int32_le s i); im = Int32.float_of_bits (String.get_int32_le s (i + 4)) }
  | Complex128 -> { re = Int64.float_of_bits (String.get_int64_le s i); im = Int64.float_of_bits (String.get_int64_le s (i + 8)) }
  | Float8e4m3fn -> String.get_uint8 s i
  | Float8e4m3fnuz -> String.get_uint8 s i
  | Float8e5m2 -> String.get_uint8 s i
  | Float8e5m2fnuz -> String.get_uint8 s i
  | Float8e8m0 -> String.get_uint8 s i
  | Float4e2m1 -> String.get_uint8 s i
  | Int4 -> String.get_uint8 s i
  | Uint4 -> String.get_uint8 s i
  | Int2 -> String.get_uint8 s i
  | Uint2 -> String.get_uint8 s i
  | String -> String.get_uint8 s i

let set : type a b. (a, b) Dtype.t -> Bytes.t -> int -> a -> unit =
 fun dtype s i x ->
  match dtype with
  | Float32 -> Bytes.set_int32_le s i (Int32.bits_of_float x)
  | Float64 -> Bytes.set_int64_le s i (Int64.bits_of_float x)
  | Float16 -> Bytes.set_uint16_le s i x
  | Bfloat16 -> Bytes.set_uint16_le s i x
  | Int8 -> Bytes.set_int8 s i x
  | Int16 -> Bytes.set_int16_le s i x
  | Int32 -> Bytes.set_int32_le s i x
  | Int64 -> Bytes.set_int64_le s i x
  | Uint8 -> Bytes.set_uint8 s i x
  | Uint16 -> Bytes.set_uint16_le s i x
  | Uint32 -> Bytes.set_int32_le s i x
  | Uint64 -> Bytes.set_int64_le s i x
  | Bool -> Bytes.set_uint8 s i x
  | Complex64 ->
      Bytes.set_int32_le s i (Int32.bits_of_float x.re);
      Bytes.set_int32_le s (i + 4) (Int32.bits_of_float x.im)
  | Complex128 ->
      Bytes.set_int64_le s i (Int64.bits_of_float x.re);
      Bytes.set_int64_le s (i + 8) (Int64.bits_of_float x.im)
  | Float8e4m3fn -> Bytes.set_uint8 s i x
  | Float8e4m3fnuz -> Bytes.set_uint8 s i x
  | Float8e5m2 -> Bytes.set_uint8 s i x
  | Float8e5m2fnuz -> Bytes.set_uint8 s i x
  | Float8e8m0 -> Bytes.set_uint8 s i x
  | Float4e2m1 -> Bytes.set_uint8 s i x
  | Int4 -> Bytes.set_uint8 s i x
  | Uint4 -> Bytes.set_uint8 s i x
  | Int2 -> Bytes.set_uint8 s i x
  | Uint2 -> Bytes.set_uint8 s i x
  | String -> Bytes.set_uint8 s i x

(* --- The header: a Python dictionary of three known keys --------------------------------------------------------- *)

type header = { found_descr : string; fortran : bool; shape : int list }
type value = Text of string | Flag of bool | Tuple of int list

(* A reader over a string: its position moves on. *)
type reader = { text : string; mutable at : int }

let rec skip_blanks r =
  if r.at < String.length r.text && (r.text.[r.at] = ' ' || r.text.[r.at] = '\n') then begin
    r.at <- r.at + 1;
    skip_blanks r
  end

let peek r =
  skip_blanks r;
  if r.at < String.length r.text then r.text.[r.at] else bad "its header ends early"

let expect r c =
  if peek r <> c then bad "its header has %C where %C was expected" r.text.[r.at] c;
  r.at <- r.at + 1

let accept r c =
  let found = peek r = c in
  if found then r.at <- r.at + 1;
  found

let take_while r keep =
  let start = r.at in
  while r.at < String.length r.text && keep r.text.[r.at] do
    r.at <- r.at + 1
  done;
  String.sub r.text start (r.at - start)

let quoted r =
  expect r '\'';
  let text = take_while r (fun c -> c <> '\'') in
  expect r '\'';
  text

let number r =
  ignore (peek r);
  let digits = take_while r (fun c -> c >= '0' && c <= '9') in
  match int_of_string_opt digits with
  | Some n -> n
  | None -> bad "its header has %S where a size was expected" digits

let rec sizes r found =
  if accept r ')' then List.rev found
  else begin
    let found = number r :: found in
    if List.length found > most_dims then bad "it has more than %d dimensions" most_dims;
    if accept r ',' then sizes r found
    else begin
      expect r ')';
      List.rev found
    end
  end

let value r =
  match peek r with
  | '\'' -> Text (quoted r)
  | '(' ->
      expect r '(';
      Tuple (sizes r [])
  | '[' -> bad "its elements are records: no model takes them"
  | _ -> (
      match take_while r (fun c -> (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) with
      | "True" -> Flag true
      | "False" -> Flag false
      | word -> bad "its header has %S where a value was expected" word)

let rec entries r found =
  if accept r '}' then found
  else begin
    let key = quoted r in
    expect r ':';
    let found = (key, value r) :: found in
    if not (accept r ',') then if peek r <> '}' then bad "its header's entries are not separated by commas";
    entries r found
  end

let parse_header text =
  let r = { text; at = 0 } in
  expect r '{';
  let found = entries r [] in
  match (List.assoc_opt "descr" found, List.assoc_opt "fortran_order" found, List.assoc_opt "shape" found) with
  | Some (Text found_descr), Some (Flag fortran), Some (Tuple shape) -> { found_descr; fortran; shape }
  | _ -> bad "its header lacks descr, fortran_order or shape, or has them in another form"

(* Where the header's text starts, and how long it is. *)
let header_place s =
  let size = String.length s in
  if size < 10 || String.sub s 0 6 <> magic then bad "it is no .npy file";
  match s.[6] with
  | '\001' -> (10, String.get_uint16_le s 8)
  | '\002' | '\003' when size >= 12 -> (12, Int32.to_int (String.get_int32_le s 8) land 0xffffffff)
  | version -> bad "version %d of the format is unknown" (Char.code version)

(* --- Reading and writing ------------------------------------------------------------------------------------------ *)

(* Written so that no product overflows: [limit] is a file's size. *)
let count_elements shape ~limit =
  if List.mem 0 shape then 0
  else List.fold_left (fun n d -> if d > limit / n then bad "it is shorter than its shape says" else n * d) 1 shape

(* Packed types are arrays of the bytes that hold them, as their views are. *)
let array_of s start (Dtype.Any dtype) shape =
  let bytes = kind_size_in_bytes (Dtype.kind dtype) in
  let room = String.length s - start in
  let elements = count_elements shape ~limit:room in
  if elements * bytes <> room then
    bad "%d bytes of numbers, its shape and type make %d" room (elements * bytes);
  let flat = Array1.create (Dtype.kind dtype) c_layout elements in
  for i = 0 to elements - 1 do
    flat.{i} <- get dtype s (start + (i * bytes))
  done;
  Npy (dtype, reshape (genarray_of_array1 flat) (Array.of_list shape))

let parse expected s =
  let start, length = header_place s in
  if length > longest_header then bad "a header of %d bytes" length;
  if length > String.length s - start then bad "its header ends early";
  let header = parse_header (String.sub s start length) in
  let column_order = header.fortran && List.length header.shape > 1 in
  if column_order then bad "it is in Fortran order: save numpy.ascontiguousarray of it";
  array_of s (start + length) (dtype_of_descr expected header.found_descr) header.shape

let of_string ?expected s = match parse expected s with array -> Ok array | exception Bad reason -> Error reason

let header_text descr dims =
  let sizes = String.concat ", " (List.map string_of_int (Array.to_list dims)) in
  let comma = if Array.length dims = 1 then "," else "" in
  let text = Printf.sprintf "{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }" descr sizes comma in
  let padding = 64 - ((10 + String.length text + 1) mod 64) in
  text ^ String.make (padding mod 64) ' ' ^ "\n"

let to_string (Npy (dtype, array)) =
  let header = header_text (descr dtype) (Genarray.dims array) in
  let bytes = kind_size_in_bytes (Dtype.kind dtype) in
  let elements = Array.fold_left ( * ) 1 (Genarray.dims array) in
  let flat = reshape_1 array elements in
  let start = 10 + String.length header in
  let out = Bytes.create (start + (elements * bytes)) in
  Bytes.blit_string (magic ^ "\001\000") 0 out 0 8;
  Bytes.set_uint16_le out 8 (String.length header);
  Bytes.blit_string header 0 out 10 (String.length header);
  for i = 0 to elements - 1 do
    set dtype out (start + (i * bytes)) flat.{i}
  done;
  Bytes.unsafe_to_string out

let with_file path open_it close_it use =
  match
    let channel = open_it path in
    Fun.protect ~finally:(fun () -> close_it channel) (fun () -> use channel)
  with
  | result -> Ok result
  | exception Sys_error reason when String.starts_with ~prefix:path reason -> Error reason
  | exception Sys_error reason -> Error (Printf.sprintf "%s: %s" path reason)
  | exception End_of_file -> Error (Printf.sprintf "%s: it became shorter while it was read" path)

let read ?expected path =
  let contents channel = really_input_string channel (in_channel_length channel) in
  match with_file path open_in_bin close_in_noerr contents with
  | Error _ as e -> e
  | Ok s -> Result.map_error (Printf.sprintf "%s: %s" path) (of_string ?expected s)

let write path array =
  (* Closed inside, where a full disk is an error; the closing that [with_file] does only cleans up. *)
  let put channel =
    output_string channel (to_string array);
    close_out channel
  in
  with_file path open_out_bin close_out_noerr put
