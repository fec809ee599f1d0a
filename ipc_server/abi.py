"""The numbers of the shared memory layout and of the errors.

Generated from c_shim/include/sidecaml by `make -C c_shim generate`: edit it there.
"""

from __future__ import annotations

import enum
from typing import Final

# Both sides of a segment and of a control connection speak the same one.
ABI_VERSION: Final = 4

# Most dimensions of a tensor.
MAX_RANK: Final = 16

# Most inputs and outputs of a model, together.
MAX_TENSORS: Final = 256

# Most slots of a channel.
MAX_SLOTS: Final = 1024

# Room for a tensor's name in its descriptor.
NAME_BYTES: Final = 80

# Room for the text of a failed request.
MESSAGE_BYTES: Final = 384

# Segments and status pages are multiples of this.
PAGE_BYTES: Final = 4096

# Every tensor of every slot starts on a multiple of this.
TENSOR_ALIGN: Final = 64

# Largest control message, both ways.
CONTROL_BYTES: Final = 65536

# A journal counts the runs of one request that were started up to this.
MOST_ATTEMPTS: Final = 7

# Most requests of one run.
MOST_BATCH: Final = 128

# A journal's `started` is `(first ticket + 1) << STARTED_BITS | ...`.
STARTED_BITS: Final = 10

# A journal's `committed` is `(last ticket + 1) << COMMITTED_BITS | ...`.
COMMITTED_BITS: Final = 2

# Workers that a crowd page has entries for.
CROWD_ENTRIES: Final = 255

# Most instances of a model: pages of its status file.
MAX_INSTANCES: Final = 64

# Slots lie close together only where their bytes are a multiple of this.
PACKED_ALIGN: Final = 16

# For so long a channel's requests run alone, when they are to.
ALONE_NS: Final = 600000000000

# A slot's word is `ticket << STATE_BITS | state`.
STATE_BITS: Final = 3

# The state's bits of a slot's word.
STATE_MASK: Final = 7

# Descriptor flag: an output.
TENSOR_OUTPUT: Final = 1

# Descriptor flag: each request has dims of its own.
TENSOR_DYNAMIC: Final = 2

# Descriptor flag: slots lie close together, as parts of one tensor.
TENSOR_PACKED: Final = 4

# Slot flag: all four stamps are wanted.
SLOT_STAMPS: Final = 1

# Slot flag: carried state starts anew with this request.
SLOT_RESET: Final = 2

# What a segment and a status page begin with.
SEGMENT_MAGIC: Final = b"SIDECAML"
STATUS_MAGIC: Final = b"SIDESTAT"

# Sizes of the structures, in bytes.
SEGMENT_HEADER_BYTES: Final = 128
TENSOR_BYTES: Final = 256
CLIENT_BYTES: Final = 128
WORKER_BYTES: Final = 128
SLOT_BYTES: Final = 512
DIMS_BYTES: Final = 128
STATUS_BYTES: Final = 4096
CROWD_BYTES: Final = 32768
CROWD_ENTRY_BYTES: Final = 128

# Where their fields lie, from the structure's start.
SEGMENT_HEADER_MAGIC_OFFSET: Final = 0
SEGMENT_HEADER_ABI_VERSION_OFFSET: Final = 8
SEGMENT_HEADER_HEADER_BYTES_OFFSET: Final = 12
SEGMENT_HEADER_SEGMENT_BYTES_OFFSET: Final = 16
SEGMENT_HEADER_FINGERPRINT_OFFSET: Final = 24
SEGMENT_HEADER_SLOT_COUNT_OFFSET: Final = 32
SEGMENT_HEADER_INPUT_COUNT_OFFSET: Final = 36
SEGMENT_HEADER_OUTPUT_COUNT_OFFSET: Final = 40
SEGMENT_HEADER_TENSORS_OFFSET_OFFSET: Final = 48
SEGMENT_HEADER_CLIENT_OFFSET_OFFSET: Final = 56
SEGMENT_HEADER_SLOTS_OFFSET_OFFSET: Final = 64
SEGMENT_HEADER_DIMS_OFFSET_OFFSET: Final = 72
SEGMENT_HEADER_ARRAYS_OFFSET_OFFSET: Final = 80
TENSOR_DTYPE_OFFSET: Final = 0
TENSOR_RANK_OFFSET: Final = 4
TENSOR_FLAGS_OFFSET: Final = 8
TENSOR_ARRAY_OFFSET_OFFSET: Final = 16
TENSOR_SLOT_STRIDE_OFFSET: Final = 24
TENSOR_MAX_BYTES_OFFSET: Final = 32
TENSOR_MAX_DIMS_OFFSET: Final = 40
TENSOR_TEXT_BYTES_OFFSET: Final = 168
TENSOR_NAME_OFFSET: Final = 176
CLIENT_WAITING_OFFSET: Final = 0
CLIENT_CORE_OFFSET: Final = 4
CLIENT_THREAD_OFFSET: Final = 8
WORKER_PAGE_OFFSET: Final = 0
SLOT_WORD_OFFSET: Final = 0
SLOT_DEADLINE_NS_OFFSET: Final = 8
SLOT_SUBMITTED_NS_OFFSET: Final = 16
SLOT_SEEN_NS_OFFSET: Final = 24
SLOT_STARTED_NS_OFFSET: Final = 32
SLOT_FINISHED_NS_OFFSET: Final = 40
SLOT_STATUS_OFFSET: Final = 48
SLOT_FLAGS_OFFSET: Final = 52
SLOT_TEXT_NEEDED_OFFSET: Final = 56
SLOT_MESSAGE_BYTES_OFFSET: Final = 124
SLOT_MESSAGE_OFFSET: Final = 128
STATUS_MAGIC_OFFSET: Final = 0
STATUS_ABI_VERSION_OFFSET: Final = 8
STATUS_PID_OFFSET: Final = 12
STATUS_STARTED_NS_OFFSET: Final = 16
STATUS_PARKED_OFFSET: Final = 128
STATUS_CORE_OFFSET: Final = 132
STATUS_CROWD_OFFSET: Final = 136
STATUS_CORES_OFFSET: Final = 140
STATUS_HEARTBEAT_NS_OFFSET: Final = 256
STATUS_SERVED_OFFSET: Final = 264
STATUS_FAILED_OFFSET: Final = 272
STATUS_ABANDONED_OFFSET: Final = 280
STATUS_PARKS_OFFSET: Final = 288
STATUS_CHANNELS_OFFSET: Final = 296
STATUS_RUNNING_NS_OFFSET: Final = 304
STATUS_BATCHES_OFFSET: Final = 312
STATUS_BATCHED_OFFSET: Final = 320
STATUS_REFUSED_OFFSET: Final = 328
STATUS_BUSY_NS_OFFSET: Final = 336
CROWD_USED_OFFSET: Final = 0
CROWD_ENTRIES_OFFSET: Final = 128
JOURNAL_STARTED_OFFSET: Final = 64
JOURNAL_COMMITTED_OFFSET: Final = 72
JOURNAL_FAILED_OFFSET: Final = 80


class Dtype(enum.IntEnum):
    """Element types."""

    FLOAT32 = 1
    FLOAT64 = 2
    FLOAT16 = 3
    BFLOAT16 = 4
    INT8 = 5
    INT16 = 6
    INT32 = 7
    INT64 = 8
    UINT8 = 9
    UINT16 = 10
    UINT32 = 11
    UINT64 = 12
    BOOL = 13
    COMPLEX64 = 14
    COMPLEX128 = 15
    FLOAT8E4M3FN = 16
    FLOAT8E4M3FNUZ = 17
    FLOAT8E5M2 = 18
    FLOAT8E5M2FNUZ = 19
    INT4 = 20
    UINT4 = 21
    STRING = 22
    FLOAT4E2M1 = 23
    FLOAT8E8M0 = 24
    INT2 = 25
    UINT2 = 26


class State(enum.IntEnum):
    """States of a slot."""

    FREE = 0
    SUBMITTED = 1
    RUNNING = 2
    DONE = 3
    FAILED = 4
    ABANDONED = 5


class Policy(enum.IntEnum):
    """How a waiter waits."""

    SPIN = 0
    ADAPTIVE = 1
    BLOCK = 2


class ErrorCode(enum.IntEnum):
    """Every error of the project."""

    TIMEOUT = 1
    FULL = 2
    BUSY = 3
    SERVER_GONE = 4
    WORKER_CRASHED = 5
    ENGINE = 6
    BAD_DIMS = 7
    OUTPUT_TOO_LARGE = 8
    BAD_STRINGS = 9
    DEADLINE = 10
    UNKNOWN_MODEL = 20
    MODEL_FAILED = 21
    TOO_MANY_SLOTS = 22
    NO_SPACE = 23
    UNSUPPORTED = 24
    LIMIT = 25
    SHUTTING_DOWN = 26
    ABI_MISMATCH = 40
    PROTOCOL = 41
    CONNECT = 42
    CORRUPT = 43
    DENIED = 44
    INVALID = 60
    SYSTEM = 61
    NO_MEMORY = 62
    CIRCUIT_OPEN = 63
    PENDING = 80
    AGAIN = 81


# The names that control messages use.
DTYPE_NAME: Final[dict[Dtype, str]] = {
    Dtype.FLOAT32: "float32",
    Dtype.FLOAT64: "float64",
    Dtype.FLOAT16: "float16",
    Dtype.BFLOAT16: "bfloat16",
    Dtype.INT8: "int8",
    Dtype.INT16: "int16",
    Dtype.INT32: "int32",
    Dtype.INT64: "int64",
    Dtype.UINT8: "uint8",
    Dtype.UINT16: "uint16",
    Dtype.UINT32: "uint32",
    Dtype.UINT64: "uint64",
    Dtype.BOOL: "bool",
    Dtype.COMPLEX64: "complex64",
    Dtype.COMPLEX128: "complex128",
    Dtype.FLOAT8E4M3FN: "float8e4m3fn",
    Dtype.FLOAT8E4M3FNUZ: "float8e4m3fnuz",
    Dtype.FLOAT8E5M2: "float8e5m2",
    Dtype.FLOAT8E5M2FNUZ: "float8e5m2fnuz",
    Dtype.INT4: "int4",
    Dtype.UINT4: "uint4",
    Dtype.STRING: "string",
    Dtype.FLOAT4E2M1: "float4e2m1",
    Dtype.FLOAT8E8M0: "float8e8m0",
    Dtype.INT2: "int2",
    Dtype.UINT2: "uint2",
}

# Bits of one element: below 8 where they are packed, 0 for strings, which have no size.
DTYPE_BITS: Final[dict[Dtype, int]] = {
    Dtype.FLOAT32: 32,
    Dtype.FLOAT64: 64,
    Dtype.FLOAT16: 16,
    Dtype.BFLOAT16: 16,
    Dtype.INT8: 8,
    Dtype.INT16: 16,
    Dtype.INT32: 32,
    Dtype.INT64: 64,
    Dtype.UINT8: 8,
    Dtype.UINT16: 16,
    Dtype.UINT32: 32,
    Dtype.UINT64: 64,
    Dtype.BOOL: 8,
    Dtype.COMPLEX64: 64,
    Dtype.COMPLEX128: 128,
    Dtype.FLOAT8E4M3FN: 8,
    Dtype.FLOAT8E4M3FNUZ: 8,
    Dtype.FLOAT8E5M2: 8,
    Dtype.FLOAT8E5M2FNUZ: 8,
    Dtype.INT4: 4,
    Dtype.UINT4: 4,
    Dtype.STRING: 0,
    Dtype.FLOAT4E2M1: 4,
    Dtype.FLOAT8E8M0: 8,
    Dtype.INT2: 2,
    Dtype.UINT2: 2,
}

ERROR_TEXT: Final[dict[ErrorCode, str]] = {
    ErrorCode.TIMEOUT: "the deadline passed before the answer came",
    ErrorCode.FULL: "the slot whose turn it is still holds a request or an answer: release it first",
    ErrorCode.BUSY: "the worker still runs a request that timed out in this slot: try again later",
    ErrorCode.SERVER_GONE: "the daemon or the channel's worker is gone: connect and open again",
    ErrorCode.WORKER_CRASHED: "the worker died while it ran this request",
    ErrorCode.ENGINE: "the model failed on this request",
    ErrorCode.BAD_DIMS: "dimensions that the model or the channel does not take",
    ErrorCode.OUTPUT_TOO_LARGE: "an output is larger than the channel's room for it: open with larger dims",
    ErrorCode.BAD_STRINGS: "a string input whose table or text is not as the protocol says",
    ErrorCode.DEADLINE: "the request could not have been answered by its deadline: it was not run",
    ErrorCode.UNKNOWN_MODEL: "the daemon has no model of that name",
    ErrorCode.MODEL_FAILED: "the model could not be loaded",
    ErrorCode.TOO_MANY_SLOTS: "more slots than the daemon allows",
    ErrorCode.NO_SPACE: "not enough shared memory for the channel",
    ErrorCode.UNSUPPORTED: "the model uses something that the channel cannot carry",
    ErrorCode.LIMIT: "a limit of the daemon is reached",
    ErrorCode.SHUTTING_DOWN: "the daemon is shutting down",
    ErrorCode.ABI_MISMATCH: "client and daemon speak different versions of the protocol",
    ErrorCode.PROTOCOL: "a control message that is not part of the protocol",
    ErrorCode.CONNECT: "no daemon answers at the socket",
    ErrorCode.CORRUPT: "shared memory that is not laid out as the protocol says",
    ErrorCode.DENIED: "not allowed for this user",
    ErrorCode.INVALID: "a call that the library does not allow",
    ErrorCode.SYSTEM: "the operating system refused a call",
    ErrorCode.NO_MEMORY: "out of memory",
    ErrorCode.CIRCUIT_OPEN: "too many calls in a row failed: for a while none is tried",
    ErrorCode.PENDING: "no answer yet",
    ErrorCode.AGAIN: "interrupted before there was an answer: call again",
}
