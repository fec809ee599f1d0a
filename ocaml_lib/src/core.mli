(** The stubs of [c_shim/ocaml/stubs.c], and what they give.

    Results are those of [sidecaml.h]: 0 or more, or the negative of an error code. Beside them, a channel that is closed
    answers {!closed}, and one that is in a call of another thread {!taken}. *)

type handle
(** A channel of the C core. The finaliser lets go of it without giving its pages back, for views may be in use. *)

type request = {
  socket : string;
  client : string;
  model : string option;
  slots : int;
  policy : int;
  timeout_ns : int;
  dims : (string * int) array;
  text_bytes : int;  (** room for text of each tensor of strings in each slot; 0: the daemon's default *)
  high_priority : bool;
}
(** What to describe or open. The stubs know the order of the fields; no string may hold a NUL character. *)

type tensor_info = {
  tensor_name : string;
  dtype_name : string;
  is_output : bool;
  dims : int array;  (** -1 for a dynamic one *)
  dim_names : string array;  (** [""] for a fixed one *)
}

type batching_info = {
  policy : string;
  dim : string;
  why : string;
  most : int;
  gather_from : int;  (** 0: never *)
  in_place : bool;
  shared : string array;
}

type model_info = {
  model_name : string;
  engine : string;
  state : string;
  problem : string;
  fingerprint : int64;
  max_slots : int;
  tensors : tensor_info array;
  carried : (string * tensor_info) array;  (** of each pair, output and input *)
  batching : batching_info option;  (** [None]: the daemon said nothing of it *)
}

type place = {
  dynamic : bool;
  offset : int;  (** bytes, of slot 0 *)
  stride : int;  (** bytes, from slot to slot *)
  max_dims : int array;
  text_bytes : int;  (** of strings: room for one slot's text; else 0 *)
}

type layout = {
  segment : Unix.file_descr;  (** the channel's own: not to be closed *)
  segment_bytes : int;
  slot_count : int;
  places : place array;
}

(** {1 The runtime lock is released} *)

external describe : request -> (model_info array, int * string) result = "sidecaml_ml_describe"
external open_channel : request -> (handle * model_info * layout, int * string) result = "sidecaml_ml_open"

external close : handle -> int = "sidecaml_ml_close"
(** Idempotent: 0, or {!taken}. *)

type mapping = Mapping : ('a, 'b, Bigarray.c_layout) Bigarray.Array1.t -> mapping

external show : handle -> mapping array -> int = "sidecaml_ml_show"
(** [show handle mappings] has mappings of another segment of that size, and every view in them, show this one's. Negative
    when it cannot; should that come late, they are zeros. No signal's handler runs meanwhile. *)

external wait : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_wait_byte" "sidecaml_ml_wait_native"
(** [wait handle slot deadline_ns] *)

(** {1 The runtime lock is kept} *)

external wait_holding : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_wait_holding_byte" "sidecaml_ml_wait_holding_native"
(** [wait_holding handle slot deadline_ns] *)

external wait_any : handle -> bool -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_wait_any_byte" "sidecaml_ml_wait_any_native"
(** [wait_any handle hold deadline_ns] releases the lock unless it is to [hold] it. *)

external wait_end : handle -> bool -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_wait_end_byte" "sidecaml_ml_wait_end_native"
(** [wait_end handle hold slot deadline_ns] gives nothing up. *)

external claim_wait : handle -> bool -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_claim_wait_byte" "sidecaml_ml_claim_wait_native"
(** [claim_wait handle hold deadline_ns] *)

external message : handle -> int -> string = "sidecaml_ml_message"
(** [message handle slot] of a failed request. *)

external gone : handle -> int * string = "sidecaml_ml_gone"
(** Code and text of the daemon's last words; code 0 while the channel lives. *)

(** {1 No allocation, no exception, a few microseconds at most} *)

external is_open : handle -> bool = "sidecaml_ml_is_open" [@@noalloc]
external is_intact : handle -> bool = "sidecaml_ml_is_intact" [@@noalloc]
(** Whether the segment is still what it was: what was read of it before counts then. *)

external closed : unit -> int = "sidecaml_ml_closed" [@@noalloc]
external taken : unit -> int = "sidecaml_ml_taken" [@@noalloc]

external claim : handle -> (int[@untagged]) = "sidecaml_ml_claim_byte" "sidecaml_ml_claim_native" [@@noalloc]

external submit : handle -> (int[@untagged]) -> (int[@untagged]) = "sidecaml_ml_submit_byte" "sidecaml_ml_submit_native"
  [@@noalloc]
(** [submit handle deadline_ns] *)

external spin : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_spin_byte" "sidecaml_ml_spin_native"
  [@@noalloc]
(** [spin handle slot spin_ns] *)

external start : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_start_byte" "sidecaml_ml_start_native"
  [@@noalloc]
(** [start handle deadline_ns spin_ns] releases the answer in slot 0, submits the next request there, and spins. *)

external poll : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_poll_byte" "sidecaml_ml_poll_native"
  [@@noalloc]
(** [poll handle slot deadline_ns] *)

external release : handle -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_release_byte" "sidecaml_ml_release_native"
  [@@noalloc]

external abandon : handle -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_abandon_byte" "sidecaml_ml_abandon_native"
  [@@noalloc]

external claim_run : handle -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_claim_run_byte" "sidecaml_ml_claim_run_native"
  [@@noalloc]
(** [claim_run handle most] *)

external submit_run : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_submit_run_byte" "sidecaml_ml_submit_run_native"
  [@@noalloc]
(** [submit_run handle count deadline_ns] *)

external ended : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_ended_byte" "sidecaml_ml_ended_native"
  [@@noalloc]
(** [ended handle slot most] *)

external answered : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_answered_byte" "sidecaml_ml_answered_native"
  [@@noalloc]
(** [answered handle slot most] *)

external release_run : handle -> (int[@untagged]) -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_release_run_byte" "sidecaml_ml_release_run_native"
  [@@noalloc]
(** [release_run handle slot count] *)

external spin_any : handle -> (int[@untagged]) -> (int[@untagged])
  = "sidecaml_ml_spin_any_byte" "sidecaml_ml_spin_any_native"
  [@@noalloc]
(** [spin_any handle spin_ns] *)

external set_dims : handle -> int -> int -> int array -> int = "sidecaml_ml_set_dims" [@@noalloc]
(** [set_dims handle slot tensor dims] *)

external get_dims : handle -> int -> int -> int array -> int = "sidecaml_ml_get_dims" [@@noalloc]
(** [get_dims handle slot tensor dims] writes into [dims], which is as long as the tensor's rank. *)

external reset : handle -> int = "sidecaml_ml_reset" [@@noalloc]
(** Carried state starts anew with the next request. *)

external needed : handle -> int -> int -> int array -> int = "sidecaml_ml_needed" [@@noalloc]
(** [needed handle slot tensor dims] writes the dims that a request's tensor came out with into [dims], which is as long
    as its rank, where it failed because an output was too large. *)

external text_needed : handle -> int -> int = "sidecaml_ml_text_needed" [@@noalloc]
(** [text_needed handle slot] is the most text that one of its outputs has; 0 where there was room. *)

external set_stamps : handle -> bool -> int = "sidecaml_ml_set_stamps" [@@noalloc]

external stamps : handle -> int -> int array -> int = "sidecaml_ml_stamps" [@@noalloc]
(** [stamps handle slot four] writes submitted, seen, started and finished into [four]. *)

(** {1 Memory of this process} *)

type ('a, 'b) memory = ('a, 'b, Bigarray.c_layout) Bigarray.Array1.t

external machine_has : int -> bool = "sidecaml_ml_machine_has" [@@noalloc]
(** Whether so many bytes are less than its memory. *)

external misaligned : ('a, 'b) memory -> int -> int = "sidecaml_ml_misaligned" [@@noalloc]
(** [misaligned memory bytes] are the bytes before the first place that is aligned as a tensor of [bytes] in a segment. *)

external make_zeros : ('a, 'b) memory -> unit = "sidecaml_ml_make_zeros"
(** Writes them, so that the memory is there. *)

external give_back : ('a, 'b) memory -> unit = "sidecaml_ml_give_back"
(** The memory reads as zeros from now on, and takes no room until it is written again. *)

external quoted : string -> string = "sidecaml_ml_quoted"
(** A name as sentences of the daemon quote it. *)

type signature = (string * int array * string array) array
(** Of each tensor, inputs first: name, dims with -1 for a dynamic one, names of the dynamic ones or [""]. *)

external request_dims : int -> signature -> int array array -> bool array -> string option = "sidecaml_ml_request_dims"
(** [request_dims inputs signature dims known] reads the rows of dynamic inputs and writes every other row, and whether
    each is known before the run (the row is left alone otherwise). [Some] is what is wrong with them; it allocates nothing
    when nothing is. *)

(** {1 Time} *)

external now_ns : unit -> (int[@untagged]) = "sidecaml_ml_now_byte" "sidecaml_ml_now_native" [@@noalloc]
(** CLOCK_MONOTONIC. *)
