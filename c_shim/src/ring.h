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
 * Only two steps are raced for, SUBMITTED and RUNNING, where client and worker may both act: those are
 * compare-and-exchanges. Every other state has one owner, who may simply store.
 *
 * Labels pair each release with the acquire that meets it:
 *   REQUEST  client writes inputs, dims, deadline; word = SUBMITTED (release)  ->  worker: word = RUNNING (acquire)
 *   ANSWER   worker writes outputs, dims, status; word = DONE (release)        ->  client loads DONE (acquire)
 *   QUIET    worker is done with an abandoned slot; word = FREE (release)      ->  client loads FREE (acquire)
 *   PARK-W   client: word = SUBMITTED, then load parked;   worker: parked = 1, then load word    (all seq_cst)
 *   PARK-C   worker: word = DONE, then load waiting;       client: waiting = 1, then load word   (all seq_cst)
 * The PARK pairs are argued in wait.h.
 */
#ifndef SIDECAML_RING_H
#define SIDECAML_RING_H

#include "sidecaml/sidecaml.h"

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
};

/* Takes the next request: its slot, or -PENDING. Cancelled tickets are skipped, at most so many a call that a client
 * which scribbles over words cannot keep the worker here for more than a few microseconds. */
#define RING_SKIPS_MOST 1024
int ring_take(struct ring_worker *ring, uint64_t *ticket);
/* Whether ring_take would take or skip something; for the look that follows `parked = 1` (PARK-W). */
bool ring_has_work_seq_cst(const struct ring_worker *ring);
/* 0 published, 1 the client had given up: the slot is free again. `final` is DONE or FAILED. */
int ring_complete(struct ring_worker *ring, uint32_t slot, uint64_t ticket, enum sidecaml_state final);

#endif
