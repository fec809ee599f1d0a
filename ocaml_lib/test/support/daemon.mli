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

val kill : t -> unit
(** [kill d] ends it without a chance to clean up, and waits for its end. *)

val ask_to_stop : t -> unit
(** [ask_to_stop d] only sends the signal; {!stop} waits for the end. *)

val stop : t -> unit
(** [stop d] asks it to end, and fails when it does not end well. Allowed on one that was killed. *)
