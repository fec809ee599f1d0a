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

type batching = {
  policy : string;
      (** what a batch may do to an answer: ["exact"] (nothing, bit for bit), ["ulp N"] (floats differ by at most [N] units in
          the last place), ["any"] (untested), or ["off"] *)
  most : int;  (** rows that one run takes; 1: requests run one by one *)
  dim : string option;  (** the dynamic dimension that counts rows; [None] where none does, or none was looked for *)
  in_place : bool;  (** whether tensors whose rows are a multiple of 16 bytes are run where they lie, in slots side by side, without a
          copy; the others are copied, as soon as there are as many neighbours as [sidecaml describe] tells *)
  gather_from : int option;
      (** the fewest requests that are copied together to be run as one, where they cannot be run in place, as those of several
          channels cannot; [None]: they never are *)
  shared : string list;  (** inputs that only requests which are equal in them, bit for bit, are run together *)
  why : string;  (** what limits [most], or why requests run one by one; [""] where nothing does but the configuration *)
}
(** How requests that wait at the same time are run together, as was found out when the model was loaded. More than [most] of
    one row in flight gain nothing more. Which sizes of other dynamic dimensions go together, [sidecaml describe] tells. *)

type t = {
  name : string;
  engine : string;  (** what runs it: "onnx" *)
  state : state;
  fingerprint : int64;  (** of the signature: models of one backend with the same take and give the same tensors *)
  max_slots : int;  (** most that one channel may have *)
  inputs : tensor list;  (** in the model's order; empty unless [Ready] *)
  outputs : tensor list;
  carried : carried list;  (** what is not among them *)
  batching : batching option;
      (** [None] where nobody runs requests together: {!In_process}, {!Mock}, [Sidecaml_ffi]. Of a model that is not [Ready],
          "off" *)
}

val shape : int array -> string array -> dim array
(** [shape sizes names] is the shape whose dimensions have these sizes, or, where one is negative, these names. *)

val dynamic_dims : t -> string list
(** [dynamic_dims model] lists the names of its dynamic dimensions, in order of appearance, each once. *)

val tensor_to_string : tensor -> string
(** [tensor_to_string t] is, for example, ["x float32[N,64]"]. *)

val pp : Format.formatter -> t -> unit
(** [pp ppf model] prints name, engine, state and signature on several lines. *)
