/* The client's channel: one open model, used by one thread at a time. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "atomics.h"
#include "channel.h"
#include "checked.h"
#include "doorbell.h"
#include "failure.h"
#include "mapping.h"
#include "spin.h"
#include "wait.h"

#define EVENT_BYTES 2048
/* A client that only polls learns of death this late. */
#define POLL_CONTROL_NS 1000000u

struct sidecaml_channel {
    struct ring_client ring;
    struct sidecaml_client_block *block;
    const struct sidecaml_status_page *status;
    struct spinner spinner;
    uint32_t flags; /* of the next request */
    bool gone;
    pid_t owner; /* the process that attached it */
    struct sidecaml_channel_fds fds;
    struct mapping segment, status_page;
    uint64_t looked_at_control_ns;
    size_t event_bytes;
    uint8_t event[EVENT_BYTES]; /* the daemon's last words */
    struct sidecaml_layout layout;
};

/* --- Open and close ---------------------------------------------------------------------------------------------- */

static int map_status(sidecaml_channel *channel, int fd, struct sidecaml_failure *why) {
    int status = mapping_open(&channel->status_page, fd, false, true, "the worker's status page", why);
    if (status < 0) return status;
    const struct sidecaml_status_page *page = (const void *)channel->status_page.base;
    if (channel->status_page.bytes != sizeof *page || memcmp(page->magic, SIDECAML_STATUS_MAGIC, sizeof page->magic))
        return fail(why, SIDECAML_E_CORRUPT, "the status page is not laid out as the protocol says");
    if (page->abi_version != SIDECAML_ABI_VERSION)
        return fail(why, SIDECAML_E_ABI_MISMATCH, "the worker has ABI version %u, this library speaks version %u",
                    page->abi_version, SIDECAML_ABI_VERSION);
    channel->status = page;
    return 0;
}

static int map_segment(sidecaml_channel *channel, int fd, uint64_t fingerprint, struct sidecaml_failure *why) {
    int status = mapping_open(&channel->segment, fd, true, false, "the channel's segment", why);
    if (status < 0) return status;
    status = sidecaml_layout_read(channel->segment.base, channel->segment.bytes, &channel->layout, why);
    if (status < 0) return status;
    if (channel->layout.fingerprint != fingerprint)
        return fail(why, SIDECAML_E_CORRUPT, "the segment belongs to another signature than the one described");
    channel->block = client_block_of(channel->segment.base, &channel->layout);
    channel->ring.slots = slots_of(channel->segment.base, &channel->layout);
    channel->ring.count = channel->layout.slot_count;
    channel->ring.held = calloc(channel->ring.count, sizeof channel->ring.held[0]);
    return channel->ring.held ? 0 : fail(why, SIDECAML_E_NO_MEMORY, "no memory for a channel");
}

static void unmap(sidecaml_channel *channel) {
    mapping_close(&channel->segment);
    mapping_close(&channel->status_page);
    free(channel->ring.held);
    free(channel);
}

int sidecaml_channel_attach(const struct sidecaml_channel_fds *fds, uint64_t fingerprint, enum sidecaml_policy policy,
                            sidecaml_channel **out, struct sidecaml_failure *why) {
    sidecaml_channel *channel = calloc(1, sizeof *channel);
    if (!channel) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for a channel");
    int status = map_status(channel, fds->status, why);
    if (status == 0) status = map_segment(channel, fds->segment, fingerprint, why);
    if (status < 0) {
        unmap(channel);
        return status;
    }
    channel->fds = *fds;
    channel->owner = getpid();
    spinner_init(&channel->spinner, policy);
    *out = channel;
    return 0;
}

void channel_adopt_control(sidecaml_channel *channel, int control_fd) {
    channel->fds.control = control_fd;
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
    if (channel && channel->owner == getpid()) punch(channel);
    sidecaml_channel_drop(channel);
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

/* --- Requests ---------------------------------------------------------------------------------------------------- */

int sidecaml_channel_claim(sidecaml_channel *channel) {
    return channel->gone ? -SIDECAML_E_SERVER_GONE : ring_claim(&channel->ring);
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
    __builtin_prefetch((const void *)&channel->status->parked);
}

int sidecaml_channel_submit(sidecaml_channel *channel, uint64_t deadline_ns) {
    if (channel->gone) return -SIDECAML_E_SERVER_GONE;
    prefetch(channel);
    uint32_t core = current_core();
    /* Relaxed: a hint. Written only when it changes, so that the line stays shared. */
    if (load32(&channel->block->core, relaxed) != core) store32(&channel->block->core, core, relaxed);
    uint64_t submitted_ns = channel->flags & SIDECAML_SLOT_STAMPS ? sidecaml_now_ns() : 0;
    int slot = ring_submit(&channel->ring, deadline_ns, submitted_ns, channel->flags);
    if (slot < 0) return slot;
    channel->flags &= ~SIDECAML_SLOT_RESET;
    worker_wake(channel->status, channel->fds.request);
    return slot;
}

/* The slot's word, and what is known of the daemon: no system call. */
static int glance(const sidecaml_channel *channel, uint32_t slot) {
    int result = ring_poll(&channel->ring, slot);
    return result == -SIDECAML_E_PENDING && channel->gone ? -SIDECAML_E_SERVER_GONE : result;
}

int sidecaml_channel_release(sidecaml_channel *channel, uint32_t slot) {
    return ring_release(&channel->ring, slot);
}

/* As ring_give_up. A reset that the request was to bring is still to come, for it may never have run. */
static int give_request_up(sidecaml_channel *channel, uint32_t slot) {
    int status = ring_give_up(&channel->ring, slot);
    if (status == 0) channel->flags |= channel->ring.slots[slot].flags & SIDECAML_SLOT_RESET;
    return status;
}

int sidecaml_channel_abandon(sidecaml_channel *channel, uint32_t slot) {
    int status = give_request_up(channel, slot);
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

/* Whatever the daemon says on a channel's own socket ends the channel: the protocol knows no other event. */
static void hear_control(sidecaml_channel *channel) {
    ssize_t bytes = recv(channel->fds.control, channel->event, sizeof channel->event, MSG_DONTWAIT);
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) return;
    channel->event_bytes = bytes > 0 ? (size_t)bytes : 0;
    channel->gone = true;
}

bool sidecaml_channel_gone(const sidecaml_channel *channel) {
    return channel->gone;
}

const uint8_t *sidecaml_channel_gone_event(const sidecaml_channel *channel, size_t *bytes) {
    *bytes = channel->event_bytes;
    return channel->event_bytes ? channel->event : NULL;
}

static int give_up(sidecaml_channel *channel, uint32_t slot) {
    int status = give_request_up(channel, slot);
    if (status == 1) return ring_poll(&channel->ring, slot);
    return status == 0 ? -SIDECAML_E_TIMEOUT : status;
}

int sidecaml_channel_spin(sidecaml_channel *channel, uint32_t slot, uint64_t spin_ns) {
    uint64_t until = 0;
    if (spin_ns == 0) return glance(channel, slot);
    for (;;) {
        for (int look = 0; look < SPIN_LOOKS; look++) {
            int result = glance(channel, slot);
            if (result != -SIDECAML_E_PENDING) return result;
            cpu_relax();
        }
        uint64_t now = sidecaml_now_ns();
        if (until == 0) until = now + spin_ns;
        if (now >= until) return -SIDECAML_E_PENDING;
    }
}

/* Spins until there is a result, `until_ns` (-PENDING), or the deadline (-TIMEOUT, not yet given up). */
static int spin_until(sidecaml_channel *channel, uint32_t slot, uint64_t until_ns, uint64_t deadline_ns) {
    for (;;) {
        uint32_t peer = load32(&channel->status->core, relaxed);
        for (int look = 0; look < SPIN_LOOKS; look++) {
            int result = glance(channel, slot);
            if (result != -SIDECAML_E_PENDING) return result;
            cpu_relax();
        }
        uint64_t now = sidecaml_now_ns();
        if (deadline_ns && now >= deadline_ns) return -SIDECAML_E_TIMEOUT;
        if (now >= until_ns) return -SIDECAML_E_PENDING;
        spin_yield(channel->spinner.policy, peer);
    }
}

/* Sleeps until something happens; what happened is for the next look to tell. */
static int park(sidecaml_channel *channel, uint32_t slot, uint64_t now, uint64_t deadline_ns) {
    int result = client_park(channel->block, &channel->ring, slot, channel->fds.answer);
    if (result == -SIDECAML_E_PENDING) {
        uint64_t timeout = deadline_ns ? deadline_ns - now : UINT64_MAX;
        int woke = doorbell_sleep(channel->fds.answer, channel->fds.control, timeout);
        if (woke & WOKE_CONTROL) hear_control(channel);
    }
    client_unpark(channel->block);
    return glance(channel, slot);
}

int sidecaml_channel_wait(sidecaml_channel *channel, uint32_t slot, uint64_t deadline_ns) {
    int result = glance(channel, slot);
    if (result != -SIDECAML_E_PENDING) return result;

    uint64_t start = sidecaml_now_ns();
    uint64_t now = start;
    uint64_t budget = spinner_budget(&channel->spinner, load32(&channel->status->core, relaxed));
    if (budget) {
        result = spin_until(channel, slot, start + budget, deadline_ns);
        now = sidecaml_now_ns();
    }
    if (result == -SIDECAML_E_PENDING && channel->spinner.policy == SIDECAML_SPIN) {
        if (control_is_ready(channel->fds.control)) hear_control(channel);
        result = glance(channel, slot);
        return result == -SIDECAML_E_PENDING ? -SIDECAML_E_AGAIN : result;
    }
    if (result == -SIDECAML_E_PENDING && deadline_ns && now >= deadline_ns) result = -SIDECAML_E_TIMEOUT;
    if (result == -SIDECAML_E_PENDING) {
        result = park(channel, slot, now, deadline_ns);
        now = sidecaml_now_ns();
        if (result == -SIDECAML_E_PENDING && deadline_ns && now >= deadline_ns) result = -SIDECAML_E_TIMEOUT;
    }
    if (result == -SIDECAML_E_PENDING) return -SIDECAML_E_AGAIN;
    spinner_learn(&channel->spinner, now - start);
    return result == -SIDECAML_E_TIMEOUT ? give_up(channel, slot) : result;
}

int sidecaml_channel_poll(sidecaml_channel *channel, uint32_t slot) {
    int result = glance(channel, slot);
    if (result != -SIDECAML_E_PENDING) return result;
    uint64_t now = sidecaml_now_ns();
    if (now - channel->looked_at_control_ns < POLL_CONTROL_NS) return result;
    channel->looked_at_control_ns = now;
    if (control_is_ready(channel->fds.control)) hear_control(channel);
    return glance(channel, slot);
}

int sidecaml_channel_arm(sidecaml_channel *channel, uint32_t slot) {
    return channel->gone ||
           client_park(channel->block, &channel->ring, slot, channel->fds.answer) != -SIDECAML_E_PENDING;
}

void sidecaml_channel_disarm(sidecaml_channel *channel) {
    client_unpark(channel->block);
    doorbell_drain(channel->fds.answer, 1); /* a loop that still watches it must not spin */
    if (control_is_ready(channel->fds.control)) hear_control(channel);
}
