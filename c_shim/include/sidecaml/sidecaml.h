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
    bool packed;  /* slots lie close together if their bytes allow it: see SIDECAML_PACKED_ALIGN */
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
    uint64_t worker_offset;
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
    int request; /* doorbell: an eventfd in semaphore mode, or a SOCK_SEQPACKET socket */
    int answer;  /* doorbell */
    int status;  /* the status pages of the model's workers, read-only */
    int control; /* control socket that opened the channel, which ends with it, or with the event `gone` */
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

/* Several requests at once. From the next slot on, how many may be filled now, at most `most`, as they follow each
 * other round the ring; else what claim returns. */
int sidecaml_channel_claim_run(sidecaml_channel *channel, uint32_t most);

/* Publishes the requests in the next `count` slots so that a worker finds all of them or none; the first slot, or what
 * claim returns; -INVALID, and nothing is published, when one of them may not be filled. */
int sidecaml_channel_submit_run(sidecaml_channel *channel, uint32_t count, uint64_t deadline_ns);

/* How many requests are DONE, one after the other from that in `slot` on: at most `most`. 0 when that one is not. No
 * system call. */
int sidecaml_channel_answered(sidecaml_channel *channel, uint32_t slot, uint32_t most);

/* How many have ended, one after the other from that in `slot` on: at most `most`. A worker answers a channel's
 * requests in turn, and only refuses some before: so when the last of them is DONE, none is in flight. Nobody is told
 * of them: wait, poll and answered tell how they ended. No system call. */
int sidecaml_channel_ended(const sidecaml_channel *channel, uint32_t slot, uint32_t most);

/* Releases `count` slots from `slot` on; -INVALID for one that is not DONE or FAILED, at which it stops. */
int sidecaml_channel_release_run(sidecaml_channel *channel, uint32_t slot, uint32_t count);

/* 0 when the slot's request is DONE, -PENDING while it is under way, the failure's negative code when FAILED,
 * -SERVER_GONE, or -INVALID when the slot holds no request of the caller's. Looks at the control socket at most once a
 * millisecond; no system call otherwise. */
int sidecaml_channel_poll(sidecaml_channel *channel, uint32_t slot);

/* Like poll, spinning for at most `spin_ns`, and not at all where the policy is adaptive and that is not likely to pay.
 * No system call; bounded, so it may run where a runtime must not stall. */
int sidecaml_channel_spin(sidecaml_channel *channel, uint32_t slot, uint64_t spin_ns);

/* Waits by the channel's policy until the slot is DONE or FAILED (results as poll), the deadline passed (-TIMEOUT: the
 * slot is abandoned, and answers -BUSY at claim until the worker is done with it), the daemon or worker is gone
 * (-SERVER_GONE), or it was interrupted by a signal, a spurious wake-up or 10 ms of spinning (-AGAIN: call again). */
int sidecaml_channel_wait(sidecaml_channel *channel, uint32_t slot, uint64_t deadline_ns);

/* The same, but nobody is told of the end, and at the deadline nothing is given up: for who waits for the last of
 * several requests, to deal with all of them then. */
int sidecaml_channel_wait_end(sidecaml_channel *channel, uint32_t slot, uint64_t deadline_ns);

/* Waits by the channel's policy until any request of the caller's has ended whose end it was not told yet, by this
 * function or by poll, spin, wait or answered; the oldest is looked at first. Its slot: wait tells how it ended, at
 * once. A request that is past the deadline it was submitted with counts as ended, and so does each when the channel is
 * gone. -INVALID when there is no such request, -TIMEOUT at `deadline_ns`, which gives up none, or -AGAIN as wait. */
int sidecaml_channel_wait_any(sidecaml_channel *channel, uint64_t deadline_ns);
/* The same, as spin: for at most `spin_ns`, -PENDING then. Deadlines are not looked at. */
int sidecaml_channel_spin_any(sidecaml_channel *channel, uint64_t spin_ns);

/* As claim, but waits by the channel's policy while that is -BUSY: -TIMEOUT at the deadline, or -AGAIN as wait. Not
 * while it is -FULL, which only the caller can end. */
int sidecaml_channel_claim_wait(sidecaml_channel *channel, uint64_t deadline_ns);

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

/* Whether the segment is still what it was: a daemon takes the memory of a channel that has ended back from users that
 * it does not trust, and what was read of it before this says yes counts. */
bool sidecaml_channel_is_intact(const sidecaml_channel *channel);

/* Whether the channel is gone, as far as its waits have seen. */
bool sidecaml_channel_gone(const sidecaml_channel *channel);
/* The daemon's last words on it: the raw event message (msgpack), or NULL when there was none (end-of-file). */
const uint8_t *sidecaml_channel_gone_event(const sidecaml_channel *channel, size_t *bytes);

struct sidecaml_stamps {
    uint64_t submitted_ns, seen_ns, started_ns, finished_ns; /* all 0 when they were not asked for */
};
/* Of the slot's last finished request; one that was refused (DEADLINE) did neither start nor finish: both are 0.
 * -INVALID for a slot out of range. */
int sidecaml_channel_stamps(const sidecaml_channel *channel, uint32_t slot, struct sidecaml_stamps *out);

/* --- Worker ------------------------------------------------------------------------------------------------------ */

typedef struct sidecaml_worker sidecaml_worker;

/* Takes over `status_fd` (writable), of whose pages the one numbered `page` becomes this worker's: zeroed, or that of a
 * worker that died, whose counters go on. Watches `control_fd`, which stays the caller's, while waiting. */
int sidecaml_worker_create(int status_fd, uint32_t page, int control_fd, enum sidecaml_policy policy,
                           sidecaml_worker **out, struct sidecaml_failure *why);
void sidecaml_worker_destroy(sidecaml_worker *worker);
/* Has the worker count among the others of its daemon, and spin only where all of them, and their clients, have cores:
 * `fd` is the crowd page, which it takes over, `entry` the worker's place there, nobody else's, `threads` what a run of
 * its model takes, and `cores` what the daemon may use. Without it a worker knows of itself and its clients only. Fails
 * with INVALID or CORRUPT; the descriptor is the caller's then, and the worker where it was. */
int sidecaml_worker_join_crowd(sidecaml_worker *worker, int fd, uint32_t entry, uint32_t threads, uint32_t cores,
                               struct sidecaml_failure *why);

struct sidecaml_worker_fds {
    int segment;
    int request;
    int answer;
    int journal; /* a page and what state takes, zeroed; -1 for a private one, with which nothing outlives the worker */
};

/* The channel was served by a worker that is dead: nothing is formatted, and its requests go on. One that it was
 * running is taken again (sidecaml_request.attempts); one whose run had succeeded is only published. May be done again
 * after a successor died as well, at whatever point. */
#define SIDECAML_ATTACH_RESUME 1u
/* The client is not trusted: its requests run on private memory of the worker, inputs copied before and outputs after
 * the run, so that what it writes meanwhile changes nothing. Every slot's tensors then lie at one place. */
#define SIDECAML_ATTACH_STAGED 2u
/* The client's requests come before those of channels without it. */
#define SIDECAML_ATTACH_HIGH 4u
/* For so long none of the channel's requests runs together with others, not even with its own: if the worker dies,
 * the journals say of whose. */
#define SIDECAML_ATTACH_ALONE 8u
#define SIDECAML_ALONE_NS UINT64_C(600000000000)

/* Maps the segment, formats it by `layout` and serves it from now on; returns the channel's index in this worker. `how`
 * is 0 or SIDECAML_ATTACH_... */
int sidecaml_worker_attach(sidecaml_worker *worker, const struct sidecaml_worker_fds *fds,
                           const struct sidecaml_layout *layout, uint32_t how, struct sidecaml_failure *why);
/* Unmaps and closes. The caller makes sure that no request of the channel runs. */
int sidecaml_worker_detach(sidecaml_worker *worker, uint32_t channel);

/* Right after a resuming attach: how often the request that a predecessor was running had been started; 0 for none. */
uint32_t sidecaml_worker_interrupted(const sidecaml_worker *worker, uint32_t channel);

/* A channel whose client took pages of its segment away, each once; -PENDING when there is no other. It is not served
 * any more, and its running request is answered by nothing but the end of the channel. See sidecaml_guard. */
int sidecaml_worker_broken(sidecaml_worker *worker);

struct sidecaml_request {
    uint32_t channel;
    uint32_t slot;
    uint64_t ticket;
    uint64_t deadline_ns;
    uint32_t attempts; /* workers that started to run it and died, at most SIDECAML_MOST_ATTEMPTS */
    bool stamps;       /* the client wants to know when it was seen, started and finished */
    bool resets;       /* the client wants the channel's state to start anew with it: the caller's to do */
};

/* Takes the next request, of channels in turn by the time that their runs take, and makes it RUNNING: 1 with *out
 * filled; -PENDING when there is none (timeout_ns 0), -TIMEOUT after timeout_ns (UINT64_MAX: never), -AGAIN when a
 * signal arrived, the control descriptor is readable, or a channel has broken. Refuses those that cannot make their
 * deadline, going by how long the channel's runs took from `started` to `complete`. */
int sidecaml_worker_next(sidecaml_worker *worker, uint64_t timeout_ns, struct sidecaml_request *out);

/* Notes the start in the journal, and stamps it where stamps are wanted; call just before the engine runs. */
void sidecaml_worker_started(sidecaml_worker *worker, const struct sidecaml_request *request);

/* Publishes the end: DONE with status 0, which is committed to the journal first, together with the channel's state;
 * FAILED with a negative code and `message` (UTF-8, cut to SIDECAML_MESSAGE_BYTES; may be NULL). Frees the slot instead
 * when the client gave up; returns 1 then, else 0. */
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
    bool alone;          /* never together with other requests */
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

/* The state that a channel is in, and another one. 0 for a channel that is not there. Its lowest bit is the place in
 * the journal where the next run reads carried state: committed with each run that succeeds. */
uint64_t sidecaml_worker_state(const sidecaml_worker *worker, uint32_t channel);
void sidecaml_worker_set_state(sidecaml_worker *worker, uint32_t channel, uint64_t state);

/* The journal's memory behind its page, and what is committed there: SIDECAML_CARRIED | place, or only the place. */
void *sidecaml_worker_journal(const sidecaml_worker *worker, uint32_t channel, uint64_t *bytes);
uint32_t sidecaml_worker_committed(const sidecaml_worker *worker, uint32_t channel);
/* From now on nothing is carried: to be called before the state's memory is cleared. */
void sidecaml_worker_drop_carried(sidecaml_worker *worker, uint32_t channel);

/* An input that all requests of a run share, such as a rate: they are run together only where it is equal in all. */
#define SIDECAML_SHARED (-1)

/* How a model runs several requests as one. A request is as many rows as it has along the axes, often one. */
struct sidecaml_batching {
    uint32_t most;         /* rows of one run, up to SIDECAML_MOST_BATCH; 1 for no batches */
    uint32_t gather_from;  /* the fewest for which it pays to copy them together; 0: never */
    uint32_t rest_from;    /* the fewest neighbours for which it pays to copy what does not lie in place; 0: never */
    uint32_t tensor_count; /* inputs, then outputs */
    /* Of each tensor, the axis along which requests lie side by side, or SIDECAML_SHARED. Outputs have an axis. */
    const int32_t *axes;
    const uint64_t *costs_ns; /* most + 1 numbers: what a run of so many rows was seen to take; 0 where unknown */
    /* Gives what runs the model on these places, whose memory stays where it is until `drop`. A row of dims for each
     * tensor. Called between runs, on the thread that serves. */
    int (*bind)(void *context, void *const *addresses, const uint64_t (*dims)[SIDECAML_MAX_RANK], void **runner,
                struct sidecaml_failure *why);
    sidecaml_runner run;
    void (*drop)(void *runner);
    void *context;
};

/* Has sidecaml_worker_serve run requests together that it has runners for, from now on; without it, and in
 * sidecaml_worker_next, they run one by one. Only where the answers are the same either way, which is the caller's to
 * know. Once, and before any channel is attached: -INVALID otherwise, or for axes that no tensor has. */
int sidecaml_worker_set_batching(sidecaml_worker *worker, const struct sidecaml_batching *batching,
                                 struct sidecaml_failure *why);

/* The native lane: as next, but requests for which there is a runner are run and completed here, one after the other.
 * Returns 1 for a request that the caller has to finish: there is no runner (why->code is 0; it has not started), or
 * its run has failed (*why says how). -AGAIN also now and then while requests keep coming, for the caller's own duties.
 */
int sidecaml_worker_serve(sidecaml_worker *worker, uint64_t timeout_ns, struct sidecaml_request *out,
                          struct sidecaml_failure *why);

/* Ends the process at once, with status 0, when the other end of socket `fd` is gone: from a thread of its own, so
 * that a worker in the middle of a long run does not outlive its supervisor. */
int sidecaml_exit_with_peer(int fd, struct sidecaml_failure *why);

/* Has the calling thread hold `fd`, shared memory of a page that is all zeros, until its end: whoever waits for that
 * with sidecaml_lifeline_wait is told at once, and not only when the memory of the process is given back. */
int sidecaml_lifeline_hold(int fd, struct sidecaml_failure *why);

/* Waits until the thread that holds it is over: 1; 0 when the time is up, or now and then before. -INVALID: nobody
 * holds it. What lies in the page is only looked at, and may be wrong: a 1 is a reason to look closer. */
int sidecaml_lifeline_wait(int fd, uint64_t timeout_ns, struct sidecaml_failure *why);

/* Has this process survive that a client takes pages of its segment away: in their place come zeros, private ones, and
 * the channel is broken. To be called when everything is loaded that might install a handler of SIGBUS, and again
 * whenever somebody may have done so: it looks, and costs a system call where nothing has changed. A worker that waits,
 * or is busy, does that by itself every few milliseconds, once this was called.
 * One thread at a time. */
int sidecaml_guard(struct sidecaml_failure *why);

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

/* How the requests of a model are run together, as its worker found out when it loaded it. */
struct sidecaml_batching_info {
    char *policy;         /* "exact", "ulp N", "any" or "off"; NULL when the daemon says nothing of batches */
    char *dim;            /* what counts requests; "" where nothing does */
    char *why;            /* what limits `most`; "" where nothing does but the configuration */
    uint32_t most;        /* rows that one run takes; 1: requests run one by one */
    uint32_t gather_from; /* fewest requests that are copied together; 0: none ever are */
    bool in_place;        /* whether slots may lie side by side, and be run where they lie */
    uint32_t shared_count;
    char **shared; /* names of inputs: only requests with the same bits in them are run together */
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
    struct sidecaml_batching_info batching;
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
    bool high_priority; /* its requests come before those of other channels; DENIED to users who are not trusted */
};

/* Opens a channel. On success the channel owns control_fd, and *out_models holds the one model's description. */
int sidecaml_control_open(int control_fd, const struct sidecaml_open *what, uint64_t timeout_ns, sidecaml_channel **out,
                          struct sidecaml_models *out_models, struct sidecaml_failure *why);

/* Whom to ask: where, as whom, and within how long for the whole of a question. */
struct sidecaml_daemon {
    const char *path;
    const char *client_name;
    uint64_t timeout_ns;
};

/* connect and describe in one, and connect and open. When the daemon goes away in the middle, or says that it shuts
 * down, they begin again from the connect, after pauses, until the time is over: whoever restarts a daemon need not
 * think of its clients. Where none has answered at all that is CONNECT at once. What is wrong with an answer is told,
 * never asked again. On failure nothing is left to close. */
int sidecaml_daemon_describe(const struct sidecaml_daemon *daemon, const char *model, struct sidecaml_models *out,
                             struct sidecaml_failure *why);
int sidecaml_daemon_open(const struct sidecaml_daemon *daemon, const struct sidecaml_open *what, sidecaml_channel **out,
                         struct sidecaml_models *out_models, struct sidecaml_failure *why);

/* Why a gone channel is gone, from its last event; SERVER_GONE's own text when the daemon said nothing. */
void sidecaml_control_gone(const sidecaml_channel *channel, struct sidecaml_failure *why);

/* A round trip over the control socket. */
int sidecaml_control_ping(int control_fd, uint64_t timeout_ns, struct sidecaml_failure *why);

#endif
