(** What a client did, where it survives the client: counters in a mapped file, and a line for each slow call. *)

type t

type counter =
  | Submitted
  | Answered
  | Wrong  (** answers that are not what was asked for *)
  | Crashed  (** answered [Worker_crashed] *)
  | Failed  (** any other error: this client lost a request *)
  | Opened_ns  (** when the channel was open, CLOCK_MONOTONIC *)
  | Slowest_ns
  | Heard_ns  (** when the request was submitted that was answered last *)

val create : counters:string -> slow_calls:string -> slow_ns:int -> t
(** [create ~counters ~slow_calls ~slow_ns] begins both files; calls of [slow_ns] and more have a line
    [START END ID], nanoseconds of CLOCK_MONOTONIC. *)

val set : t -> counter -> int -> unit
val add : t -> counter -> unit
val get : t -> counter -> int

val took : t -> start_ns:int -> end_ns:int -> id:int -> unit
(** [took t ~start_ns ~end_ns ~id] notes a call. *)
