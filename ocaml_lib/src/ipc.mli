(** Models that run in the sidecaml daemon, reached through shared memory. *)

include Backend.S

val default_socket : unit -> string
(** [default_socket ()] is where the daemon is looked for when a call does not say: [$SIDECAML_SOCKET], else
    [$XDG_RUNTIME_DIR/sidecaml.sock], else [/run/sidecaml/sidecaml.sock]. *)
