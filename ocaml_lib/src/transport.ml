(* What a backend does with a channel's requests, in numbers: 0 or more, or the negative of an error's code, [closed] or
   [taken]. [Channel.Make] makes of it what programs see. None of the functions from [run] on allocates when it
   succeeds. *)

(* Results beside the errors' codes. *)
let closed = Core.closed ()
let taken = Core.taken ()

(* A request ended with an error of its own, which [failure] tells; whatever its code, it is no refusal of the call. *)
let failed = -1002

type 'a opened = { requests : 'a; model : Model.t; views : View.t array; slots : int }

module type S = sig
  type t

  val models : socket:string option -> timeout_ns:int -> (Model.t list, Error.t) result
  val describe : socket:string option -> timeout_ns:int -> string -> (Model.t, Error.t) result

  val open_model :
    socket:string option ->
    timeout_ns:int ->
    slots:int ->
    dims:(string * int) list ->
    text_bytes:int option ->
    policy:Backend.policy ->
    lock:Backend.lock ->
    priority:Backend.priority ->
    string ->
    (t opened, Error.t) result

  val grow : t -> dims:(string * int) list -> text_bytes:int option -> (t opened, Error.t) result
  (* What may become a successor, with room for that, of the same model and settings but for stamps; [t] is as it was. *)

  val switch : t -> by:t -> (int, Error.t) result
  (* The model is run on the successor's memory from now on; after another result than [Ok 0], on that of [t] as before. *)

  val begin_anew : t -> int
  (* What is under way is given up and state that is carried starts anew; or [server_gone] where another has to be opened
     for that. *)

  val reopen : t -> slots:int -> dims:(string * int) list -> text_bytes:int option -> timeout_ns:int -> (t opened, Error.t) result
  (* What may become a successor of that size; [t] is as it was. *)

  val show : t -> View.t array -> int
  (* Has views of the same layout show the memory of [t] from now on, where they are: of a signal's handler that raises,
     none or all. *)

  val drop : t -> unit
  (* Gives the memory back of what has a successor, or was to become one. *)

  val close : t -> int
  val is_open : t -> bool

  val run : t -> int -> int
  (* Until a deadline in ns, or 0: on a channel with one slot, whose answer is released first. When it raises, which
     only signal handlers and the model's own OCaml code may cause, the request is given up. *)

  val claim : t -> int

  val claim_wait : t -> int -> int
  (* Until a deadline or 0, while it is [busy]. *)

  val await_any : t -> int -> int
  (* The slot of a request whose end was not told yet: of those that have ended, or are past their own deadline. [invalid]
     when there is none, [timeout] at the deadline. *)

  val claim_run : t -> int -> int
  (* How many slots may be filled from the next on, at most so many. *)

  val submit_run : t -> int -> int -> int
  (* Of (count, deadline): as [submit], so many at once. *)

  val await_end : t -> int -> int -> unit
  (* Of (slot, deadline): until the request has ended, or until then, and nobody is told. *)

  val ended : t -> int -> int -> int
  (* Of (slot, most): how many have ended, well or not, one after the other from there on, and nobody is told. *)

  val answered : t -> int -> int -> int
  (* Of (slot, most): how many have succeeded, one after the other from there on. *)

  val release_run : t -> int -> int -> int
  (* Of (slot, count). *)

  val submit : t -> int -> int
  val await : t -> int -> int -> int
  val poll : t -> int -> int -> int
  val release : t -> int -> int
  val abandon : t -> int -> int

  val set_dims : t -> int -> int -> int array -> int
  (* Of (slot, tensor): [invalid] under a request, or for dims that the tensor has no room for. *)

  val get_dims : t -> int -> int -> int array -> int
  val needed : t -> int -> int -> int array -> int
  (* Of (slot, tensor): writes the dims that an output came out with that was too large, before [failure]. *)

  val text_needed : t -> int -> int
  (* Of a slot: the most text of one output, where there was no room. *)

  val failure : t -> int -> int -> Error.t
  (* Of (slot, result): why the request in the slot failed, where the result does not say it. The slot is free after. *)

  val reset : t -> int
  (* Carried state starts anew with the next request that is submitted. *)

  val set_stamps : t -> bool -> int
  val stamps : t -> int -> int array -> int
  val gone : t -> string option
  val gone_error : t -> Error.t option
  val is_intact : t -> bool
end
