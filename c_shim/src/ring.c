#include "ring.h"

#include "atomics.h"
#include "checked.h"
#include "word.h"

/* --- Client ------------------------------------------------------------------------------------------------------ */

int ring_claim(const struct ring_client *ring) {
    /* QUIET: the worker that freed this slot no longer reads its inputs. */
    uint64_t word = load64(&ring->slots[ring->slot].word, acquire);
    if (word == word_of(ring->ticket, SIDECAML_STATE_FREE)) return (int)ring->slot;
    if (ring->held[ring->slot]) return -SIDECAML_E_FULL;
    if (word == word_of(ring->ticket - ring->count, SIDECAML_STATE_ABANDONED)) return -SIDECAML_E_BUSY;
    return -SIDECAML_E_CORRUPT;
}

int ring_submit(struct ring_client *ring, uint64_t deadline_ns, uint64_t submitted_ns, uint32_t flags) {
    int claimed = ring_claim(ring);
    if (claimed < 0) return claimed;
    struct sidecaml_slot *slot = &ring->slots[claimed];
    slot->deadline_ns = deadline_ns;
    slot->submitted_ns = submitted_ns;
    slot->flags = flags;
    /* REQUEST, and PARK-W: the caller loads `parked` next, which must not overtake this store. */
    store64(&slot->word, word_of(ring->ticket, SIDECAML_STATE_SUBMITTED), seq_cst);
    ring->ticket++;
    ring->held[claimed] = ring->ticket;
    ring->slot = (uint32_t)claimed + 1 == ring->count ? 0 : (uint32_t)claimed + 1;
    return claimed;
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

static void next_ticket(struct ring_worker *ring) {
    ring->ticket++;
    ring->slot = ring->slot + 1 == ring->count ? 0 : ring->slot + 1;
}

/* Whether a word belongs to a ticket after `ticket`, modulo 2^61. */
static bool is_later(uint64_t word, uint64_t ticket) {
    uint64_t distance = (word - word_of(ticket, SIDECAML_STATE_FREE)) >> SIDECAML_STATE_BITS;
    return distance != 0 && distance < (uint64_t)1 << 60;
}

int ring_take(struct ring_worker *ring, uint64_t *ticket) {
    for (int skipped = 0; skipped < RING_SKIPS_MOST; skipped++) {
        _Atomic uint64_t *word = &ring->slots[ring->slot].word;
        uint64_t seen = load64(word, acquire);
        if (seen == word_of(ring->ticket, SIDECAML_STATE_SUBMITTED)) {
            /* REQUEST. A failure means that the client cancelled: it is seen as a later ticket below. */
            if (cas64(word, &seen, word_of(ring->ticket, SIDECAML_STATE_RUNNING), acq_rel)) {
                int slot = (int)ring->slot;
                *ticket = ring->ticket;
                next_ticket(ring);
                return slot;
            }
        }
        if (!is_later(seen, ring->ticket)) return -SIDECAML_E_PENDING;
        next_ticket(ring);
    }
    return -SIDECAML_E_PENDING;
}

bool ring_has_work_seq_cst(const struct ring_worker *ring) {
    uint64_t seen = load64(&ring->slots[ring->slot].word, seq_cst); /* PARK-W */
    return seen == word_of(ring->ticket, SIDECAML_STATE_SUBMITTED) || is_later(seen, ring->ticket);
}

int ring_complete(struct ring_worker *ring, uint32_t slot, uint64_t ticket, enum sidecaml_state final) {
    _Atomic uint64_t *word = &ring->slots[slot].word;
    uint64_t seen = word_of(ticket, SIDECAML_STATE_RUNNING);
    /* ANSWER, and PARK-C: the caller loads `waiting` next, which must not overtake this exchange. */
    if (cas64(word, &seen, word_of(ticket, final), seq_cst)) return 0;
    /* QUIET. A word that is neither RUNNING nor ABANDONED was scribbled over or punched out by its own client, whose
     * loss it is: left alone. */
    if (seen == word_of(ticket, SIDECAML_STATE_ABANDONED))
        store64(word, word_of(ticket + ring->count, SIDECAML_STATE_FREE), release);
    return 1;
}
