(** Protocol buffers as they lie in a file: fields with a number and a value. What the file holds is not trusted. *)

exception Bad of string
(** What is wrong, for people. *)

(** A field's value. *)
type value =
  | Varint of int64
  | Fixed32 of int32
  | Fixed64 of int64
  | Bytes of { at : int; length : int }  (** a string, a message or packed numbers: where in the file *)

val fold : string -> ('a -> int -> value -> 'a) -> 'a -> 'a
(** [fold file f start] is [f (... (f start number value)) number value] over the fields, in order. Every place lies within
    the file.
    @raise Bad for what is no sequence of fields *)

val varints : string -> value -> int64 list
(** [varints file value] is the number of one field, or the packed numbers of many.
    @raise Bad for another form *)

val fixed32s : string -> value -> int32 list
(** The same of 32 bits each. *)

val fixed64s : string -> value -> int64 list
(** The same of 64 bits each. *)

val text : string -> value -> string
(** [text file value] is a string's bytes.
    @raise Bad for another form *)

val bad : ('a, unit, string, 'b) format4 -> 'a
(** @raise Bad with this text *)
