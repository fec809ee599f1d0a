#define _GNU_SOURCE
#include "spin.h"

#include <sched.h>
#include <unistd.h>

/* After so many misses in a row spinning is tried only now and then, to notice when the pace changes. */
#define MISSES_MOST 4
#define RETRY_EVERY 32

void spinner_init(struct spinner *spinner, enum sidecaml_policy policy) {
    *spinner = (struct spinner){.policy = policy, .one_core = sysconf(_SC_NPROCESSORS_ONLN) == 1};
}

uint64_t spinner_budget(struct spinner *spinner, uint32_t peer_core) {
    switch (spinner->policy) {
    case SIDECAML_SPIN:
        return SPIN_CHUNK_NS;
    case SIDECAML_ADAPTIVE:
        if (spinner->one_core || (peer_core && peer_core == current_core())) return 0;
        spinner->waits++;
        if (spinner->misses >= MISSES_MOST && spinner->waits % RETRY_EVERY) return 0;
        return SPIN_ADAPTIVE_NS;
    default:
        return 0;
    }
}

void spinner_learn(struct spinner *spinner, uint64_t waited_ns) {
    if (waited_ns <= SPIN_ADAPTIVE_NS)
        spinner->misses = 0;
    else if (spinner->misses < MISSES_MOST)
        spinner->misses++;
}

uint32_t current_core(void) {
    int core = sched_getcpu();
    return core < 0 ? 0 : (uint32_t)core + 1;
}

void spin_yield(enum sidecaml_policy policy, uint32_t peer_core) {
    if (policy == SIDECAML_SPIN && peer_core && peer_core == current_core()) sched_yield();
}
