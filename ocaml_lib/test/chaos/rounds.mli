(** Rounds of requests: all slots are submitted, then awaited. *)

type failure = { id : int; error : Sidecaml.Error.t }

val run :
  Sidecaml.t ->
  Job.t ->
  Ledger.t ->
  first:int ->
  in_order:bool ->
  pause_us:int ->
  stop:(unit -> bool) ->
  (unit, failure) result
(** [run channel job ledger ~first ~in_order ~pause_us ~stop] numbers its requests from [first] on and goes on until
    [stop ()], with so long a pause after each round; then nothing is under way. Without [in_order] the answers are awaited in any order. *)
