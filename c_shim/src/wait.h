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
 * Wake-ups can be spurious (a post that arrives after its waiter saw the word by itself): whoever wakes looks again.
 */
#ifndef SIDECAML_WAIT_H
#define SIDECAML_WAIT_H

#include "ring.h"
#include "sidecaml/sidecaml.h"

/* --- Client side: PARK-C. The flag is the client block's `waiting`. --- */

/* W1 and W2: announces, looks; the poll result. Anything but -PENDING must not sleep and calls client_unpark. The post
 * of the sleep before is taken back first: here, where the worker is at work, it costs nobody time. */
int client_park(struct sidecaml_client_block *block, const struct ring_client *ring, uint32_t slot, int answer_fd);
void client_unpark(struct sidecaml_client_block *block);
/* P2 and P3 of the worker that has just completed a request. */
void client_wake(struct sidecaml_client_block *block, int answer_fd);

/* --- Worker side: PARK-W. The flag is the status page's `parked`; one for all channels of the worker. --- */

/* W1. The caller then looks at every ring with ring_has_work_seq_cst (W2). */
void worker_park(struct sidecaml_status_page *status);
void worker_unpark(struct sidecaml_status_page *status);
/* P2 and P3 of the client that has just submitted a request. */
void worker_wake(const struct sidecaml_status_page *status, int request_fd);

#endif
