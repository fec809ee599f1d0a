(** What every way of running a model looks like to a program.

    {!Ipc} runs models in the daemon. Other backends (in process, or a mock for tests) have this same signature, so that
    swapping one for another is one line, and code can be written as a functor over {!S}. *)

(** {1:policies How a channel waits}

    [policy] says what the client does until the answer is there:

    - [`Spin] never sleeps: the lowest latency, at the price of a processor that is busy while a call lasts.
    - [`Adaptive] spins for up to 0.3 ms where the answer is expected by then and no other thread of the daemon's models
      or clients wants the processor, then sleeps. The default.
    - [`Block] sleeps at once: the least work for the processor, at the price of a wake-up per call.

    [lock] says what happens to OCaml's runtime lock in a wait of more than a few microseconds (shorter ones keep it):

    - [`Release] gives it up, so that other threads, and on OCaml 5 the minor collections of other domains, go on while
      the model runs. The default. Beside a thread that computes without pause, the lock comes back only when that
      thread is made to yield, tens of milliseconds later.
    - [`Hold] keeps it. Nothing delays the return from a call; but no other thread of the domain runs meanwhile, and on
      OCaml 5 every other domain that wants a minor collection waits until the call is over. For programs with one
      thread, and for models that answer within microseconds. *)

type policy = [ `Spin | `Adaptive | `Block ]
type lock = [ `Hold | `Release ]
type priority = [ `Normal | `High ]

type stamps = { submitted_ns : int; seen_ns : int; started_ns : int; finished_ns : int }
(** When a request went through its stages, in nanoseconds of CLOCK_MONOTONIC: submitted by the client, seen by the
    worker, started and finished by the model. All 0: not asked for. The last two 0: refused
    ({!Error.Deadline}), so it did not run. *)

module type S = sig
  (** {1 Models} *)

  val models : ?socket:string -> ?timeout_ns:int -> unit -> (Model.t list, Error.t) result
  (** [models ()] lists every model, by name. Options as for {!open_model}. *)

  val models_exn : ?socket:string -> ?timeout_ns:int -> unit -> Model.t list
  (** As {!val-models}.
      @raise Error.Error *)

  val describe : ?socket:string -> ?timeout_ns:int -> string -> (Model.t, Error.t) result
  (** [describe name] tells a model's signature and state. An unknown name is [Rejected], with the nearest known one. *)

  val describe_exn : ?socket:string -> ?timeout_ns:int -> string -> Model.t
  (** As {!describe}.
      @raise Error.Error *)

  (** {1 Channels} *)

  type t
  (** A channel: one open model, with memory for its tensors.

      Threads: a channel is used by one thread (or domain) at a time; a call on it while another thread is in one raises
      [Invalid_argument]. It may be handed on between calls. Different channels are independent: open one for each
      thread that runs the model.

      Lifetime: until {!close}, or until the collector finds that the channel, and not only its views, is out of reach.
      Programs should close, or use {!with_model}: each channel holds shared memory and a connection. *)

  val open_model :
    ?socket:string ->
    ?timeout_ns:int ->
    ?slots:int ->
    ?dims:(string * int) list ->
    ?text_bytes:int ->
    ?policy:policy ->
    ?lock:lock ->
    ?priority:priority ->
    string ->
    (t, Error.t) result
  (** [open_model name] opens a channel to a model. It blocks, with the runtime lock released, and puts signal handlers off
      until it is done. A worker takes a new channel between two requests, so that opening waits for one that runs.


      Raises [Invalid_argument] when an argument makes no sense: [slots] below 1, a negative size or time.

      @param socket where the daemon answers; a backend without a daemon takes no notice. Default: [$SIDECAML_SOCKET],
        else [$XDG_RUNTIME_DIR/sidecaml.sock], else [/run/sidecaml/sidecaml.sock].
      @param timeout_ns the longest that opening may take, in nanoseconds. When the daemon goes away in the middle of it, it
        begins again within that time. Default: 30 s.
      @param slots how many requests may be under way at once. Default: 1, which {!run} wants.
      @param dims the largest size of every dynamic dimension, by name: it decides how much memory a slot has. Default:
        none, which does for models of fixed shapes. For a dimension that only outputs have, a guess will do where
        {!run_growing} makes the calls.
      @param text_bytes the room for the text of each tensor of strings, in each slot. Default: 64 bytes an element of the
        largest size, and at least 4096.
      @param policy default: [`Adaptive]; see {!Backend}
      @param lock default: [`Release]; see {!Backend}.
      @param priority [`High] has the channel's requests run before those of channels that are not, where both wait, but for
        every ninth run.
        [Rejected] with [Denied] for a user whom the daemon does not trust. A backend without a daemon takes no notice.
        Default: [`Normal]. *)

  val open_model_exn :
    ?socket:string ->
    ?timeout_ns:int ->
    ?slots:int ->
    ?dims:(string * int) list ->
    ?text_bytes:int ->
    ?policy:policy ->
    ?lock:lock ->
    ?priority:priority ->
    string ->
    t
  (** As {!open_model}.
      @raise Error.Error *)

  val with_model :
    ?socket:string ->
    ?timeout_ns:int ->
    ?slots:int ->
    ?dims:(string * int) list ->
    ?text_bytes:int ->
    ?policy:policy ->
    ?lock:lock ->
    ?priority:priority ->
    string ->
    (t -> 'a) ->
    ('a, Error.t) result
  (** [with_model name f] is [Ok (f channel)]; the channel is closed when [f] returns or raises. The error is that of
      opening. *)

  val with_model_exn :
    ?socket:string ->
    ?timeout_ns:int ->
    ?slots:int ->
    ?dims:(string * int) list ->
    ?text_bytes:int ->
    ?policy:policy ->
    ?lock:lock ->
    ?priority:priority ->
    string ->
    (t -> 'a) ->
    'a
  (** As {!with_model}.
      @raise Error.Error when the model cannot be opened *)

  val close : t -> unit
  (** [close t] ends the channel and gives its memory back; what is under way is given up. Views read as zeros from then
      on (what they hold is not freed before the collector finds them unused, so a late access is no memory error).
      Closing twice is allowed.

      Raises [Invalid_argument] when another thread is in a call on [t]. *)

  val is_open : t -> bool
  (** [is_open t] is [false] after {!close}. A channel whose daemon is gone is still open. *)

  val model : t -> Model.t
  (** [model t] is the model as it was when it was opened. *)

  val slots : t -> int
  (** [slots t] is the number of slots. *)

  (** {1 Tensors}

      Views are Bigarrays straight over the memory that the model reads and writes, in C layout: nothing is copied.
      [slot] (default: 0) is one that {!claim} gave. Look views up once, before the calls: a lookup compares names.

      Lifetime: a view stays valid memory as long as the program can reach it. Write inputs while no request is under
      way in their slot. Outputs count only after {!run} or {!await} said [Ok], and until the next {!run}, {!release} or
      {!close}. A view does not keep its channel open: see {!close}.

      Tensors with dynamic dimensions have the largest size at first. Their views have the size at the time of the
      lookup: look again after {!set_dims}, and look outputs up after the request.

      A lookup by a channel's first slot allocates nothing while the dimensions stay the same; a view of others is built
      anew. [~slot] allocates what OCaml makes of an optional argument.

      All of these raise [Invalid_argument] for a name that the model does not have, another element type, another
      number of dimensions, a slot that does not exist, and a closed channel. *)

  val input0 :
    ?slot:int -> t -> string -> ('a, 'b) Dtype.t -> ('a, 'b, Bigarray.c_layout) Bigarray.Array0.t
  (** [input0 t name dtype] is the view of a scalar input. *)

  val input1 :
    ?slot:int -> t -> string -> ('a, 'b) Dtype.t -> ('a, 'b, Bigarray.c_layout) Bigarray.Array1.t
  (** [input1 t name dtype] is the view of an input with one dimension. *)

  val input2 :
    ?slot:int -> t -> string -> ('a, 'b) Dtype.t -> ('a, 'b, Bigarray.c_layout) Bigarray.Array2.t
  (** [input2 t name dtype] is the view of an input with two dimensions. *)

  val input3 :
    ?slot:int -> t -> string -> ('a, 'b) Dtype.t -> ('a, 'b, Bigarray.c_layout) Bigarray.Array3.t
  (** [input3 t name dtype] is the view of an input with three dimensions. *)

  val input :
    ?slot:int -> t -> string -> ('a, 'b) Dtype.t -> ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t
  (** [input t name dtype] is the view of an input with any number of dimensions, up to 16. Element accesses through a
      [Genarray] are much slower, and allocate. *)

  val output0 :
    ?slot:int -> t -> string -> ('a, 'b) Dtype.t -> ('a, 'b, Bigarray.c_layout) Bigarray.Array0.t
  (** [output0 t name dtype] is the view of a scalar output. *)

  val output1 :
    ?slot:int -> t -> string -> ('a, 'b) Dtype.t -> ('a, 'b, Bigarray.c_layout) Bigarray.Array1.t
  (** [output1 t name dtype] is the view of an output with one dimension. *)

  val output2 :
    ?slot:int -> t -> string -> ('a, 'b) Dtype.t -> ('a, 'b, Bigarray.c_layout) Bigarray.Array2.t
  (** [output2 t name dtype] is the view of an output with two dimensions. *)

  val output3 :
    ?slot:int -> t -> string -> ('a, 'b) Dtype.t -> ('a, 'b, Bigarray.c_layout) Bigarray.Array3.t
  (** [output3 t name dtype] is the view of an output with three dimensions. *)

  val output :
    ?slot:int -> t -> string -> ('a, 'b) Dtype.t -> ('a, 'b, Bigarray.c_layout) Bigarray.Genarray.t
  (** [output t name dtype] is the view of an output with any number of dimensions. *)

  val input_strings : ?slot:int -> t -> string -> Strings.t
  (** [input_strings t name] is an input of strings, which all are empty at first. *)

  val output_strings : ?slot:int -> t -> string -> Strings.t
  (** [output_strings t name] is an output of strings. *)

  val set_dims : ?slot:int -> t -> string -> int array -> unit
  (** [set_dims t name dims] sets an input's dimensions for the requests submitted in the slot from now on, until set
      again. They start at the largest. Allocates nothing.

      Raises [Invalid_argument] when [dims] do not fit the input (their number, one larger than what the channel was
      opened with, a fixed one changed), or a request is under way in the slot. *)

  val input_dims : ?slot:int -> t -> string -> int array
  (** [input_dims t name] is a fresh array of an input's current dimensions.

      Raises [Invalid_argument] as the views. *)

  val output_dims : ?slot:int -> t -> string -> int array
  (** [output_dims t name] is a fresh array of an output's dimensions, as the last request in the slot left them.

      Raises [Invalid_argument] as the views. *)

  (** {1 Calling}

      None of the functions in this section allocates when it succeeds. A backend that runs models in this process does,
      in the first request of a slot or of a set of dimensions, for outputs whose size only the run can tell, and for
      strings; and {!run_growing} does where it grows. *)

  val run : t -> (unit, Error.t) result
  (** [run t] runs the model on the inputs, and waits for the outputs. The outputs can be read until the next [run].
      After an [Error _] they mean nothing.

      An exception that a signal handler raises meanwhile gives the request up and goes through.

      Raises [Invalid_argument] on a channel with several slots, and on a closed one. *)

  val run_for : t -> timeout_ns:int -> (unit, Error.t) result
  (** [run_for t ~timeout_ns] is {!run}, giving up after so many nanoseconds: [Error Timeout]. *)

  val run_until : t -> deadline_ns:int -> (unit, Error.t) result
  (** [run_until t ~deadline_ns] is {!run}, giving up at a time of {!now_ns}.

      Raises [Invalid_argument] for a deadline that is not positive. *)

  val run_exn : t -> unit
  (** As {!run}.
      @raise Error.Error *)

  val run_for_exn : t -> timeout_ns:int -> unit
  (** As {!run_for}.
      @raise Error.Error *)

  val run_growing : t -> ([ `Fitted | `Grown ], Error.t) result
  (** [run_growing t] is {!run}, for models with outputs whose size only the run can tell. When they do not fit
      ({!Error.Output_too_large}), it opens the channel again with more room, half more than before at least, copies the
      inputs with their dimensions, gives the old memory back, and runs once more: then it is [Ok `Grown].

      After [`Grown] look every view up again: those of before are of the old memory, which reads as zeros. [t] itself
      stays what it is. After an [Error _] nothing has moved, unless [t] had grown before the error: look views up again
      then as well. With the daemon, growing takes as long as opening, and {!Error.Server_gone} and the errors of opening
      can come of it; {!Error.Output_too_large} stands where no maximum helps, because the model declares a size that it
      does not keep to, and of a model that carries state, which another channel would begin anew.

      Raises [Invalid_argument] as {!run}. *)

  val is_busy : t -> bool
  (** [is_busy t] is [true] while the worker still runs a request that timed out in the slot that comes next: its inputs
      must not be written. Only after a [Timeout] or {!abandon} need a program ask. *)

  val is_quiet : t -> bool
  (** [is_quiet t] is [true] when every slot may be filled: none holds a request or an answer, and the worker runs none that was
      given up. [false] when the daemon is gone. *)

  (** {1 Several requests at once}

      {!claim} a slot, fill its inputs, {!submit} it, do something else, {!await} or {!poll} it, read its outputs,
      {!release} it. Slots are claimed in turn, round and round: one that is not released is [Full] when its turn comes,
      even if others are free. They may be awaited and released in any order.

      None of the functions in this section allocates when it succeeds. *)

  val claim : t -> (int, Error.t) result
  (** [claim t] is the slot to fill next, from 0 to [slots t - 1]; the same until it is submitted. [Full] when its answer
      has not been released, [Busy] when a request that timed out still runs in it. *)

  val claim_exn : t -> int
  (** As {!claim}.
      @raise Error.Error *)

  val claim_wait : t -> (int, Error.t) result
  (** [claim_wait t] is {!claim}, but waits while the slot is [Busy]. [Full] it answers at once, as only the program itself
      can end that: {!await} and {!release} the slot whose turn it is, or have {!iter} do all of it.

      An exception that a signal handler raises meanwhile goes through. *)

  val claim_wait_for : t -> timeout_ns:int -> (int, Error.t) result
  (** [claim_wait_for t ~timeout_ns] is {!claim_wait}, giving up after so many nanoseconds: [Error Timeout]. *)

  val claim_wait_exn : t -> int
  (** As {!claim_wait}.
      @raise Error.Error *)

  val claim_wait_for_exn : t -> timeout_ns:int -> int
  (** As {!claim_wait_for}.
      @raise Error.Error *)

  val submit : t -> int -> (unit, Error.t) result
  (** [submit t slot] hands the slot that {!claim} gave to the worker.

      Raises [Invalid_argument] when [slot] is not claimed. *)

  val submit_for : t -> int -> timeout_ns:int -> (unit, Error.t) result
  (** [submit_for t slot ~timeout_ns] is {!submit} with a deadline, which {!await} and {!poll} keep. *)

  val submit_exn : t -> int -> unit
  (** As {!submit}.
      @raise Error.Error *)

  val submit_for_exn : t -> int -> timeout_ns:int -> unit
  (** As {!submit_for}.
      @raise Error.Error *)

  val await : t -> int -> (unit, Error.t) result
  (** [await t slot] waits for the answer to the slot's request. After [Ok ()], {!release} the slot when its outputs are
      read. An [Error _] leaves nothing to release.

      An exception that a signal handler raises meanwhile goes through, and the request goes on.

      Raises [Invalid_argument] when the slot holds neither a request nor an answer. *)

  val await_for : t -> int -> timeout_ns:int -> (unit, Error.t) result
  (** [await_for t slot ~timeout_ns] is {!await}, giving up after so many nanoseconds, or at the deadline of
      {!submit_for} when that is earlier. *)

  val await_exn : t -> int -> unit
  (** As {!await}.
      @raise Error.Error *)

  val await_for_exn : t -> int -> timeout_ns:int -> unit
  (** As {!await_for}.
      @raise Error.Error *)

  val await_any : t -> (int, Error.t) result
  (** [await_any t] waits until any request has ended, and is its slot: {!await} tells how it ended, at once, and frees the
      slot of one that failed; {!release} the slot of one that was answered. Each request is told of once, whether by
      [await_any], or by {!await} or {!poll} before: an answer that is not released does not come again. The oldest is looked
      at first.

      A request has ended, too, when the time of its {!submit_for} is over, and when the daemon is gone: {!await} says
      [Timeout] or [Server_gone] then.

      An exception that a signal handler raises meanwhile goes through, and the requests go on.

      Raises [Invalid_argument] when there is no request whose end is not known yet. *)

  val await_any_for : t -> timeout_ns:int -> (int, Error.t) result
  (** [await_any_for t ~timeout_ns] is {!await_any} for at most so many nanoseconds: [Error Timeout] then, and the requests
      go on. *)

  val await_any_exn : t -> int
  (** As {!await_any}.
      @raise Error.Error *)

  val await_any_for_exn : t -> timeout_ns:int -> int
  (** As {!await_any_for}.
      @raise Error.Error *)

  val poll : t -> int -> (bool, Error.t) result
  (** [poll t slot] is [Ok true] when the answer is there, [Ok false] when not yet; errors as {!await}. It does not wait,
      and makes a system call at most every millisecond. *)

  val release : t -> int -> unit
  (** [release t slot] gives an answered slot back; its outputs must not be read any more.

      Raises [Invalid_argument] when the slot holds no answer. *)

  val abandon : t -> int -> unit
  (** [abandon t slot] gives a request up, whether it is waiting, running or answered. There is nothing to release then;
      if it was running, the slot is [Busy] until the worker is done with it.

      Raises [Invalid_argument] when the slot holds neither a request nor an answer. *)

  (** {1 Requests of a sequence}

      All of {!claim}, {!submit}, {!await} and {!release} for the items of a sequence, many at once: the fastest way to run
      many requests, because the worker finds as many of them together as it can batch. *)

  val iter :
    ?window:int ->
    ?burst:int ->
    ?timeout_ns:int ->
    t ->
    fill:(int -> 'a -> unit) ->
    answer:(int -> 'a -> (unit, Error.t) result -> unit) ->
    'a Seq.t ->
    (unit, Error.t) result
  (** [iter t ~fill ~answer items] makes a request of each item: [fill slot item] writes the inputs of [slot], and
      [answer slot item outcome] reads its outputs when [outcome] is [Ok ()]. Both are called in the order of [items]. Every
      item that the sequence was asked for has its [answer], once. A request that fails is no reason to stop. As long as
      requests can be submitted, the sequence is asked for an item only when there is a slot for it.

      Where the channel has more slots than the window, the next burst is filled while a window of requests is under way. It
      is handed to the worker as soon as enough of those are answered, and before their answers are read: the worker does
      not wait for the program to read and fill. So the sequence is asked for up to a burst beyond the window before it
      sees the [answer] of the first of them, and up to the window where that is all of the slots; and while the sequence
      makes one wait for an item, nothing is read or handed over. Where items depend on answers, or come one at a time and
      are to be answered at once, open the channel with one slot, or use {!claim} and {!submit}.

      It allocates nothing for an item, once every slot was used (the sequence may). Get the slots' views beforehand, as in
      [Array.init (slots t) (fun slot -> input2 ~slot t "x" Float32)].

      [Error _] when there are more items and no more requests can be submitted: [Server_gone], or [Full] where the program
      itself holds the slot whose turn it is. Then the last item that was asked for, at least, had that error as its
      [answer]; it may not have been filled in.

      When [fill], [answer], the sequence or a signal handler raises, what is under way is given up, and the exception goes
      through. They must not use the channel but for the slot's views, dims and strings.

      Raises [Invalid_argument] for a window larger than the channel's slots or a burst larger than the window, for either
      below 1, for a negative time, and on a closed channel.

      @param window how many requests may be under way at once: handed over, and not known to be answered. Default: all
        slots.
      @param burst how many slots are filled before they are handed to the worker together, and how many answers are
        awaited before they are read: the largest batch that the worker finds. Default: the window, where the slots are twice
        as many or more, so that the next one is filled meanwhile; otherwise half of the window (at least 1), so that one
        half is filled and read while the other one runs. With all of a window that takes all slots, batches are as large,
        and the model waits for the program: for those who fill and read in much less time than a batch takes.
      @param timeout_ns how long each request may take, from the time it was handed over. Default: for ever. *)

  val map :
    ?window:int ->
    ?burst:int ->
    ?timeout_ns:int ->
    t ->
    fill:(int -> 'a -> unit) ->
    read:(int -> 'a -> 'b) ->
    'a Seq.t ->
    ('b, Error.t) result Seq.t
  (** [map t ~fill ~read items] is {!iter} as a sequence: of each item in turn, what [read] makes of its outputs, or why its
      request failed. It runs as it is consumed: a window of requests ahead of the results that were taken, and a burst that
      is filled beyond them where there are slots for it. What would be the error of {!iter} is the result of the last items
      that were asked for, and ends the sequence of results.

      It can be consumed once; a result that is asked for again raises [Invalid_argument]. Slots stay taken until all of it is
      consumed: {!abandon} them, or close the channel, when you stop in the middle. Allocated is what the sequence of results
      consists of, some 20 words a result. *)

  (** {1 Carried state}

      A model may have state: outputs that become inputs of the next request ({!Model.carried}). Where the daemon's
      configuration says so, or whoever registered the model, the state is kept where the model runs: a program neither
      sees nor copies it, each channel has its own, and requests of a channel get it in the order in which they were
      submitted. It begins as zeros. A request that fails leaves it as it was; one that was cancelled before it started
      never ran.

      Where the size of the state depends on dynamic dimensions of inputs, {!set_dims} may change it after a {!reset} only:
      otherwise the request fails with [Bad_dims]. *)

  val reset : t -> unit
  (** [reset t] begins anew: the next request that is submitted finds zeros. Should that request be given up, the first one
      that is submitted after that does; those that were submitted meanwhile find what state there is.

      After a [Timeout] or {!abandon}, reset: the request that was given up may have run to its end, and the state have
      moved on.

      Raises [Invalid_argument] for a model that carries no state, and on a closed channel. *)

  (** {1 When the daemon is gone} *)

  val reopen : t -> (unit, Error.t) result
  (** [reopen t] opens the channel anew, behind the same value, after {!Error.Server_gone} (or at any other time). {!Resilient}
      does this by itself, with pauses, and runs the request again.

      Every view stays what it is: the new memory takes the place of the old one under it. Inputs, with their dimensions,
      are as they were; outputs are lost, and so is what was under way: its slots are free, and {!claim} begins with the
      first again. State that is carried begins anew.

      After an [Error _] all is as before. The errors are those of {!open_model}, and [Rejected] with [Invalid] when the model
      has another signature by now, or with [Corrupt] when the inputs are lost ({!is_intact}): then close the channel and open
      another.

      Raises [Invalid_argument] on a closed channel. *)

  val reopen_for : t -> timeout_ns:int -> (unit, Error.t) result
  (** [reopen_for t ~timeout_ns] is {!reopen} within so many nanoseconds, in place of 30 s. *)

  (** {1 Looking closer} *)

  val set_stamps : t -> bool -> unit
  (** [set_stamps t true] takes {!Backend.stamps} of the requests from now on, at the cost of four looks at the clock a
      request: 50 to 120 ns on the machines that were measured. Default: [false].

      Raises [Invalid_argument] on a closed channel. *)

  val stamps : ?slot:int -> t -> stamps
  (** [stamps t] are those of the slot's last answered request. The clock is that of {!now_ns}.

      Raises [Invalid_argument] on a closed channel, and for a slot that does not exist. *)

  val now_ns : unit -> int
  (** [now_ns ()] is the time in nanoseconds, of CLOCK_MONOTONIC. *)

  val gone : t -> string option
  (** [gone t] says what ended a channel that answered [Server_gone], in the daemon's words where it had any; [None] while
      nothing is known to be wrong. *)

  val gone_error : t -> Error.t option
  (** [gone_error t] is the same as an error: {!Error.Server_gone} when the daemon just went away; {!Error.Worker_crashed} when it
      gave the channel up because the channel's requests kept crashing workers; [Rejected] with [Shutting_down],
      [Model_failed] and so on. *)

  val is_intact : t -> bool
  (** [is_intact t] is [false] once the channel's memory is not the program's any more: it was closed, or a daemon that does not
      trust this user ended it, and took the memory back. What views show is lost then; what was read of them before an
      [is_intact t] that is [true] counts. *)
end
