/* The worker's side: many channels, one loop. Single-threaded. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "atomics.h"
#include "blame.h"
#include "clock.h"
#include "costs.h"
#include "crash_point.h"
#include "failure.h"
#include "served.h"
#include "wait.h"

/* How often a worker that is never idle looks at its control socket. */
#define CONTROL_EVERY_NS 5000000
#define CONTROL_MARK UINT32_MAX
/* Of runs, every so many are measured where nothing hangs on how long they take. */
#define TIMED_EVERY 16
/* Posts on a request doorbell beyond one a request. */
#define POSTS_SPARE 16
/* For a request behind those that are refused: enough for the slots of any channel. */
#define MOST_LOOKS (SIDECAML_MAX_SLOTS / MOST_A_LOOK + 2)

/* --- Set-up ------------------------------------------------------------------------------------------------------ */

static int watch_fd(sidecaml_worker *worker, int fd, uint32_t events, uint32_t mark, struct sidecaml_failure *why) {
    struct epoll_event event = {.events = events, .data.u32 = mark};
    if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) return fail_errno(why, "watching a descriptor");
    return 0;
}

static int map_status(sidecaml_worker *worker, int fd, struct sidecaml_failure *why) {
    int status = mapping_open(&worker->status_pages, fd, true, true, "the status pages", why);
    if (status < 0) return status;
    uint64_t bytes = worker->status_pages.bytes;
    if (bytes % SIDECAML_PAGE_BYTES || bytes / SIDECAML_PAGE_BYTES <= worker->page)
        return fail(why, SIDECAML_E_CORRUPT, "a status file of %llu bytes has no page %u", (unsigned long long)bytes,
                    worker->page);
    struct sidecaml_status_page *page = (struct sidecaml_status_page *)worker->status_pages.base + worker->page;
    worker->status = page;
    memcpy(page->magic, SIDECAML_STATUS_MAGIC, sizeof page->magic);
    page->abi_version = SIDECAML_ABI_VERSION;
    page->pid = (uint32_t)getpid();
    page->started_ns = sidecaml_now_ns();
    /* What a predecessor left. A client that finds `parked` down does not post, and need not: each ring is looked at
     * before the first sleep. */
    store32(&page->parked, 0, seq_cst);
    store32(&page->crowd, 0, relaxed);
    store32(&page->cores, 0, relaxed);
    store64(&page->channels, 0, relaxed);
    store64(&page->running_ns, 0, relaxed);
    return 0;
}

/* NULL without memory. */
static sidecaml_worker *new_worker(enum sidecaml_policy policy) {
    sidecaml_worker *worker = calloc(1, sizeof *worker);
    struct crowd *crowd = calloc(1, sizeof *crowd);
    if (!worker || !crowd) {
        free(worker);
        free(crowd);
        return NULL;
    }
    crowd_init(crowd);
    worker->crowd = crowd;
    spinner_init(&worker->spinner, policy);
    worker->taken = &worker->one;
    worker->batcher.model.most = 1;
    worker->breaks = guard_breaks_so_far();
    return worker;
}

int sidecaml_worker_create(int status_fd, uint32_t page, int control_fd, enum sidecaml_policy policy,
                           sidecaml_worker **out, struct sidecaml_failure *why) {
    sidecaml_worker *worker = new_worker(policy);
    if (!worker) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for a worker");
    worker->page = page;
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
    free(worker->active);
    batcher_close(&worker->batcher);
    if (worker->taken != &worker->one) free(worker->taken);
    crowd_leave(worker->crowd);
    free(worker->crowd);
    mapping_close(&worker->status_pages);
    if (worker->epoll_fd >= 0) close(worker->epoll_fd);
    free(worker);
}

int sidecaml_worker_join_crowd(sidecaml_worker *worker, int fd, uint32_t entry, uint32_t threads, uint32_t cores,
                               struct sidecaml_failure *why) {
    int status = crowd_join(worker->crowd, fd, entry, threads, why);
    if (status < 0) return status;
    close(fd);
    store32(&worker->status->cores, cores, relaxed);
    return 0;
}

/* The index of a place for one more channel. */
static int reserve_place(sidecaml_worker *worker, struct sidecaml_failure *why) {
    for (uint32_t i = 0; i < worker->count; i++)
        if (!worker->channels[i]) return (int)i;
    void *active = realloc(worker->active, (worker->count + 1) * sizeof worker->active[0]);
    if (active) worker->active = active;
    void *more = active ? realloc(worker->channels, (worker->count + 1) * sizeof worker->channels[0]) : NULL;
    if (!more) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for one more channel");
    worker->channels = more;
    worker->channels[worker->count] = NULL;
    return (int)worker->count++;
}

static bool is_dynamic(const struct sidecaml_layout *layout, uint32_t tensor) {
    return layout->tensor[tensor].flags & SIDECAML_TENSOR_DYNAMIC;
}

static void free_channel(const sidecaml_worker *worker, struct served_channel *channel) {
    batch_cache_clear(&channel->batches, &worker->batcher);
    batch_forget_maker(&worker->batcher, channel);
    for (uint32_t slot = 0; slot < channel->layout.slot_count; slot++)
        runners_clear(&channel->runners[slot]);
    free(channel->dynamic);
    free(channel->word_at);
    free(channel->asked);
    staging_free(channel->staging);
    /* Before it is unmapped: whatever lies there next is not to be guarded. */
    guard_remove(channel->guarded);
    mapping_close(&channel->segment);
    mapping_close(&channel->journal_page);
    free(channel);
}

static void note_dynamic(struct served_channel *channel, uint32_t tensor) {
    channel->dynamic[channel->dynamic_count++] = tensor;
    for (uint32_t axis = 0; axis < channel->layout.tensor[tensor].rank; axis++)
        channel->word_at[channel->words++] = tensor * SIDECAML_MAX_RANK + axis;
    if (tensor >= channel->layout.input_count) return;
    channel->dynamic_in = channel->dynamic_count;
    channel->words_in = channel->words;
}

/* NULL without memory. */
static struct served_channel *new_channel(const sidecaml_worker *worker, const struct sidecaml_layout *layout) {
    struct served_channel *channel =
        calloc(1, sizeof *channel + (size_t)layout->slot_count * sizeof channel->runners[0]);
    if (!channel) return NULL;
    channel->layout = *layout;
    uint32_t tensors = tensor_count_of(layout);
    size_t words = (size_t)tensors * SIDECAML_MAX_RANK + 1; /* one more: calloc(0) may be NULL */
    channel->dynamic = calloc(words, sizeof channel->dynamic[0]);
    channel->word_at = calloc(words, sizeof channel->word_at[0]);
    channel->asked = calloc(words, sizeof channel->asked[0]);
    if (!channel->dynamic || !channel->word_at || !channel->asked) {
        free_channel(worker, channel);
        return NULL;
    }
    for (uint32_t i = 0; i < tensors; i++)
        if (is_dynamic(layout, i)) note_dynamic(channel, i);
    return channel;
}

/* Goes on where the dead predecessor was. */
static void resume(struct served_channel *channel) {
    CRASH_POINT("worker.resuming");
    struct ticket_range last = journal_last_run(channel->journal);
    if (last.count) ring_resume(&channel->ring, last.first);
    channel->suspects = last;
    channel->suspect_attempts = journal_attempts(channel->journal, last.first);
    channel->suspects_committed = last.count && journal_is_committed(channel->journal, last.first);
    channel->state = load64(&channel->journal->committed, relaxed) & SIDECAML_PLACE;
    /* Which posts were taken back only the dead knew. */
    channel->posted = true;
    /* Whether or not somebody waits: it may have died after it took `waiting` down and before its post. The flag is
     * left alone: the client may have raised it for another slot meanwhile. */
    doorbell_post_unless_full(channel->answer);
    CRASH_POINT("worker.resumed");
}

/* Nothing in the segment is touched before it is guarded. */
static int map_segment(struct served_channel *channel, int fd, struct sidecaml_failure *why) {
    int status = mapping_open(&channel->segment, fd, true, true, "the channel's segment", why);
    if (status < 0) return status;
    if (channel->segment.bytes != channel->layout.segment_bytes)
        return fail(why, SIDECAML_E_CORRUPT, "the segment has %llu bytes, its layout %llu",
                    (unsigned long long)channel->segment.bytes, (unsigned long long)channel->layout.segment_bytes);
    channel->guarded = guard_add(channel->segment.base, channel->segment.bytes);
    return channel->guarded ? 0 : fail(why, SIDECAML_E_NO_SPACE, "one worker serves at most %d channels", GUARD_RANGES);
}

static int stage(struct served_channel *channel, uint32_t how, struct sidecaml_failure *why) {
    if (!(how & SIDECAML_ATTACH_STAGED)) return 0;
    return staging_open(&channel->staging, &channel->layout, why);
}

static int serve(sidecaml_worker *worker, struct served_channel *channel, uint32_t place,
                 const struct sidecaml_worker_fds *fds, uint32_t how, struct sidecaml_failure *why) {
    int status = map_segment(channel, fds->segment, why);
    if (status == 0) status = stage(channel, how, why);
    if (status == 0) status = journal_open(&channel->journal_page, fds->journal, how & SIDECAML_ATTACH_RESUME, why);
    if (status < 0) return status;
    channel->journal = (void *)channel->journal_page.base;
    channel->block = client_block_of(channel->segment.base, &channel->layout);
    channel->ring.slots = slots_of(channel->segment.base, &channel->layout);
    channel->ring.count = channel->layout.slot_count;
    channel->request = doorbell_of(fds->request);
    channel->answer = doorbell_of(fds->answer);
    channel->level = how & SIDECAML_ATTACH_HIGH ? LEVEL_HIGH : LEVEL_NORMAL;
    if (how & SIDECAML_ATTACH_ALONE) channel->alone_until_ns = coarse_now_ns() + SIDECAML_ALONE_NS;
    if (how & SIDECAML_ATTACH_RESUME)
        resume(channel);
    else
        sidecaml_segment_format(channel->segment.base, &channel->layout);
    store32(&worker_block_of(channel->segment.base, &channel->layout)->page, worker->page, seq_cst); /* MOVE */
    CRASH_POINT("worker.formatted");
    /* By edges: what lies there unread keeps nobody awake. */
    return watch_fd(worker, fds->request, EPOLLIN | EPOLLET, place, why);
}

int sidecaml_worker_attach(sidecaml_worker *worker, const struct sidecaml_worker_fds *fds,
                           const struct sidecaml_layout *layout, uint32_t how, struct sidecaml_failure *why) {
    int place = reserve_place(worker, why);
    if (place < 0) return place;
    struct served_channel *channel = new_channel(worker, layout);
    if (!channel) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for one more channel");
    int status = serve(worker, channel, (uint32_t)place, fds, how, why);
    if (status < 0) {
        free_channel(worker, channel);
        return status;
    }
    channel->fds = *fds;
    /* What predecessors took back is as if they had not. */
    channel->posts_taken = channel->ring.ticket;
    worker->channels[place] = channel;
    worker->high_count += channel->level == LEVEL_HIGH;
    store64(&worker->status->channels, load64(&worker->status->channels, relaxed) + 1, relaxed);
    return place;
}

void worker_forget_parts(sidecaml_worker *worker) {
    for (struct served_channel *part = worker->parts; part; part = part->next)
        part->running.count = 0;
    worker->parts = NULL;
}

/* Requests of a channel that ends, which were taken and are not dealt with. */
static void forget_taken(sidecaml_worker *worker, const struct served_channel *channel) {
    uint32_t kept = worker->taken_at;
    for (uint32_t i = worker->taken_at; i < worker->taken_count; i++)
        if (worker->taken[i].channel != channel) worker->taken[kept++] = worker->taken[i];
    worker->taken_count = kept;
    /* They run alone, if any are left; and no channel that stays may look as if it had a part in what comes next. */
    worker_forget_parts(worker);
}

int sidecaml_worker_detach(sidecaml_worker *worker, uint32_t index) {
    struct served_channel *channel = channel_of(worker, index);
    if (!channel) return -SIDECAML_E_INVALID;
    /* By hand: the client holds the same open file, so closing ours would not end the watch. */
    epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, channel->fds.request, NULL);
    CRASH_POINT("worker.detaching");
    close(channel->fds.segment);
    close(channel->fds.request);
    close(channel->fds.answer);
    if (channel->fds.journal >= 0) close(channel->fds.journal);
    forget_taken(worker, channel);
    worker->channels[index] = NULL;
    worker->high_count -= channel->level == LEVEL_HIGH;
    store64(&worker->status->channels, load64(&worker->status->channels, relaxed) - 1, relaxed);
    free_channel(worker, channel);
    return 0;
}

uint32_t sidecaml_worker_interrupted(const sidecaml_worker *worker, uint32_t index) {
    const struct served_channel *channel = channel_of(worker, index);
    if (!channel) return 0;
    struct ticket_range last = channel->suspects;
    for (uint64_t ticket = last.first; !channel->suspects_committed && range_holds(last, ticket); ticket++)
        if (ring_was_interrupted(&channel->ring, ticket)) return channel->suspect_attempts;
    return 0;
}

/* --- Lost pages -------------------------------------------------------------------------------------------------- */

/* Takes no notice of the client from now on: neither of its slots nor of its doorbell. */
static void give_up_on(sidecaml_worker *worker, struct served_channel *channel) {
    channel->broken = channel->to_tell = true;
    epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, channel->fds.request, NULL);
}

/* Whether a channel is broken that was not at the last look. One load, as long as nothing has happened. */
static bool lost_a_channel(sidecaml_worker *worker) {
    uint64_t breaks = guard_breaks_so_far();
    if (breaks == worker->breaks) return false;
    worker->breaks = breaks;
    bool lost = false;
    for (uint32_t i = 0; i < worker->count; i++) {
        struct served_channel *channel = worker->channels[i];
        if (!channel || channel->broken || !guard_is_broken(channel->guarded)) continue;
        give_up_on(worker, channel);
        lost = true;
    }
    return lost;
}

int sidecaml_worker_broken(sidecaml_worker *worker) {
    lost_a_channel(worker); /* its caller need not be told twice */
    for (uint32_t i = 0; i < worker->count; i++) {
        struct served_channel *channel = worker->channels[i];
        if (!channel || !channel->to_tell) continue;
        channel->to_tell = false;
        return (int)i;
    }
    return -SIDECAML_E_PENDING;
}

/* --- The crowd --------------------------------------------------------------------------------------------------- */

/* How many threads there are, and its clients told of it. */
static uint32_t count_crowd(sidecaml_worker *worker) {
    uint32_t count = crowd_count(worker->crowd, worker->last_ns);
    if (load32(&worker->status->crowd, relaxed) != count) store32(&worker->status->crowd, count, relaxed);
    return count;
}

void worker_meet_client(sidecaml_worker *worker, struct served_channel *channel, uint32_t index) {
    channel->met = crowd_epoch(worker->last_ns);
    uint32_t thread = load32(&channel->block->thread, relaxed);
    crowd_meet(worker->crowd, worker->last_ns, thread ? thread : index);
    count_crowd(worker); /* those who spin for it must know at once when they are too many */
}

/* Some client's processor, when there is just one client: with several nobody knows who comes next. */
static uint32_t peer_core(const sidecaml_worker *worker) {
    return worker->count == 1 && worker->channels[0] ? load32(&worker->channels[0]->block->core, relaxed) : 0;
}

/* While it spins it is one thread, whatever a run takes. */
static struct company company_of(sidecaml_worker *worker) {
    return (struct company){.peer_core = peer_core(worker),
                            .crowd = count_crowd(worker) - worker->crowd->threads + 1,
                            .cores = load32(&worker->status->cores, relaxed)};
}

/* --- Taking requests --------------------------------------------------------------------------------------------- */

uint64_t worker_read_clock(sidecaml_worker *worker) {
    worker->last_ns = sidecaml_now_ns();
    return worker->last_ns;
}

static bool any_has_work(const sidecaml_worker *worker) {
    for (uint32_t i = 0; i < worker->count; i++) {
        const struct served_channel *channel = worker->channels[i];
        if (channel && !channel->broken && ring_has_work_seq_cst(&channel->ring)) return true;
    }
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

/* How many posts may still come: an honest client makes one a request at most, and has at most `count` requests that
 * are not taken yet. */
static uint64_t posts_allowed(const struct served_channel *channel) {
    return channel->ring.ticket + channel->ring.count + POSTS_SPARE - channel->posts_taken;
}

static void listen_to(sidecaml_worker *worker, struct served_channel *channel, uint32_t index, bool wanted) {
    /* A client that posts without end, and whose doorbell has no end either, would keep everybody's worker awake.
     * Listening again tells at once of posts that wait. */
    struct epoll_event event = {.events = (wanted ? EPOLLIN : 0) | EPOLLET, .data.u32 = index};
    if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_MOD, channel->fds.request, &event) == 0) channel->muted = !wanted;
}

/* Before a sleep, not after: then a request waits. */
static void take_posts_back(sidecaml_worker *worker) {
    for (uint32_t i = 0; i < worker->count; i++) {
        struct served_channel *channel = worker->channels[i];
        if (!channel || channel->broken || !(channel->posted || channel->muted)) continue;
        uint64_t allowed = posts_allowed(channel);
        uint32_t most = allowed < channel->ring.count ? (uint32_t)allowed : channel->ring.count;
        if (channel->posted) channel->posts_taken += doorbell_drain(channel->request, most);
        channel->posted = false;
        bool floods = posts_allowed(channel) == 0;
        if (floods != channel->muted) listen_to(worker, channel, i, !floods);
    }
}

/* Every CONTROL_EVERY_NS of a busy or spinning worker; without a clock reading of its own. */
static bool control_waits(sidecaml_worker *worker) {
    /* Signed: a coarse reading may lie before a fine one. */
    if ((int64_t)(worker->last_ns - worker->looked_at_control_ns) < CONTROL_EVERY_NS) return false;
    worker->looked_at_control_ns = worker->last_ns;
    store64(&worker->status->heartbeat_ns, worker->last_ns, relaxed);
    guard_again(); /* what ran since then may have installed a handler of its own */
    return sleep_on_all(worker, 0) & WOKE_CONTROL;
}

/* 1 taken, -AGAIN control, -PENDING when the time was up or company came that does not allow it. */
static int spin_for_work(sidecaml_worker *worker, uint64_t until_ns, uint32_t most) {
    for (;;) {
        for (int look = 0; look < SPIN_LOOKS; look++) {
            if (schedule(worker, most)) return 1;
            cpu_relax();
        }
        if (worker_read_clock(worker) >= until_ns) return -SIDECAML_E_PENDING;
        if (lost_a_channel(worker) || control_waits(worker)) return -SIDECAML_E_AGAIN;
        struct company company = company_of(worker);
        if (!spinner_may(&worker->spinner, company)) return -SIDECAML_E_PENDING;
        spin_yield(worker->spinner.policy, company.peer_core);
    }
}

/* Sleeps unless there is work; true when the caller should look at the control socket or run signal handlers. */
static bool park(sidecaml_worker *worker, uint64_t timeout_ns) {
    take_posts_back(worker);
    guard_again();
    worker_park(worker->status);
    bool has_work = any_has_work(worker);
    bool lost = lost_a_channel(worker); /* by this look at the latest: no later one may come */
    bool sleeps = !has_work && !lost;
    int woke = WOKE_TIMEOUT;
    if (sleeps) {
        count64(&worker->status->parks);
        spinner_sleeps(&worker->spinner, worker->last_ns);
        crowd_sleep(worker->crowd);
        CRASH_POINT("worker.sleeping");
        woke = sleep_on_all(worker, timeout_ns);
        CRASH_POINT("worker.woken");
        crowd_wake(worker->crowd);
    }
    worker_unpark(worker->status);
    CRASH_POINT("worker.parked-down");
    worker_read_clock(worker);
    /* Words that a client scribbled over can look like work for ever: the control socket must still have its turn. */
    if (!sleeps) return lost || control_waits(worker);
    worker->looked_at_control_ns = worker->last_ns;
    store64(&worker->status->heartbeat_ns, worker->last_ns, relaxed);
    return woke & (WOKE_CONTROL | WOKE_SIGNAL);
}

static uint64_t earlier(uint64_t start, uint64_t budget, uint64_t timeout) {
    uint64_t least = budget < timeout ? budget : timeout;
    return least > UINT64_MAX - start ? UINT64_MAX : start + least;
}

static int wait_for_work(sidecaml_worker *worker, uint64_t timeout_ns, uint32_t most) {
    uint64_t start = worker_read_clock(worker);
    uint64_t end = earlier(start, UINT64_MAX, timeout_ns);
    uint32_t core = current_core();
    if (load32(&worker->status->core, relaxed) != core) store32(&worker->status->core, core, relaxed);
    for (;;) {
        uint64_t began = worker->last_ns;
        uint64_t budget = spinner_budget(&worker->spinner, began, company_of(worker));
        int status = budget ? spin_for_work(worker, earlier(began, budget, end - began), most) : -SIDECAML_E_PENDING;
        spinner_spun(&worker->spinner, budget, worker->last_ns - began);
        bool interrupted = false;
        if (status == -SIDECAML_E_PENDING && worker->spinner.policy != SIDECAML_SPIN && worker->last_ns < end) {
            interrupted = park(worker, end == UINT64_MAX ? UINT64_MAX : end - worker->last_ns);
            status = schedule(worker, most) ? 1 : -SIDECAML_E_PENDING;
        }
        if (status == 1) spinner_learn(&worker->spinner, worker->last_ns - start);
        if (status != -SIDECAML_E_PENDING) return status;
        if (!interrupted && worker->last_ns < end) continue;
        spinner_learn_longer(&worker->spinner, worker->last_ns, worker->last_ns - start);
        return interrupted ? -SIDECAML_E_AGAIN : -SIDECAML_E_TIMEOUT;
    }
}

/* One look refuses a few requests of each channel at most. What is to be run may wait behind them; but a client that
 * submits such requests without end is not to keep the control socket waiting. */
static bool schedule_behind_refused(sidecaml_worker *worker, uint32_t most) {
    for (uint32_t looks = 0; looks < MOST_LOOKS; looks++) {
        uint64_t refused = load64(&worker->status->refused, relaxed);
        if (schedule(worker, most)) return true;
        if (load64(&worker->status->refused, relaxed) == refused) break;
    }
    return false;
}

int worker_next(sidecaml_worker *worker, uint64_t timeout_ns, uint32_t most) {
    worker->last_ns = coarse_now_ns();
    if (lost_a_channel(worker) || control_waits(worker)) return -SIDECAML_E_AGAIN;
    if (schedule_behind_refused(worker, most)) return 1;
    return timeout_ns ? wait_for_work(worker, timeout_ns, most) : -SIDECAML_E_PENDING;
}

int sidecaml_worker_next(sidecaml_worker *worker, uint64_t timeout_ns, struct sidecaml_request *out) {
    int status = schedule_goes_on(worker) ? 1 : worker_next(worker, timeout_ns, 1);
    if (status == 1) worker_hand_out(worker, out);
    return status;
}

/* --- Running and completing -------------------------------------------------------------------------------------- */

struct taken *worker_hand_out(sidecaml_worker *worker, struct sidecaml_request *out) {
    struct taken *one = &worker->taken[worker->taken_at++];
    struct served_channel *channel = one->channel;
    *out = one->request;
    if (staging_of(channel)) {
        worker_begin_clock(worker);
        staging_take(channel->staging, channel->segment.base, &channel->layout, out->slot);
    }
    blame_compare(worker, one);
    return one;
}

void worker_note_start(struct served_channel *channel, struct ticket_range run, uint32_t attempts) {
    journal_start(channel->journal, run, attempts);
    CRASH_POINT("worker.started");
}

void worker_commit(struct served_channel *channel, uint64_t last) {
    /* Where pages were missing, what the engine wrote is not there. */
    if (!guard_is_broken(channel->guarded)) journal_commit(channel->journal, last, channel->state);
    CRASH_POINT("worker.committed");
}

void worker_begin_clock(sidecaml_worker *worker) {
    bool is_timed = worker->count > 1 || worker->is_urgent || worker->untimed + 1 >= TIMED_EVERY;
    worker->began_ns = worker->engine_began_ns = is_timed ? worker_read_clock(worker) : 0;
}

void worker_begin_engine(sidecaml_worker *worker) {
    if (worker->began_ns) worker->engine_began_ns = worker_read_clock(worker);
}

uint64_t worker_engine_ns(sidecaml_worker *worker) {
    return worker->began_ns ? worker_read_clock(worker) - worker->engine_began_ns : 0;
}

void sidecaml_worker_started(sidecaml_worker *worker, const struct sidecaml_request *request) {
    struct served_channel *channel = channel_of(worker, request->channel);
    if (!channel) return;
    worker_note_start(channel, (struct ticket_range){request->ticket, 1}, request->attempts);
    /* Of several that were taken together and run one by one, the one before has put it out. */
    if (!load64(&worker->status->running_ns, relaxed)) {
        worker->last_ns = coarse_now_ns();
        store64(&worker->status->running_ns, worker->last_ns, relaxed);
    }
    if (staging_of(channel))
        worker_begin_engine(worker);
    else
        worker_begin_clock(worker);
    if (request->stamps && request->slot < channel->ring.count)
        channel->ring.slots[request->slot].started_ns = worker->engine_began_ns;
}

uint64_t worker_charge(sidecaml_worker *worker) {
    CRASH_POINT("worker.ran");
    if (!worker->began_ns) {
        worker->untimed++;
        /* Mostly 0, and now and then a tick: right on the whole. */
        uint64_t ticks_ns = coarse_now_ns() - load64(&worker->status->running_ns, relaxed);
        if ((int64_t)ticks_ns > 0) count_more64(&worker->status->busy_ns, ticks_ns);
        return 0;
    }
    uint64_t took_ns = worker_read_clock(worker) - worker->began_ns;
    count_more64(&worker->status->busy_ns, took_ns);
    cost_learn_least(&worker->shortest_ns, took_ns);
    worker->began_ns = 0;
    worker->untimed = 0;
    return took_ns;
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

/* False when the client had given up, or has lost its right to an answer. */
static inline bool publish(struct served_channel *channel, const struct sidecaml_request *request,
                           enum sidecaml_state final) {
    /* Where pages were missing the outputs are not what the engine wrote: nobody must see DONE beside them. */
    if (guard_is_broken(channel->guarded) || ring_complete(&channel->ring, request->slot, request->ticket, final)) {
        CRASH_POINT("worker.freed");
        return false;
    }
    CRASH_POINT("worker.published");
    return true;
}

int worker_publish(sidecaml_worker *worker, struct served_channel *channel, const struct sidecaml_request *request,
                   int status) {
    struct sidecaml_status_page *page = worker->status;
    store64(&page->running_ns, 0, relaxed);
    bool is_told = publish(channel, request, status ? SIDECAML_STATE_FAILED : SIDECAML_STATE_DONE);
    count64(!is_told ? &page->abandoned : status ? &page->failed : &page->served);
    return !is_told;
}

void worker_publish_taken(sidecaml_worker *worker, const struct taken *taken, uint32_t count) {
    uint64_t told = 0;
    store64(&worker->status->running_ns, 0, relaxed);
    for (uint32_t i = 0; i < count; i++)
        told += publish(taken[i].channel, &taken[i].request, SIDECAML_STATE_DONE);
    count_more64(&worker->status->served, told);
    count_more64(&worker->status->abandoned, count - told);
}

void worker_wake_client(struct served_channel *channel) {
    client_wake(channel->block, channel->answer);
}

void worker_fail(sidecaml_worker *worker, struct served_channel *channel, const struct sidecaml_request *request,
                 int status, const char *message) {
    channel->ring.slots[request->slot].status = status;
    write_message(&channel->ring.slots[request->slot], message);
    worker_publish(worker, channel, request, status);
    worker_wake_client(channel);
}

/* Of a request that ran on private memory: what the client is to see of it. */
static void give_back(struct served_channel *channel, uint32_t slot, int status) {
    if (!status) staging_give(channel->staging, channel->segment.base, &channel->layout, slot);
    if (status == -SIDECAML_E_OUTPUT_TOO_LARGE)
        staging_give_needed(channel->staging, channel->segment.base, &channel->layout, slot);
}

/* The worker's time of a request that ran by itself. What was known of its kind is of native runs, and nothing that
 * the caller's would add to. */
static void charge_alone(sidecaml_worker *worker, struct served_channel *channel, bool is_of_kind, int status) {
    uint64_t took_ns = worker_charge(worker);
    channel->deficit_ns -= (int64_t)took_ns;
    if (took_ns && !status && !is_of_kind) cost_learn(&channel->cost, took_ns);
}

int sidecaml_worker_complete(sidecaml_worker *worker, const struct sidecaml_request *request, int status,
                             const char *message) {
    struct served_channel *channel = channel_of(worker, request->channel);
    if (!channel || request->slot >= channel->ring.count) return -SIDECAML_E_INVALID;
    struct sidecaml_slot *slot = &channel->ring.slots[request->slot];
    /* The last to be handed out; unless its channel has ended since. */
    const struct taken *one = worker->taken_at ? &worker->taken[worker->taken_at - 1] : NULL;
    if (staging_of(channel)) give_back(channel, request->slot, status);
    charge_alone(worker, channel, one && one->is_native, status);
    if (one && one->channel == channel) blame_outcome(worker, one, status);
    if (request->stamps) slot->finished_ns = worker_read_clock(worker);
    slot->status = status;
    if (status) {
        write_message(slot, message);
        journal_fail(channel->journal, request->ticket);
    } else {
        worker_commit(channel, request->ticket);
    }
    int gone = worker_publish(worker, channel, request, status);
    worker_wake_client(channel);
    return gone;
}

void *sidecaml_worker_tensor(const sidecaml_worker *worker, uint32_t index, uint32_t slot, uint32_t tensor) {
    const struct served_channel *channel = channel_of(worker, index);
    if (!channel) return NULL;
    const struct place place = place_of(channel, slot);
    return tensor_at(place.base, place.layout, place.slot, tensor);
}

const struct sidecaml_layout *sidecaml_worker_layout(const sidecaml_worker *worker, uint32_t index) {
    const struct served_channel *channel = channel_of(worker, index);
    return channel ? &channel->layout : NULL;
}

int sidecaml_worker_get_dims(const sidecaml_worker *worker, const struct sidecaml_request *request, uint32_t tensor,
                             uint64_t dims[SIDECAML_MAX_RANK]) {
    const struct served_channel *channel = channel_of(worker, request->channel);
    if (!channel) return -SIDECAML_E_INVALID;
    const struct place place = place_of(channel, request->slot);
    return dims_read(place.base, place.layout, place.slot, tensor, dims);
}

int sidecaml_worker_set_dims(sidecaml_worker *worker, const struct sidecaml_request *request, uint32_t tensor,
                             const uint64_t *dims, uint32_t rank) {
    const struct served_channel *channel = channel_of(worker, request->channel);
    if (!channel) return -SIDECAML_E_INVALID;
    const struct place place = place_of(channel, request->slot);
    int status = dims_write(place.base, place.layout, place.slot, tensor, dims, rank);
    return status == -SIDECAML_E_BAD_DIMS ? -SIDECAML_E_OUTPUT_TOO_LARGE : status;
}

int sidecaml_worker_set_needed(sidecaml_worker *worker, const struct sidecaml_request *request, uint32_t tensor,
                               const uint64_t *dims, uint32_t rank) {
    const struct served_channel *channel = channel_of(worker, request->channel);
    if (!channel) return -SIDECAML_E_INVALID;
    const struct place place = place_of(channel, request->slot);
    return dims_write_needed(place.base, place.layout, place.slot, tensor, dims, rank);
}

int sidecaml_worker_set_text_needed(sidecaml_worker *worker, const struct sidecaml_request *request, uint64_t bytes) {
    struct served_channel *channel = channel_of(worker, request->channel);
    if (!channel || request->slot >= channel->ring.count) return -SIDECAML_E_INVALID;
    channel->ring.slots[request->slot].text_needed = bytes;
    return 0;
}

/* --- Carried state
 * ---------------------------------------------------------------------------------------------------- */

uint64_t sidecaml_worker_state(const sidecaml_worker *worker, uint32_t index) {
    const struct served_channel *channel = channel_of(worker, index);
    return channel ? channel->state : 0;
}

void sidecaml_worker_set_state(sidecaml_worker *worker, uint32_t index, uint64_t state) {
    struct served_channel *channel = channel_of(worker, index);
    if (channel) channel->state = state;
}

void *sidecaml_worker_journal(const sidecaml_worker *worker, uint32_t index, uint64_t *bytes) {
    const struct served_channel *channel = channel_of(worker, index);
    *bytes = channel ? channel->journal_page.bytes - sizeof(struct sidecaml_journal) : 0;
    return channel ? channel->journal_page.base + sizeof(struct sidecaml_journal) : NULL;
}

uint32_t sidecaml_worker_committed(const sidecaml_worker *worker, uint32_t index) {
    const struct served_channel *channel = channel_of(worker, index);
    uint64_t committed = channel ? load64(&channel->journal->committed, relaxed) : 0;
    return (uint32_t)committed & (SIDECAML_CARRIED | SIDECAML_PLACE);
}

void sidecaml_worker_drop_carried(sidecaml_worker *worker, uint32_t index) {
    struct served_channel *channel = channel_of(worker, index);
    if (channel) journal_drop_carried(channel->journal);
}
