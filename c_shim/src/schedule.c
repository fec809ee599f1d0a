/* Which requests run next: who comes first, what goes together, and what is not worth beginning.
 *
 * Nothing here waits: a batch is what there is at the moment, so an idle worker runs a single request at once, and
 * batches form by themselves while it is busy. It is closed by its size, and by the earliest deadline in it: another
 * request is taken only if the run would then still end in time. How long runs take is learned (costs.h).
 *
 * Channels of the high level come first; after HIGH_RUNS_MOST runs of theirs a waiting one of the normal level has a
 * turn. Within a level requests are taken in turn. Where the requests of several channels run together, each gives
 * one, round after round; so nobody waits for more than the run that is under way, whatever the others have lying
 * there. And who asks for little comes before those who ask for much, by the part that each had of its last run: where
 * the requests of the former make a much shorter run than a full one, they are a run of their own, every other run at
 * most. So a client that floods costs another one the rest of a run, and not a run of its own requests besides (much as
 * the new flows of T. Hoeiland-Joergensen et al.: The Flow Queue CoDel Packet Scheduler, RFC 8290, 2018).
 *
 * Where requests of channels do not run together, who begins a run is decided by deficit round robin, in time on the
 * engine: each gets a quantum a round, a run is charged when it is over and how long it took is known, and who owes for
 * one waits until its quanta have made up for it, so who asks for longer runs has fewer of them (M. Shreedhar, G.
 * Varghese: Efficient Fair Queuing Using Deficit Round Robin, 1996). The quantum is about the shortest run of late:
 * with longer ones all would be in credit in every round, and have turns instead of time. Rounds in which nobody may
 * run are not gone through, but reckoned. Where nothing is run together that is so always; otherwise from a request
 * that did not go with the others on, or ran alone while others waited, for some runs after the last one. Those whose
 * requests go with whoever begins have a part in its run, and are charged for that.
 *
 * When more comes than can be run, deadlines would undo batches: the oldest request has hardly any time left, so it
 * would run with few others, and those behind it would come to have as little. So when a channel's request could not be
 * run in time, those behind it have to have the time for a full run, or are refused: until it has none waiting, and of
 * as many at most as it has slots, lest a wrong estimate refuses all for ever.
 */
#include <string.h>

#include "atomics.h"
#include "blame.h"
#include "costs.h"
#include "crash_point.h"
#include "served.h"

#define HIGH_RUNS_MOST 8
/* What a channel can owe: a run in which the machine stood still keeps nobody from the engine for longer than that. */
#define DEBT_MOST_NS 1000000000
/* In runs: who begins goes by time on the engine for so long after a request that did not go with the others. A client
 * with one request at a time has none there while its answer is on the way, and is not to be forgiven by that. */
#define APART_RUNS 64
/* A channel asks for much when its part of a run was more than one part in so many of a full one. */
#define MUCH_PART 8
/* A run is short when it takes at most one part in so many of a full one. */
#define SHORT_PART 2
/* Between two requests of a batch and the one whose line is fetched meanwhile: about what a line takes to come from
 * another core, in requests. */
#define FETCH_AHEAD 4

enum verdict {
    NOTHING, /* it has no request */
    TAKEN,
    APART,  /* it has one that does not go with the others */
    CLOSED, /* no other may be taken for this run */
};

static const char too_late[] = "the request could not have been answered by its deadline, so it was not run: give it "
                               "more time, or submit less at once";

/* --- One request ------------------------------------------------------------------------------------------------- */

/* The dims of an answer that said how much room it needed are for that answer only. */
static void forget_needed(struct served_channel *channel, uint32_t slot) {
    uint32_t tensors = tensor_count_of(&channel->layout);
    for (uint32_t t = channel->layout.input_count; t < tensors; t++)
        dims_write(channel->segment.base, &channel->layout, slot, t, channel->layout.tensor[t].max_dims,
                   channel->layout.tensor[t].rank);
    channel->ring.slots[slot].status = 0;
    channel->ring.slots[slot].text_needed = 0;
}

/* What stands in a slot of a request that was seen, and not taken yet. */
struct seen {
    uint64_t word, deadline_ns;
    uint32_t slot, flags, attempts;
    struct kind *kind; /* NULL: the caller's to run; until the next is looked at */
    bool runs_alone;
};

/* Makes it RUNNING; false when the client has cancelled it. */
static bool take(sidecaml_worker *worker, uint32_t index, const struct seen *seen, struct taken *out) {
    struct served_channel *channel = worker->channels[index];
    uint64_t ticket;
    if (!ring_take(&channel->ring, seen->word, &ticket)) return false;
    CRASH_POINT("worker.taken");
    struct sidecaml_slot *slot = &channel->ring.slots[seen->slot];
    *out = (struct taken){.channel = channel, .is_native = seen->kind};
    out->request = (struct sidecaml_request){.channel = index,
                                             .slot = seen->slot,
                                             .ticket = ticket,
                                             .deadline_ns = seen->deadline_ns,
                                             .attempts = seen->attempts,
                                             .stamps = seen->flags & SIDECAML_SLOT_STAMPS,
                                             .resets = seen->flags & SIDECAML_SLOT_RESET};
    slot->seen_ns = out->request.stamps ? worker_read_clock(worker) : 0;
    /* Of this tick, for whoever looks from outside how long a request has been running. */
    slot->started_ns = worker->last_ns;
    if (read_once(slot->status) == -SIDECAML_E_OUTPUT_TOO_LARGE) forget_needed(channel, seen->slot);
    return true;
}

/* What a predecessor had run, and only not published, is published here: true when that was so. */
static bool only_publish(sidecaml_worker *worker, uint32_t index, const struct seen *seen) {
    struct served_channel *channel = worker->channels[index];
    struct taken one;
    if (!seen->attempts || !channel->suspects_committed) return false;
    if (!take(worker, index, seen, &one)) return true;
    CRASH_POINT("worker.only-publishing");
    worker_publish(worker, channel, &one.request, 0);
    worker_wake_client(channel);
    return true;
}

void schedule_note_kind(sidecaml_worker *worker, struct served_channel *channel, const struct runner *runner) {
    struct batcher *batcher = &worker->batcher;
    channel->kind = batch_kind(batcher, channel, runner->dims, worker->channels, worker->count);
    channel->runs_alone = runner->alone || runner->state || runner->next_state ||
                          (channel->kind && !batch_can(batcher, channel->kind, channel));
}

/* From the runner of its slot. */
static struct kind *find_kind(sidecaml_worker *worker, struct served_channel *channel, uint32_t slot) {
    const struct runner *runner = runner_for(channel, slot);
    if (!runner) return NULL;
    schedule_note_kind(worker, channel, runner);
    return channel->kind;
}

static bool stays_alone(const sidecaml_worker *worker, struct served_channel *channel) {
    if (channel->alone_until_ns && worker->last_ns >= channel->alone_until_ns) channel->alone_until_ns = 0;
    return channel->alone_until_ns;
}

/* What kind of request it is: what killed a predecessor, or begins a state anew, is not for a loop that asks nobody. */
static void look_at_kind(sidecaml_worker *worker, struct served_channel *channel, struct seen *seen) {
    bool is_unusual = seen->attempts || seen->flags & SIDECAML_SLOT_RESET;
    seen->kind = NULL;
    if (!is_unusual && channel->kind && asks_for(channel, seen->slot, channel->kind->dims))
        seen->kind = channel->kind;
    else if (!is_unusual)
        seen->kind = find_kind(worker, channel, seen->slot);
    seen->runs_alone = !seen->kind || channel->runs_alone || channel->spoiled || seen->kind->refused ||
                       seen->kind->rests || stays_alone(worker, channel);
}

/* As ring_peek; wakes a client that waits for the turn of a slot whose worker has died. */
static int peek(struct served_channel *channel, uint64_t *word) {
    int slot = ring_peek(&channel->ring, word);
    if (channel->ring.freed) {
        channel->ring.freed = false;
        worker_wake_client(channel);
    }
    return slot;
}

static bool look_at(sidecaml_worker *worker, uint32_t index, struct seen *out) {
    struct served_channel *channel = worker->channels[index];
    for (;;) {
        int slot = peek(channel, &out->word);
        if (slot < 0) return false;
        const struct sidecaml_slot *found = &channel->ring.slots[slot];
        out->slot = (uint32_t)slot;
        out->deadline_ns = read_once(found->deadline_ns);
        out->flags = read_once(found->flags);
        out->attempts = range_holds(channel->suspects, channel->ring.ticket) ? channel->suspect_attempts : 0;
        if (only_publish(worker, index, out)) continue;
        look_at_kind(worker, channel, out);
        return true;
    }
}

/* --- Deadlines --------------------------------------------------------------------------------------------------- */

/* How long a run of so many of a channel's requests takes; 0 when that is not known. */
static uint64_t cost_of(const sidecaml_worker *worker, const struct served_channel *channel, const struct kind *kind,
                        uint32_t count) {
    if (!kind) return channel->cost.ns;
    if (count > worker->batcher.model.most) return 0;
    uint64_t known = kind->costs[count].ns;
    /* A run of so many was never seen: as if they ran one by one. */
    return known ? known : kind->costs[1].ns * count;
}

/* When a run that begins now would end. */
static uint64_t end_of(sidecaml_worker *worker, uint64_t *now_ns, const struct served_channel *channel,
                       const struct kind *kind, uint32_t count) {
    if (!*now_ns) *now_ns = worker_read_clock(worker);
    return *now_ns + cost_of(worker, channel, kind, count);
}

/* Of the run in which a request is to end before its deadline: alone, or when too much waits, a full one. */
static uint32_t least_run(const struct served_channel *channel, const struct seen *seen) {
    return channel->is_strict_for && seen->kind && !seen->runs_alone ? seen->kind->most : 1;
}

static bool is_too_late(sidecaml_worker *worker, uint64_t *now_ns, const struct served_channel *channel,
                        const struct seen *seen) {
    return seen->deadline_ns &&
           end_of(worker, now_ns, channel, seen->kind, least_run(channel, seen)) > seen->deadline_ns;
}

/* An estimate that refuses is doubted, so that a wrong one does not do so for ever: once in the time that it says a run
 * takes, and as long as no request of the channel is run. While some are, runs are measured; and where more comes than
 * can be run, all those that are refused in between would have doubted every estimate away. Of the channels that share
 * an estimate each has its own reason to doubt, but it is lowered no more often than for one. */
static void doubt_cost(struct served_channel *channel, struct kind *kind, struct cost *cost, uint64_t now_ns) {
    bool is_due = channel->doubt_at_ns && now_ns >= channel->doubt_at_ns;
    if (is_due && kind) is_due = now_ns >= kind->doubt_from_ns;
    if (is_due) cost_doubt(cost);
    if (is_due || !channel->doubt_at_ns) channel->doubt_at_ns = now_ns + cost->ns + 1;
    if (is_due && kind) kind->doubt_from_ns = now_ns + cost->ns + 1;
}

/* Of a request that was refused. Those that came too late say nothing of the estimate. */
static void doubt(sidecaml_worker *worker, struct served_channel *channel, const struct seen *seen, uint64_t now_ns) {
    struct kind *kind = seen->kind;
    if (now_ns > seen->deadline_ns) return;
    bool is_alone = now_ns + cost_of(worker, channel, kind, 1) > seen->deadline_ns;
    uint32_t run = is_alone ? 1 : least_run(channel, seen);
    struct cost *cost = kind ? &kind->costs[kind->costs[run].ns ? run : 1] : &channel->cost;
    doubt_cost(channel, kind, cost, now_ns);
    if (is_alone)
        channel->is_strict_for = channel->ring.count;
    else
        channel->is_strict_for--;
}

/* It did not run, so nothing is to look as if it had. */
static void refuse_taken(sidecaml_worker *worker, const struct taken *one, const struct seen *seen, uint64_t now_ns) {
    struct sidecaml_slot *slot = &one->channel->ring.slots[one->request.slot];
    slot->started_ns = slot->finished_ns = 0;
    doubt(worker, one->channel, seen, now_ns);
    blame_refused(one);
    count64(&worker->status->refused);
    worker_fail(worker, one->channel, &one->request, -SIDECAML_E_DEADLINE, too_late);
}

static void refuse(sidecaml_worker *worker, uint32_t index, const struct seen *seen, uint64_t now_ns) {
    struct taken one;
    if (take(worker, index, seen, &one)) refuse_taken(worker, &one, seen, now_ns);
}

bool schedule_goes_on(sidecaml_worker *worker) {
    if (worker->taken_count == 1) return worker->taken_at == 0; /* it has just been looked at */
    for (; worker->taken_at < worker->taken_count; worker->taken_at++) {
        const struct taken *one = &worker->taken[worker->taken_at];
        const struct seen seen = {.deadline_ns = one->request.deadline_ns,
                                  .kind = one->is_native ? worker->batcher.current : NULL,
                                  .runs_alone = true};
        uint64_t now_ns = 0;
        if (!is_too_late(worker, &now_ns, one->channel, &seen)) return true;
        refuse_taken(worker, one, &seen, now_ns);
    }
    return false;
}

/* --- One batch --------------------------------------------------------------------------------------------------- */

struct forming {
    uint32_t most;
    uint64_t now_ns;   /* 0: not looked at yet */
    uint64_t close_ns; /* the earliest deadline in it; UINT64_MAX for none */
    bool is_closed;
    bool runs_alone; /* the request that is taken */
};

/* Its part of the run, as the journal will have it, is one range of tickets, and each has a slot of its own, whatever
 * the client writes over the words of slots that are taken. */
static bool fits_range(const struct served_channel *channel) {
    uint32_t most = channel->ring.count < SIDECAML_MOST_BATCH ? channel->ring.count : SIDECAML_MOST_BATCH;
    return !channel->running.count || channel->ring.ticket - channel->running.first < most;
}

/* Where copying never pays, a run is of neighbours, which the ring's end parts. */
static bool lies_with(const sidecaml_worker *worker, const struct served_channel *channel, const struct seen *seen) {
    const struct taken *last = &worker->taken[worker->taken_count - 1];
    return worker->batcher.model.gather_from || (last->channel == channel && last->request.slot + 1 == seen->slot);
}

static bool goes_with(const sidecaml_worker *worker, const struct served_channel *channel, const struct seen *seen) {
    const struct batcher *batcher = &worker->batcher;
    return !seen->runs_alone && seen->kind == batcher->current && fits_range(channel) &&
           lies_with(worker, channel, seen) &&
           (!batcher->shares || batch_shares(batcher, seen->kind, &worker->taken[0], channel, seen->slot));
}

static void begin_part(sidecaml_worker *worker, struct served_channel *channel, uint32_t index, uint64_t ticket) {
    channel->running.first = ticket;
    channel->doubt_at_ns = 0;
    channel->is_suspect = false;
    channel->next = worker->parts;
    worker->parts = channel;
    if (channel->met < crowd_epoch(worker->last_ns)) worker_meet_client(worker, channel, index);
}

static void fetch(const struct ring_worker *ring, uint32_t ahead) {
    uint32_t slot = ring->slot + ahead;
    __builtin_prefetch(&ring->slots[slot < ring->count ? slot : slot % ring->count], 1);
}

/* The lines of requests to come: behind the first one of a run only the next, for a client that has just one fills the
 * others itself; behind the second all that are soon needed, and then one a request. */
static void fetch_ahead(const struct ring_worker *ring, uint32_t count) {
    uint32_t last = count > 1 ? FETCH_AHEAD : 0;
    for (uint32_t ahead = count == 2 ? 1 : last; ahead <= last; ahead++)
        fetch(ring, ahead);
}

static enum verdict add(sidecaml_worker *worker, uint32_t index, const struct seen *seen, struct forming *batch) {
    struct taken *one = &worker->taken[worker->taken_count];
    if (!take(worker, index, seen, one)) return NOTHING;
    struct served_channel *channel = one->channel;
    if (worker->taken_count++ == 0) {
        worker->batcher.current = seen->kind;
        if (seen->kind && seen->kind->rests) seen->kind->rests--;
    }
    if (!channel->running.count) begin_part(worker, channel, index, one->request.ticket);
    channel->running.count = (uint32_t)(one->request.ticket - channel->running.first) + 1;
    fetch_ahead(&channel->ring, channel->running.count);
    if (seen->deadline_ns && seen->deadline_ns < batch->close_ns) batch->close_ns = seen->deadline_ns;
    worker->is_urgent |= seen->deadline_ns || one->request.stamps;
    batch->runs_alone = seen->runs_alone;
    batch->is_closed =
        seen->runs_alone || worker->taken_count == batch->most || worker->taken_count == seen->kind->most;
    return TAKEN;
}

/* Whether another request still lets the run end before the deadlines of those that are taken, and before its own. */
static bool ends_in_time(sidecaml_worker *worker, const struct served_channel *channel, struct forming *batch,
                         const struct seen *seen) {
    uint64_t close_ns = batch->close_ns;
    if (seen->deadline_ns && seen->deadline_ns < close_ns) close_ns = seen->deadline_ns;
    return close_ns == UINT64_MAX ||
           end_of(worker, &batch->now_ns, channel, seen->kind, worker->taken_count + 1) <= close_ns;
}

/* Refusing takes the worker's time, as a run does. */
static void charge_refusals(sidecaml_worker *worker, struct served_channel *channel, struct forming *batch,
                            uint64_t began_ns) {
    batch->now_ns = worker_read_clock(worker);
    channel->deficit_ns -= (int64_t)(batch->now_ns - began_ns);
}

static enum verdict consider(sidecaml_worker *worker, uint32_t index, struct forming *batch) {
    struct served_channel *channel = worker->channels[index];
    enum verdict verdict = NOTHING;
    uint64_t refuses_since_ns = 0;
    uint32_t looks = 0;
    struct seen seen;
    for (; verdict == NOTHING && looks < MOST_A_LOOK && look_at(worker, index, &seen); looks++) {
        bool is_first = worker->taken_count == 0;
        if (!is_first && !goes_with(worker, channel, &seen)) {
            verdict = APART;
        } else if (is_too_late(worker, &batch->now_ns, channel, &seen)) {
            if (!refuses_since_ns) refuses_since_ns = worker_read_clock(worker);
            refuse(worker, index, &seen, batch->now_ns);
        } else if (!is_first && !ends_in_time(worker, channel, batch, &seen)) {
            verdict = CLOSED;
        } else {
            verdict = add(worker, index, &seen, batch);
        }
    }
    if (refuses_since_ns) charge_refusals(worker, channel, batch, refuses_since_ns);
    if (verdict == NOTHING && looks < MOST_A_LOOK) channel->is_strict_for = 0;
    return verdict;
}

/* --- Channels in turn -------------------------------------------------------------------------------------------- */

static bool is_of(const struct served_channel *channel, enum level level) {
    return channel && !channel->broken && channel->level == level;
}

static bool has_request(struct served_channel *channel) {
    uint64_t word;
    return peek(channel, &word) >= 0;
}

static void allow_all(sidecaml_worker *worker) {
    for (uint32_t i = 0; i < worker->count; i++)
        if (worker->channels[i]) worker->channels[i]->exhausted = false;
}

/* Gives a channel its quantum of this round, unless it has some left, of which a longer one of before is cut. Who has
 * nothing to run saves nothing up, but works off what it owes: a client is none the worse for asking for less than its
 * share. */
static void earn(struct served_channel *channel, int64_t quantum_ns, bool waits) {
    if (channel->deficit_ns < -DEBT_MOST_NS) channel->deficit_ns = -DEBT_MOST_NS;
    if (channel->deficit_ns <= 0) channel->deficit_ns += quantum_ns;
    if (channel->deficit_ns > quantum_ns) channel->deficit_ns = quantum_ns;
    if (!waits && channel->deficit_ns > 0) channel->deficit_ns = 0;
}

/* As many rounds as it takes until the channel that is nearest to a turn has one. */
static void skip_rounds(sidecaml_worker *worker, enum level level, int64_t quantum_ns, uint32_t nearest) {
    int64_t given_ns = (1 - worker->channels[nearest]->deficit_ns / quantum_ns) * quantum_ns;
    for (uint32_t i = 0; i < worker->count; i++) {
        struct served_channel *channel = worker->channels[i];
        if (!is_of(channel, level)) continue;
        channel->deficit_ns += given_ns;
        if (channel->deficit_ns > quantum_ns) channel->deficit_ns = quantum_ns;
    }
}

/* Deficit round robin: the channel that is to begin the next run; UINT32_MAX when none has a request. */
static uint32_t take_turn(sidecaml_worker *worker, enum level level) {
    int64_t quantum_ns = worker->shortest_ns ? (int64_t)worker->shortest_ns : 1;
    uint32_t nearest = UINT32_MAX, index = worker->turn[level];
    for (uint32_t looked = 0; looked < worker->count; looked++, index++) {
        if (index >= worker->count) index = 0;
        struct served_channel *channel = worker->channels[index];
        if (!is_of(channel, level) || channel->exhausted) continue;
        bool waits = has_request(channel);
        earn(channel, quantum_ns, waits);
        if (!waits) channel->is_strict_for = 0;
        if (!waits) continue;
        if (nearest == UINT32_MAX || channel->deficit_ns > worker->channels[nearest]->deficit_ns) nearest = index;
        if (channel->deficit_ns > 0) break;
    }
    if (nearest == UINT32_MAX) return nearest;
    if (worker->channels[nearest]->deficit_ns <= 0) skip_rounds(worker, level, quantum_ns, nearest);
    worker->turn[level] = nearest + 1;
    return nearest;
}

/* Requests of one channel, as many as go together. */
static void fill_from(sidecaml_worker *worker, uint32_t index, struct forming *batch) {
    while (!batch->is_closed && !worker->channels[index]->exhausted)
        worker->channels[index]->exhausted = consider(worker, index, batch) != TAKEN;
}

/* The channels whose requests run together. */
struct round {
    enum level level;
    uint32_t *turn;       /* of those that are looked at */
    uint32_t active;      /* of the worker's, which may have more */
    uint32_t first, next; /* who began, where that is a matter of time on the engine, and the turn behind it */
    uint32_t passed_over; /* the first whose request did not go with the others; UINT32_MAX for none */
};

/* Channels that ask for little, and for much. */
enum weight { LIGHT = 1, HEAVY = 2 };

static bool weighs(const struct served_channel *channel, unsigned weights) {
    return weights & (channel->is_heavy ? HEAVY : LIGHT);
}

static enum verdict give_one(sidecaml_worker *worker, struct round *round, uint32_t index, struct forming *batch) {
    enum verdict verdict = consider(worker, index, batch);
    if (verdict == TAKEN) {
        worker->active[round->active++] = index;
        *round->turn = index + 1;
    } else if (verdict == NOTHING) {
        worker->channels[index]->is_heavy = false;
    } else if (round->passed_over == UINT32_MAX) {
        round->passed_over = index;
    }
    batch->is_closed |= verdict == CLOSED;
    return verdict;
}

/* One request of each channel of these weights, in turn, but for who began. Who comes first says what goes together. */
static void begin_round(sidecaml_worker *worker, struct round *round, unsigned weights, struct forming *batch) {
    uint32_t index = *round->turn;
    for (uint32_t looked = 0; looked < worker->count && !batch->is_closed; looked++, index++) {
        if (index >= worker->count) index = 0;
        const struct served_channel *channel = worker->channels[index];
        if (index != round->first && is_of(channel, round->level) && weighs(channel, weights))
            give_one(worker, round, index, batch);
    }
}

/* Another request of each, or of those that have one. */
static void go_round(sidecaml_worker *worker, struct round *round, struct forming *batch) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < round->active; i++) {
        uint32_t index = worker->active[i];
        enum verdict verdict = batch->is_closed ? CLOSED : consider(worker, index, batch);
        if (verdict == TAKEN) *round->turn = index + 1;
        if (verdict == APART && round->passed_over == UINT32_MAX) round->passed_over = index;
        if (verdict == TAKEN || verdict == CLOSED) worker->active[kept++] = index;
        batch->is_closed |= verdict == CLOSED;
    }
    round->active = kept;
}

/* Whether a run of so many is known to be much shorter than a full one: by what was seen before there were requests.
 * What is learned from them says more of how long runs take, and less of what a few requests take beside many: a short
 * run that was once held up would never be tried again. */
static bool is_short(const sidecaml_worker *worker, uint32_t count) {
    const uint64_t *costs_ns = worker->batcher.model.costs_ns;
    const struct kind *kind = worker->batcher.current;
    if (!kind || count * kind->rows > worker->batcher.model.most) return false;
    uint64_t takes_ns = costs_ns[count * kind->rows];
    return takes_ns && takes_ns <= costs_ns[kind->most * kind->rows] / SHORT_PART;
}

static bool any_heavy_waits(sidecaml_worker *worker, enum level level) {
    for (uint32_t i = 0; i < worker->count; i++) {
        struct served_channel *channel = worker->channels[i];
        if (is_of(channel, level) && channel->is_heavy && has_request(channel)) return true;
    }
    return false;
}

/* Requests of those who ask for little, as long as that is much shorter than a full run. Whether others have a part in
 * it besides: not where it is worth being kept short, and they are told so by `is_all_next`. */
static bool take_light(sidecaml_worker *worker, struct round *round, struct forming *batch) {
    round->turn = &worker->light_turn[round->level];
    begin_round(worker, round, LIGHT, batch);
    while (round->active && !batch->is_closed && is_short(worker, worker->taken_count + 1))
        go_round(worker, round, batch);
    round->turn = &worker->turn[round->level];
    bool is_over = batch->is_closed || (worker->taken_count && is_short(worker, worker->taken_count));
    worker->is_all_next[round->level] = is_over && any_heavy_waits(worker, round->level);
    return !batch->is_closed && !worker->is_all_next[round->level];
}

static void note_parts(sidecaml_worker *worker) {
    const struct kind *kind = worker->batcher.current;
    for (struct served_channel *part = worker->parts; part; part = part->next)
        part->is_heavy = kind && part->running.count > 1 && part->running.count > kind->most / MUCH_PART;
}

/* Nobody owes for the runs of before, in which all had their part. */
void schedule_go_apart(sidecaml_worker *worker, enum level level) {
    for (uint32_t i = 0; i < worker->count && worker->apart_runs[level] == 0; i++)
        if (is_of(worker->channels[i], level)) worker->channels[i]->deficit_ns = 0;
    worker->apart_runs[level] = APART_RUNS;
}

/* A request did not go with the others. The first that was passed over comes first. */
static void set_apart(sidecaml_worker *worker, const struct round *round) {
    if (worker->apart_runs[round->level] == 0) worker->turn[round->level] = round->passed_over;
    schedule_go_apart(worker, round->level);
}

/* Beside a request that runs alone nobody is looked at, and so passed over. That is made up for, but not each time:
 * there may be a hundred channels. */
static void pass_over(sidecaml_worker *worker, struct round *round) {
    uint32_t index = *round->turn;
    if (worker->apart_runs[round->level] > APART_RUNS / 2) return;
    for (uint32_t looked = 0; looked < worker->count && round->passed_over == UINT32_MAX; looked++, index++) {
        if (index >= worker->count) index = 0;
        struct served_channel *channel = worker->channels[index];
        if (is_of(channel, round->level) && channel != worker->taken[0].channel && has_request(channel))
            round->passed_over = index;
    }
}

/* Whose turn it is by time on the engine gives the first request; false when nobody has one. */
static bool begin_in_turn(sidecaml_worker *worker, struct round *round, struct forming *batch) {
    round->turn = &round->next;
    allow_all(worker);
    while (worker->taken_count == 0 && (round->first = take_turn(worker, round->level)) != UINT32_MAX)
        worker->channels[round->first]->exhausted = give_one(worker, round, round->first, batch) != TAKEN;
    return worker->taken_count;
}

/* A run for which nobody's weight counts. */
static void begin_for_all(sidecaml_worker *worker, struct round *round, struct forming *batch) {
    if (worker->apart_runs[round->level]) {
        if (!begin_in_turn(worker, round, batch)) return;
        worker->apart_runs[round->level]--;
    }
    begin_round(worker, round, LIGHT | HEAVY, batch);
}

/* One request of each channel, round after round. After a run in which those who ask for much had no part comes one for
 * all, so that all have their turn however many the others are; and all runs are such where requests do not go
 * together. */
static void fill_from_all(sidecaml_worker *worker, enum level level, struct forming *batch) {
    struct round round = {.level = level, .turn = &worker->turn[level], .first = UINT32_MAX, .passed_over = UINT32_MAX};
    bool is_for_all = worker->is_all_next[level] || worker->apart_runs[level];
    worker->is_all_next[level] = false;
    if (is_for_all)
        begin_for_all(worker, &round, batch);
    else if (take_light(worker, &round, batch))
        begin_round(worker, &round, HEAVY, batch);
    while (round.active && !batch->is_closed && !worker->is_all_next[level])
        go_round(worker, &round, batch);
    note_parts(worker);
    if (batch->runs_alone) pass_over(worker, &round);
    if (round.passed_over != UINT32_MAX) set_apart(worker, &round);
}

/* A run of the channel whose turn it is. */
static void fill_from_next(sidecaml_worker *worker, enum level level, struct forming *batch) {
    uint32_t index;
    allow_all(worker);
    while (worker->taken_count == 0 && (index = take_turn(worker, level)) != UINT32_MAX)
        fill_from(worker, index, batch);
}

static bool fill(sidecaml_worker *worker, enum level level, uint32_t most) {
    struct forming batch = {.most = most, .close_ns = UINT64_MAX};
    if (level == LEVEL_HIGH ? !worker->high_count : worker->high_count == worker->count) return false;
    if (most > 1 && worker->batcher.model.gather_from)
        fill_from_all(worker, level, &batch);
    else
        fill_from_next(worker, level, &batch);
    return worker->taken_count;
}

static void begin_anew(sidecaml_worker *worker) {
    worker->taken_count = worker->taken_at = 0;
    worker->batcher.current = NULL;
    worker->is_urgent = worker->by_stretches = false;
    blame_end(worker);
    worker_forget_parts(worker);
}

bool schedule(sidecaml_worker *worker, uint32_t most) {
    begin_anew(worker);
    bool high_first = worker->high_runs < HIGH_RUNS_MOST;
    enum level first = high_first ? LEVEL_HIGH : LEVEL_NORMAL, second = high_first ? LEVEL_NORMAL : LEVEL_HIGH;
    enum level level = fill(worker, first, most) ? first : second;
    if (level == second && !fill(worker, second, most)) return false;
    if (worker->batcher.current) batch_touch(&worker->batcher, worker->batcher.current);
    worker->high_runs = level == LEVEL_HIGH ? worker->high_runs + 1 : 0;
    /* Relaxed, here and at the end of the run: a clock for who watches that no run takes too long. It orders nothing,
     * and who sees it late or not at all looks again; only the supervisor acts on it, after seconds. */
    store64(&worker->status->running_ns, worker->last_ns, relaxed);
    return true;
}
