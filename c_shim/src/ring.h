/* The ring of tickets: a slot's life, one compare-and-exchange or store a step. No waiting, no system calls.
 *
 * Ticket k uses slot k mod count. The client hands out tickets in order, the worker takes them in order, they complete
 * and are freed in any order. Tickets have 61 bits and count from 0: at one a nanosecond they last 73 years.
 *
 *   FREE ----client----> SUBMITTED ----worker----> RUNNING ----worker----> DONE | FAILED ----client----> FREE'
 *                            |                        |
 *                            | client (cancel)        | client (gives up)
 *                            v                        v
 *                          FREE'                  ABANDONED ----worker----> FREE'          FREE' awaits ticket + count
 *
 * When a worker died, its successor goes on where the journal says (ring_resume). A ticket that is RUNNING while it is
 * the next to take was taken by the dead: it is taken again. One that is ABANDONED there is freed, one that is DONE or
 * FAILED stepped over: no other worker can have made it so.
 *
 * Only two steps are raced for, SUBMITTED and RUNNING, where client and worker may both act: those are
 * compare-and-exchanges. Every other state has one owner, who may simply store.
 *
 * Labels pair each release with the acquire that meets it:
 *   REQUEST  client writes inputs, dims, deadline; word = SUBMITTED (release)  ->  worker: word = RUNNING (acquire)
 *            The exchange carries the client's release on: a successor that loads RUNNING (acquire) has it, too.
 *   ANSWER   worker writes outputs, dims, status; word = DONE (release)        ->  client loads DONE (acquire)
 *   QUIET    worker is done with an abandoned slot; word = FREE (seq_cst)      ->  client loads FREE (acquire)
 *   PARK-W   client: word = SUBMITTED, then load parked;   worker: parked = 1, then load word    (all seq_cst)
 *   PARK-C   worker: word = DONE, or FREE after ABANDONED, then load waiting;
 *                                                          client: waiting = 1, then load word   (all seq_cst)
 * The PARK pairs are argued in wait.h.
 */
#ifndef SIDECAML_RING_H
#define SIDECAML_RING_H

#include "atomics.h"
#include "sidecaml/sidecaml.h"
#include "word.h"

/* The client's half. */
struct ring_client {
    struct sidecaml_slot *slots;
    uint32_t count;
    uint32_t slot;   /* of the next ticket */
    uint64_t ticket; /* the next one */
    /* Per slot, the ticket of the request that the client still owns there, plus 1; 0 for none. */
    uint64_t *held;
};

/* As the functions of sidecaml.h of the same names. */
int ring_claim(const struct ring_client *ring);
int ring_submit(struct ring_client *ring, uint64_t deadline_ns, uint64_t submitted_ns, uint32_t flags);
/* For the look that follows `waiting = 1` (PARK-C). */
int ring_claim_seq_cst(const struct ring_client *ring);
int ring_claim_run(const struct ring_client *ring, uint32_t most);
int ring_submit_run(struct ring_client *ring, uint32_t count, uint64_t deadline_ns, uint64_t submitted_ns,
                    uint32_t flags);
int ring_poll(const struct ring_client *ring, uint32_t slot);
/* For the look that follows `waiting = 1` (PARK-C). */
int ring_poll_seq_cst(const struct ring_client *ring, uint32_t slot);
int ring_release(struct ring_client *ring, uint32_t slot);
/* Cancels or abandons; 0 when given up, 1 when it turned out finished, and is still held. */
int ring_give_up(struct ring_client *ring, uint32_t slot);
/* Whether the worker may still touch the slot's memory. */
bool ring_is_abandoned(const struct ring_client *ring, uint32_t slot);

/* The worker's half. */
struct ring_worker {
    struct sidecaml_slot *slots;
    uint32_t count;
    uint32_t slot;
    uint64_t ticket; /* the next one to take */
    bool freed;      /* ring_peek freed a slot whose request the client had given up, and nobody has woken it yet */
};

/* Has a successor begin with the first ticket of the run that was started last: what was completed of it is stepped
 * over. */
void ring_resume(struct ring_worker *ring, uint64_t first);
/* Whether a ticket was taken by a predecessor that died. */
bool ring_was_interrupted(const struct ring_worker *ring, uint64_t ticket);

/* Cancelled and finished tickets are skipped by ring_peek, at most so many a call that a client which scribbles over
 * words cannot keep the worker here for more than a few microseconds. */
#define RING_SKIPS_MOST 1024
/* As ring_peek, when there is no request at the first look. */
int ring_skip(struct ring_worker *ring, uint64_t *seen);
/* As ring_complete, of what is not RUNNING any more. */
int ring_complete_given_up(struct ring_worker *ring, uint32_t slot, uint64_t ticket, uint64_t seen);
/* Whether ring_peek would see or skip something; for the look that follows `parked = 1` (PARK-W). */
bool ring_has_work_seq_cst(const struct ring_worker *ring);

/* What every request passes is compiled where it is used: in a batch the calls themselves would be what costs. */

static inline void ring_next_ticket(struct ring_worker *ring) {
    ring->ticket++;
    ring->slot = ring->slot + 1 == ring->count ? 0 : ring->slot + 1;
}

/* The next request: its slot, and its word as it was seen; or -PENDING. */
static inline int ring_peek(struct ring_worker *ring, uint64_t *seen) {
    *seen = load64(&ring->slots[ring->slot].word, acquire); /* REQUEST */
    if (*seen == word_of(ring->ticket, SIDECAML_STATE_SUBMITTED)) return (int)ring->slot;
    if (*seen == word_of(ring->ticket, SIDECAML_STATE_FREE)) return -SIDECAML_E_PENDING;
    return ring_skip(ring, seen);
}

/* Takes what ring_peek saw: true with its ticket, and the next one is the next to peek at; false when the client
 * cancelled it meanwhile. */
static inline bool ring_take(struct ring_worker *ring, uint64_t seen, uint64_t *ticket) {
    /* REQUEST. A failure means that the client cancelled: it is seen as a later ticket next time. What is RUNNING was
     * taken by a predecessor, and no worker but us may move it on. */
    bool is_ours = seen == word_of(ring->ticket, SIDECAML_STATE_RUNNING) ||
                   cas64(&ring->slots[ring->slot].word, &seen, word_of(ring->ticket, SIDECAML_STATE_RUNNING), acq_rel);
    if (!is_ours) return false;
    *ticket = ring->ticket;
    ring_next_ticket(ring);
    return true;
}

/* 0 published, 1 the client had given up: the slot is free again. `final` is DONE or FAILED. */
static inline int ring_complete(struct ring_worker *ring, uint32_t slot, uint64_t ticket, enum sidecaml_state final) {
    uint64_t seen = word_of(ticket, SIDECAML_STATE_RUNNING);
    /* ANSWER, and PARK-C: the caller loads `waiting` next, which must not overtake this exchange. */
    if (cas64(&ring->slots[slot].word, &seen, word_of(ticket, final), seq_cst)) return 0;
    return ring_complete_given_up(ring, slot, ticket, seen);
}

#endif
