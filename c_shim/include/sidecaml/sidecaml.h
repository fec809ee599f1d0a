/* The C core of sidecaml: segments, the ring of tickets, waits, and the client's control handshake.
 *
 * Conventions
 *   - A function that can fail returns 0 or a useful non-negative number, or the negative of an error code of
 *     errors.def. errno is never part of the interface, nothing is allocated on the request path, nothing is printed.
 *   - `struct sidecaml_failure *why`, where taken, may be NULL; on failure it holds a sentence for people.
 *   - Times are nanoseconds of CLOCK_MONOTONIC; a deadline of 0 means none.
 *   - File descriptors passed to an attach function belong to the new object when it succeeds, and stay the caller's
 *     when it fails.
 *   - A channel belongs to one thread at a time; different channels are independent. The same holds for a worker.
 */
#ifndef SIDECAML_H
#define SIDECAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sidecaml/abi.h"

/* --- Errors ------------------------------------------------------------------------------------------------------ */

enum sidecaml_error {
    SIDECAML_OK = 0,
#define SIDECAML_ERROR(NAME, code, text) SIDECAML_E_##NAME = (code),
#include "sidecaml/errors.def"
#undef SIDECAML_ERROR
};

#define SIDECAML_FAILURE_BYTES 1024
struct sidecaml_failure {
    int code; /* positive: an enum sidecaml_error */
    char text[SIDECAML_FAILURE_BYTES];
};

/* The name ("TIMEOUT") and meaning of a code, of either sign; "UNKNOWN" and a sentence saying so for any other. */
const char *sidecaml_error_name(int code);
const char *sidecaml_error_text(int code);

/* --- Element types ----------------------------------------------------------------------------------------------- */

/* Bits of one element: below 8 for packed types; 0 for strings, and when `dtype` is not one of enum sidecaml_dtype. */
uint32_t sidecaml_dtype_bits(uint32_t dtype);
/* Beyond this nothing is a size any more. */
#define SIDECAML_LARGEST_BYTES ((uint64_t)1 << 62)
/* Bytes of a tensor, for strings those of its table of offsets. False beyond SIDECAML_LARGEST_BYTES, a 0 among the dims
 * taken as 1 for that, and for an unknown type. */
bool sidecaml_tensor_bytes(uint32_t dtype, const uint64_t *dims, uint32_t rank, uint64_t *out);
/* "float32" and so on; NULL when unknown. */
const char *sidecaml_dtype_name(uint32_t dtype);
/* The enum sidecaml_dtype of a name; 0 when unknown. */
uint32_t sidecaml_dtype_of_name(const char *name, size_t length);

/* --- Layout of a segment ----------------------------------------------------------------------------------------- */

struct sidecaml_tensor_spec {
    const char *name; /* NUL-terminated; may be cut in the segment */
    uint32_t dtype;
    uint32_t rank;
    bool output;
    bool dynamic; /* the dims may differ from request to request, up to max_dims */
    uint64_t max_dims[SIDECAML_MAX_RANK];
    uint64_t text_bytes; /* of strings: room for one slot's text; 0 for every other type */
};

/* Where everything lies: private to each process, computed or checked once, never read from the segment again. */
struct sidecaml_layout {
    uint64_t segment_bytes;
    uint64_t fingerprint;
    uint32_t slot_count;
    uint32_t input_count;
    uint32_t output_count;
    uint64_t tensors_offset;
    uint64_t client_offset;
    uint64_t slots_offset;
    uint64_t dims_offset;
    uint64_t arrays_offset;
    struct sidecaml_tensor_descriptor tensor[SIDECAML_MAX_TENSORS]; /* inputs, then outputs */
};

/* Computes the layout for `count` tensors, inputs before outputs. Fails with INVALID (too many slots, tensors or
 * dimensions, unknown dtype, text where there are no strings, an output before an input) or NO_SPACE (sizes beyond 2^62
 * bytes). */
int sidecaml_layout_compute(const struct sidecaml_tensor_spec *spec, uint32_t count, uint32_t slots,
                            uint64_t fingerprint, struct sidecaml_layout *out, struct sidecaml_failure *why);

/* Writes header, descriptors and empty slots into a zeroed mapping of layout->segment_bytes bytes. */
void sidecaml_segment_format(void *base, const struct sidecaml_layout *layout);

/* Reads a layout out of a mapping of `bytes` bytes that nobody vouches for: every field is copied once, then checked
 * (magic, version before any length, bounds without overflow). Fails with CORRUPT or ABI_MISMATCH. */
int sidecaml_layout_read(const void *base, uint64_t bytes, struct sidecaml_layout *out, struct sidecaml_failure *why);

/* --- Waiting ----------------------------------------------------------------------------------------------------- */

enum sidecaml_policy {
    SIDECAML_SPIN = 0,     /* never sleep: lowest latency, one core */
    SIDECAML_ADAPTIVE = 1, /* spin for up to 0.3 ms, but not while that has lately been in vain, then sleep */
    SIDECAML_BLOCK = 2,    /* sleep at once */
};

uint64_t sidecaml_now_ns(void); /* CLOCK_MONOTONIC */

/* --- Client: a channel ------------------------------------------------------------------------------------------- */

typedef struct sidecaml_channel sidecaml_channel;

struct sidecaml_channel_fds {
    int segment;
    int request; /* doorbell: eventfd in semaphore mode */
    int answer;  /* doorbell */
    int status;  /* the worker's status page, read-only */
    int control; /* control socket that opened the channel: its end-of-file, or an event on it, ends the channel */
};

/* Maps segment and status page and checks them: CORRUPT, ABI_MISMATCH, SYSTEM or NO_MEMORY on failure.
 * `fingerprint` is what the control socket said; a segment that says otherwise is CORRUPT. */
int sidecaml_channel_attach(const struct sidecaml_channel_fds *fds, uint64_t fingerprint, enum sidecaml_policy policy,
                            sidecaml_channel **out, struct sidecaml_failure *why);

/* Unmaps and closes everything, punching the pages out first so that a view that outlives the channel reads zeros.
 * In a forked child it only lets go, as drop does: requests and pages are its parent's. NULL is allowed. Nothing
 * blocks. */
void sidecaml_channel_close(sidecaml_channel *channel);

/* As close, but leaves the pages to whoever else maps them: for finalisers, which may run while views are in use. */
void sidecaml_channel_drop(sidecaml_channel *channel);

const struct sidecaml_layout *sidecaml_channel_layout(const sidecaml_channel *channel);
int sidecaml_channel_segment_fd(const sidecaml_channel *channel);
/* Readable when an answer has come to somebody who announced that he sleeps; for event loops (see arm). Watch it
 * between arm and disarm only: after a wait it may still be readable for an answer that was taken long ago. */
int sidecaml_channel_answer_fd(const sidecaml_channel *channel);
int sidecaml_channel_control_fd(const sidecaml_channel *channel);
void sidecaml_channel_set_policy(sidecaml_channel *channel, enum sidecaml_policy policy);
/* Whether stage stamps are taken of the requests submitted from now on; they cost four looks at the clock. */
void sidecaml_channel_set_stamps(sidecaml_channel *channel, bool wanted);

/* State that the worker carries starts anew, as zeros, with the next request that is submitted; should that be given
 * up, with the one after it. Means nothing for a model that has none. */
void sidecaml_channel_reset(sidecaml_channel *channel);

/* Start of a slot's tensor; slot and tensor must be in range (INVALID gives NULL). Valid until close. */
void *sidecaml_channel_tensor(const sidecaml_channel *channel, uint32_t slot, uint32_t tensor);

/* The slot that the next submit takes, if it may be filled now; else -FULL (its owner has not released it), -BUSY (a
 * timed-out request still runs in it), -SERVER_GONE. Idempotent until submit. No system call. */
int sidecaml_channel_claim(sidecaml_channel *channel);

/* Dims of a dynamic input for the requests submitted in `slot` from now on (they start at max_dims and stay until
 * set again). -INVALID for a static tensor's other dims or another rank, -BAD_DIMS beyond max_dims. */
int sidecaml_channel_set_dims(sidecaml_channel *channel, uint32_t slot, uint32_t tensor, const uint64_t *dims,
                              uint32_t rank);
/* Dims of a slot's tensor: inputs as set, outputs as the worker gave them with the last DONE, checked against
 * max_dims. Returns the rank, or -INVALID, -CORRUPT; -OUTPUT_TOO_LARGE for an output that had no room in the slot's
 * last answer (sidecaml_channel_needed). */
int sidecaml_channel_get_dims(const sidecaml_channel *channel, uint32_t slot, uint32_t tensor,
                              uint64_t dims[SIDECAML_MAX_RANK]);

/* How large a slot's tensor would have been whose request failed with OUTPUT_TOO_LARGE: its rank and true dims, which
 * may be beyond max_dims. -INVALID for a slot that holds no such request. What the worker says is not checked, for
 * there is nothing to check it against. */
int sidecaml_channel_needed(const sidecaml_channel *channel, uint32_t slot, uint32_t tensor,
                            uint64_t dims[SIDECAML_MAX_RANK]);
/* The same for text: the most bytes that one of its string outputs has, 0 where all of them had room. */
int sidecaml_channel_text_needed(const sidecaml_channel *channel, uint32_t slot, uint64_t *bytes);

/* Publishes the claimed slot's request; returns the slot, or what claim returns. A system call only if the worker
 * sleeps. */
int sidecaml_channel_submit(sidecaml_channel *channel, uint64_t deadline_ns);

/* 0 when the slot's request is DONE, -PENDING while it is under way, the failure's negative code when FAILED,
 * -SERVER_GONE, or -INVALID when the slot holds no request of the caller's. Looks at the control socket at most once a
 * millisecond; no system call otherwise. */
int sidecaml_channel_poll(sidecaml_channel *channel, uint32_t slot);

/* Like poll, spinning for at most `spin_ns`. No system call; bounded, so it may run where a runtime must not stall. */
int sidecaml_channel_spin(sidecaml_channel *channel, uint32_t slot, uint64_t spin_ns);

/* Waits by the channel's policy until the slot is DONE or FAILED (results as poll), the deadline passed (-TIMEOUT: the
 * slot is abandoned, and answers -BUSY at claim until the worker is done with it), the daemon or worker is gone
 * (-SERVER_GONE), or it was interrupted by a signal, a spurious wake-up or 10 ms of spinning (-AGAIN: call again). */
int sidecaml_channel_wait(sidecaml_channel *channel, uint32_t slot, uint64_t deadline_ns);

/* Gives back a slot that is DONE or FAILED; its outputs may no longer be read. -INVALID otherwise. */
int sidecaml_channel_release(sidecaml_channel *channel, uint32_t slot);

/* Gives up a request at any stage: what has not started is cancelled, what runs is ABANDONED, what is finished is
 * released. -INVALID when the slot holds no request. */
int sidecaml_channel_abandon(sidecaml_channel *channel, uint32_t slot);

/* For event loops: announce that the caller will sleep on answer_fd. Returns 1 when something is ready or gone
 * already (do not sleep), 0 when it may sleep. After waking, call disarm, then poll. */
int sidecaml_channel_arm(sidecaml_channel *channel, uint32_t slot);
void sidecaml_channel_disarm(sidecaml_channel *channel);

/* The text of a FAILED slot, NUL-terminated, control characters replaced; returns its length. Read before release. */
size_t sidecaml_channel_message(const sidecaml_channel *channel, uint32_t slot, char *out, size_t room);

/* Whether the channel is gone, as far as its waits have seen. */
bool sidecaml_channel_gone(const sidecaml_channel *channel);
/* The daemon's last words on it: the raw event message (msgpack), or NULL when there was none (end-of-file). */
const uint8_t *sidecaml_channel_gone_event(const sidecaml_channel *channel, size_t *bytes);

struct sidecaml_stamps {
    uint64_t submitted_ns, seen_ns, started_ns, finished_ns; /* all 0 when they were not asked for */
};
/* Of the slot's last finished request. -INVALID for a slot out of range. */
int sidecaml_channel_stamps(const sidecaml_channel *channel, uint32_t slot, struct sidecaml_stamps *out);

/* --- Worker ------------------------------------------------------------------------------------------------------ */

typedef struct sidecaml_worker sidecaml_worker;

/* Takes over `status_fd` (writable, one page, zeroed: it is formatted here) and watches `control_fd`, which stays the
 * caller's, while waiting. */
int sidecaml_worker_create(int status_fd, int control_fd, enum sidecaml_policy policy, sidecaml_worker **out,
                           struct sidecaml_failure *why);
void sidecaml_worker_destroy(sidecaml_worker *worker);

struct sidecaml_worker_fds {
    int segment;
    int request;
    int answer;
};

/* Maps the segment, formats it by `layout` and serves it from now on; returns the channel's index in this worker. */
int sidecaml_worker_attach(sidecaml_worker *worker, const struct sidecaml_worker_fds *fds,
                           const struct sidecaml_layout *layout, struct sidecaml_failure *why);
/* Unmaps and closes. The caller makes sure that no request of the channel runs. */
int sidecaml_worker_detach(sidecaml_worker *worker, uint32_t channel);

struct sidecaml_request {
    uint32_t channel;
    uint32_t slot;
    uint64_t ticket;
    uint64_t deadline_ns;
    bool stamps; /* the client wants to know when it was seen, started and finished */
    bool resets; /* the client wants the channel's state to start anew with it: the caller's to do */
};

/* Takes the next request, channel by channel in turn, and makes it RUNNING: 1 with *out filled; -PENDING when there
 * is none (timeout_ns 0), -TIMEOUT after timeout_ns (UINT64_MAX: never), -AGAIN when a signal arrived or the control
 * descriptor is readable. */
int sidecaml_worker_next(sidecaml_worker *worker, uint64_t timeout_ns, struct sidecaml_request *out);

/* Stamps the start, where stamps are wanted; call just before the engine runs. */
void sidecaml_worker_started(sidecaml_worker *worker, const struct sidecaml_request *request);

/* Publishes the end: DONE with status 0, FAILED with a negative code and `message` (UTF-8, cut to
 * SIDECAML_MESSAGE_BYTES; may be NULL). Frees the slot instead when the client gave up; returns 1 then, else 0. */
int sidecaml_worker_complete(sidecaml_worker *worker, const struct sidecaml_request *request, int status,
                             const char *message);

void *sidecaml_worker_tensor(const sidecaml_worker *worker, uint32_t channel, uint32_t slot, uint32_t tensor);
const struct sidecaml_layout *sidecaml_worker_layout(const sidecaml_worker *worker, uint32_t channel);
/* The dims of this request's input, read once and checked: rank, or -BAD_DIMS, -INVALID. */
int sidecaml_worker_get_dims(const sidecaml_worker *worker, const struct sidecaml_request *request, uint32_t tensor,
                             uint64_t dims[SIDECAML_MAX_RANK]);
/* The dims of an output, before complete. -OUTPUT_TOO_LARGE beyond max_dims, -INVALID for another rank. */
int sidecaml_worker_set_dims(sidecaml_worker *worker, const struct sidecaml_request *request, uint32_t tensor,
                             const uint64_t *dims, uint32_t rank);
/* The true dims of a dynamic output, beyond max_dims or not, before complete with -OUTPUT_TOO_LARGE: of every one, so
 * that the client can open larger. -INVALID for another rank or a static tensor. */
int sidecaml_worker_set_needed(sidecaml_worker *worker, const struct sidecaml_request *request, uint32_t tensor,
                               const uint64_t *dims, uint32_t rank);
/* With the same: the most text that a string output has. */
int sidecaml_worker_set_text_needed(sidecaml_worker *worker, const struct sidecaml_request *request, uint64_t bytes);

/* Runs the request in one slot: 0, or the negative of an error code with *why filled in. */
typedef int (*sidecaml_runner)(void *context, struct sidecaml_failure *why);

/* What sidecaml_worker_serve runs by itself, and when: requests of a slot that come with these dims while the channel
 * is in this state. What a state stands for is the caller's affair; a channel begins in state 0. */
struct sidecaml_bound {
    sidecaml_runner run;
    void *context;
    void (*drop)(void *context); /* called when the context is needed no more; may be NULL */
    uint64_t state;
    uint64_t next_state; /* which a run that succeeded takes the channel to */
    /* A row for each of the channel's dynamic tensors: of the inputs, as a request has to come; of the outputs, as it
     * is told to the client. */
    const uint64_t (*dims)[SIDECAML_MAX_RANK];
};

/* How many runners a slot keeps: the latest used. */
#define SIDECAML_SLOT_RUNNERS 32

/* Has sidecaml_worker_serve run what comes as `bound` says, in place of a runner for the same; that, or the one that
 * was longest unused, is dropped. NULL drops all of the slot's, and so does detaching the channel. -BAD_DIMS beyond a
 * tensor's largest, -INVALID for a slot that is not there; nothing has changed then, and nothing is dropped. */
int sidecaml_worker_bind(sidecaml_worker *worker, uint32_t channel, uint32_t slot, const struct sidecaml_bound *bound,
                         struct sidecaml_failure *why);

/* The state that a channel is in, and another one. 0 for a channel that is not there. */
uint64_t sidecaml_worker_state(const sidecaml_worker *worker, uint32_t channel);
void sidecaml_worker_set_state(sidecaml_worker *worker, uint32_t channel, uint64_t state);

/* The native lane: as next, but requests for which there is a runner are run and completed here, one after the other.
 * Returns 1 for a request that the caller has to finish: there is no runner (why->code is 0; it has not started), or
 * its run has failed (*why says how). -AGAIN also now and then while requests keep coming, for the caller's own duties.
 */
int sidecaml_worker_serve(sidecaml_worker *worker, uint64_t timeout_ns, struct sidecaml_request *out,
                          struct sidecaml_failure *why);

/* Ends the process at once, with status 0, when the other end of socket `fd` is gone: from a thread of its own, so
 * that a worker in the middle of a long run does not outlive its supervisor. */
int sidecaml_exit_with_peer(int fd, struct sidecaml_failure *why);

/* --- Client: the control socket (control.c; the only part that needs msgpack) --------------------------------------
 */

struct sidecaml_tensor_info {
    char *name;
    uint32_t dtype; /* 0 when the daemon names a type this library does not know: see dtype_name */
    char *dtype_name;
    bool output;
    uint32_t rank;
    int64_t dims[SIDECAML_MAX_RANK];    /* -1 for a named, dynamic dimension */
    char *dim_names[SIDECAML_MAX_RANK]; /* NULL for a fixed one */
};

/* State that the worker keeps: an output, and the input that gets it with the channel's next request. */
struct sidecaml_carried_info {
    char *output;
    struct sidecaml_tensor_info input;
};

struct sidecaml_model_info {
    char *name;
    char *engine;
    char *state;   /* "ready", "loading" or "failed" */
    char *problem; /* why it failed; "" otherwise */
    uint64_t fingerprint;
    uint32_t max_slots;
    uint32_t tensor_count; /* inputs, then outputs */
    struct sidecaml_tensor_info *tensors;
    uint32_t carried_count;
    struct sidecaml_carried_info *carried;
};

struct sidecaml_models {
    uint32_t count;
    struct sidecaml_model_info *models; /* sorted by name */
};
void sidecaml_models_free(struct sidecaml_models *models);

/* Connects to the daemon's socket and says hello within timeout_ns; returns the socket, or CONNECT, ABI_MISMATCH,
 * PROTOCOL, TIMEOUT. */
int sidecaml_control_connect(const char *path, const char *client_name, uint64_t timeout_ns,
                             struct sidecaml_failure *why);

/* Every model, or the one named (NULL for all). */
int sidecaml_control_describe(int control_fd, const char *model, uint64_t timeout_ns, struct sidecaml_models *out,
                              struct sidecaml_failure *why);

struct sidecaml_dim_binding {
    const char *name;
    uint64_t max;
};

/* What to open. */
struct sidecaml_open {
    const char *model;
    uint32_t slots;
    const struct sidecaml_dim_binding *dims; /* the maxima of the dynamic dimensions */
    uint32_t dim_count;
    uint64_t text_bytes; /* room for the text of each string tensor in each slot; 0 leaves it to the daemon */
    enum sidecaml_policy policy;
};

/* Opens a channel. On success the channel owns control_fd, and *out_models holds the one model's description. */
int sidecaml_control_open(int control_fd, const struct sidecaml_open *what, uint64_t timeout_ns, sidecaml_channel **out,
                          struct sidecaml_models *out_models, struct sidecaml_failure *why);

/* Why a gone channel is gone, from its last event; SERVER_GONE's own text when the daemon said nothing. */
void sidecaml_control_gone(const sidecaml_channel *channel, struct sidecaml_failure *why);

/* A round trip over the control socket. */
int sidecaml_control_ping(int control_fd, uint64_t timeout_ns, struct sidecaml_failure *why);

#endif
