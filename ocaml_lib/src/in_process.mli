(** Backends that run models in this process, made of an {!module-type-Engine}: {!Mock}, and the library [sidecaml-ffi].

    What a program sees is the same as with the daemon, but for what only another process can do: a request runs within
    {!Backend.S.submit} (or [run]), so it is never seen under way; nothing survives a crash in the model; and a deadline
    ends a call only as soon as the engine can stop. [socket], [policy] and, where a model is looked for or opened,
    [timeout_ns] mean nothing here. A signal's handler has its turn when a run is over. *)

(** One input or output of an open channel, in every slot. For engines; used by one thread at a time. *)
module Tensor : sig
  type t

  val signature : t -> Model.tensor
  val is_output : t -> bool
  val is_dynamic : t -> bool

  val max_dims : t -> int array
  (** [max_dims t] is what there is room for. Not to be written to. *)

  val dims : t -> slot:int -> int array
  (** [dims t ~slot] are those of the request in the slot: of an output that is not {!is_known}, those of the run before.
      Not to be written to. *)

  val is_known : t -> slot:int -> bool
  (** [is_known t ~slot] is [false] for an output some of whose dimensions no input has: the run has to say them. *)

  val set_dims : t -> slot:int -> int array -> unit
  (** [set_dims t ~slot dims] says how large an output came out.
      @raise Invalid_argument when there is no room for that, or the signature says otherwise *)

  val refusal : t -> slot:int -> int array -> Error.t option
  (** [refusal t ~slot dims] says why an output may not come out so large, where it is state that is carried; for others
      see {!set_dims}. *)

  val text_bytes : t -> int
  (** [text_bytes t] is the room for text of a tensor of strings, which lies behind the table of [max_dims]; else 0. *)

  val strings : t -> slot:int -> Strings.t option
  (** [strings t ~slot] are the elements of a tensor of strings, in its current dims. *)

  type any = Array : ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t -> any

  val array : t -> slot:int -> any
  (** [array t ~slot] is the tensor in its current dims: its memory starts on 64 bytes, stays where it is while the
      Bigarray can be reached, and has room for [max_dims]. *)
end

type carried
(** A model, and which of its tensors are state that is carried from a channel's request to the next: see {!carry}. *)

(** What runs models. Texts of errors should be those of the daemon for the same cause. *)
module type Engine = sig
  val models : unit -> (Model.t list, Error.t) result
  val describe : string -> (Model.t, Error.t) result

  type t
  (** A model, opened for one channel. *)

  val open_model : lock:Backend.lock -> string -> (t * carried, Error.t) result
  (** [open_model ~lock name] loads it. *)

  val attach : t -> slots:int -> Tensor.t array -> (unit, Error.t) result
  (** [attach t ~slots tensors] is called before any run: inputs come first, in the order of the whole model. State that
      is carried lies in tensors as any other; each slot of a channel is then two here, which differ only in where the state
      is read and where it is written. Called again when the channel grew, and after it raised: the tensors before are not
      to be looked at any more. *)

  val run : t -> slot:int -> deadline_ns:int -> bool
  (** [run t ~slot ~deadline_ns] runs the request in the slot, until a time of {!Backend.S.now_ns} (0: none); whether it
      succeeded. It should not allocate when it does. *)

  val failure : t -> slot:int -> Error.t
  (** [failure t ~slot] says why the slot's last run did not succeed. *)

  val close : t -> unit
  (** [close t] lets go of the model; not called while one runs, and not more than once. *)
end

(** {1 For engines} *)

val model : ?max_slots:int -> string -> engine:string -> inputs:Model.tensor list -> outputs:Model.tensor list -> Model.t
(** [model name ~engine ~inputs ~outputs] is one that is ready.

    @param max_slots default: the most that there can be, 1024 *)

val carry : state:(string * string) list -> Model.t -> (carried, string) result
(** [carry ~state model] is a model whose outputs in [state] become the inputs beside them with the next request; or what
    is wrong with that. *)

val visible : carried -> Model.t
(** [visible model] is what a program sees of it. *)

val failed_model : string -> engine:string -> string -> Model.t
(** [failed_model name ~engine problem] is one that could not be loaded. *)

val not_loaded : string -> string -> Error.t
(** [not_loaded name problem] is [Model_failed], in the words in which a daemon refuses to open such a model. *)

(** What an engine knows by name. Any thread or domain may look and change at any time. *)
module Names : sig
  type 'a t

  val create : unit -> 'a t
  val add : 'a t -> string -> 'a -> unit
  val remove : 'a t -> string -> unit

  val find : 'a t -> string -> ('a, Error.t) result
  (** [find names name], or [Unknown_model] with the nearest name that is known. *)

  val all : 'a t -> (string * 'a) list
  (** [all names], sorted. *)
end

(** {1 The backend} *)

module Make (E : Engine) : sig
  include Backend.S

  val engine : t -> E.t

  val inside : t -> t
  (** [inside t] is the channel with all tensors and slots that the engine has, for views and dims while it runs. *)
end
