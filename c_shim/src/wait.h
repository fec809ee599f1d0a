/* Park and wake: how neither side sleeps while there is something for it, with no system call while both are awake.
 *
 * A waiter that wants to sleep raises its flag, looks at the words once more, and only then sleeps on its doorbell. The
 * other side publishes a word, looks at the flag, and posts the doorbell if it is up:
 *
 *   waiter                                   publisher
 *   W1  flag = 1            (seq_cst)        P1  word = ready        (seq_cst)
 *   W2  look at word        (seq_cst)        P2  look at flag        (seq_cst)
 *   W3  word not ready: sleep on doorbell    P3  flag up: post doorbell
 *
 * No wake-up is lost: the four accesses have one order that both sides agree on (that is what seq_cst buys). If P1
 * comes before W2, the waiter sees the word and does not sleep. Otherwise W2 comes before P1, so W1 < W2 < P1 < P2: the
 * publisher sees the flag and posts, and a doorbell remembers a post that comes before the sleep. With release and
 * acquire alone, each side's load may overtake its own store, both may see the old value, and the waiter sleeps for
 * ever; c_shim/tests/interleave finds exactly that when an access is weakened.
 *
 * A channel may be moved from worker A to worker B, which is told by the block that says whose flag counts (MOVE):
 *
 *   B                                        client
 *   M1  block = B           (seq_cst)        P1  word = SUBMITTED    (seq_cst)
 *   ... W1, W2 before any sleep              P1' look at block       (seq_cst), then P2 at that worker's flag
 *
 * Should P1' still find A, it comes before M1 in the one order, and so P1 before W2 of B: B sees the word. Otherwise
 * the flag that P2 looks at is B's own, and the argument above holds.
 *
 * A waiter for any of several words looks at each of them at W2, after one W1. For each word the argument is the one
 * above: a publisher whose P1 comes after the look at its word also has its P2 after W1, so it sees the flag, or finds
 * it taken by another publisher, who posts. Either way there is a post that the waiter has not taken back: it takes
 * posts of earlier sleeps back before W1 only. One post is enough for several answers, since whoever wakes looks at
 * all of them. So it may look at the words in any order, but has to look at every one: a word that is left out has no
 * W2, and its publisher may have passed P2 before W1.
 *
 * A waiter for the turn of a slot whose request it has given up waits for the word to become FREE instead of DONE: the
 * worker publishes that in the same way.
 *
 * Wake-ups can be spurious (a post that arrives after its waiter saw the word by itself): whoever wakes looks again.
 */
#ifndef SIDECAML_WAIT_H
#define SIDECAML_WAIT_H

#include "doorbell.h"
#include "ring.h"
#include "sidecaml/sidecaml.h"

/* --- Client side: PARK-C. The flag is the client block's `waiting`. --- */

/* W1 and W2: announces, looks; the poll result. Who waits for more than this slot looks at the others next, with
 * ring_poll_seq_cst or ring_claim_seq_cst. Anything but -PENDING must not sleep and calls client_unpark. The post
 * of the sleep before is taken back first: here, where the worker is at work, it costs nobody time. */
int client_park(struct sidecaml_client_block *block, const struct ring_client *ring, uint32_t slot,
                struct doorbell answer);
void client_unpark(struct sidecaml_client_block *block);
/* P2 and P3 of the worker that has just completed a request. */
void client_wake(struct sidecaml_client_block *block, struct doorbell answer);

/* --- Worker side: PARK-W. The flag is the status page's `parked`; one for all channels of the worker. --- */

/* W1. The caller then looks at every ring with ring_has_work_seq_cst (W2). */
void worker_park(struct sidecaml_status_page *status);
void worker_unpark(struct sidecaml_status_page *status);
/* P2 and P3 of the client that has just submitted a request. */
void worker_wake(const struct sidecaml_status_page *status, struct doorbell request);

#endif
