(** Real daemons for the tests. *)

type t

val python : unit -> string
(** [python ()] is what runs daemons. Ends the program with a line that says what to set when nothing is. *)

val start : ?models:string list -> unit -> t
(** [start ()] starts a daemon with the models of [serve.py] (default: all) and waits until they are announced. *)

val shared : unit -> string
(** [shared ()] is the socket of one daemon with all models, which is started when first asked for. *)

val stopping_shared : (unit -> 'a) -> 'a
(** [stopping_shared tests] runs the tests, and then stops the shared daemon if there is one. *)

val socket : t -> string

val workers : t -> int list
(** [workers d] are the ids of its worker processes. *)

val pause : t -> seconds:int -> unit
(** [pause d ~seconds] stops the supervisor, which goes on by itself after so long. *)

val kill : t -> unit
(** [kill d] ends it without a chance to clean up, and waits for its end. *)

val begin_again : t -> unit
(** [begin_again d] starts one that has ended, at the same socket, and does not wait for it. *)

val start_again : t -> unit
(** [start_again d] waits until its models are announced. *)

val ask_to_stop : t -> unit
(** [ask_to_stop d] only sends the signal; {!stop} waits for the end. *)

val wait_stopped : t -> unit
(** [wait_stopped d] waits for the end that {!ask_to_stop} asked for, and fails when that is none. *)

val stop : t -> unit
(** [stop d] asks it to end, and fails when it does not end well. Allowed on one that was killed. *)
