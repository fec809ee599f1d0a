(** What another domain does meanwhile. *)

val asleep : (unit -> 'a) -> 'a
(** [asleep work] is [work ()] while another domain sleeps. *)

val inferring : (unit -> Bench_paths.Opened.t) -> (unit -> 'a) -> 'a
(** [inferring open_path work] is [work ()] while another domain, which opened the path, runs the model in a loop.
    @raise Bench_loop.Failed.Failed and whatever else stopped the other domain *)
