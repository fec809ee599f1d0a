(* Generated from c_shim/include/sidecaml by `make -C c_shim generate`: edit it there. *)

let abi_version = 4
let max_rank = 16
let max_tensors = 256
let max_slots = 1024
let name_bytes = 80
let message_bytes = 384
let page_bytes = 4096
let tensor_align = 64
let control_bytes = 65536
let most_attempts = 7
let most_batch = 128
let started_bits = 10
let committed_bits = 2
let crowd_entries = 255
let max_instances = 64
let packed_align = 16
let alone_ns = 600000000000

let policy_spin = 0 (* never sleep *)
let policy_adaptive = 1 (* spin for a while, then sleep *)
let policy_block = 2 (* sleep at once *)

let dtype_float32 = 1
let dtype_float64 = 2
let dtype_float16 = 3
let dtype_bfloat16 = 4
let dtype_int8 = 5
let dtype_int16 = 6
let dtype_int32 = 7
let dtype_int64 = 8
let dtype_uint8 = 9
let dtype_uint16 = 10
let dtype_uint32 = 11
let dtype_uint64 = 12
let dtype_bool = 13
let dtype_complex64 = 14
let dtype_complex128 = 15
let dtype_float8e4m3fn = 16
let dtype_float8e4m3fnuz = 17
let dtype_float8e5m2 = 18
let dtype_float8e5m2fnuz = 19
let dtype_int4 = 20
let dtype_uint4 = 21
let dtype_string = 22
let dtype_float4e2m1 = 23
let dtype_float8e8m0 = 24
let dtype_int2 = 25
let dtype_uint2 = 26

let dtypes =
  [
    (1, "float32", 32);
    (2, "float64", 64);
    (3, "float16", 16);
    (4, "bfloat16", 16);
    (5, "int8", 8);
    (6, "int16", 16);
    (7, "int32", 32);
    (8, "int64", 64);
    (9, "uint8", 8);
    (10, "uint16", 16);
    (11, "uint32", 32);
    (12, "uint64", 64);
    (13, "bool", 8);
    (14, "complex64", 64);
    (15, "complex128", 128);
    (16, "float8e4m3fn", 8);
    (17, "float8e4m3fnuz", 8);
    (18, "float8e5m2", 8);
    (19, "float8e5m2fnuz", 8);
    (20, "int4", 4);
    (21, "uint4", 4);
    (22, "string", 0);
    (23, "float4e2m1", 4);
    (24, "float8e8m0", 8);
    (25, "int2", 2);
    (26, "uint2", 2);
  ]

let error_timeout = 1
let error_full = 2
let error_busy = 3
let error_server_gone = 4
let error_worker_crashed = 5
let error_engine = 6
let error_bad_dims = 7
let error_output_too_large = 8
let error_bad_strings = 9
let error_deadline = 10
let error_unknown_model = 20
let error_model_failed = 21
let error_too_many_slots = 22
let error_no_space = 23
let error_unsupported = 24
let error_limit = 25
let error_shutting_down = 26
let error_abi_mismatch = 40
let error_protocol = 41
let error_connect = 42
let error_corrupt = 43
let error_denied = 44
let error_invalid = 60
let error_system = 61
let error_no_memory = 62
let error_circuit_open = 63
let error_pending = 80
let error_again = 81

let errors =
  [
    (1, "TIMEOUT", "the deadline passed before the answer came");
    (2, "FULL", "the slot whose turn it is still holds a request or an answer: release it first");
    (3, "BUSY", "the worker still runs a request that timed out in this slot: try again later");
    (4, "SERVER_GONE", "the daemon or the channel's worker is gone: connect and open again");
    (5, "WORKER_CRASHED", "the worker died while it ran this request");
    (6, "ENGINE", "the model failed on this request");
    (7, "BAD_DIMS", "dimensions that the model or the channel does not take");
    (8, "OUTPUT_TOO_LARGE", "an output is larger than the channel's room for it: open with larger dims");
    (9, "BAD_STRINGS", "a string input whose table or text is not as the protocol says");
    (10, "DEADLINE", "the request could not have been answered by its deadline: it was not run");
    (20, "UNKNOWN_MODEL", "the daemon has no model of that name");
    (21, "MODEL_FAILED", "the model could not be loaded");
    (22, "TOO_MANY_SLOTS", "more slots than the daemon allows");
    (23, "NO_SPACE", "not enough shared memory for the channel");
    (24, "UNSUPPORTED", "the model uses something that the channel cannot carry");
    (25, "LIMIT", "a limit of the daemon is reached");
    (26, "SHUTTING_DOWN", "the daemon is shutting down");
    (40, "ABI_MISMATCH", "client and daemon speak different versions of the protocol");
    (41, "PROTOCOL", "a control message that is not part of the protocol");
    (42, "CONNECT", "no daemon answers at the socket");
    (43, "CORRUPT", "shared memory that is not laid out as the protocol says");
    (44, "DENIED", "not allowed for this user");
    (60, "INVALID", "a call that the library does not allow");
    (61, "SYSTEM", "the operating system refused a call");
    (62, "NO_MEMORY", "out of memory");
    (63, "CIRCUIT_OPEN", "too many calls in a row failed: for a while none is tried");
    (80, "PENDING", "no answer yet");
    (81, "AGAIN", "interrupted before there was an answer: call again");
  ]
