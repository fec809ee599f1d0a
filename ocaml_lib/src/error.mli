(** What can go wrong when nobody made a mistake.

    Calls return these as values; their [_exn] twins raise {!exception-Error}. Mistakes of the program (a closed channel, a tensor
    that the model does not have, another element type) raise [Invalid_argument] instead. *)

(** Why something was {!Rejected}: the error table that all of sidecaml shares. *)
type code =
  | Engine  (** the model failed on this request *)
  | Bad_dims  (** dimensions that the model or the channel does not take *)
  | Bad_strings  (** a string input whose table or text is not as the protocol says *)
  | Deadline  (** the request could not have been answered by its deadline: it was not run *)
  | Unknown_model
  | Model_failed  (** the daemon could not load the model *)
  | Too_many_slots  (** more than the daemon allows *)
  | No_space  (** not enough shared memory for the channel *)
  | Unsupported  (** the model uses something that a channel cannot carry *)
  | Limit  (** a limit of the daemon is reached *)
  | Shutting_down
  | Abi_mismatch  (** daemon and program were built from releases that do not fit *)
  | Protocol  (** the daemon sent what is not part of the protocol *)
  | Connect  (** no daemon answers at the socket *)
  | Corrupt  (** shared memory that is not laid out as the protocol says *)
  | Denied
  | Invalid  (** the daemon refused a request as malformed *)
  | System  (** the operating system refused a call *)
  | No_memory
  | Other of int  (** a code that only a newer daemon knows *)

type t =
  | Timeout
      (** The deadline passed. The request was given up; should the worker have begun it, its slot is {!Busy} until the
          worker is done with it. *)
  | Full  (** The slot whose turn it is still holds a request or an answer: release it, even if others are free. *)
  | Busy
      (** The worker still runs a request that timed out in this slot, and may read its inputs. Try again later; do not
          write to the slot's inputs before. *)
  | Server_gone
      (** The daemon ended, or gave the channel up. {!Backend.S.reopen} opens the channel anew, and {!Resilient} does so by
          itself. {!Backend.S.gone} tells what the daemon said about it. *)
  | Worker_crashed  (** The worker died while it ran this request. *)
  | Output_too_large of { outputs : (string * int array) list; text_bytes : int; message : string }
      (** The channel has no room for what the model gave: outputs that were larger than the largest size, with the
          dimensions that they had, and the most text that an output of strings had, 0 where that had room.
          {!Backend.S.run_growing} makes room. *)
  | Circuit_open of { since_ns : int; until_ns : int; failures : int; last : t }
      (** Only of {!Resilient}: so many calls in a row failed, the last of them with [last], so that none is tried until
          [until_ns], a time of {!Backend.S.now_ns}; none has succeeded since [since_ns], when that began. *)
  | Rejected of { code : code; message : string }
      (** [message] is a sentence for people: what was asked, what is wrong with it, and what to do. *)

exception Error of t
(** Raised by the [_exn] twins. *)

val to_string : t -> string
(** [to_string e] is one line for people. *)

val pp : Format.formatter -> t -> unit
(** [pp ppf e] prints [to_string e]. *)

val equal : t -> t -> bool

val code_name : code -> string
(** [code_name Unknown_model] is ["UNKNOWN_MODEL"], the name that logs and other languages use. *)

val all_codes : code list
(** Every code but [Other]. *)

val get_exn : ('a, t) result -> 'a
(** [get_exn (Ok x)] is [x].

    Raises {!exception-Error} on [Error e]. *)

(** {1 For backends} *)

val of_number : int -> message:string -> t
(** [of_number n ~message] is the error with the number [n] in the table that all of sidecaml shares; an empty [message]
    is replaced with the table's. *)

val to_number : t -> int * string
(** [to_number e] is the number in that table, and the message: [of_number n ~message] is [e] again, but for what
    {!Output_too_large} tells beside its message. *)
