open Bench_loop

(** A path that is open, whatever its kind. *)
type t = Opened : (module Path.S with type t = 'a) * 'a -> t
