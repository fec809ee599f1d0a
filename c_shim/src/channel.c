/* The client's channel: one open model, used by one thread at a time. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "atomics.h"
#include "channel.h"
#include "checked.h"
#include "crash_point.h"
#include "doorbell.h"
#include "event.h"
#include "failure.h"
#include "mapping.h"
#include "spin.h"
#include "wait.h"
#include "word.h"

#define EVENT_BYTES 2048
#define EVENTS_AT_A_TIME 16
/* A client that only polls learns of death this late. */
#define POLL_CONTROL_NS 1000000u

struct sidecaml_channel {
    struct ring_client ring;
    /* The caller was told of the end of every request before this one's ticket, or has given it up. */
    uint64_t oldest;
    uint32_t oldest_slot;
    uint64_t *told;      /* per slot: as ring.held, of the request whose end the caller was told last */
    uint64_t *deadlines; /* per slot: of its request */
    struct sidecaml_client_block *block;
    const struct sidecaml_worker_block *served_by;
    const struct sidecaml_status_page *pages; /* of the model's workers */
    uint32_t page_count;
    struct spinner spinner;
    uint32_t flags; /* of the next request */
    bool gone;
    pid_t owner; /* the process that attached it */
    struct sidecaml_channel_fds fds;
    struct doorbell request, answer;
    struct mapping segment, status_pages;
    uint64_t looked_at_control_ns;
    size_t event_bytes;
    uint8_t event[EVENT_BYTES]; /* the daemon's last words */
    struct sidecaml_layout layout;
};

/* --- Open and close ---------------------------------------------------------------------------------------------- */

static int map_segment(sidecaml_channel *channel, int fd, uint64_t fingerprint, struct sidecaml_failure *why) {
    int status = mapping_open(&channel->segment, fd, true, false, "the channel's segment", why);
    if (status < 0) return status;
    status = sidecaml_layout_read(channel->segment.base, channel->segment.bytes, &channel->layout, why);
    if (status < 0) return status;
    if (channel->layout.fingerprint != fingerprint)
        return fail(why, SIDECAML_E_CORRUPT, "the segment belongs to another signature than the one described");
    channel->block = client_block_of(channel->segment.base, &channel->layout);
    channel->served_by = worker_block_of(channel->segment.base, &channel->layout);
    channel->ring.slots = slots_of(channel->segment.base, &channel->layout);
    channel->ring.count = channel->layout.slot_count;
    channel->ring.held = calloc(channel->ring.count, sizeof channel->ring.held[0]);
    channel->told = calloc(channel->ring.count, sizeof channel->told[0]);
    channel->deadlines = calloc(channel->ring.count, sizeof channel->deadlines[0]);
    bool has_memory = channel->ring.held && channel->told && channel->deadlines;
    return has_memory ? 0 : fail(why, SIDECAML_E_NO_MEMORY, "no memory for a channel");
}

/* The page of the worker that serves the channel now: it changes when the channel is moved to another instance. */
static const struct sidecaml_status_page *worker_of(const sidecaml_channel *channel) {
    uint32_t page = load32(&channel->served_by->page, seq_cst); /* MOVE */
    return &channel->pages[page < channel->page_count ? page : 0];
}

/* After the segment, which says whose page counts. */
static int map_status(sidecaml_channel *channel, int fd, struct sidecaml_failure *why) {
    int status = mapping_open(&channel->status_pages, fd, false, true, "the workers' status pages", why);
    if (status < 0) return status;
    uint64_t bytes = channel->status_pages.bytes;
    if (bytes % SIDECAML_PAGE_BYTES || bytes > SIDECAML_MAX_INSTANCES * SIDECAML_PAGE_BYTES)
        return fail(why, SIDECAML_E_CORRUPT, "the status file has %llu bytes: it is no 1 to %d pages",
                    (unsigned long long)bytes, SIDECAML_MAX_INSTANCES);
    channel->pages = (const void *)channel->status_pages.base;
    channel->page_count = (uint32_t)(bytes / SIDECAML_PAGE_BYTES);
    const struct sidecaml_status_page *page = worker_of(channel);
    if (memcmp(page->magic, SIDECAML_STATUS_MAGIC, sizeof page->magic))
        return fail(why, SIDECAML_E_CORRUPT, "the status page is not laid out as the protocol says");
    if (page->abi_version != SIDECAML_ABI_VERSION)
        return fail(why, SIDECAML_E_ABI_MISMATCH, "the worker has ABI version %u, this library speaks version %u",
                    page->abi_version, SIDECAML_ABI_VERSION);
    return 0;
}

static void unmap(sidecaml_channel *channel) {
    mapping_close(&channel->segment);
    mapping_close(&channel->status_pages);
    free(channel->ring.held);
    free(channel->told);
    free(channel->deadlines);
    free(channel);
}

int sidecaml_channel_attach(const struct sidecaml_channel_fds *fds, uint64_t fingerprint, enum sidecaml_policy policy,
                            sidecaml_channel **out, struct sidecaml_failure *why) {
    sidecaml_channel *channel = calloc(1, sizeof *channel);
    if (!channel) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for a channel");
    int status = map_segment(channel, fds->segment, fingerprint, why);
    if (status == 0) status = map_status(channel, fds->status, why);
    if (status < 0) {
        unmap(channel);
        return status;
    }
    channel->fds = *fds;
    channel->request = doorbell_of(fds->request);
    channel->answer = doorbell_of(fds->answer);
    channel->owner = getpid();
    spinner_init(&channel->spinner, policy);
    *out = channel;
    return 0;
}

void channel_adopt_control(sidecaml_channel *channel, int control_fd) {
    channel->fds.control = control_fd;
}

uint64_t channel_spins(const sidecaml_channel *channel) {
    return channel->spinner.spins;
}

static void close_fd(int fd) {
    if (fd >= 0) close(fd);
}

/* Gives the pages back, so that a view which outlives the channel reads zeros; not while the worker may still read
 * them, because a kernel that has checked an input must not find it changed. */
static void punch(sidecaml_channel *channel) {
    bool quiet = true;
    for (uint32_t slot = 0; slot < channel->ring.count; slot++) {
        sidecaml_channel_abandon(channel, slot);
        quiet = quiet && !ring_is_abandoned(&channel->ring, slot);
    }
    if (quiet || channel->gone)
        fallocate(channel->fds.segment, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)channel->segment.bytes);
}

void sidecaml_channel_drop(sidecaml_channel *channel) {
    if (!channel) return;
    close_fd(channel->fds.segment);
    close_fd(channel->fds.request);
    close_fd(channel->fds.answer);
    close_fd(channel->fds.status);
    close_fd(channel->fds.control);
    unmap(channel);
}

void sidecaml_channel_close(sidecaml_channel *channel) {
    /* Not in a forked child, whose exit may close what its parent still uses. */
    CRASH_POINT("client.closing");
    if (channel && channel->owner == getpid()) punch(channel);
    CRASH_POINT("client.punched");
    sidecaml_channel_drop(channel);
    CRASH_POINT("client.closed");
}

const struct sidecaml_layout *sidecaml_channel_layout(const sidecaml_channel *channel) {
    return &channel->layout;
}

int sidecaml_channel_segment_fd(const sidecaml_channel *channel) {
    return channel->fds.segment;
}

int sidecaml_channel_answer_fd(const sidecaml_channel *channel) {
    return channel->fds.answer;
}

int sidecaml_channel_control_fd(const sidecaml_channel *channel) {
    return channel->fds.control;
}

void sidecaml_channel_set_policy(sidecaml_channel *channel, enum sidecaml_policy policy) {
    spinner_init(&channel->spinner, policy);
}

void sidecaml_channel_set_stamps(sidecaml_channel *channel, bool wanted) {
    channel->flags = wanted ? channel->flags | SIDECAML_SLOT_STAMPS : channel->flags & ~SIDECAML_SLOT_STAMPS;
}

void sidecaml_channel_reset(sidecaml_channel *channel) {
    channel->flags |= SIDECAML_SLOT_RESET;
}

void *sidecaml_channel_tensor(const sidecaml_channel *channel, uint32_t slot, uint32_t tensor) {
    return tensor_at(channel->segment.base, &channel->layout, slot, tensor);
}

/* --- The daemon's words ------------------------------------------------------------------------------------------ */

/* Events that a later daemon may have are ignored, so many at a time that one which talks without end holds nobody up.
 * The event `gone`, end-of-file, and what is no event at all end the channel. */
static void hear_control(sidecaml_channel *channel) {
    for (int heard = 0; heard < EVENTS_AT_A_TIME; heard++) {
        ssize_t bytes = recv(channel->fds.control, channel->event, sizeof channel->event, MSG_DONTWAIT);
        if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (bytes > 0 && event_is_unknown(channel->event, (size_t)bytes)) continue;
        channel->event_bytes = bytes > 0 ? (size_t)bytes : 0;
        channel->gone = true;
        return;
    }
}

bool sidecaml_channel_is_intact(const sidecaml_channel *channel) {
    /* Pages are taken from the first on, so as long as this one is there all are. The fence keeps the caller's reads of
     * the others before this one's. */
    atomic_signal_fence(memory_order_seq_cst);
    const volatile char *magic = (const volatile char *)channel->segment.base;
    for (size_t i = 0; i < sizeof SIDECAML_SEGMENT_MAGIC - 1; i++)
        if (magic[i] != SIDECAML_SEGMENT_MAGIC[i]) return false;
    return true;
}

/* Words that make no sense because the daemon has ended the channel, and taken its memory back, are told as that. */
static int blame(sidecaml_channel *channel, int result) {
    if (result != -SIDECAML_E_CORRUPT || sidecaml_channel_is_intact(channel)) return result;
    if (!channel->gone && control_is_ready(channel->fds.control)) hear_control(channel);
    channel->gone = true;
    return -SIDECAML_E_SERVER_GONE;
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

static uint32_t slot_after(const sidecaml_channel *channel, uint32_t slot) {
    return slot + 1 == channel->ring.count ? 0 : slot + 1;
}

int sidecaml_channel_claim(sidecaml_channel *channel) {
    if (channel->gone) return -SIDECAML_E_SERVER_GONE;
    int slot = ring_claim(&channel->ring);
    CRASH_POINT("client.claimed");
    return blame(channel, slot);
}

int sidecaml_channel_set_dims(sidecaml_channel *channel, uint32_t slot, uint32_t tensor, const uint64_t *dims,
                              uint32_t rank) {
    /* Not under a request that is under way; an output's are the worker's to write. */
    if (tensor >= channel->layout.input_count || slot >= channel->ring.count ||
        ring_poll(&channel->ring, slot) == -SIDECAML_E_PENDING || ring_is_abandoned(&channel->ring, slot))
        return -SIDECAML_E_INVALID;
    return dims_write(channel->segment.base, &channel->layout, slot, tensor, dims, rank);
}

int sidecaml_channel_get_dims(const sidecaml_channel *channel, uint32_t slot, uint32_t tensor,
                              uint64_t dims[SIDECAML_MAX_RANK]) {
    int rank = dims_read(channel->segment.base, &channel->layout, slot, tensor, dims);
    if (rank != -SIDECAML_E_BAD_DIMS) return rank;
    bool too_large = read_once(channel->ring.slots[slot].status) == -SIDECAML_E_OUTPUT_TOO_LARGE;
    return too_large && tensor >= channel->layout.input_count ? -SIDECAML_E_OUTPUT_TOO_LARGE : -SIDECAML_E_CORRUPT;
}

/* Whether a slot holds an answer that says how large its outputs would have been. */
static bool says_needed(const sidecaml_channel *channel, uint32_t slot) {
    return ring_poll(&channel->ring, slot) == -SIDECAML_E_OUTPUT_TOO_LARGE;
}

int sidecaml_channel_needed(const sidecaml_channel *channel, uint32_t slot, uint32_t tensor,
                            uint64_t dims[SIDECAML_MAX_RANK]) {
    if (!says_needed(channel, slot)) return -SIDECAML_E_INVALID;
    return dims_read_needed(channel->segment.base, &channel->layout, slot, tensor, dims);
}

int sidecaml_channel_text_needed(const sidecaml_channel *channel, uint32_t slot, uint64_t *bytes) {
    if (!says_needed(channel, slot)) return -SIDECAML_E_INVALID;
    *bytes = read_once(channel->ring.slots[slot].text_needed);
    return 0;
}

/* Lines that the caller's own work may have pushed out of this core's caches: fetched together, not one after the
 * other. */
static void prefetch(const sidecaml_channel *channel) {
    __builtin_prefetch(&channel->ring.slots[channel->ring.slot], 1);
    __builtin_prefetch(channel->ring.held, 1);
    __builtin_prefetch(channel->block);
    __builtin_prefetch((const void *)&worker_of(channel)->parked);
}

int sidecaml_channel_claim_run(sidecaml_channel *channel, uint32_t most) {
    if (channel->gone) return -SIDECAML_E_SERVER_GONE;
    return blame(channel, ring_claim_run(&channel->ring, most));
}

/* Not 0, and hardly ever that of another thread. */
static uint32_t number_of_thread(void) {
    static _Thread_local uint32_t number;
    while (!number)
        if (getrandom(&number, sizeof number, GRND_NONBLOCK) != (ssize_t)sizeof number)
            number = (uint32_t)((uint64_t)sidecaml_now_ns() * UINT64_C(0x9e3779b97f4a7c15) >> 32);
    return number;
}

/* Relaxed: hints. Written only when the processor changes, so that the line stays shared. */
static void say_where(struct sidecaml_client_block *block, uint32_t core) {
    store32(&block->core, core, relaxed);
    store32(&block->thread, number_of_thread(), relaxed);
}

int sidecaml_channel_submit_run(sidecaml_channel *channel, uint32_t count, uint64_t deadline_ns) {
    if (channel->gone) return -SIDECAML_E_SERVER_GONE;
    prefetch(channel);
    uint32_t core = current_core();
    if (load32(&channel->block->core, relaxed) != core) say_where(channel->block, core);
    uint64_t submitted_ns = channel->flags & SIDECAML_SLOT_STAMPS ? sidecaml_now_ns() : 0;
    CRASH_POINT("client.submitting");
    int slot = ring_submit_run(&channel->ring, count, deadline_ns, submitted_ns, channel->flags);
    if (slot < 0) return blame(channel, slot);
    CRASH_POINT("client.submitted");
    for (uint32_t i = 0, at = (uint32_t)slot; i < count; i++, at = slot_after(channel, at))
        channel->deadlines[at] = deadline_ns;
    channel->flags &= ~SIDECAML_SLOT_RESET;
    worker_wake(worker_of(channel), channel->request);
    return slot;
}

int sidecaml_channel_submit(sidecaml_channel *channel, uint64_t deadline_ns) {
    return sidecaml_channel_submit_run(channel, 1, deadline_ns);
}

/* The slot's word, and what is known of the daemon: no system call, but for a channel that has lost its memory. */
static int glance(sidecaml_channel *channel, uint32_t slot) {
    int result = ring_poll(&channel->ring, slot);
    return result == -SIDECAML_E_PENDING && channel->gone ? -SIDECAML_E_SERVER_GONE : blame(channel, result);
}

/* Has the client let go of a slot whose word is lost. */
static int forget(sidecaml_channel *channel, uint32_t slot) {
    channel->ring.held[slot] = 0;
    return 0;
}

/* Whether the request's end is still to be told. */
static bool is_awaited(const sidecaml_channel *channel, uint32_t slot) {
    return channel->ring.held[slot] && channel->told[slot] != channel->ring.held[slot];
}

/* A result on its way to the caller, who then knows how the request ended, if it has ended. */
static int tell(sidecaml_channel *channel, uint32_t slot, int result) {
    if (result != -SIDECAML_E_PENDING && slot < channel->ring.count) channel->told[slot] = channel->ring.held[slot];
    return result;
}

static bool is_done(int result) {
    return result == 0;
}

static bool is_end(int result) {
    return result == 0 || is_request_failure(result);
}

/* Lines that another core has written come one beside the other when they are asked for together, which loads with a
 * branch on each do not do. */
static void fetch_words(const sidecaml_channel *channel, uint32_t slot, uint32_t count) {
    for (; count > 0; count--, slot = slot_after(channel, slot))
        __builtin_prefetch(&channel->ring.slots[slot].word);
}

/* How many requests from that in `slot` on are as they should be; after the newest comes the oldest. */
static int run_of(const sidecaml_channel *channel, uint32_t slot, uint32_t most, bool (*should_be)(int result)) {
    uint32_t count = 0;
    if (slot >= channel->ring.count) return -SIDECAML_E_INVALID;
    fetch_words(channel, slot, most < channel->ring.count ? most : channel->ring.count);
    for (; count < most && count < channel->ring.count; count++, slot = slot_after(channel, slot))
        if ((count > 0 && slot == channel->ring.slot) || !should_be(ring_poll(&channel->ring, slot))) break;
    return (int)count;
}

int sidecaml_channel_ended(const sidecaml_channel *channel, uint32_t slot, uint32_t most) {
    /* A worker answers a channel's requests in turn, so one look at the last of them is mostly enough, and leaves the
     * other words' lines for when the answers are read. */
    const struct ring_client *ring = &channel->ring;
    uint32_t newer = ring->slot > slot ? ring->slot - slot : ring->slot + ring->count - slot;
    uint32_t last = slot + most - 1;
    if (slot < ring->count && most > 0 && most <= newer &&
        ring_poll(ring, last < ring->count ? last : last - ring->count) == 0)
        return (int)most;
    return run_of(channel, slot, most, is_end);
}

int sidecaml_channel_answered(sidecaml_channel *channel, uint32_t slot, uint32_t most) {
    int count = run_of(channel, slot, most, is_done);
    for (int i = 0; i < count; i++, slot = slot_after(channel, slot))
        tell(channel, slot, 0);
    return count;
}

int sidecaml_channel_release(sidecaml_channel *channel, uint32_t slot) {
    CRASH_POINT("client.releasing");
    int status = ring_release(&channel->ring, slot);
    CRASH_POINT("client.released");
    bool is_lost = status < 0 && !sidecaml_channel_is_intact(channel) && glance(channel, slot) != -SIDECAML_E_INVALID;
    return is_lost ? forget(channel, slot) : status;
}

int sidecaml_channel_release_run(sidecaml_channel *channel, uint32_t slot, uint32_t count) {
    int status = 0;
    for (; count > 0 && status == 0; count--, slot = slot_after(channel, slot))
        status = sidecaml_channel_release(channel, slot);
    return status;
}

/* As ring_give_up. A reset that the request was to bring is still to come, for it may never have run. */
static int give_request_up(sidecaml_channel *channel, uint32_t slot) {
    CRASH_POINT("client.giving-up");
    int status = ring_give_up(&channel->ring, slot);
    CRASH_POINT("client.gave-up");
    if (status == 0) channel->flags |= channel->ring.slots[slot].flags & SIDECAML_SLOT_RESET;
    return status;
}

int sidecaml_channel_abandon(sidecaml_channel *channel, uint32_t slot) {
    int status = give_request_up(channel, slot);
    if (blame(channel, status) == -SIDECAML_E_SERVER_GONE) return forget(channel, slot);
    return status == 1 ? ring_release(&channel->ring, slot) : status;
}

size_t sidecaml_channel_message(const sidecaml_channel *channel, uint32_t slot, char *out, size_t room) {
    if (room == 0) return 0;
    size_t length = 0;
    if (slot < channel->ring.count) {
        struct sidecaml_slot *source = &channel->ring.slots[slot];
        length = read_once(source->message_bytes);
        if (length > SIDECAML_MESSAGE_BYTES) length = SIDECAML_MESSAGE_BYTES;
        if (length > room - 1) length = room - 1;
        memcpy(out, source->message, length);
    }
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)out[i] < ' ' || out[i] == 0x7f) out[i] = ' ';
    out[length] = '\0';
    return length;
}

int sidecaml_channel_stamps(const sidecaml_channel *channel, uint32_t slot, struct sidecaml_stamps *out) {
    if (slot >= channel->ring.count) return -SIDECAML_E_INVALID;
    const struct sidecaml_slot *source = &channel->ring.slots[slot];
    *out = (struct sidecaml_stamps){0};
    if (!(read_once(source->flags) & SIDECAML_SLOT_STAMPS)) return 0;
    *out = (struct sidecaml_stamps){read_once(source->submitted_ns), read_once(source->seen_ns),
                                    read_once(source->started_ns), read_once(source->finished_ns)};
    return 0;
}

/* --- Waiting ----------------------------------------------------------------------------------------------------- */

bool sidecaml_channel_gone(const sidecaml_channel *channel) {
    return channel->gone;
}

const uint8_t *sidecaml_channel_gone_event(const sidecaml_channel *channel, size_t *bytes) {
    *bytes = channel->event_bytes;
    return channel->event_bytes ? channel->event : NULL;
}

static int give_up(sidecaml_channel *channel, uint32_t slot) {
    int status = give_request_up(channel, slot);
    if (status == 1) return glance(channel, slot);
    return status == 0 ? -SIDECAML_E_TIMEOUT : blame(channel, status);
}

/* In place of a slot, for waits that end with whatever happens first: any request that ends, or the next slot's turn.
 */
enum { ANY = UINT32_MAX, TURN = UINT32_MAX - 1 };

/* Moves on to the oldest request whose end is still to be told; false where there is none. */
static bool find_oldest(sidecaml_channel *channel) {
    const struct ring_client *ring = &channel->ring;
    if (ring->ticket - channel->oldest > ring->count) {
        channel->oldest = ring->ticket - ring->count;
        channel->oldest_slot = ring->slot;
    }
    while (channel->oldest < ring->ticket && !is_awaited(channel, channel->oldest_slot)) {
        channel->oldest++;
        channel->oldest_slot = slot_after(channel, channel->oldest_slot);
    }
    return channel->oldest < ring->ticket;
}

/* The first request, from the oldest on, that has ended, by the look `poll`: its slot, or -PENDING. */
static int find_ended(sidecaml_channel *channel, int (*poll)(const struct ring_client *ring, uint32_t slot)) {
    uint32_t slot = channel->oldest_slot;
    for (uint64_t ticket = channel->oldest; ticket < channel->ring.ticket; ticket++, slot = slot_after(channel, slot))
        if (is_awaited(channel, slot) && (channel->gone || poll(&channel->ring, slot) != -SIDECAML_E_PENDING))
            return (int)slot;
    return -SIDECAML_E_PENDING;
}

/* A request that is past its own deadline: its slot, or -PENDING. `*earliest` becomes the first deadline to come. */
static int find_late(const sidecaml_channel *channel, uint64_t now, uint64_t *earliest) {
    uint32_t slot = channel->oldest_slot;
    for (uint64_t ticket = channel->oldest; ticket < channel->ring.ticket; ticket++, slot = slot_after(channel, slot)) {
        uint64_t deadline = channel->deadlines[slot];
        if (!deadline || !is_awaited(channel, slot)) continue;
        if (now >= deadline) return (int)slot;
        if (!*earliest || deadline < *earliest) *earliest = deadline;
    }
    return -SIDECAML_E_PENDING;
}

static int turn_of(int claimed) {
    return claimed == -SIDECAML_E_BUSY ? -SIDECAML_E_PENDING : claimed;
}

/* What a wait waits for: its result, or -PENDING. */
static int look(sidecaml_channel *channel, uint32_t slot) {
    if (slot == ANY) return find_ended(channel, ring_poll);
    return slot == TURN ? turn_of(sidecaml_channel_claim(channel)) : glance(channel, slot);
}

/* The same where one slot is looked at over and over: of any, at the oldest, which a worker answers first. */
static int look_often(sidecaml_channel *channel, uint32_t slot) {
    if (slot != ANY) return look(channel, slot);
    return glance(channel, channel->oldest_slot) == -SIDECAML_E_PENDING ? -SIDECAML_E_PENDING
                                                                        : (int)channel->oldest_slot;
}

/* About a microsecond of looks: the result, or -PENDING. */
static int look_on(sidecaml_channel *channel, uint32_t slot) {
    for (int i = 0; i < SPIN_LOOKS; i++) {
        int result = look_often(channel, slot);
        if (result != -SIDECAML_E_PENDING) return result;
        cpu_relax();
    }
    return look(channel, slot);
}

static struct company company_of(const sidecaml_channel *channel) {
    const struct sidecaml_status_page *worker = worker_of(channel);
    return (struct company){.peer_core = load32(&worker->core, relaxed),
                            .crowd = load32(&worker->crowd, relaxed),
                            .cores = load32(&worker->cores, relaxed)};
}

static int spin(sidecaml_channel *channel, uint32_t slot, uint64_t spin_ns) {
    uint64_t until = 0;
    if (spin_ns == 0 || !spinner_expects(&channel->spinner, company_of(channel))) return look(channel, slot);
    for (;;) {
        int result = look_on(channel, slot);
        if (result != -SIDECAML_E_PENDING) {
            spinner_learn(&channel->spinner, 0); /* of what came within microseconds the clock is not asked */
            return result;
        }
        uint64_t now = sidecaml_now_ns();
        if (until == 0) until = now + spin_ns;
        if (now < until) continue;
        spinner_spun(&channel->spinner, spin_ns, spin_ns);
        return -SIDECAML_E_PENDING;
    }
}

/* Spins until there is a result, `until_ns` or company that does not allow it (-PENDING), or the deadline (-TIMEOUT,
 * not yet given up). */
static int spin_until(sidecaml_channel *channel, uint32_t slot, uint64_t until_ns, uint64_t deadline_ns) {
    for (;;) {
        int result = look_on(channel, slot);
        if (result != -SIDECAML_E_PENDING) return result;
        uint64_t now = sidecaml_now_ns();
        struct company company = company_of(channel);
        if (deadline_ns && now >= deadline_ns) return -SIDECAML_E_TIMEOUT;
        if (now >= until_ns || !spinner_may(&channel->spinner, company)) return -SIDECAML_E_PENDING;
        spin_yield(channel->spinner.policy, company.peer_core);
    }
}

/* W1 and W2 of wait.h. */
static int announce(sidecaml_channel *channel, uint32_t slot) {
    if (slot == ANY) {
        client_park(channel->block, &channel->ring, channel->oldest_slot, channel->answer);
        return find_ended(channel, ring_poll_seq_cst);
    }
    if (slot != TURN) return client_park(channel->block, &channel->ring, slot, channel->answer);
    client_park(channel->block, &channel->ring, channel->ring.slot, channel->answer);
    return turn_of(ring_claim_seq_cst(&channel->ring));
}

/* Sleeps until something happens; what happened is for the next look to tell. */
static int park(sidecaml_channel *channel, uint32_t slot, uint64_t now, uint64_t deadline_ns) {
    if (announce(channel, slot) == -SIDECAML_E_PENDING) {
        uint64_t timeout = deadline_ns ? deadline_ns - now : UINT64_MAX;
        CRASH_POINT("client.sleeping");
        int woke = doorbell_sleep(channel->answer, channel->fds.control, timeout);
        CRASH_POINT("client.woken");
        if (woke & WOKE_CONTROL) hear_control(channel);
    }
    client_unpark(channel->block);
    CRASH_POINT("client.waiting-down");
    return look(channel, slot);
}

/* A wait by the channel's policy: what look gives, -TIMEOUT, or -AGAIN. */
static int wait_for(sidecaml_channel *channel, uint32_t slot, uint64_t deadline_ns) {
    int result = -SIDECAML_E_PENDING;
    uint64_t start = sidecaml_now_ns();
    uint64_t now = start;
    uint64_t budget = spinner_budget(&channel->spinner, start, company_of(channel));
    if (budget) {
        result = spin_until(channel, slot, start + budget, deadline_ns);
        now = sidecaml_now_ns();
        spinner_spun(&channel->spinner, budget, now - start);
    }
    if (result == -SIDECAML_E_PENDING && channel->spinner.policy == SIDECAML_SPIN) {
        if (control_is_ready(channel->fds.control)) hear_control(channel);
        result = look(channel, slot);
        return result == -SIDECAML_E_PENDING ? -SIDECAML_E_AGAIN : result;
    }
    if (result == -SIDECAML_E_PENDING && deadline_ns && now >= deadline_ns) result = -SIDECAML_E_TIMEOUT;
    if (result == -SIDECAML_E_PENDING) {
        spinner_sleeps(&channel->spinner, now);
        result = park(channel, slot, now, deadline_ns);
        now = sidecaml_now_ns();
        if (result == -SIDECAML_E_PENDING && deadline_ns && now >= deadline_ns) result = -SIDECAML_E_TIMEOUT;
    }
    if (result == -SIDECAML_E_PENDING || result == -SIDECAML_E_TIMEOUT)
        spinner_learn_longer(&channel->spinner, now, now - start);
    else
        spinner_learn(&channel->spinner, now - start);
    if (result == -SIDECAML_E_PENDING) return -SIDECAML_E_AGAIN;
    return result;
}

int sidecaml_channel_spin(sidecaml_channel *channel, uint32_t slot, uint64_t spin_ns) {
    if (slot >= channel->ring.count) return -SIDECAML_E_INVALID;
    return tell(channel, slot, spin(channel, slot, spin_ns));
}

int sidecaml_channel_wait(sidecaml_channel *channel, uint32_t slot, uint64_t deadline_ns) {
    int result = slot < channel->ring.count ? glance(channel, slot) : -SIDECAML_E_INVALID;
    if (result == -SIDECAML_E_PENDING) result = wait_for(channel, slot, deadline_ns);
    if (result == -SIDECAML_E_AGAIN) return result;
    return tell(channel, slot, result == -SIDECAML_E_TIMEOUT ? give_up(channel, slot) : result);
}

int sidecaml_channel_wait_end(sidecaml_channel *channel, uint32_t slot, uint64_t deadline_ns) {
    int result = slot < channel->ring.count ? glance(channel, slot) : -SIDECAML_E_INVALID;
    return result == -SIDECAML_E_PENDING ? wait_for(channel, slot, deadline_ns) : result;
}

/* Of a slot that any wait ended with, the number goes to the caller. */
static int tell_any(sidecaml_channel *channel, int slot) {
    if (slot >= 0) tell(channel, (uint32_t)slot, 0);
    return slot;
}

int sidecaml_channel_spin_any(sidecaml_channel *channel, uint64_t spin_ns) {
    if (!find_oldest(channel)) return -SIDECAML_E_INVALID;
    return tell_any(channel, spin(channel, ANY, spin_ns));
}

int sidecaml_channel_wait_any(sidecaml_channel *channel, uint64_t deadline_ns) {
    if (!find_oldest(channel)) return -SIDECAML_E_INVALID;
    int result = look(channel, ANY);
    if (result != -SIDECAML_E_PENDING) return tell_any(channel, result);
    uint64_t earliest = deadline_ns;
    result = find_late(channel, sidecaml_now_ns(), &earliest);
    if (result == -SIDECAML_E_PENDING) result = wait_for(channel, ANY, earliest);
    if (result != -SIDECAML_E_TIMEOUT) return tell_any(channel, result);
    int late = find_late(channel, sidecaml_now_ns(), &earliest);
    return late == -SIDECAML_E_PENDING ? result : tell_any(channel, late);
}

int sidecaml_channel_claim_wait(sidecaml_channel *channel, uint64_t deadline_ns) {
    int result = look(channel, TURN);
    return result == -SIDECAML_E_PENDING ? wait_for(channel, TURN, deadline_ns) : result;
}

int sidecaml_channel_poll(sidecaml_channel *channel, uint32_t slot) {
    int result = glance(channel, slot);
    if (result != -SIDECAML_E_PENDING) return tell(channel, slot, result);
    uint64_t now = sidecaml_now_ns();
    if (now - channel->looked_at_control_ns < POLL_CONTROL_NS) return result;
    channel->looked_at_control_ns = now;
    if (control_is_ready(channel->fds.control)) hear_control(channel);
    return tell(channel, slot, glance(channel, slot));
}

int sidecaml_channel_arm(sidecaml_channel *channel, uint32_t slot) {
    return channel->gone || client_park(channel->block, &channel->ring, slot, channel->answer) != -SIDECAML_E_PENDING;
}

void sidecaml_channel_disarm(sidecaml_channel *channel) {
    client_unpark(channel->block);
    doorbell_drain(channel->answer, 1); /* a loop that still watches it must not spin */
    if (control_is_ready(channel->fds.control)) hear_control(channel);
}
