/* The worker's side: many channels, one loop. Single-threaded. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "atomics.h"
#include "checked.h"
#include "clock.h"
#include "doorbell.h"
#include "failure.h"
#include "mapping.h"
#include "runners.h"
#include "spin.h"
#include "wait.h"

/* How often a worker that is never idle looks at its control socket. */
#define CONTROL_EVERY_NS 5000000
#define CONTROL_MARK UINT32_MAX
/* How long `serve` keeps running requests before its caller has a turn. */
#define SERVE_TURN_NS 100000000

struct served_channel {
    struct ring_worker ring;
    struct sidecaml_client_block *block;
    struct mapping segment;
    struct sidecaml_worker_fds fds;
    bool posted; /* the request doorbell holds posts that are not taken back */
    /* Private: computed by the daemon, never read back from the segment. */
    struct sidecaml_layout layout;
    uint64_t state;      /* in which a runner must be bound to be used */
    uint32_t dynamic_in; /* of `dynamic`, inputs */
    uint32_t dynamic_count;
    uint32_t words_in;        /* dims of all dynamic inputs */
    uint32_t words;           /* and of all dynamic outputs */
    uint32_t *dynamic;        /* the dynamic tensors */
    uint64_t *asked;          /* words_in: the dims of the request that is looked at */
    struct runners runners[]; /* one a slot */
};

struct sidecaml_worker {
    struct sidecaml_status_page *status;
    struct mapping status_page;
    struct spinner spinner;
    int epoll_fd;
    uint64_t looked_at_control_ns;
    uint64_t last_ns; /* the latest clock reading, which may be a tick behind the one before */
    uint32_t turn;    /* the channel to look at first, so that none starves the others */
    uint32_t count;   /* entries of `channels`, detached ones (NULL) included */
    struct served_channel **channels;
};

/* --- Set-up ------------------------------------------------------------------------------------------------------ */

static int watch_fd(sidecaml_worker *worker, int fd, uint32_t events, uint32_t mark, struct sidecaml_failure *why) {
    struct epoll_event event = {.events = events, .data.u32 = mark};
    if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) return fail_errno(why, "watching a descriptor");
    return 0;
}

static int map_status(sidecaml_worker *worker, int fd, struct sidecaml_failure *why) {
    int status = mapping_open(&worker->status_page, fd, true, true, "the status page", why);
    if (status < 0) return status;
    if (worker->status_page.bytes != sizeof(struct sidecaml_status_page))
        return fail(why, SIDECAML_E_CORRUPT, "a status page has %zu bytes, this one %llu",
                    sizeof(struct sidecaml_status_page), (unsigned long long)worker->status_page.bytes);
    worker->status = (void *)worker->status_page.base;
    memcpy(worker->status->magic, SIDECAML_STATUS_MAGIC, sizeof worker->status->magic);
    worker->status->abi_version = SIDECAML_ABI_VERSION;
    worker->status->pid = (uint32_t)getpid();
    worker->status->started_ns = sidecaml_now_ns();
    return 0;
}

int sidecaml_worker_create(int status_fd, int control_fd, enum sidecaml_policy policy, sidecaml_worker **out,
                           struct sidecaml_failure *why) {
    sidecaml_worker *worker = calloc(1, sizeof *worker);
    if (!worker) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for a worker");
    spinner_init(&worker->spinner, policy);
    worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int status = worker->epoll_fd < 0 ? fail_errno(why, "epoll_create1") : map_status(worker, status_fd, why);
    if (status == 0) status = watch_fd(worker, control_fd, EPOLLIN | EPOLLRDHUP, CONTROL_MARK, why);
    if (status < 0) {
        sidecaml_worker_destroy(worker);
        return status;
    }
    close(status_fd); /* the mapping keeps the page */
    *out = worker;
    return 0;
}

void sidecaml_worker_destroy(sidecaml_worker *worker) {
    if (!worker) return;
    for (uint32_t i = 0; i < worker->count; i++)
        sidecaml_worker_detach(worker, i);
    free(worker->channels);
    mapping_close(&worker->status_page);
    if (worker->epoll_fd >= 0) close(worker->epoll_fd);
    free(worker);
}

static struct served_channel *channel_of(const sidecaml_worker *worker, uint32_t channel) {
    return channel < worker->count ? worker->channels[channel] : NULL;
}

/* The index of a place for one more channel. */
static int reserve_place(sidecaml_worker *worker, struct sidecaml_failure *why) {
    for (uint32_t i = 0; i < worker->count; i++)
        if (!worker->channels[i]) return (int)i;
    void *more = realloc(worker->channels, (worker->count + 1) * sizeof worker->channels[0]);
    if (!more) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for one more channel");
    worker->channels = more;
    worker->channels[worker->count] = NULL;
    return (int)worker->count++;
}

static bool is_dynamic(const struct sidecaml_layout *layout, uint32_t tensor) {
    return layout->tensor[tensor].flags & SIDECAML_TENSOR_DYNAMIC;
}

static void free_channel(struct served_channel *channel) {
    for (uint32_t slot = 0; slot < channel->layout.slot_count; slot++)
        runners_clear(&channel->runners[slot]);
    free(channel->dynamic);
    free(channel->asked);
    free(channel);
}

/* NULL without memory. */
static struct served_channel *new_channel(const struct sidecaml_layout *layout) {
    struct served_channel *channel =
        calloc(1, sizeof *channel + (size_t)layout->slot_count * sizeof channel->runners[0]);
    if (!channel) return NULL;
    channel->layout = *layout;
    uint32_t tensors = tensor_count_of(layout);
    channel->dynamic = calloc(tensors + 1, sizeof channel->dynamic[0]); /* one more: calloc(0) may be NULL */
    for (uint32_t i = 0; channel->dynamic && i < tensors; i++) {
        if (!is_dynamic(layout, i)) continue;
        channel->dynamic[channel->dynamic_count++] = i;
        channel->words += layout->tensor[i].rank;
        if (i >= layout->input_count) continue;
        channel->dynamic_in++;
        channel->words_in += layout->tensor[i].rank;
    }
    channel->asked = calloc(channel->words_in + 1, sizeof channel->asked[0]);
    if (channel->dynamic && channel->asked) return channel;
    free_channel(channel);
    return NULL;
}

static int serve(sidecaml_worker *worker, struct served_channel *channel, uint32_t place,
                 const struct sidecaml_worker_fds *fds, struct sidecaml_failure *why) {
    int status = mapping_open(&channel->segment, fds->segment, true, true, "the channel's segment", why);
    if (status < 0) return status;
    if (channel->segment.bytes != channel->layout.segment_bytes)
        return fail(why, SIDECAML_E_CORRUPT, "the segment has %llu bytes, its layout %llu",
                    (unsigned long long)channel->segment.bytes, (unsigned long long)channel->layout.segment_bytes);
    sidecaml_segment_format(channel->segment.base, &channel->layout);
    channel->block = client_block_of(channel->segment.base, &channel->layout);
    channel->ring.slots = slots_of(channel->segment.base, &channel->layout);
    channel->ring.count = channel->layout.slot_count;
    /* By edges: a client that posts without end keeps nobody awake but by each post. */
    return watch_fd(worker, fds->request, EPOLLIN | EPOLLET, place, why);
}

int sidecaml_worker_attach(sidecaml_worker *worker, const struct sidecaml_worker_fds *fds,
                           const struct sidecaml_layout *layout, struct sidecaml_failure *why) {
    int place = reserve_place(worker, why);
    if (place < 0) return place;
    struct served_channel *channel = new_channel(layout);
    if (!channel) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for one more channel");
    int status = serve(worker, channel, (uint32_t)place, fds, why);
    if (status < 0) {
        mapping_close(&channel->segment);
        free_channel(channel);
        return status;
    }
    channel->fds = *fds;
    worker->channels[place] = channel;
    store64(&worker->status->channels, load64(&worker->status->channels, relaxed) + 1, relaxed);
    return place;
}

int sidecaml_worker_detach(sidecaml_worker *worker, uint32_t index) {
    struct served_channel *channel = channel_of(worker, index);
    if (!channel) return -SIDECAML_E_INVALID;
    /* By hand: the client holds the same open file, so closing ours would not end the watch. */
    epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, channel->fds.request, NULL);
    close(channel->fds.segment);
    close(channel->fds.request);
    close(channel->fds.answer);
    worker->channels[index] = NULL;
    store64(&worker->status->channels, load64(&worker->status->channels, relaxed) - 1, relaxed);
    mapping_close(&channel->segment);
    free_channel(channel);
    return 0;
}

/* --- Taking requests --------------------------------------------------------------------------------------------- */

static uint64_t read_clock(sidecaml_worker *worker) {
    worker->last_ns = sidecaml_now_ns();
    return worker->last_ns;
}

/* The dims of an answer that said how much room it needed are for that answer only. */
static void forget_needed(struct served_channel *channel, uint32_t slot) {
    uint32_t tensors = tensor_count_of(&channel->layout);
    for (uint32_t t = channel->layout.input_count; t < tensors; t++)
        dims_write(channel->segment.base, &channel->layout, slot, t, channel->layout.tensor[t].max_dims,
                   channel->layout.tensor[t].rank);
    channel->ring.slots[slot].status = 0;
    channel->ring.slots[slot].text_needed = 0;
}

static bool take_from(sidecaml_worker *worker, uint32_t index, struct sidecaml_request *out) {
    struct served_channel *channel = worker->channels[index];
    uint64_t ticket;
    int slot = channel ? ring_take(&channel->ring, &ticket) : -1;
    if (slot < 0) return false;
    struct sidecaml_slot *taken = &channel->ring.slots[slot];
    *out = (struct sidecaml_request){
        .channel = index, .slot = (uint32_t)slot, .ticket = ticket, .deadline_ns = read_once(taken->deadline_ns)};
    uint32_t flags = read_once(taken->flags);
    out->stamps = flags & SIDECAML_SLOT_STAMPS;
    out->resets = flags & SIDECAML_SLOT_RESET;
    taken->seen_ns = out->stamps ? read_clock(worker) : 0;
    /* Of this tick, for whoever looks from outside how long a request has been running. */
    taken->started_ns = worker->last_ns;
    if (read_once(taken->status) == -SIDECAML_E_OUTPUT_TOO_LARGE) forget_needed(channel, (uint32_t)slot);
    /* Relaxed, here and at the end of the run: a clock for who watches that no run takes too long. It orders nothing,
     * and who sees it late or not at all looks again; only the supervisor acts on it, after seconds. */
    store64(&worker->status->running_ns, worker->last_ns, relaxed);
    return true;
}

static bool take_any(sidecaml_worker *worker, struct sidecaml_request *out) {
    uint32_t index = worker->turn;
    for (uint32_t looked = 0; looked < worker->count; looked++) {
        if (index >= worker->count) index = 0;
        if (take_from(worker, index, out)) {
            worker->turn = index + 1;
            return true;
        }
        index++;
    }
    return false;
}

static bool any_has_work(const sidecaml_worker *worker) {
    for (uint32_t i = 0; i < worker->count; i++)
        if (worker->channels[i] && ring_has_work_seq_cst(&worker->channels[i]->ring)) return true;
    return false;
}

/* Tells whether the control socket is among what is ready. */
static int sleep_on_all(sidecaml_worker *worker, uint64_t timeout_ns) {
    struct epoll_event ready[16];
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                               .tv_nsec = (long)(timeout_ns % 1000000000u)};
    int count = epoll_pwait2(worker->epoll_fd, ready, 16, timeout_ns == UINT64_MAX ? NULL : &timeout, NULL);
    if (count < 0) return WOKE_SIGNAL;
    int woke = WOKE_TIMEOUT;
    for (int i = 0; i < count; i++) {
        struct served_channel *channel = channel_of(worker, ready[i].data.u32);
        if (ready[i].data.u32 == CONTROL_MARK) {
            woke |= WOKE_CONTROL;
        } else if (channel) {
            woke |= WOKE_ANSWER;
            channel->posted = true;
        }
    }
    return woke;
}

/* Before a sleep, not after: then a request waits. */
static void take_posts_back(sidecaml_worker *worker) {
    for (uint32_t i = 0; i < worker->count; i++) {
        struct served_channel *channel = worker->channels[i];
        if (!channel || !channel->posted) continue;
        channel->posted = false;
        doorbell_drain(channel->fds.request, channel->ring.count); /* an honest client posts no more than that */
    }
}

/* Every CONTROL_EVERY_NS of a busy or spinning worker; without a clock reading of its own. */
static bool control_waits(sidecaml_worker *worker) {
    /* Signed: a coarse reading may lie before a fine one. */
    if ((int64_t)(worker->last_ns - worker->looked_at_control_ns) < CONTROL_EVERY_NS) return false;
    worker->looked_at_control_ns = worker->last_ns;
    store64(&worker->status->heartbeat_ns, worker->last_ns, relaxed);
    return sleep_on_all(worker, 0) & WOKE_CONTROL;
}

/* Some client's processor, when there is just one client: with several nobody knows who comes next. */
static uint32_t peer_core(const sidecaml_worker *worker) {
    return worker->count == 1 && worker->channels[0] ? load32(&worker->channels[0]->block->core, relaxed) : 0;
}

/* 1 taken, -AGAIN control, -PENDING when the time was up. */
static int spin_for_work(sidecaml_worker *worker, uint64_t until_ns, struct sidecaml_request *out) {
    for (;;) {
        for (int look = 0; look < SPIN_LOOKS; look++) {
            if (take_any(worker, out)) return 1;
            cpu_relax();
        }
        if (read_clock(worker) >= until_ns) return -SIDECAML_E_PENDING;
        if (control_waits(worker)) return -SIDECAML_E_AGAIN;
        spin_yield(worker->spinner.policy, peer_core(worker));
    }
}

/* Sleeps unless there is work; true when the caller should look at the control socket or run signal handlers. */
static bool park(sidecaml_worker *worker, uint64_t timeout_ns) {
    take_posts_back(worker);
    worker_park(worker->status);
    bool sleeps = !any_has_work(worker);
    int woke = WOKE_TIMEOUT;
    if (sleeps) {
        count64(&worker->status->parks);
        woke = sleep_on_all(worker, timeout_ns);
    }
    worker_unpark(worker->status);
    read_clock(worker);
    /* Words that a client scribbled over can look like work for ever: the control socket must still have its turn. */
    if (!sleeps) return control_waits(worker);
    worker->looked_at_control_ns = worker->last_ns;
    store64(&worker->status->heartbeat_ns, worker->last_ns, relaxed);
    return woke & (WOKE_CONTROL | WOKE_SIGNAL);
}

static uint64_t earlier(uint64_t start, uint64_t budget, uint64_t timeout) {
    uint64_t least = budget < timeout ? budget : timeout;
    return least > UINT64_MAX - start ? UINT64_MAX : start + least;
}

static int wait_for_work(sidecaml_worker *worker, uint64_t timeout_ns, struct sidecaml_request *out) {
    uint64_t start = read_clock(worker);
    uint64_t end = earlier(start, UINT64_MAX, timeout_ns);
    uint32_t core = current_core();
    if (load32(&worker->status->core, relaxed) != core) store32(&worker->status->core, core, relaxed);
    for (;;) {
        uint64_t budget = spinner_budget(&worker->spinner, peer_core(worker));
        int status = budget ? spin_for_work(worker, earlier(worker->last_ns, budget, end - worker->last_ns), out)
                            : -SIDECAML_E_PENDING;
        bool interrupted = false;
        if (status == -SIDECAML_E_PENDING && worker->spinner.policy != SIDECAML_SPIN && worker->last_ns < end) {
            interrupted = park(worker, end == UINT64_MAX ? UINT64_MAX : end - worker->last_ns);
            status = take_any(worker, out) ? 1 : -SIDECAML_E_PENDING;
        }
        if (status == 1) spinner_learn(&worker->spinner, worker->last_ns - start);
        if (status != -SIDECAML_E_PENDING) return status;
        if (interrupted) return -SIDECAML_E_AGAIN;
        if (worker->last_ns >= end) return -SIDECAML_E_TIMEOUT;
    }
}

int sidecaml_worker_next(sidecaml_worker *worker, uint64_t timeout_ns, struct sidecaml_request *out) {
    worker->last_ns = coarse_now_ns();
    if (control_waits(worker)) return -SIDECAML_E_AGAIN;
    if (take_any(worker, out)) return 1;
    return timeout_ns ? wait_for_work(worker, timeout_ns, out) : -SIDECAML_E_PENDING;
}

/* --- Running and completing -------------------------------------------------------------------------------------- */

void sidecaml_worker_started(sidecaml_worker *worker, const struct sidecaml_request *request) {
    struct served_channel *channel = channel_of(worker, request->channel);
    if (channel && request->stamps && request->slot < channel->ring.count)
        channel->ring.slots[request->slot].started_ns = read_clock(worker);
}

static void write_message(struct sidecaml_slot *slot, const char *message) {
    size_t length = message ? strlen(message) : 0;
    if (length > SIDECAML_MESSAGE_BYTES) {
        length = SIDECAML_MESSAGE_BYTES;
        /* Not in the middle of a UTF-8 character: back over its continuation bytes. */
        while (length && ((unsigned char)message[length] & 0xc0) == 0x80)
            length--;
    }
    if (length) memcpy(slot->message, message, length);
    slot->message_bytes = (uint32_t)length;
}

int sidecaml_worker_complete(sidecaml_worker *worker, const struct sidecaml_request *request, int status,
                             const char *message) {
    struct served_channel *channel = channel_of(worker, request->channel);
    if (!channel || request->slot >= channel->ring.count) return -SIDECAML_E_INVALID;
    struct sidecaml_slot *slot = &channel->ring.slots[request->slot];
    if (request->stamps) slot->finished_ns = read_clock(worker);
    slot->status = status;
    if (status) write_message(slot, message);
    store64(&worker->status->running_ns, 0, relaxed);
    if (ring_complete(&channel->ring, request->slot, request->ticket,
                      status ? SIDECAML_STATE_FAILED : SIDECAML_STATE_DONE)) {
        count64(&worker->status->abandoned);
        return 1;
    }
    client_wake(channel->block, channel->fds.answer);
    count64(status ? &worker->status->failed : &worker->status->served);
    return 0;
}

void *sidecaml_worker_tensor(const sidecaml_worker *worker, uint32_t index, uint32_t slot, uint32_t tensor) {
    const struct served_channel *channel = channel_of(worker, index);
    return channel ? tensor_at(channel->segment.base, &channel->layout, slot, tensor) : NULL;
}

const struct sidecaml_layout *sidecaml_worker_layout(const sidecaml_worker *worker, uint32_t index) {
    const struct served_channel *channel = channel_of(worker, index);
    return channel ? &channel->layout : NULL;
}

int sidecaml_worker_get_dims(const sidecaml_worker *worker, const struct sidecaml_request *request, uint32_t tensor,
                             uint64_t dims[SIDECAML_MAX_RANK]) {
    const struct served_channel *channel = channel_of(worker, request->channel);
    return channel ? dims_read(channel->segment.base, &channel->layout, request->slot, tensor, dims)
                   : -SIDECAML_E_INVALID;
}

int sidecaml_worker_set_dims(sidecaml_worker *worker, const struct sidecaml_request *request, uint32_t tensor,
                             const uint64_t *dims, uint32_t rank) {
    const struct served_channel *channel = channel_of(worker, request->channel);
    if (!channel) return -SIDECAML_E_INVALID;
    int status = dims_write(channel->segment.base, &channel->layout, request->slot, tensor, dims, rank);
    return status == -SIDECAML_E_BAD_DIMS ? -SIDECAML_E_OUTPUT_TOO_LARGE : status;
}

int sidecaml_worker_set_needed(sidecaml_worker *worker, const struct sidecaml_request *request, uint32_t tensor,
                               const uint64_t *dims, uint32_t rank) {
    const struct served_channel *channel = channel_of(worker, request->channel);
    if (!channel) return -SIDECAML_E_INVALID;
    return dims_write_needed(channel->segment.base, &channel->layout, request->slot, tensor, dims, rank);
}

int sidecaml_worker_set_text_needed(sidecaml_worker *worker, const struct sidecaml_request *request, uint64_t bytes) {
    struct served_channel *channel = channel_of(worker, request->channel);
    if (!channel || request->slot >= channel->ring.count) return -SIDECAML_E_INVALID;
    channel->ring.slots[request->slot].text_needed = bytes;
    return 0;
}

/* --- The native lane --------------------------------------------------------------------------------------------- */

/* `rows` of the dynamic tensors into one row of numbers, each checked against the tensor's largest. */
static int copy_rows(const struct served_channel *channel, const uint64_t (*rows)[SIDECAML_MAX_RANK], uint64_t *out,
                     struct sidecaml_failure *why) {
    for (uint32_t i = 0; i < channel->dynamic_count; i++) {
        const struct sidecaml_tensor_descriptor *tensor = &channel->layout.tensor[channel->dynamic[i]];
        for (uint32_t axis = 0; axis < tensor->rank; axis++) {
            if (rows[i][axis] > tensor->max_dims[axis])
                return fail(why, SIDECAML_E_BAD_DIMS, "tensor %u: dimensions beyond the largest of the channel",
                            channel->dynamic[i]);
            *out++ = rows[i][axis];
        }
    }
    return 0;
}

int sidecaml_worker_bind(sidecaml_worker *worker, uint32_t index, uint32_t slot, const struct sidecaml_bound *bound,
                         struct sidecaml_failure *why) {
    struct served_channel *channel = channel_of(worker, index);
    if (!channel || slot >= channel->ring.count)
        return fail(why, SIDECAML_E_INVALID, "the worker has no channel %u with a slot %u", index, slot);
    if (!bound) {
        runners_clear(&channel->runners[slot]);
        return 0;
    }
    struct runner *runner = calloc(1, sizeof *runner + channel->words * sizeof runner->dims[0]);
    if (!runner) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for one more runner");
    int status = copy_rows(channel, bound->dims, runner->dims, why);
    if (status < 0) {
        free(runner);
        return status;
    }
    runner->run = bound->run;
    runner->context = bound->context;
    runner->drop = bound->drop;
    runner->state = bound->state;
    runner->next_state = bound->next_state;
    runners_add(&channel->runners[slot], runner, channel->words_in);
    return 0;
}

uint64_t sidecaml_worker_state(const sidecaml_worker *worker, uint32_t index) {
    const struct served_channel *channel = channel_of(worker, index);
    return channel ? channel->state : 0;
}

void sidecaml_worker_set_state(sidecaml_worker *worker, uint32_t index, uint64_t state) {
    struct served_channel *channel = channel_of(worker, index);
    if (channel) channel->state = state;
}

/* The request's dims are read once: what the client makes of them from now on changes nothing. Dims beyond the largest
 * are those of no runner. */
static struct runner *runner_for(struct served_channel *channel, uint32_t slot) {
    uint64_t *asked = channel->asked;
    for (uint32_t i = 0; i < channel->dynamic_in; i++) {
        uint32_t tensor = channel->dynamic[i];
        const uint64_t *dims = dims_at(channel->segment.base, &channel->layout, slot, tensor);
        for (uint32_t axis = 0; axis < channel->layout.tensor[tensor].rank; axis++)
            *asked++ = read_once(dims[axis]);
    }
    return runners_find(&channel->runners[slot], channel->state, channel->asked, channel->words_in);
}

static void tell_dims(const struct served_channel *channel, uint32_t slot, const struct runner *runner) {
    const uint64_t *told = runner->dims + channel->words_in;
    for (uint32_t i = channel->dynamic_in; i < channel->dynamic_count; i++) {
        uint32_t tensor = channel->dynamic[i], rank = channel->layout.tensor[tensor].rank;
        uint64_t *dims = dims_at(channel->segment.base, &channel->layout, slot, tensor);
        for (uint32_t axis = 0; axis < rank; axis++)
            dims[axis] = *told++;
    }
}

int sidecaml_worker_serve(sidecaml_worker *worker, uint64_t timeout_ns, struct sidecaml_request *out,
                          struct sidecaml_failure *why) {
    uint64_t began = read_clock(worker);
    int status;
    why->code = SIDECAML_OK;
    while ((status = sidecaml_worker_next(worker, timeout_ns, out)) == 1) {
        struct served_channel *channel = worker->channels[out->channel];
        const struct runner *runner = out->resets ? NULL : runner_for(channel, out->slot);
        if (!runner) return 1;
        sidecaml_worker_started(worker, out);
        if (runner->run(runner->context, why) < 0) return 1;
        channel->state = runner->next_state;
        tell_dims(channel, out->slot, runner);
        sidecaml_worker_complete(worker, out, 0, NULL);
        if ((int64_t)(coarse_now_ns() - began) >= SERVE_TURN_NS) return -SIDECAML_E_AGAIN;
    }
    return status;
}
