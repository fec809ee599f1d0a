(** Spoken WAV files: 16-bit PCM, one channel. *)

type t = {
  rate : int;  (** samples a second *)
  samples : float array;  (** in \[-1, 1) *)
}

val read : string -> (t, string) result
(** [read path] is the sound in the RIFF/WAVE file at [path], or a sentence that says what is wrong with it: anything
    but 16-bit PCM with one channel is refused. *)
