(** The models of [support/serve.py] as OCaml functions. *)

val serve : unit -> unit
(** [serve ()] makes them known to {!Sidecaml.Mock}. *)
