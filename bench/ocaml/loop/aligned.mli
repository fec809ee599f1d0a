(** Bigarrays that lie as tensors lie in a segment of the daemon's. *)

val create :
  ('a, 'b) Bigarray.kind -> int array -> ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t
(** [create kind dims] is an array of zeros, on a page when it fills one, else on 64 bytes; its pages are there.
    @raise Failed.Failed when there is no memory *)
