/* How long to spin before sleeping: shared by both sides' waits. */
#ifndef SIDECAML_SPIN_H
#define SIDECAML_SPIN_H

#include "sidecaml/sidecaml.h"

/* The longest spin before sleeping. A parked round trip takes 55 us on a virtual machine, so beyond this waking costs
 * less than a fifth of the wait, and the core is better given back. */
#define SPIN_ADAPTIVE_NS 300000u
/* A spin that never sleeps looks up this often: at the control socket, and for the caller's signals. */
#define SPIN_CHUNK_NS 10000000u
/* Looks at the word between two looks at the clock (about 1 us). */
#define SPIN_LOOKS 32

struct spinner {
    enum sidecaml_policy policy;
    bool one_core;   /* the machine has no other: spinning would keep the peer from it */
    uint32_t misses; /* adaptive waits in a row that spinning would not have caught */
    uint32_t waits;
};

void spinner_init(struct spinner *spinner, enum sidecaml_policy policy);

/* How long the wait that starts now should spin; 0 for not at all. `peer_core` is the peer's published processor plus
 * 1: nobody spins against a peer on its own core. */
uint64_t spinner_budget(struct spinner *spinner, uint32_t peer_core);

/* What the wait turned out to be: adaptive spinning learns from it. */
void spinner_learn(struct spinner *spinner, uint64_t waited_ns);

/* This processor's number plus 1; 0 when unknown. No system call where the C library has restartable sequences or a
 * vDSO. */
uint32_t current_core(void);

/* Between two looks at the clock: a spin that never sleeps gives its core to a peer that last ran on the same one. */
void spin_yield(enum sidecaml_policy policy, uint32_t peer_core);

#endif
