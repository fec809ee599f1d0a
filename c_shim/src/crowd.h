/* How crowded the machine is: the threads that are busy, or spin, for any worker of the daemon.
 *
 * The workers of a daemon share a page, with an entry for each on lines of its own. A worker says there how many
 * threads it has while it is awake, and who its clients of late are: whoever may be spinning for an answer of its, or
 * be busy with its next request. A client cannot write there; its worker's status page tells it the sum, in `crowd`.
 *
 * Nobody spins where the crowd, itself included, is larger than the cores. A worker that wakes says so first and looks
 * at the others then (AWAKE): of two that wake at the same time, at least one sees the other. What a worker leaves that
 * was killed is the supervisor's to zero.
 *
 * Clients are counted by a number that each thread chooses at random, so that one with channels to several workers
 * counts once. The number stands for one of CROWD_CLIENTS bits: with fifty clients a tenth of them share another's, and
 * the crowd is said to be that much smaller than it is.
 */
#ifndef SIDECAML_CROWD_H
#define SIDECAML_CROWD_H

#include "mapping.h"
#include "sidecaml/sidecaml.h"

#define CROWD_CLIENTS 256
#define CROWD_WORDS (CROWD_CLIENTS / 64)
/* A client counts from its request on until the end of the next epoch, of 67 ms each. That is longer than a tick of the
 * kernel's, which is the clock that a busy worker goes by, and than a thread waits for its turn on a crowded core: who
 * waits is not gone. */
#define CROWD_EPOCH_SHIFT 26
/* How old a count may be. */
#define CROWD_LOOK_NS 20000u

_Static_assert(CROWD_WORDS * sizeof(uint64_t) == sizeof((struct sidecaml_crowd_entry *)0)->clients, "a bit for each");

/* One worker's part in it. */
struct crowd {
    struct mapping mapping;
    struct sidecaml_crowd_page *page;   /* NULL: it knows of no other worker */
    struct sidecaml_crowd_entry *entry; /* in the page, or `alone` */
    struct sidecaml_crowd_entry alone;
    uint32_t threads;              /* that a run takes */
    uint64_t epoch;                /* the latest that was seen */
    uint64_t clients[CROWD_WORDS]; /* of that epoch */
    uint64_t earlier[CROWD_WORDS]; /* of the one before */
    uint64_t counted_ns;
    uint32_t count;
};

/* Alone and awake, with one thread. */
void crowd_init(struct crowd *crowd);
/* Among the others of the page `fd`, awake, with an entry of its own there and so many threads. The descriptor is not
 * needed any more. Fails with INVALID for an entry that there is not, CORRUPT where it is no crowd page. */
int crowd_join(struct crowd *crowd, int fd, uint32_t entry, uint32_t threads, struct sidecaml_failure *why);
void crowd_leave(struct crowd *crowd);

/* Before the worker sleeps, and after. */
void crowd_sleep(struct crowd *crowd);
void crowd_wake(struct crowd *crowd);

/* A request has come from a client. Once an epoch is enough for each. */
void crowd_meet(struct crowd *crowd, uint64_t now_ns, uint32_t client);
static inline uint64_t crowd_epoch(uint64_t now_ns) {
    return now_ns >> CROWD_EPOCH_SHIFT;
}

/* The threads of all workers that are awake, its own included, and their clients; at most CROWD_LOOK_NS old. */
uint32_t crowd_count(struct crowd *crowd, uint64_t now_ns);

#endif
