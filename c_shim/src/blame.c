#include "blame.h"

/* So many requests of a channel run alone, and succeed, before it has a part in batches again. */
#define SPOILED_FOR 64

/* Who goes by time on the engine owes for what comes from then on, so that is first. */
static void charge(sidecaml_worker *worker, struct served_channel *channel) {
    schedule_go_apart(worker, channel->level);
    channel->spoiled = SPOILED_FOR;
    channel->deficit_ns -= (int64_t)worker->failed.took_ns;
    worker->failed.took_ns = 0;
    worker->failed.is_answered = true;
}

void blame_begin(sidecaml_worker *worker, struct taken *taken, uint32_t count, bool is_copied, uint64_t took_ns) {
    for (uint32_t i = 0; i < count; i++)
        taken[i].failed_at = i + 1;
    worker->failed = (struct failed_batch){.count = count, .is_copied = is_copied, .took_ns = took_ns};
}

/* Of a client that is not trusted its own copy is compared, which nobody changes any more. */
void blame_compare(sidecaml_worker *worker, const struct taken *one) {
    const struct failed_batch *failed = &worker->failed;
    if (!one->failed_at || !failed->is_copied) return;
    const struct place place = place_of(one->channel, one->request.slot);
    if (!batch_has_copied(&worker->batcher, one, place, one->failed_at - 1, failed->count))
        charge(worker, one->channel);
}

void blame_outcome(sidecaml_worker *worker, const struct taken *one, int status) {
    if (status && one->failed_at)
        charge(worker, one->channel);
    else if (!status && one->channel->spoiled)
        one->channel->spoiled--;
}

void blame_refused(const struct taken *one) {
    one->channel->is_suspect |= one->failed_at > 0;
}

void blame_end(sidecaml_worker *worker) {
    bool is_suspected = false;
    if (!worker->failed.count) return;
    for (struct served_channel *part = worker->parts; part; part = part->next)
        is_suspected |= part->is_suspect;
    for (struct served_channel *part = worker->parts; part; part = part->next) {
        if (!worker->failed.is_answered && part->is_suspect == is_suspected) part->spoiled = SPOILED_FOR;
        part->is_suspect = false;
    }
    worker->failed = (struct failed_batch){0};
}
