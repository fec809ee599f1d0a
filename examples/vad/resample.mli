(** Changing the sample rate of a sound. *)

val resample : from_rate:int -> to_rate:int -> float array -> float array
(** [resample ~from_rate ~to_rate samples] is the same sound at [to_rate] samples a second: a band-limited
    interpolation by a windowed sinc of 16 zero crossings a side, cut off below half the lower rate (J. O. Smith,
    "Digital Audio Resampling", the formula for sampling rate conversion).
    @raise Invalid_argument if a rate is not positive. *)
