open Bigarray

type bytes_view = (int, int8_unsigned_elt, c_layout) Array1.t

type t = {
  name : string; (* the tensor's, for errors *)
  place : bytes_view;
  text : int; (* where it starts: behind the table of the largest dims *)
  mutable length : int;
}

external get_word : bytes_view -> int -> int64 = "%caml_bigstring_get64"
external set_word : bytes_view -> int -> int64 -> unit = "%caml_bigstring_set64"
external to_bytes : bytes_view -> int -> Bytes.t -> int -> int -> unit = "sidecaml_ml_text_to_bytes" [@@noalloc]
external of_string : string -> bytes_view -> int -> unit = "sidecaml_ml_text_of_string" [@@noalloc]

let word_bytes = 8
let make ~name place ~max_elements = { name; place; text = word_bytes * (max_elements + 1); length = max_elements }
let set_length t length = t.length <- length
let length t = t.length
let room t = Array1.dim t.place - t.text
let misuse t call format = Printf.ksprintf (fun text -> invalid_arg (Printf.sprintf "Sidecaml.Strings.%s: tensor %S: %s" call t.name text)) format

(* --- Reading: the table is another process's, so each offset is read once, checked, then used ------------------------- *)

(* Negative where it is beyond what an int holds. *)
let offset t i =
  let word = get_word t.place (word_bytes * i) in
  if Int64.compare word 0L < 0 then -1 else Int64.to_int word

let check t call i =
  if i < 0 || i >= t.length then misuse t call "there is no element %d: it has %d" i t.length

let bad_table t call i = misuse t call "the offsets of element %d are not within its %d bytes of text" i (room t)

let size_between t call i first last =
  if first < 0 || last < first || last > room t then bad_table t call i;
  last - first

let size t i =
  check t "size" i;
  size_between t "size" i (offset t i) (offset t (i + 1))

let read t call i =
  check t call i;
  let first = offset t i in
  let size = size_between t call i first (offset t (i + 1)) in
  let bytes = Bytes.create size in
  to_bytes t.place (t.text + first) bytes 0 size;
  Bytes.unsafe_to_string bytes

let get t i = read t "get" i

let blit t i bytes at =
  check t "blit" i;
  let first = offset t i in
  let size = size_between t "blit" i first (offset t (i + 1)) in
  if at < 0 || size > Bytes.length bytes - at then
    misuse t "blit" "element %d has %d bytes, which do not fit at %d of %d" i size at (Bytes.length bytes);
  to_bytes t.place (t.text + first) bytes at size

let add_to_buffer buffer t i = Buffer.add_string buffer (read t "add_to_buffer" i)

let iter f t =
  for i = 0 to t.length - 1 do
    f (read t "iter" i)
  done

let to_array t = Array.init t.length (fun i -> read t "to_array" i)

let text_size t =
  let first = offset t 0 in
  size_between t "text_size" 0 first (offset t t.length)

(* --- Writing -------------------------------------------------------------------------------------------------------- *)

let set_offset t i place = set_word t.place (word_bytes * i) (Int64.of_int place)

let make_empty t =
  for i = 0 to t.length do
    set_offset t i 0
  done

let no_room t call needed =
  misuse t call "%d bytes of text, and the channel was opened with room for %d: open it with larger text_bytes" needed (room t)

let put t i place string =
  of_string string t.place (t.text + place);
  set_offset t (i + 1) (place + String.length string)

(* Looks for room at each string, also where a sum was looked at before: an array may change meanwhile. *)
let fill t call f =
  set_offset t 0 0;
  let place = ref 0 in
  for i = 0 to t.length - 1 do
    let string = f i in
    if String.length string > room t - !place then no_room t call (!place + String.length string);
    put t i !place string;
    place := !place + String.length string
  done

let set_all t strings =
  if Array.length strings <> t.length then
    misuse t "set_all" "%d strings for %d elements" (Array.length strings) t.length;
  let needed = Array.fold_left (fun sum string -> sum + String.length string) 0 strings in
  if needed > room t then no_room t "set_all" needed;
  fill t "set_all" (Array.get strings)

let init t f =
  try fill t "init" f
  with exn ->
    let backtrace = Printexc.get_raw_backtrace () in
    make_empty t;
    Printexc.raise_with_backtrace exn backtrace

let copy from t =
  Array1.blit (Array1.sub from.place 0 (word_bytes * (t.length + 1))) (Array1.sub t.place 0 (word_bytes * (t.length + 1)));
  let text = min (room from) (room t) in
  Array1.blit (Array1.sub from.place from.text text) (Array1.sub t.place t.text text)
