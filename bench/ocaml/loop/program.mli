(** A program of the benchmark: its arguments, and how it fails. *)

val main : (unit -> unit) -> 'a
(** [main body] ends the program after [body ()]; when that raises, with a line [error TEXT] and code 1. *)

(** {1 Arguments} *)

val text : string -> string option ref -> string * Arg.spec * string
(** [text "--name" cell] is an argument that is a word. *)

val number : string -> int option ref -> string * Arg.spec * string
(** [number "--count" cell] is an argument that is a number. *)

val parse : (string * Arg.spec * string) list -> (string -> unit) -> string -> unit
(** [parse arguments anonymous usage] reads the command line.
    @raise Failed.Failed for what cannot be read *)

val required : string -> 'a option -> 'a
(** [required "--name" value] is the value.
    @raise Failed.Failed when there is none *)
