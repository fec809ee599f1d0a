(** What every way of running a model looks like to a program.

    {!Ipc} runs models in the daemon. Other backends (in process, or a mock for tests) have this same signature, so that
    swapping one for another is one line, and code can be written as a functor over {!S}. *)

(** {1:policies How a channel waits}

    [policy] says what the client does until the answer is there:

    - [`Spin] never sleeps: the lowest latency, at the price of a processor that is busy while a call lasts.
    - [`Adaptive] spins for up to 0.3 ms, but not while that has lately been in vain, then sleeps. The default.
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

type stamps = { submitted_ns : int; seen_ns : int; started_ns : int; finished_ns : int }
(** When a request went through its stages, in nanoseconds of CLOCK_MONOTONIC: submitted by the client, seen by the
    worker, started and finished by the model. All 0: not asked for. *)

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
    string ->
    (t, Error.t) result
  (** [open_model name] opens a channel to a model. It blocks, with the runtime lock released, and puts signal handlers off
      until it is done. A worker takes a new channel between two requests, so that opening waits for one that runs.


      Raises [Invalid_argument] when an argument makes no sense: [slots] below 1, a negative size or time.

      @param socket where the daemon answers; a backend without a daemon takes no notice. Default: [$SIDECAML_SOCKET],
        else [$XDG_RUNTIME_DIR/sidecaml.sock], else [/run/sidecaml/sidecaml.sock].
      @param timeout_ns the longest that each step of opening may take, in nanoseconds. Default: 30 s.
      @param slots how many requests may be under way at once. Default: 1, which {!run} wants.
      @param dims the largest size of every dynamic dimension, by name: it decides how much memory a slot has. Default:
        none, which does for models of fixed shapes. For a dimension that only outputs have, a guess will do where
        {!run_growing} makes the calls.
      @param text_bytes the room for the text of each tensor of strings, in each slot. Default: 64 bytes an element of the
        largest size, and at least 4096.
      @param policy default: [`Adaptive]; see {!Backend}
      @param lock default: [`Release]; see {!Backend}. *)

  val open_model_exn :
    ?socket:string ->
    ?timeout_ns:int ->
    ?slots:int ->
    ?dims:(string * int) list ->
    ?text_bytes:int ->
    ?policy:policy ->
    ?lock:lock ->
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
end
