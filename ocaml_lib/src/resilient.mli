(** Clients that outlive their daemon: reconnect and run again, with pauses and a circuit breaker, and another backend to
    fall back to.

    {[
      module Backend = Sidecaml.Resilient.Make (Sidecaml.Resilient.Default) (Sidecaml)
    ]}

    in place of [module Backend = Sidecaml] is all that a program changes. What it is for: a daemon that ends without
    systemd takes its channels along ({!Error.Server_gone}); with systemd, and when only a worker dies, calls are slow and
    nothing of this is needed, nor does it cost anything.

    A call that ends with [Server_gone] opens the channel anew ({!Backend.S.reopen}: views stay, inputs are copied), after
    pauses that are random from 0 to a limit which doubles, and runs the request again, all within its deadline and
    [patience_ns]. So a request may run twice: models without state do not mind, and of others see [state].

    Signal handlers run in the pauses; an exception of theirs goes through. An attempt to open puts them off as {!Backend.S.open_model}
    does: where nobody answers it is over at once, where a daemon is still loading the model it waits for that.

    A channel that the daemon gave up because its requests kept crashing workers is no such case: the call ends with
    {!Error.Worker_crashed}, and only the one after it opens the channel anew.

    Where the daemon has taken the memory of a channel back that it ended ({!Backend.S.is_intact}), the inputs are lost, and the call
    neither runs again nor falls back.

    A call that could not be saved in this way is a failure to the {!Breaker}. While that is open, calls fail at once
    with {!Error.Circuit_open}, or are answered by the fallback. *)

type settings = {
  patience_ns : int;
      (** How long a call goes on reconnecting, counted from the first error, and not beyond its deadline. It should be more
          than opening takes, some milliseconds. Default: 30 s. *)
  first_pause_ns : int;  (** The longest that the first pause may be. Default: 1 ms. *)
  longest_pause_ns : int;  (** The longest that any pause may be. Default: 256 ms. *)
  after_crash : bool;
      (** Whether {!Error.Worker_crashed} is a reason to run again, and a failure, as well. The daemon has tried such a
          request twice already, so it is likely to crash a third worker. Default: [false]. *)
  state : [ `Refuse | `Begin_anew ];
      (** Of models that carry state, which is lost with the daemon. [`Refuse]: [Server_gone] is the program's to deal with,
          through [reopen], which begins anew. [`Begin_anew]: state may begin anew at any request, unnoticed but for
          [reopened] and [answered_by]. Default: [`Refuse]. *)
  wait : bool;  (** Whether [open_model] waits, within its [timeout_ns], for a daemon that is not there yet. Default: [false]. *)
  breaker : unit -> Breaker.t;
      (** Called for each channel that is opened. Default: a new one. For one that all share:
          [let one = Breaker.make () in fun () -> one]. *)
}

val default : settings

module type Settings = sig
  val settings : settings
end

module Default : Settings

module type S = sig
  include Backend.S
  (** Other than in the backend that it is made of:

      - [run], [run_for], [run_until] and [run_growing] reconnect and run again, and fall back. They allocate nothing, and cost
        a comparison more, as long as nothing fails. With a deadline, the error is what went wrong last, not always [Timeout].
        [run_growing] answers [`Grown] also when it ran again: look views up.
      - [claim] reconnects when no slot holds a request or an answer. Requests that were under way end with [Server_gone] each:
        their inputs are still in their slots' views, for the program to claim and submit again. Once every such slot is
        awaited, released or abandoned, [claim] begins with the first slot. These never fall back.
      - [iter] and [map] go on with the rest of the sequence when they could reconnect, as [claim] does: what was under way
        or filled in, and the item whose turn it was, have [Server_gone] as their outcome. They allocate some words an item.
      - Views of outputs with dynamic dimensions are those of whoever answered: look them up after each call, as ever. All
        other views stay valid whoever answers.
      - [open_model], [describe] and [models] only ask the backend itself. *)

  val breaker : t -> Breaker.t

  val answered_by : t -> [ `Primary | `Fallback ]
  (** [answered_by t]: who answered the last [run] that succeeded. *)

  val reopened : t -> int
  (** [reopened t] is how often the channel was opened anew. *)
end

module Make (_ : Settings) (_ : Backend.S) : S
(** [Make (P) (B)] is the backend [B], by the settings of [P]. *)

module With_fallback (_ : Settings) (_ : Backend.S) (_ : Backend.S) : S
(** [With_fallback (P) (B) (F)] has requests that [B] cannot answer run by [F], such as [Sidecaml_ffi], under the same model's name ([Sidecaml_ffi.register]). Its
    channel is opened when it is first needed, with the same sizes; inputs are copied there, and outputs of fixed dimensions back.
    An error is [F]'s then, but for [Timeout] and the like of [B], which are no reason to fall back. Nor is [Worker_crashed] ever: what has
    crashed workers would crash this process.

    A call falls back when reconnecting was in vain, for [patience_ns], and at once while the breaker is open. To fall back at the
    first error, make both small: [patience_ns] of 20 ms, [Breaker.make ~failures:1 ()]. Of a model that carries state,
    [F] has its own, which begins anew each time that [F] takes over: only where [state] says [`Begin_anew]. *)
