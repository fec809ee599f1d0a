(** ONNX's [TensorProto]: a tensor in a file, in whichever of its fields the elements are. *)

type elements =
  | Raw of string  (** little-endian, packed as ONNX packs small types *)
  | Strings of string array

type t = {
  data_type : int;  (** ONNX's number of the element type: 1 for float32 *)
  dims : int array;
  elements : elements;
}

val of_string : string -> (t, string) result
(** [of_string file] is the tensor, or what is wrong with the file. As many elements are there as its dimensions say, and
    the memory that reading takes is in proportion to the file's size. *)

val to_string : t -> string
(** [to_string t] is what a file would hold. *)

val bits : int -> int option
(** [bits data_type] is the size of one element; [None] for strings and for types without a number in ONNX. *)

val number_of_name : string -> int option
(** [number_of_name "float32"] is [Some 1]: ONNX's number of {!Sidecaml.Dtype.name}. *)
