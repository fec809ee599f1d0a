(** Guessing what a mistyped name was meant to be. *)

val hint : string -> string list -> string
(** [hint name known] is [" (did you mean \"image\"?)"] when one of [known] is near [name], else the list of them in
    brackets: a text to append to a message. [""] when [known] is empty. *)

val quoted : string -> string
(** [quoted name] is the name in the quotation marks that the daemon's sentences use. *)

val sentence : string -> string list -> string
(** [sentence name known] is the end of a sentence about an unknown name, as the daemon says it: the nearest known one, or
    which there are. *)
