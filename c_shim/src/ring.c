#include "ring.h"

#include "atomics.h"
#include "checked.h"
#include "crash_point.h"
#include "word.h"

/* --- Client ------------------------------------------------------------------------------------------------------ */

/* Whether a ticket to come may be filled in, whose slot has this word: 0, or why not. */
static int claimable(const struct ring_client *ring, uint32_t slot, uint64_t ticket, uint64_t word) {
    if (word == word_of(ticket, SIDECAML_STATE_FREE)) return 0;
    if (ring->held[slot]) return -SIDECAML_E_FULL;
    if (word == word_of(ticket - ring->count, SIDECAML_STATE_ABANDONED)) return -SIDECAML_E_BUSY;
    return -SIDECAML_E_CORRUPT;
}

int ring_claim(const struct ring_client *ring) {
    /* QUIET: the worker that freed this slot no longer reads its inputs. */
    int status = claimable(ring, ring->slot, ring->ticket, load64(&ring->slots[ring->slot].word, acquire));
    return status < 0 ? status : (int)ring->slot;
}

int ring_claim_seq_cst(const struct ring_client *ring) {
    /* QUIET, PARK-C */
    int status = claimable(ring, ring->slot, ring->ticket, load64(&ring->slots[ring->slot].word, seq_cst));
    return status < 0 ? status : (int)ring->slot;
}

/* Of a number below twice the count: no division on the request path. */
static uint32_t slot_at(const struct ring_client *ring, uint32_t number) {
    return number < ring->count ? number : number - ring->count;
}

int ring_claim_run(const struct ring_client *ring, uint32_t most) {
    uint32_t count = 0, slot = ring->slot;
    int status = 0;
    for (; count < most && count < ring->count; count++, slot = slot_at(ring, slot + 1)) {
        /* QUIET */
        status = claimable(ring, slot, ring->ticket + count, load64(&ring->slots[slot].word, acquire));
        if (status < 0) break;
    }
    return count > 0 ? (int)count : status;
}

int ring_submit_run(struct ring_client *ring, uint32_t count, uint64_t deadline_ns, uint64_t submitted_ns,
                    uint32_t flags) {
    int claimed = ring_claim_run(ring, count);
    if (claimed < 0) return claimed;
    if (count == 0 || (uint32_t)claimed < count) return -SIDECAML_E_INVALID;
    uint32_t first = ring->slot, slot = slot_at(ring, first + count - 1);
    for (uint32_t left = count; left > 0; left--) {
        struct sidecaml_slot *request = &ring->slots[slot];
        request->deadline_ns = deadline_ns;
        request->submitted_ns = submitted_ns;
        request->flags = left > 1 ? flags & ~SIDECAML_SLOT_RESET : flags;
        uint64_t ticket = ring->ticket + left - 1;
        ring->held[slot] = ticket + 1;
        /* REQUEST. The first of them comes last, so that a worker finds all of them or none: only that one can be the
         * word at which it looks before it sleeps. */
        if (left > 1) store64(&request->word, word_of(ticket, SIDECAML_STATE_SUBMITTED), release);
        slot = slot == 0 ? ring->count - 1 : slot - 1;
    }
    /* REQUEST, and PARK-W: the caller loads `parked` next, which must not overtake this store. */
    store64(&ring->slots[first].word, word_of(ring->ticket, SIDECAML_STATE_SUBMITTED), seq_cst);
    ring->ticket += count;
    ring->slot = slot_at(ring, first + count);
    return (int)first;
}

int ring_submit(struct ring_client *ring, uint64_t deadline_ns, uint64_t submitted_ns, uint32_t flags) {
    return ring_submit_run(ring, 1, deadline_ns, submitted_ns, flags);
}

static int failure_of(const struct sidecaml_slot *slot) {
    int32_t status = read_once(slot->status);
    /* Only what a request can fail with: the library's own results (TIMEOUT, BUSY...) must not come from the peer. */
    return is_request_failure(status) ? status : -SIDECAML_E_ENGINE;
}

static int result_of(const struct ring_client *ring, uint32_t slot, uint64_t word) {
    uint64_t ticket = ring->held[slot] - 1;
    if (word == word_of(ticket, SIDECAML_STATE_DONE)) return 0;
    if (word == word_of(ticket, SIDECAML_STATE_FAILED)) return failure_of(&ring->slots[slot]);
    if (word == word_of(ticket, SIDECAML_STATE_SUBMITTED) || word == word_of(ticket, SIDECAML_STATE_RUNNING))
        return -SIDECAML_E_PENDING;
    return -SIDECAML_E_CORRUPT;
}

int ring_poll(const struct ring_client *ring, uint32_t slot) {
    if (slot >= ring->count || !ring->held[slot]) return -SIDECAML_E_INVALID;
    return result_of(ring, slot, load64(&ring->slots[slot].word, acquire)); /* ANSWER */
}

int ring_poll_seq_cst(const struct ring_client *ring, uint32_t slot) {
    if (slot >= ring->count || !ring->held[slot]) return -SIDECAML_E_INVALID;
    return result_of(ring, slot, load64(&ring->slots[slot].word, seq_cst)); /* ANSWER, PARK-C */
}

static uint64_t next_free(const struct ring_client *ring, uint64_t ticket) {
    return word_of(ticket + ring->count, SIDECAML_STATE_FREE);
}

int ring_release(struct ring_client *ring, uint32_t slot) {
    if (slot >= ring->count || !ring->held[slot]) return -SIDECAML_E_INVALID;
    uint64_t ticket = ring->held[slot] - 1;
    /* Relaxed: the loads that saw the answer have acquired it, and nobody else writes a finished slot's word. */
    uint64_t word = load64(&ring->slots[slot].word, relaxed);
    if (word != word_of(ticket, SIDECAML_STATE_DONE) && word != word_of(ticket, SIDECAML_STATE_FAILED))
        return -SIDECAML_E_INVALID;
    ring->held[slot] = 0;
    /* Release, though only this client acts on a FREE word: a successor of the worker may look at it. */
    store64(&ring->slots[slot].word, next_free(ring, ticket), release);
    return 0;
}

int ring_give_up(struct ring_client *ring, uint32_t slot) {
    if (slot >= ring->count || !ring->held[slot]) return -SIDECAML_E_INVALID;
    uint64_t ticket = ring->held[slot] - 1;
    _Atomic uint64_t *word = &ring->slots[slot].word;
    uint64_t seen = load64(word, acquire);
    /* A word moves on at most twice while we look: SUBMITTED to RUNNING, RUNNING to finished. */
    for (;;) {
        bool cancel = seen == word_of(ticket, SIDECAML_STATE_SUBMITTED);
        if (!cancel && seen != word_of(ticket, SIDECAML_STATE_RUNNING)) break;
        uint64_t wanted = cancel ? next_free(ring, ticket) : word_of(ticket, SIDECAML_STATE_ABANDONED);
        if (cas64(word, &seen, wanted, acq_rel)) {
            ring->held[slot] = 0;
            return 0;
        }
    }
    return result_of(ring, slot, seen) == -SIDECAML_E_CORRUPT ? -SIDECAML_E_CORRUPT : 1;
}

bool ring_is_abandoned(const struct ring_client *ring, uint32_t slot) {
    return word_state(load64(&ring->slots[slot].word, acquire)) == SIDECAML_STATE_ABANDONED;
}

/* --- Worker ------------------------------------------------------------------------------------------------------ */

/* Whether a word belongs to a ticket after `ticket`, modulo 2^61. */
static bool is_later(uint64_t word, uint64_t ticket) {
    uint64_t distance = (word - word_of(ticket, SIDECAML_STATE_FREE)) >> SIDECAML_STATE_BITS;
    return distance != 0 && distance < (uint64_t)1 << 60;
}

/* Whether a word says that a predecessor has completed `ticket`. */
static bool is_finished(uint64_t word, uint64_t ticket) {
    return word == word_of(ticket, SIDECAML_STATE_DONE) || word == word_of(ticket, SIDECAML_STATE_FAILED);
}

void ring_resume(struct ring_worker *ring, uint64_t first) {
    ring->ticket = first;
    ring->slot = (uint32_t)(first % ring->count);
}

bool ring_was_interrupted(const struct ring_worker *ring, uint64_t ticket) {
    return load64(&ring->slots[ticket % ring->count].word, acquire) == word_of(ticket, SIDECAML_STATE_RUNNING);
}

int ring_skip(struct ring_worker *ring, uint64_t *seen) {
    for (int skipped = 0; skipped < RING_SKIPS_MOST; skipped++) {
        _Atomic uint64_t *word = &ring->slots[ring->slot].word;
        *seen = load64(word, acquire); /* REQUEST */
        if (*seen == word_of(ring->ticket, SIDECAML_STATE_SUBMITTED) ||
            *seen == word_of(ring->ticket, SIDECAML_STATE_RUNNING))
            return (int)ring->slot;
        if (*seen == word_of(ring->ticket, SIDECAML_STATE_ABANDONED)) {
            /* QUIET, its worker being dead, and PARK-C */
            store64(word, word_of(ring->ticket + ring->count, SIDECAML_STATE_FREE), seq_cst);
            ring->freed = true;
        } else if (!is_finished(*seen, ring->ticket) && !is_later(*seen, ring->ticket))
            return -SIDECAML_E_PENDING;
        ring_next_ticket(ring);
    }
    return -SIDECAML_E_PENDING;
}

/* Whether a word of `ticket` itself is for the worker to act on, or to step over. */
static bool is_for_worker(uint64_t word, uint64_t ticket) {
    return word == word_of(ticket, SIDECAML_STATE_SUBMITTED) || word == word_of(ticket, SIDECAML_STATE_RUNNING) ||
           word == word_of(ticket, SIDECAML_STATE_ABANDONED) || is_finished(word, ticket);
}

bool ring_has_work_seq_cst(const struct ring_worker *ring) {
    uint64_t seen = load64(&ring->slots[ring->slot].word, seq_cst); /* PARK-W */
    return is_for_worker(seen, ring->ticket) || is_later(seen, ring->ticket);
}

int ring_complete_given_up(struct ring_worker *ring, uint32_t slot, uint64_t ticket, uint64_t seen) {
    /* QUIET, and PARK-C. A word that is neither RUNNING nor ABANDONED was scribbled over or punched out by its own
     * client, whose loss it is: left alone. */
    if (seen == word_of(ticket, SIDECAML_STATE_ABANDONED)) {
        CRASH_POINT("worker.abandoned-seen");
        store64(&ring->slots[slot].word, word_of(ticket + ring->count, SIDECAML_STATE_FREE), seq_cst);
    }
    return 1;
}
