(** A circuit breaker: after so many calls in a row that failed, none is tried for a while.

    {v
      closed --- so many failures in a row ---> open --- cool-down is over, one call is let through ---> half-open
        ^                                        ^                                                        |    |
        |                                        +------------------ it failed ---------------------------+    |
        +------------------------------------------ a call succeeded ------------------------------------------+
    v}

    {!Resilient} has one for each channel, or one that channels share. Times are nanoseconds of CLOCK_MONOTONIC
    ({!Backend.S.now_ns}), and never looked at here.

    Threads: any thread or domain may use one at any time. *)

type t

val make : ?failures:int -> ?cool_down_ns:int -> unit -> t
(** [make ()] is closed.

    Raises [Invalid_argument] for [failures] below 1 and a negative time.

    @param failures so many in a row open it. Default: 3.
    @param cool_down_ns how long it is open. Default: 5 s. *)

type state =
  | Closed  (** calls go through *)
  | Open of { since_ns : int; until_ns : int }
      (** they fail at once; no call has succeeded since the one time, one is tried at the other *)
  | Half_open of { since_ns : int }  (** the cool-down is over: one call goes through, or may, and decides *)

val state : t -> now_ns:int -> state

val state_to_string : state -> string
(** [state_to_string state] is ["closed"], ["open"] or ["half-open"]. *)

val is_calm : t -> bool
(** [is_calm t]: closed, and the last call succeeded. Then {!admit} would let the next one through without a look at the
    clock. *)

(** {1 Calls} *)

val admit : t -> now_ns:int -> (unit, Error.t) result
(** [admit t ~now_ns] is asked before a call: [Error Circuit_open] when it may not be tried. After [Ok ()] one of the three
    below is to be told; in a half-open one, other calls wait for that, at most for another cool-down. *)

val succeeded : t -> unit
(** [succeeded t] closes it, whenever that call began. *)

val failed : t -> now_ns:int -> Error.t -> unit
(** [failed t ~now_ns error] counts a failure. One that comes when it is open already changes nothing. *)

val withdrawn : t -> now_ns:int -> unit
(** [withdrawn t ~now_ns]: the call says nothing about the other side. The next one is tried in its place. *)
