type t = { rate : int; samples : float array }

exception Bad of string

let bad format = Printf.ksprintf (fun text -> raise (Bad text)) format

type format = { rate : int; channels : int; bits : int; coding : int }

let read_file path =
  let channel = open_in_bin path in
  Fun.protect ~finally:(fun () -> close_in_noerr channel) (fun () -> really_input_string channel (in_channel_length channel))

(* The chunks of a RIFF file: a four-letter name, a length, a body padded to an even length. *)
let rec find_chunk bytes name at =
  if at + 8 > String.length bytes then bad "there is no chunk %S" name;
  let length = Int32.to_int (String.get_int32_le bytes (at + 4)) in
  if length < 0 || length > String.length bytes - at - 8 then bad "the chunk at byte %d is cut off" at;
  if String.sub bytes at 4 = name then (at + 8, length) else find_chunk bytes name (at + 8 + length + (length land 1))

let read_format bytes =
  let at, length = find_chunk bytes "fmt " 12 in
  if length < 16 then bad "the format chunk has %d bytes instead of 16" length;
  {
    coding = String.get_uint16_le bytes at;
    channels = String.get_uint16_le bytes (at + 2);
    rate = Int32.to_int (String.get_int32_le bytes (at + 4));
    bits = String.get_uint16_le bytes (at + 14);
  }

let decode bytes =
  if String.length bytes < 12 || String.sub bytes 0 4 <> "RIFF" || String.sub bytes 8 4 <> "WAVE" then
    bad "this is no RIFF/WAVE file";
  let format = read_format bytes in
  if format.coding <> 1 || format.bits <> 16 || format.channels <> 1 || format.rate <= 0 then
    bad "expected 16-bit PCM with one channel, found %d bits, %d channels, coding %d" format.bits format.channels
      format.coding;
  let at, length = find_chunk bytes "data" 12 in
  let sample i = float_of_int (String.get_int16_le bytes (at + (2 * i))) /. 32768. in
  ({ rate = format.rate; samples = Array.init (length / 2) sample } : t)

let read path =
  match decode (read_file path) with
  | sound -> Ok sound
  | exception Bad text -> Error (Printf.sprintf "%s: %s" path text)
  | exception Sys_error text -> Error text
  | exception End_of_file -> Error (path ^ ": cut off while it was read")
