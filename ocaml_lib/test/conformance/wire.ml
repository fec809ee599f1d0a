exception Bad of string

let bad format = Printf.ksprintf (fun text -> raise (Bad text)) format

type value =
  | Varint of int64
  | Fixed32 of int32
  | Fixed64 of int64
  | Bytes of { at : int; length : int }

(* Where reading is, and the place that must not be reached. *)
type cursor = { file : string; mutable at : int; stop : int }

let take c length =
  if length > c.stop - c.at then bad "it ends early, at byte %d: %d more were expected" c.at (length - (c.stop - c.at));
  let at = c.at in
  c.at <- at + length;
  at

let varint c =
  let rec go shift found =
    if shift > 63 then bad "a number of more than 64 bits at byte %d" c.at;
    let byte = Char.code c.file.[take c 1] in
    (* The tenth byte has room for one bit. *)
    if shift = 63 && byte > 1 then bad "a number of more than 64 bits at byte %d" c.at;
    let found = Int64.logor found (Int64.shift_left (Int64.of_int (byte land 0x7f)) shift) in
    if byte >= 0x80 then go (shift + 7) found else found
  in
  go 0 0L

let length c =
  let found = varint c in
  let room = c.stop - c.at in
  if Int64.unsigned_compare found (Int64.of_int room) > 0 then
    bad "a length of %Lu at byte %d, of which %d are there" found c.at room;
  Int64.to_int found

let value c = function
  | 0 -> Varint (varint c)
  | 1 -> Fixed64 (String.get_int64_le c.file (take c 8))
  | 2 ->
      let length = length c in
      Bytes { at = take c length; length }
  | 5 -> Fixed32 (String.get_int32_le c.file (take c 4))
  | wire -> bad "a field of the unknown form %d at byte %d" wire c.at

let field c =
  let key = varint c in
  let number = Int64.shift_right_logical key 3 in
  if number = 0L || Int64.unsigned_compare number 0x1fff_ffffL > 0 then bad "a field numbered %Lu at byte %d" number c.at;
  (Int64.to_int number, value c (Int64.to_int (Int64.logand key 7L)))

let fold file f start =
  let c = { file; at = 0; stop = String.length file } in
  let rec go found =
    if c.at = c.stop then found
    else
      let number, value = field c in
      go (f found number value)
  in
  go start

(* What is packed between two places. *)
let packed file ~at ~length one =
  let c = { file; at; stop = at + length } in
  let rec go found = if c.at = c.stop then List.rev found else go (one c :: found) in
  go []

let varints file = function
  | Varint n -> [ n ]
  | Bytes { at; length } -> packed file ~at ~length varint
  | Fixed32 _ | Fixed64 _ -> bad "a field of fixed size where whole numbers were expected"

let fixed32s file = function
  | Fixed32 n -> [ n ]
  | Bytes { at; length } -> packed file ~at ~length (fun c -> String.get_int32_le c.file (take c 4))
  | Varint _ | Fixed64 _ -> bad "a field that is not of 32 bits where such were expected"

let fixed64s file = function
  | Fixed64 n -> [ n ]
  | Bytes { at; length } -> packed file ~at ~length (fun c -> String.get_int64_le c.file (take c 8))
  | Varint _ | Fixed32 _ -> bad "a field that is not of 64 bits where such were expected"

let text file = function
  | Bytes { at; length } -> String.sub file at length
  | Varint _ | Fixed32 _ | Fixed64 _ -> bad "a number where bytes were expected"
