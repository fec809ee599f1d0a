/* The native lane: requests for which there is a runner are run and completed here, alone or together. */
#include <stdlib.h>
#include <string.h>

#include "atomics.h"
#include "blame.h"
#include "clock.h"
#include "costs.h"
#include "failure.h"
#include "served.h"

/* How long `serve` keeps running requests before its caller has a turn. */
#define SERVE_TURN_NS 100000000

/* --- Runners ----------------------------------------------------------------------------------------------------- */

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

/* What is taken and waits for its turn runs with what the slot has then: it is the caller's, who binds. */
static void forget_runner(sidecaml_worker *worker, const struct served_channel *channel, uint32_t slot) {
    for (uint32_t i = worker->taken_at; i < worker->taken_count; i++)
        if (worker->taken[i].channel == channel && worker->taken[i].request.slot == slot)
            worker->taken[i].is_native = false;
}

int sidecaml_worker_bind(sidecaml_worker *worker, uint32_t index, uint32_t slot, const struct sidecaml_bound *bound,
                         struct sidecaml_failure *why) {
    struct served_channel *channel = channel_of(worker, index);
    if (!channel || slot >= channel->ring.count)
        return fail(why, SIDECAML_E_INVALID, "the worker has no channel %u with a slot %u", index, slot);
    forget_runner(worker, channel, slot);
    if (!bound) {
        runners_clear(&channel->runners[slot]);
        channel->kind = NULL;
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
    runner->alone = bound->alone;
    runners_add(&channel->runners[slot], runner, channel->words_in);
    schedule_note_kind(worker, channel, runner);
    return 0;
}

int sidecaml_worker_set_batching(sidecaml_worker *worker, const struct sidecaml_batching *batching,
                                 struct sidecaml_failure *why) {
    if (worker->count || worker->batcher.model.bind)
        return fail(why, SIDECAML_E_INVALID, "batches are set up once, before there are channels");
    struct taken *taken = calloc(batching->most, sizeof *taken);
    if (!taken) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for batches");
    int status = batcher_open(&worker->batcher, batching, why);
    if (status < 0)
        free(taken);
    else
        worker->taken = taken;
    return status;
}

struct runner *runner_for(struct served_channel *channel, uint32_t slot) {
    const uint64_t *there = dims_at(channel->segment.base, &channel->layout, slot, 0);
    for (uint32_t i = 0; i < channel->words_in; i++)
        channel->asked[i] = read_once(there[channel->word_at[i]]);
    return runners_find(&channel->runners[slot], channel->state, channel->asked, channel->words_in);
}

/* Those of the outputs, in a slot. They mostly stand there from the request before: a store would take the line away
 * from the client for nothing. */
static void tell_dims(const struct served_channel *channel, struct place place, const uint64_t *dims) {
    uint64_t *there = dims_at(place.base, place.layout, place.slot, 0);
    for (uint32_t i = channel->words_in; i < channel->words; i++) {
        uint64_t *word = &there[channel->word_at[i]];
        if (read_once(*word) != dims[i]) *word = dims[i];
    }
}

/* --- One request ------------------------------------------------------------------------------------------------- */

/* NULL: the caller's to run. */
static struct runner *runner_of(const sidecaml_worker *worker, const struct taken *one) {
    if (!one->is_native) return NULL;
    struct served_channel *channel = one->channel;
    const uint64_t *dims = worker->batcher.current->dims;
    return runners_find(&channel->runners[one->request.slot], channel->state, dims, channel->words_in);
}

/* 0 done, 1 for the caller to finish. */
static int run_alone(sidecaml_worker *worker, struct sidecaml_request *out, struct sidecaml_failure *why) {
    const struct taken *one = worker_hand_out(worker, out);
    struct served_channel *channel = one->channel;
    const struct runner *runner = runner_of(worker, one);
    if (!runner) return 1;
    sidecaml_worker_started(worker, out);
    if (runner->run(runner->context, why) < 0) return 1;
    uint64_t engine_ns = worker_engine_ns(worker);
    if (engine_ns) cost_learn(&worker->batcher.current->costs[1], engine_ns);
    channel->state = runner->next_state;
    tell_dims(channel, place_of(channel, out->slot), runner->dims);
    sidecaml_worker_complete(worker, out, 0, NULL);
    return 0;
}

/* --- Several as one ----------------------------------------------------------------------------------------------
 *
 * Of taken[count], whose channels are the worker's parts. */

static void start_together(sidecaml_worker *worker, const struct taken *taken, uint32_t count) {
    for (struct served_channel *channel = worker->parts; channel; channel = channel->next)
        worker_note_start(channel, channel->running, 0);
    worker_begin_engine(worker);
    for (uint32_t i = 0; worker->is_urgent && i < count; i++) {
        const struct sidecaml_request *request = &taken[i].request;
        if (request->stamps) taken[i].channel->ring.slots[request->slot].started_ns = worker->engine_began_ns;
    }
}

static void give_outputs(sidecaml_worker *worker, const struct kind *kind, const struct batch_run *run,
                         const struct taken *taken, uint32_t count) {
    batch_give(&worker->batcher, kind, run, taken, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct taken *one = &taken[i];
        struct served_channel *channel = one->channel;
        struct sidecaml_slot *slot = &channel->ring.slots[one->request.slot];
        tell_dims(channel, (struct place){channel->segment.base, &channel->layout, one->request.slot}, kind->dims);
        if (one->request.stamps) slot->finished_ns = worker_read_clock(worker);
        slot->status = 0;
    }
}

/* All outputs lie where they belong before any is committed, and a channel's are committed before any of its words
 * says DONE (journal.h). One look for a sleeper after all of its words is enough: each of them came before it (wait.h).
 */
static void publish_together(sidecaml_worker *worker, const struct taken *taken, uint32_t count) {
    for (struct served_channel *channel = worker->parts; channel; channel = channel->next)
        worker_commit(channel, channel->running.first + channel->running.count - 1);
    worker_publish_taken(worker, taken, count);
    for (struct served_channel *channel = worker->parts; channel; channel = channel->next)
        worker_wake_client(channel);
}

static void fail_together(sidecaml_worker *worker) {
    for (struct served_channel *channel = worker->parts; channel; channel = channel->next)
        journal_fail(channel->journal, channel->running.first + channel->running.count - 1);
}

/* One alone takes no longer than with others: an estimate that refuses it is put right by runs that it has no part in.
 */
static void learn_together(struct kind *kind, uint32_t count, uint64_t took_ns) {
    cost_learn(&kind->costs[count], took_ns);
    if (kind->costs[1].ns > took_ns) kind->costs[1].ns = took_ns;
}

/* The worker's time, by the requests that took it. */
static void charge_together(sidecaml_worker *worker, const struct taken *taken, uint32_t count) {
    uint64_t took_ns = worker_charge(worker);
    count_more64(&worker->status->batches, 1);
    count_more64(&worker->status->batched, count);
    int64_t share_ns = (int64_t)(took_ns / count);
    for (uint32_t i = 0; i < count; i++)
        taken[i].channel->deficit_ns -= share_ns;
}

enum outcome {
    RAN,
    UNFIT,  /* they cannot be run as one, or copying them takes too long */
    FAILED, /* nothing is published, and in the journal each of them starts anew when it is run alone */
};

/* Copies count as the run does: they take as long whoever waits. */
static bool prepare(sidecaml_worker *worker, const struct taken *taken, uint32_t count, struct batch_run *run) {
    struct kind *kind = worker->batcher.current;
    worker_begin_clock(worker);
    bool is_fit = batch_prepare(&worker->batcher, kind, taken, count, worker->channels, worker->count, run);
    if (!is_fit) worker->began_ns = 0;
    return is_fit;
}

static void end_failed(sidecaml_worker *worker, struct taken *taken, uint32_t count, const struct batch_run *run) {
    fail_together(worker);
    blame_begin(worker, taken, count, !run->in_place, worker_charge(worker));
    store64(&worker->status->running_ns, 0, relaxed); /* what comes next is another run */
}

static enum outcome run_as_one(sidecaml_worker *worker, struct taken *taken, uint32_t count,
                               struct sidecaml_failure *why) {
    struct kind *kind = worker->batcher.current;
    struct batch_run run = {0};
    if (count < 2 || !prepare(worker, taken, count, &run)) return UNFIT;
    start_together(worker, taken, count);
    bool ran = worker->batcher.model.run(run.runner, why) == 0;
    why->code = SIDECAML_OK;
    if (!ran) {
        end_failed(worker, taken, count, &run);
        return FAILED;
    }
    uint64_t engine_ns = worker_engine_ns(worker);
    if (engine_ns) learn_together(kind, count, engine_ns);
    give_outputs(worker, kind, &run, taken, count);
    charge_together(worker, taken, count);
    publish_together(worker, taken, count);
    return RAN;
}

/* Channels gave one request each, round after round: those of a channel come next to each other, the oldest first. */
static void part_by_channel(struct taken *taken, uint32_t count) {
    for (uint32_t i = 1; i < count; i++) {
        struct taken moved = taken[i];
        uint32_t to = i;
        while (to && taken[to - 1].channel != moved.channel)
            to--;
        if (!to) continue; /* its channel's first */
        memmove(&taken[to + 1], &taken[to], (i - to) * sizeof moved);
        taken[to] = moved;
    }
}

/* False: they are to be run one by one, or where neighbours lie as one. */
static bool run_together(sidecaml_worker *worker, struct sidecaml_failure *why) {
    enum outcome outcome = run_as_one(worker, worker->taken, worker->taken_count, why);
    worker->by_stretches = outcome == UNFIT && worker->taken_count > 2;
    if (worker->by_stretches) part_by_channel(worker->taken, worker->taken_count);
    return outcome == RAN;
}

/* What the caller has bound anew is his to run. */
static uint32_t next_stretch(const sidecaml_worker *worker) {
    const struct taken *first = &worker->taken[worker->taken_at];
    uint32_t native = 0, left = worker->taken_count - worker->taken_at;
    while (native < left && first[native].is_native)
        native++;
    return native ? batch_stretch(first, native) : 0;
}

/* The next of the taken requests that are neighbours; false: the next is to be run alone. */
static bool run_stretch(sidecaml_worker *worker, struct sidecaml_failure *why) {
    uint32_t count = worker->by_stretches ? next_stretch(worker) : 0;
    if (count < 2) return false;
    struct taken *first = &worker->taken[worker->taken_at];
    struct served_channel *channel = first->channel;
    worker_forget_parts(worker);
    channel->running = (struct ticket_range){first->request.ticket, count};
    channel->next = NULL;
    worker->parts = channel;
    store64(&worker->status->running_ns, coarse_now_ns(), relaxed); /* as in schedule */
    enum outcome outcome = run_as_one(worker, first, count, why);
    worker->by_stretches = outcome != FAILED;
    if (outcome == RAN) worker->taken_at += count;
    return outcome == RAN;
}

/* --- The loop ---------------------------------------------------------------------------------------------------- */

int sidecaml_worker_serve(sidecaml_worker *worker, uint64_t timeout_ns, struct sidecaml_request *out,
                          struct sidecaml_failure *why) {
    uint64_t began = worker_read_clock(worker);
    why->code = SIDECAML_OK;
    for (;;) {
        while (schedule_goes_on(worker))
            if (!run_stretch(worker, why) && run_alone(worker, out, why) == 1) return 1;
        if ((int64_t)(coarse_now_ns() - began) >= SERVE_TURN_NS) return -SIDECAML_E_AGAIN;
        int status = worker_next(worker, timeout_ns, worker->batcher.model.most);
        if (status != 1) return status;
        if (run_together(worker, why)) worker->taken_at = worker->taken_count;
    }
}
