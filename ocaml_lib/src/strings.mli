(** A tensor of strings: a table of offsets, and the text behind it, in the memory that the model reads and writes.

    [Sidecaml.output_strings model "labels"] gives one. Elements are numbered in C order, whatever the tensor's
    dimensions. Nothing is allocated for a string before it is read. Strings are UTF-8, as ONNX says; the model's side
    checks inputs, and a request with others is [Rejected] with {!Error.Bad_strings}.

    Lifetime and threads: as the channel's other views. *)

type t

val length : t -> int
(** [length t] is the number of elements. *)

val get : t -> int -> string
(** [get t i] is a fresh copy of element [i].

    Raises [Invalid_argument] when there is no such element, here and below, and when the table is not one: only of an
    output before its first request, or after a failed one, is that so (or of an input that the program wrote as bytes). *)

val size : t -> int -> int
(** [size t i] is the number of its bytes. *)

val blit : t -> int -> Bytes.t -> int -> unit
(** [blit t i bytes at] copies element [i] there. Allocates nothing.

    Raises [Invalid_argument] when it does not fit. *)

val add_to_buffer : Buffer.t -> t -> int -> unit
(** [add_to_buffer buffer t i] appends element [i]. *)

val iter : (string -> unit) -> t -> unit
(** [iter f t] is [f (get t 0)], [f (get t 1)] and so on. *)

val to_array : t -> string array
(** [to_array t] is every element. *)

val set_all : t -> string array -> unit
(** [set_all t strings] writes every element, in one pass.

    Raises [Invalid_argument] for another number of strings than [length t], and for more text than {!room}: see
    [text_bytes] of {!Backend.S.open_model}. Nothing is written then. *)

val init : t -> (int -> string) -> unit
(** [init t f] writes [f 0], [f 1] and so on, without an array of them. When there is no room left, or [f] raises, every
    element is empty afterwards.

    Raises [Invalid_argument] when there is no room. *)

val room : t -> int
(** [room t] is how many bytes of text there is room for, all elements together. *)

val text_size : t -> int
(** [text_size t] is how many bytes of text there are. *)

(**/**)

val make :
  name:string -> (int, Bigarray.int8_unsigned_elt, Bigarray.c_layout) Bigarray.Array1.t -> max_elements:int -> t
(* Over a slot's whole place. *)

val set_length : t -> int -> unit
val copy : t -> t -> unit
(* [copy from to_], of as many elements; there is room. *)
