type elements = Raw of string | Strings of string array
type t = { data_type : int; dims : int array; elements : elements }

let string_type = 8

(* Name, ONNX's number, bits. *)
let types =
  [
    ("float32", 1, 32);
    ("uint8", 2, 8);
    ("int8", 3, 8);
    ("uint16", 4, 16);
    ("int16", 5, 16);
    ("int32", 6, 32);
    ("int64", 7, 64);
    ("bool", 9, 8);
    ("float16", 10, 16);
    ("float64", 11, 64);
    ("uint32", 12, 32);
    ("uint64", 13, 64);
    ("complex64", 14, 64);
    ("complex128", 15, 128);
    ("bfloat16", 16, 16);
    ("float8e4m3fn", 17, 8);
    ("float8e4m3fnuz", 18, 8);
    ("float8e5m2", 19, 8);
    ("float8e5m2fnuz", 20, 8);
    ("uint4", 21, 4);
    ("int4", 22, 4);
    ("float4e2m1", 23, 4);
    ("float8e8m0", 24, 8);
    ("uint2", 25, 2);
    ("int2", 26, 2);
  ]

let bits data_type = List.find_map (fun (_, number, bits) -> if number = data_type then Some bits else None) types

let number_of_name name =
  if name = "string" then Some string_type
  else List.find_map (fun (known, number, _) -> if known = name then Some number else None) types

(* --- Reading ------------------------------------------------------------------------------------------------------ *)

(* What a file's fields hold, the latest first. *)
type fields = {
  kind : int;
  sizes : int64 list;
  raw : string option;
  strings : string list;
  (* As they are in memory. *)
  words : string list;
}

let nothing = { kind = 0; sizes = []; raw = None; strings = []; words = [] }

(* The low bytes of a number. *)
let low bytes n =
  let all = Bytes.create 8 in
  Bytes.set_int64_le all 0 n;
  Bytes.sub_string all 0 bytes

(* Small types have a byte's worth of elements in each number. *)
let bytes_of_number kind =
  match bits kind with
  | Some bits -> min 8 (max 1 (bits / 8))
  | None -> Wire.bad "elements of the unknown type %d" kind

let field file fields number value =
  match number with
  | 1 -> { fields with sizes = List.rev_append (Wire.varints file value) fields.sizes }
  | 2 -> (
      match Wire.varints file value with
      | [ kind ] when kind >= 0L && kind <= 1000L -> { fields with kind = Int64.to_int kind }
      | _ -> Wire.bad "an element type that is none")
  | 6 -> { fields with strings = Wire.text file value :: fields.strings }
  | 9 -> { fields with raw = Some (Wire.text file value) }
  | 13 | 14 -> Wire.bad "its elements lie in another file"
  | _ -> fields

(* After all others: the type, which may come last, says how wide numbers are. *)
let numbers file kind fields number value =
  let add bytes found = { fields with words = List.rev_append (List.map (low bytes) found) fields.words } in
  match number with
  | 4 -> add 4 (List.map Int64.of_int32 (Wire.fixed32s file value))
  | 10 -> add 8 (Wire.fixed64s file value)
  | 5 | 7 | 11 -> add (bytes_of_number kind) (Wire.varints file value)
  | _ -> fields

let dims_of sizes =
  let dim n =
    if n < 0L || n > Int64.of_int max_int then Wire.bad "a dimension of %Ld" n;
    Int64.to_int n
  in
  Array.of_list (List.rev_map dim sizes)

(* Written so that no product overflows: no more than [limit]. *)
let count dims ~limit =
  if Array.mem 0 dims then 0
  else Array.fold_left (fun n d -> if d > limit / n then Wire.bad "it is shorter than its dimensions say" else n * d) 1 dims

let check_raw kind dims raw =
  match bits kind with
  | None -> Wire.bad "elements of the unknown type %d" kind
  | Some bits ->
      let room = String.length raw in
      let elements = count dims ~limit:(max 1 (room * 8 / bits)) in
      let wanted = ((elements * bits) + 7) / 8 in
      if wanted <> room then Wire.bad "%d bytes of elements, its dimensions and type make %d" room wanted

let elements_of fields dims =
  if fields.kind = string_type then begin
    let strings = Array.of_list (List.rev fields.strings) in
    let room = Array.length strings in
    let wanted = count dims ~limit:(max 1 room) in
    if wanted <> room then Wire.bad "%d strings, its dimensions make %d" room wanted;
    Strings strings
  end
  else
    let raw = match fields.raw with Some raw -> raw | None -> String.concat "" (List.rev fields.words) in
    check_raw fields.kind dims raw;
    Raw raw

let parse file =
  let fields = Wire.fold file (field file) nothing in
  let fields = if fields.raw = None then Wire.fold file (numbers file fields.kind) fields else fields in
  let dims = dims_of fields.sizes in
  { data_type = fields.kind; dims; elements = elements_of fields dims }

let of_string file = match parse file with tensor -> Ok tensor | exception Wire.Bad reason -> Error reason

(* --- Writing ------------------------------------------------------------------------------------------------------ *)

let rec add_varint out n =
  if n < 0x80 then Buffer.add_uint8 out n
  else begin
    Buffer.add_uint8 out (n land 0x7f lor 0x80);
    add_varint out (n lsr 7)
  end

let add_number out field n =
  add_varint out (field lsl 3);
  add_varint out n

let add_text out field text =
  add_varint out ((field lsl 3) lor 2);
  add_varint out (String.length text);
  Buffer.add_string out text

let to_string t =
  let out = Buffer.create 256 in
  Array.iter (add_number out 1) t.dims;
  add_number out 2 t.data_type;
  (match t.elements with
  | Raw raw -> add_text out 9 raw
  | Strings strings -> Array.iter (add_text out 6) strings);
  Buffer.contents out
