/* The shared memory layout: every offset, size, magic number and state value, once.
 *
 * docs/protocol.md is the normative prose; this header is what the code is compiled from, and the constants of
 * OCaml and Python are generated from it (c_shim/tools/abi_constants.c). All integers are little-endian and of
 * fixed width; shared memory holds offsets, never pointers.
 */
#ifndef SIDECAML_ABI_H
#define SIDECAML_ABI_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define SIDECAML_ABI_VERSION 4u
#define SIDECAML_SEGMENT_MAGIC "SIDECAML"
#define SIDECAML_STATUS_MAGIC "SIDESTAT"
#define SIDECAML_JOURNAL_MAGIC "SIDEJRNL"
#define SIDECAML_MAGIC_BYTES 8

/* 16 is Bigarray's own limit on dimensions (CAML_BA_MAX_NUM_DIMS). */
#define SIDECAML_MAX_RANK 16
#define SIDECAML_MAX_TENSORS 256
#define SIDECAML_MAX_SLOTS 1024
/* Instances that one model may have: pages of its status file. */
#define SIDECAML_MAX_INSTANCES 64
#define SIDECAML_NAME_BYTES 80
#define SIDECAML_MESSAGE_BYTES 384
#define SIDECAML_PAGE_BYTES 4096
/* Two 64-byte lines: adjacent-line prefetchers fetch pairs, so a pair is what must not be shared by two writers. */
#define SIDECAML_LINE_PAIR 128
#define SIDECAML_TENSOR_ALIGN 64
/* Results depend on alignment: sums were seen to give other bits at offsets that are no multiple of 16. So slots lie
 * close together, as parts of one tensor, only where their bytes are a multiple of it. */
#define SIDECAML_PACKED_ALIGN 16

/* Largest control message, both ways; a longer one is an error and ends the connection. */
#define SIDECAML_CONTROL_BYTES 65536

/* Element types: X(NAME, name, code, bits of one element). Those of less than a byte are packed, the first element in
 * the lowest bits. Strings have no such size: 0. */
#define SIDECAML_DTYPES(X)                                                                                             \
    X(FLOAT32, float32, 1, 32)                                                                                         \
    X(FLOAT64, float64, 2, 64)                                                                                         \
    X(FLOAT16, float16, 3, 16)                                                                                         \
    X(BFLOAT16, bfloat16, 4, 16)                                                                                       \
    X(INT8, int8, 5, 8)                                                                                                \
    X(INT16, int16, 6, 16)                                                                                             \
    X(INT32, int32, 7, 32)                                                                                             \
    X(INT64, int64, 8, 64)                                                                                             \
    X(UINT8, uint8, 9, 8)                                                                                              \
    X(UINT16, uint16, 10, 16)                                                                                          \
    X(UINT32, uint32, 11, 32)                                                                                          \
    X(UINT64, uint64, 12, 64)                                                                                          \
    X(BOOL, bool, 13, 8)                                                                                               \
    X(COMPLEX64, complex64, 14, 64)                                                                                    \
    X(COMPLEX128, complex128, 15, 128)                                                                                 \
    X(FLOAT8E4M3FN, float8e4m3fn, 16, 8)                                                                               \
    X(FLOAT8E4M3FNUZ, float8e4m3fnuz, 17, 8)                                                                           \
    X(FLOAT8E5M2, float8e5m2, 18, 8)                                                                                   \
    X(FLOAT8E5M2FNUZ, float8e5m2fnuz, 19, 8)                                                                           \
    X(INT4, int4, 20, 4)                                                                                               \
    X(UINT4, uint4, 21, 4)                                                                                             \
    X(STRING, string, 22, 0)                                                                                           \
    X(FLOAT4E2M1, float4e2m1, 23, 4)                                                                                   \
    X(FLOAT8E8M0, float8e8m0, 24, 8)                                                                                   \
    X(INT2, int2, 25, 2)                                                                                               \
    X(UINT2, uint2, 26, 2)

enum sidecaml_dtype {
#define SIDECAML_DTYPE_ENUM(NAME, name, code, bits) SIDECAML_##NAME = (code),
    SIDECAML_DTYPES(SIDECAML_DTYPE_ENUM)
#undef SIDECAML_DTYPE_ENUM
};

/* A slot's life. The word is ticket << SIDECAML_STATE_BITS | state, so that a state of an earlier ticket can never
 * be taken for one of this ticket. Who may make each step is written in c_shim/src/ring.h. */
#define SIDECAML_STATE_BITS 3
#define SIDECAML_STATE_MASK 7u
#define SIDECAML_STATES(X)                                                                                             \
    X(FREE, 0)                                                                                                         \
    X(SUBMITTED, 1)                                                                                                    \
    X(RUNNING, 2)                                                                                                      \
    X(DONE, 3)                                                                                                         \
    X(FAILED, 4)                                                                                                       \
    X(ABANDONED, 5)

enum sidecaml_state {
#define SIDECAML_STATE_ENUM(NAME, code) SIDECAML_STATE_##NAME = (code),
    SIDECAML_STATES(SIDECAML_STATE_ENUM)
#undef SIDECAML_STATE_ENUM
};

/* At offset 0 of a segment. Written once, before the segment is handed out. */
struct sidecaml_segment_header {
    uint8_t magic[SIDECAML_MAGIC_BYTES];
    uint32_t abi_version; /* read before any length is believed */
    uint32_t header_bytes;
    uint64_t segment_bytes;
    uint64_t fingerprint; /* of the signature, as the control socket gives it */
    uint32_t slot_count;
    uint32_t input_count;
    uint32_t output_count;
    uint32_t reserved0;
    uint64_t tensors_offset;
    uint64_t client_offset;
    uint64_t slots_offset;
    uint64_t dims_offset;
    uint64_t arrays_offset;
    uint64_t worker_offset;
    uint8_t reserved1[32];
};

#define SIDECAML_TENSOR_OUTPUT 1u  /* otherwise an input */
#define SIDECAML_TENSOR_DYNAMIC 2u /* the dims of each request stand in the dims area */
#define SIDECAML_TENSOR_PACKED 4u  /* a slot takes as many bytes as its tensor: neighbours are parts of one tensor */

/* At tensors_offset: inputs first, then outputs, in the signature's order. Written once. */
struct sidecaml_tensor_descriptor {
    uint32_t dtype;
    uint32_t rank;
    uint32_t flags;
    uint32_t reserved0;
    uint64_t array_offset; /* of slot 0 */
    uint64_t slot_stride;  /* bytes from one slot to the next */
    uint64_t max_bytes;    /* of one slot, at max_dims */
    uint64_t max_dims[SIDECAML_MAX_RANK];
    uint64_t text_bytes;               /* of strings: room for one slot's text, behind its table of offsets; else 0 */
    uint8_t name[SIDECAML_NAME_BYTES]; /* UTF-8, NUL padded, cut if longer: for people, never compared */
};

/* At client_offset: what the client tells its worker. The worker only ever exchanges `waiting` to 0. */
struct sidecaml_client_block {
    _Atomic uint32_t waiting; /* 1 while the client sleeps, or is about to, on the answer doorbell */
    _Atomic uint32_t core;    /* processor the client last ran on, plus 1; 0 when unknown */
    _Atomic uint32_t thread;  /* a number that the client's thread chose by chance, the same in all channels; or 0 */
    uint8_t reserved0[116];
};

/* At worker_offset: what the worker tells this client alone. */
struct sidecaml_worker_block {
    _Atomic uint32_t page; /* which of the model's status pages is that of the worker that serves the channel now */
    uint8_t reserved0[124];
};

/* At slots_offset. The first line is all that travels between the two cores for a request. */
struct sidecaml_slot {
    _Atomic uint64_t word;
    uint64_t deadline_ns;  /* client; CLOCK_MONOTONIC, 0 for none */
    uint64_t submitted_ns; /* client; 0 when not asked for */
    uint64_t seen_ns;      /* worker; 0 when not asked for */
    uint64_t started_ns;   /* worker; to the clock's tick (milliseconds) when not asked for */
    uint64_t finished_ns;  /* worker; means nothing when not asked for */
    int32_t status;        /* worker; 0, or the negative of an error code */
    uint32_t flags;        /* client; SIDECAML_SLOT_... */
    uint64_t text_needed;  /* worker; with OUTPUT_TOO_LARGE: the most text that a string output has */
    uint8_t reserved0[60];
    uint32_t message_bytes; /* worker; of `message`, when FAILED */
    uint8_t message[SIDECAML_MESSAGE_BYTES];
};

#define SIDECAML_SLOT_STAMPS 1u /* all four stamps are wanted */
#define SIDECAML_SLOT_RESET 2u  /* the state that the worker carries for the channel starts anew with this request */

/* At dims_offset, one per slot and tensor (slot-major): the dims of this request, for dynamic tensors only.
 * The client writes an input's, the worker an output's: beyond max_dims only with OUTPUT_TOO_LARGE. */
struct sidecaml_dims {
    uint64_t dim[SIDECAML_MAX_RANK];
};

/* What a worker publishes about itself; everyone else maps it read-only. The workers of a model's instances have a page
 * each of one file. */
struct sidecaml_status_page {
    uint8_t magic[SIDECAML_MAGIC_BYTES];
    uint32_t abi_version;
    uint32_t pid;
    uint64_t started_ns; /* CLOCK_MONOTONIC */
    uint8_t reserved0[104];

    _Atomic uint32_t parked; /* 1 while the worker sleeps, or is about to */
    _Atomic uint32_t core;   /* processor the worker last ran on, plus 1; 0 when unknown */
    _Atomic uint32_t crowd;  /* threads that are at work for any of the daemon's models, or spin; 0 when unknown */
    _Atomic uint32_t cores;  /* that the daemon may use; 0 when unknown */
    uint8_t reserved1[112];

    _Atomic uint64_t heartbeat_ns; /* when the worker last looked for work; CLOCK_MONOTONIC */
    _Atomic uint64_t served;       /* requests that ended DONE */
    _Atomic uint64_t failed;       /* requests that ended FAILED */
    _Atomic uint64_t abandoned;    /* requests whose client had given up when they ended */
    _Atomic uint64_t parks;        /* times the worker went to sleep */
    _Atomic uint64_t channels;     /* channels attached now */
    _Atomic uint64_t running_ns;   /* when the request that runs now was started, to the clock's tick; 0 for none */
    _Atomic uint64_t batches;      /* runs of more than one request */
    _Atomic uint64_t batched;      /* requests in those */
    _Atomic uint64_t refused;      /* requests that were not run, because their deadline could not be kept */
    _Atomic uint64_t
        busy_ns; /* time in runs; of those that nobody measures by the clock's ticks, which is right on the whole */
    uint8_t reserved2[40];

    uint8_t reserved3[3712];
};

/* The workers of a daemon say here whether they are awake, each in an entry on lines of its own; no client ever holds
 * it. The supervisor zeroes the entry of a worker that is over. */
struct sidecaml_crowd_entry {
    _Atomic uint32_t threads; /* of the worker while it is awake; 0 while it sleeps, and nothing of the entry counts */
    uint32_t reserved0;
    _Atomic uint64_t clients[4]; /* threads that it served of late: bit `thread` % 256 of each */
    uint8_t reserved1[88];
};

#define SIDECAML_CROWD_ENTRIES 255

struct sidecaml_crowd_page {
    _Atomic uint32_t used; /* entries that were ever given to a worker: the supervisor's to write */
    uint8_t reserved0[124];
    struct sidecaml_crowd_entry entries[SIDECAML_CROWD_ENTRIES];
};

/* A channel's journal, for the worker that serves it and for whoever serves it after that one's death; no client ever
 * holds it. One page; behind it lies what the channel carries from request to request. */
struct sidecaml_journal {
    uint8_t magic[SIDECAML_MAGIC_BYTES];
    uint32_t abi_version;
    uint8_t reserved0[52];

    /* The run that was started last: (its first ticket + 1) << SIDECAML_STARTED_BITS | (its tickets - 1) <<
     * SIDECAML_ATTEMPTS_BITS | how many runs of that ticket were started (which stops counting at
     * SIDECAML_MOST_ATTEMPTS). 0 for none. Stored before the run. Tickets that were given up before they ran, or
     * refused, may lie among those of a batch. */
    _Atomic uint64_t started;
    /* The run that succeeded last: (its last ticket + 1) << SIDECAML_COMMITTED_BITS | SIDECAML_CARRIED | place. Stored
     * when its outputs lie in the segment, before DONE: who finds it with slots of the run that are still RUNNING only
     * publishes them. */
    _Atomic uint64_t committed;
    /* The run that failed last: its last ticket + 1. What was started and neither failed nor succeeded was running when
     * its worker died, whatever became of its requests. */
    _Atomic uint64_t failed;
    uint8_t reserved1[40];

    uint8_t reserved2[3968];
};

#define SIDECAML_ATTEMPTS_BITS 3
#define SIDECAML_MOST_ATTEMPTS 7u
/* Tickets of one run. With 54 bits left, tickets last 57 years at ten million a second. */
#define SIDECAML_MOST_BATCH 128u
#define SIDECAML_STARTED_BITS 10
#define SIDECAML_COMMITTED_BITS 2
#define SIDECAML_CARRIED 2u /* state is carried, and lies in `place`; otherwise it is all zeros */
#define SIDECAML_PLACE 1u   /* the place, 0 or 1, where the next run reads carried state */

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "slot words need address-free atomics");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "atomics are laid out as plain words");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the layout is little-endian");

#define SIDECAML_AT(type, field, offset)                                                                               \
    _Static_assert(offsetof(struct type, field) == (offset), #type "." #field " lies at " #offset)

SIDECAML_AT(sidecaml_segment_header, abi_version, 8);
SIDECAML_AT(sidecaml_segment_header, header_bytes, 12);
SIDECAML_AT(sidecaml_segment_header, segment_bytes, 16);
SIDECAML_AT(sidecaml_segment_header, fingerprint, 24);
SIDECAML_AT(sidecaml_segment_header, slot_count, 32);
SIDECAML_AT(sidecaml_segment_header, input_count, 36);
SIDECAML_AT(sidecaml_segment_header, output_count, 40);
SIDECAML_AT(sidecaml_segment_header, tensors_offset, 48);
SIDECAML_AT(sidecaml_segment_header, client_offset, 56);
SIDECAML_AT(sidecaml_segment_header, slots_offset, 64);
SIDECAML_AT(sidecaml_segment_header, dims_offset, 72);
SIDECAML_AT(sidecaml_segment_header, arrays_offset, 80);
SIDECAML_AT(sidecaml_segment_header, worker_offset, 88);
_Static_assert(sizeof(struct sidecaml_segment_header) == 128, "header size");

SIDECAML_AT(sidecaml_tensor_descriptor, rank, 4);
SIDECAML_AT(sidecaml_tensor_descriptor, flags, 8);
SIDECAML_AT(sidecaml_tensor_descriptor, array_offset, 16);
SIDECAML_AT(sidecaml_tensor_descriptor, slot_stride, 24);
SIDECAML_AT(sidecaml_tensor_descriptor, max_bytes, 32);
SIDECAML_AT(sidecaml_tensor_descriptor, max_dims, 40);
SIDECAML_AT(sidecaml_tensor_descriptor, text_bytes, 168);
SIDECAML_AT(sidecaml_tensor_descriptor, name, 176);
_Static_assert(sizeof(struct sidecaml_tensor_descriptor) == 256, "tensor descriptor size");

SIDECAML_AT(sidecaml_client_block, core, 4);
SIDECAML_AT(sidecaml_client_block, thread, 8);
_Static_assert(sizeof(struct sidecaml_client_block) == SIDECAML_LINE_PAIR, "client block size");
_Static_assert(sizeof(struct sidecaml_worker_block) == SIDECAML_LINE_PAIR, "worker block size");

SIDECAML_AT(sidecaml_slot, deadline_ns, 8);
SIDECAML_AT(sidecaml_slot, submitted_ns, 16);
SIDECAML_AT(sidecaml_slot, seen_ns, 24);
SIDECAML_AT(sidecaml_slot, started_ns, 32);
SIDECAML_AT(sidecaml_slot, finished_ns, 40);
SIDECAML_AT(sidecaml_slot, status, 48);
SIDECAML_AT(sidecaml_slot, flags, 52);
SIDECAML_AT(sidecaml_slot, text_needed, 56);
SIDECAML_AT(sidecaml_slot, message_bytes, 124);
SIDECAML_AT(sidecaml_slot, message, 128);
_Static_assert(sizeof(struct sidecaml_slot) == 512, "slot size");

_Static_assert(sizeof(struct sidecaml_dims) == 128, "dims size");

SIDECAML_AT(sidecaml_status_page, pid, 12);
SIDECAML_AT(sidecaml_status_page, started_ns, 16);
SIDECAML_AT(sidecaml_status_page, parked, 128);
SIDECAML_AT(sidecaml_status_page, core, 132);
SIDECAML_AT(sidecaml_status_page, crowd, 136);
SIDECAML_AT(sidecaml_status_page, cores, 140);
SIDECAML_AT(sidecaml_status_page, heartbeat_ns, 256);
SIDECAML_AT(sidecaml_status_page, served, 264);
SIDECAML_AT(sidecaml_status_page, failed, 272);
SIDECAML_AT(sidecaml_status_page, abandoned, 280);
SIDECAML_AT(sidecaml_status_page, parks, 288);
SIDECAML_AT(sidecaml_status_page, channels, 296);
SIDECAML_AT(sidecaml_status_page, running_ns, 304);
SIDECAML_AT(sidecaml_status_page, batches, 312);
SIDECAML_AT(sidecaml_status_page, batched, 320);
SIDECAML_AT(sidecaml_status_page, refused, 328);
SIDECAML_AT(sidecaml_status_page, busy_ns, 336);
_Static_assert(sizeof(struct sidecaml_status_page) == SIDECAML_PAGE_BYTES, "status page size");

SIDECAML_AT(sidecaml_crowd_entry, clients, 8);
SIDECAML_AT(sidecaml_crowd_page, entries, 128);
_Static_assert(sizeof(struct sidecaml_crowd_entry) == SIDECAML_LINE_PAIR, "crowd entry size");
_Static_assert(sizeof(struct sidecaml_crowd_page) == 32768, "crowd page size");

SIDECAML_AT(sidecaml_journal, abi_version, 8);
SIDECAML_AT(sidecaml_journal, started, 64);
SIDECAML_AT(sidecaml_journal, committed, 72);
SIDECAML_AT(sidecaml_journal, failed, 80);
_Static_assert(sizeof(struct sidecaml_journal) == SIDECAML_PAGE_BYTES, "journal size");

#undef SIDECAML_AT

#endif
