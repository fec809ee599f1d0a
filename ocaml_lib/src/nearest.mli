(** Guessing what a mistyped name was meant to be. *)

val hint : string -> string list -> string
(** [hint name known] is [" (did you mean \"image\"?)"] when one of [known] is near [name], else the list of them in
    brackets: a text to append to a message. [""] when [known] is empty. *)
