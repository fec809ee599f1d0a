(* Generated from c_shim/include/sidecaml by `make -C c_shim generate`: edit it there. *)

(** The numbers that OCaml shares with the C core. *)

(** {1 Limits} *)

val abi_version : int
(** Both sides of a segment and of a control connection speak the same one. *)

val max_rank : int
(** Most dimensions of a tensor. *)

val max_tensors : int
(** Most inputs and outputs of a model, together. *)

val max_slots : int
(** Most slots of a channel. *)

val name_bytes : int
(** Room for a tensor's name in its descriptor. *)

val message_bytes : int
(** Room for the text of a failed request. *)

val page_bytes : int
(** Segments and status pages are multiples of this. *)

val tensor_align : int
(** Every tensor of every slot starts on a multiple of this. *)

val control_bytes : int
(** Largest control message, both ways. *)

val most_attempts : int
(** A journal counts the runs of one request that were started up to this. *)

val most_batch : int
(** Most requests of one run. *)

val started_bits : int
(** A journal's `started` is `(first ticket + 1) << STARTED_BITS | ...`. *)

val committed_bits : int
(** A journal's `committed` is `(last ticket + 1) << COMMITTED_BITS | ...`. *)

val crowd_entries : int
(** Workers that a crowd page has entries for. *)

val max_instances : int
(** Most instances of a model: pages of its status file. *)

val packed_align : int
(** Slots lie close together only where their bytes are a multiple of this. *)

val alone_ns : int
(** For so long a channel's requests run alone, when they are to. *)

(** {1 Wait policies} *)

val policy_spin : int
(** Code of the policy: never sleep. *)

val policy_adaptive : int
(** Code of the policy: spin for a while, then sleep. *)

val policy_block : int
(** Code of the policy: sleep at once. *)

(** {1 Element types} *)

val dtype_float32 : int
(** Code of [float32]. *)

val dtype_float64 : int
(** Code of [float64]. *)

val dtype_float16 : int
(** Code of [float16]. *)

val dtype_bfloat16 : int
(** Code of [bfloat16]. *)

val dtype_int8 : int
(** Code of [int8]. *)

val dtype_int16 : int
(** Code of [int16]. *)

val dtype_int32 : int
(** Code of [int32]. *)

val dtype_int64 : int
(** Code of [int64]. *)

val dtype_uint8 : int
(** Code of [uint8]. *)

val dtype_uint16 : int
(** Code of [uint16]. *)

val dtype_uint32 : int
(** Code of [uint32]. *)

val dtype_uint64 : int
(** Code of [uint64]. *)

val dtype_bool : int
(** Code of [bool]. *)

val dtype_complex64 : int
(** Code of [complex64]. *)

val dtype_complex128 : int
(** Code of [complex128]. *)

val dtype_float8e4m3fn : int
(** Code of [float8e4m3fn]. *)

val dtype_float8e4m3fnuz : int
(** Code of [float8e4m3fnuz]. *)

val dtype_float8e5m2 : int
(** Code of [float8e5m2]. *)

val dtype_float8e5m2fnuz : int
(** Code of [float8e5m2fnuz]. *)

val dtype_int4 : int
(** Code of [int4]. *)

val dtype_uint4 : int
(** Code of [uint4]. *)

val dtype_string : int
(** Code of [string]. *)

val dtype_float4e2m1 : int
(** Code of [float4e2m1]. *)

val dtype_float8e8m0 : int
(** Code of [float8e8m0]. *)

val dtype_int2 : int
(** Code of [int2]. *)

val dtype_uint2 : int
(** Code of [uint2]. *)

val dtypes : (int * string * int) list
(** Code, name, bits of one element: below 8 where they are packed, 0 for strings. *)

(** {1 Errors} *)

val error_timeout : int
(** the deadline passed before the answer came *)

val error_full : int
(** the slot whose turn it is still holds a request or an answer: release it first *)

val error_busy : int
(** the worker still runs a request that timed out in this slot: try again later *)

val error_server_gone : int
(** the daemon or the channel's worker is gone: connect and open again *)

val error_worker_crashed : int
(** the worker died while it ran this request *)

val error_engine : int
(** the model failed on this request *)

val error_bad_dims : int
(** dimensions that the model or the channel does not take *)

val error_output_too_large : int
(** an output is larger than the channel's room for it: open with larger dims *)

val error_bad_strings : int
(** a string input whose table or text is not as the protocol says *)

val error_deadline : int
(** the request could not have been answered by its deadline: it was not run *)

val error_unknown_model : int
(** the daemon has no model of that name *)

val error_model_failed : int
(** the model could not be loaded *)

val error_too_many_slots : int
(** more slots than the daemon allows *)

val error_no_space : int
(** not enough shared memory for the channel *)

val error_unsupported : int
(** the model uses something that the channel cannot carry *)

val error_limit : int
(** a limit of the daemon is reached *)

val error_shutting_down : int
(** the daemon is shutting down *)

val error_abi_mismatch : int
(** client and daemon speak different versions of the protocol *)

val error_protocol : int
(** a control message that is not part of the protocol *)

val error_connect : int
(** no daemon answers at the socket *)

val error_corrupt : int
(** shared memory that is not laid out as the protocol says *)

val error_denied : int
(** not allowed for this user *)

val error_invalid : int
(** a call that the library does not allow *)

val error_system : int
(** the operating system refused a call *)

val error_no_memory : int
(** out of memory *)

val error_circuit_open : int
(** too many calls in a row failed: for a while none is tried *)

val error_pending : int
(** no answer yet *)

val error_again : int
(** interrupted before there was an answer: call again *)

val errors : (int * string * string) list
(** Code (positive), name, meaning. *)
