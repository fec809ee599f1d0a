(** What the daemon says about a model: its signature and its state. Plain data, safe to share. *)

type dim =
  | Fixed of int
  | Dynamic of string  (** named; its maximum is given when the model is opened *)

type tensor = {
  name : string;
  dtype : string;  (** "float32" and so on: see {!Dtype.of_name} *)
  shape : dim array;  (** empty for a scalar *)
}

type carried = {
  input : tensor;
  output : string;  (** becomes the input of the channel's next request *)
}
(** State that whoever runs the model keeps from one request of a channel to the next. A program sees neither tensor, and
    begins anew with {!Backend.S.reset}. *)

type state =
  | Ready
  | Loading
  | Failed of string  (** why *)

type t = {
  name : string;
  engine : string;  (** what runs it: "onnx" *)
  state : state;
  fingerprint : int64;  (** of the signature: models of one backend with the same take and give the same tensors *)
  max_slots : int;  (** most that one channel may have *)
  inputs : tensor list;  (** in the model's order; empty unless [Ready] *)
  outputs : tensor list;
  carried : carried list;  (** what is not among them *)
}

val shape : int array -> string array -> dim array
(** [shape sizes names] is the shape whose dimensions have these sizes, or, where one is negative, these names. *)

val dynamic_dims : t -> string list
(** [dynamic_dims model] lists the names of its dynamic dimensions, in order of appearance, each once. *)

val tensor_to_string : tensor -> string
(** [tensor_to_string t] is, for example, ["x float32[N,64]"]. *)

val pp : Format.formatter -> t -> unit
(** [pp ppf model] prints name, engine, state and signature on several lines. *)
