/* How long to spin before sleeping: shared by both sides' waits.
 *
 * Spinning saves the time that a wake-up takes, 55 us of a round trip on a virtual machine, and costs a core meanwhile.
 * `adaptive` spins only where that is likely to pay and nobody needs the core:
 *
 *   - the next arrival is expected within the longest spin. What is expected is learned from all waits, slept or spun;
 *   - the crowd, of which it is one itself, is no larger than the cores (crowd.h, cores.h), and its peer does not run
 * on the same core;
 *   - it has been right often enough: time spun in vain is paid back before more is risked. One who waits spends at
 * most 1 / SPIN_SHARE of one core on it, and SPIN_CREDIT_NS beyond that in all.
 *
 * `spin` never sleeps, and `block` never spins.
 */
#ifndef SIDECAML_SPIN_H
#define SIDECAML_SPIN_H

#include "cores.h"
#include "sidecaml/sidecaml.h"

/* The longest spin before sleeping. Beyond this, a wake-up is less than a fifth of the wait, and the core is better
 * given back. */
#define SPIN_LONGEST_NS 300000u
/* The shortest: sleeping costs as much. */
#define SPIN_SHORTEST_NS 60000u
/* Between the two, so many times what is expected: an arrival that is later than that has changed its pace. */
#define SPIN_PATIENCE 8
/* In vain: 2 % of one core. Little enough that ten workers whose guesses are all wrong take a fifth of a core from
 * those who work; enough for one that is right in nineteen of twenty waits to spin in each, should they come every 0.75
 * ms. */
#define SPIN_SHARE 50
/* Ten of the longest spins may be spent at once, for a pace that changes. */
#define SPIN_CREDIT_NS (10 * (uint64_t)SPIN_LONGEST_NS)
/* Where none is expected to pay, every so many waits one is tried: a wait that was slept takes longer than one that was
 * spun, so what was learned may be wrong. */
#define SPIN_RETRY_EVERY 32
/* A spin that never sleeps looks up this often: at the control socket, and for the caller's signals. */
#define SPIN_CHUNK_NS 10000000u
/* Looks at the word between two looks at the clock (about 1 us). */
#define SPIN_LOOKS 32

struct spinner {
    enum sidecaml_policy policy;
    bool tries;            /* the wait under way spins although that is not expected to pay */
    uint32_t waits;        /* in which it was not */
    uint64_t expected_ns;  /* how long a wait takes */
    uint64_t spun_ns;      /* so far in the wait under way */
    uint64_t paid_back_at; /* when all that was spun in vain will have been */
    uint64_t spins;        /* that were begun, for who counts them */
    struct cores cores;    /* read for `adaptive` only */
};

/* Who else there is, as far as it is known: 0 where it is not. */
struct company {
    uint32_t peer_core; /* the peer's published processor plus 1 */
    uint32_t crowd;     /* threads at work or spinning, oneself included */
    uint32_t cores;     /* of the daemon */
};

void spinner_init(struct spinner *spinner, enum sidecaml_policy policy);

/* How long the wait that starts now should spin; 0 for not at all. */
uint64_t spinner_budget(struct spinner *spinner, uint64_t now_ns, struct company company);

/* Whether one who spins may go on in this company. */
bool spinner_may(const struct spinner *spinner, struct company company);

/* For spins of few microseconds that begin a wait where the clock is not read: whether they are likely to pay. */
bool spinner_expects(const struct spinner *spinner, struct company company);

/* A spin of this length has ended after so much time, and nothing has come yet. What is beyond its length, others had
 * the core. */
void spinner_spun(struct spinner *spinner, uint64_t length, uint64_t elapsed_ns);
/* Before it sleeps: what it has spun in this wait was in vain. */
void spinner_sleeps(struct spinner *spinner, uint64_t now_ns);
/* The wait is over: what was waited for came after so long. */
void spinner_learn(struct spinner *spinner, uint64_t waited_ns);
/* The wait is given up: it would have taken longer. */
void spinner_learn_longer(struct spinner *spinner, uint64_t now_ns, uint64_t waited_ns);

/* This processor's number plus 1; 0 when unknown. No system call where the C library has restartable sequences or a
 * vDSO. */
uint32_t current_core(void);

/* Between two looks at the clock: a spin that never sleeps gives its core to a peer that last ran on the same one. */
void spin_yield(enum sidecaml_policy policy, uint32_t peer_core);

#endif
