(** Channels of one model, handed out to threads and domains.

    {[
      module Pool = Sidecaml_pool.Make (Sidecaml)

      let pool = Pool.create_exn ~size:4 "digits"
      let score image = Pool.with_channel_exn pool (fun digits -> run digits image)
    ]}

    A channel belongs to one thread at a time. A program with as many domains (on OCaml 5) or threads as the pool has
    channels gives each one of its own for as long as it wants, and one with more has them take turns. In dune:
    [(libraries sidecaml.pool)]. It is a library of its own because it needs OCaml's library of threads, which it waits with,
    on OCaml 5 as well.

    Any thread or domain may call any of these functions at any time. *)

module type S = sig
  type channel
  type t

  val create :
    ?socket:string ->
    ?timeout_ns:int ->
    ?slots:int ->
    ?dims:(string * int) list ->
    ?text_bytes:int ->
    ?policy:Sidecaml.Backend.policy ->
    ?lock:Sidecaml.Backend.lock ->
    ?priority:Sidecaml.Backend.priority ->
    size:int ->
    string ->
    (t, Sidecaml.Error.t) result
  (** [create ~size name] opens [size] channels of the model. When one cannot be opened, none stays open. The other
      arguments are those of {!Sidecaml.Backend.S.open_model}; [timeout_ns] is for each of them.

      Raises [Invalid_argument] for a [size] below 1, and as [open_model]. *)

  val create_exn :
    ?socket:string ->
    ?timeout_ns:int ->
    ?slots:int ->
    ?dims:(string * int) list ->
    ?text_bytes:int ->
    ?policy:Sidecaml.Backend.policy ->
    ?lock:Sidecaml.Backend.lock ->
    ?priority:Sidecaml.Backend.priority ->
    size:int ->
    string ->
    t
  (** As {!create}.
      @raise Sidecaml.Error.Error *)

  val with_channel : t -> (channel -> 'a) -> ('a, Sidecaml.Error.t) result
  (** [with_channel pool f] waits until a channel is free, and is [Ok (f channel)]; nobody else has the channel meanwhile. It is
      the one that this thread had last, when that is free: views that were looked up of it then are of the same channel.

      When [f] returns or raises, the channel goes back: what it left under way is given up, and its answers are released. A
      slot in which such a request still runs is waited for before the channel is handed out again. State that is carried
      begins anew for each holder. A channel whose daemon is gone is reopened for its next holder; the error is that of
      reopening, and the channel is free again then. A signal's handler may raise at any point: the channel goes back then, too.

      Raises [Invalid_argument] when the pool is closed, before or while it waits, and when this thread itself holds every
      channel, so that it would wait for ever. [f] must not close its channel, nor keep it. *)

  val with_channel_exn : t -> (channel -> 'a) -> 'a
  (** As {!with_channel}.
      @raise Sidecaml.Error.Error *)

  val try_with_channel : t -> (channel -> 'a) -> ('a, Sidecaml.Error.t) result
  (** [try_with_channel pool f] is {!with_channel}, but does not wait for a channel: [Error Full] when none is free. *)

  val size : t -> int
  (** [size pool] is how many channels there are. *)

  val free : t -> int
  (** [free pool] is how many of them nobody holds just now; 0 once the pool is closed. *)

  val close : t -> unit
  (** [close pool] closes every channel: at once those that nobody holds, the others as they are given back. Whoever waits gets
      [Invalid_argument]. It does not wait. Closing twice is allowed. *)
end

module Make (B : Sidecaml.Backend.S) : S with type channel = B.t
