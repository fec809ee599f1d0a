/* Changes to the core, made in its atomic accesses and doorbells: each must be found, or the checker is no test. */
#ifndef SIDECAML_INTERLEAVE_MUTANTS_H
#define SIDECAML_INTERLEAVE_MUTANTS_H

#include "scheduler.h"

enum mutant {
    NO_MUTANT,
    WORD_STORE_RELEASE,    /* PARK-W, P1: SUBMITTED stored with release only */
    COMPLETE_ACQ_REL,      /* PARK-C, P1: exchange to DONE not seq_cst */
    PARKED_STORE_RELEASE,  /* PARK-W, W1 */
    WAITING_STORE_RELEASE, /* PARK-C, W1 */
    PARKED_LOAD_ACQUIRE,   /* PARK-W, P2 */
    WAITING_LOAD_ACQUIRE,  /* PARK-C, P2 */
    RECHECK_ACQUIRE,       /* W2 of both: the word loaded with acquire only */
    RECHECK_REMOVED,       /* W2 of both: what was seen before W1 is believed */
    EXCHANGE_DROPPED,      /* the worker posts without taking the flag down */
    POST_DROPPED,          /* P3: the flag is seen and nobody posts */
    DRAIN_DROPPED,         /* a sleeper leaves its post in the doorbell */
    SUBMIT_RELAXED,        /* REQUEST's release */
    TAKE_RELAXED,          /* REQUEST's acquire */
    COMPLETE_RELAXED,      /* ANSWER's release */
    POLL_RELAXED,          /* ANSWER's acquire */
    FREE_RELAXED,          /* QUIET's release */
    CLAIM_RELAXED,         /* QUIET's acquire */
    COMPLETE_BLIND,        /* DONE stored over whatever is there */
    GIVE_UP_BLIND,         /* ABANDONED or FREE stored over whatever is there */
    TAKE_BLIND,            /* RUNNING stored over whatever is there */
    RESUME_POST_DROPPED,   /* a successor believes that nobody sleeps */
    RESUME_FORMATS,        /* a successor begins anew */
    STARTED_DROPPED,       /* runs are not counted */
    COMMITTED_DROPPED,     /* that a run succeeded is not noted */
    MUTANT_COUNT
};

/* Whether it shows only where a worker dies. */
bool mutant_is_of_take_over(enum mutant mutant);
const char *mutant_name(enum mutant mutant);
void mutant_choose(enum mutant mutant);
bool mutant_is(enum mutant mutant);

/* The order that an access gets instead of its own. */
memory_order mutant_load(enum place_kind kind, memory_order order);
memory_order mutant_store(enum place_kind kind, uint64_t value, memory_order order);
memory_order mutant_cas(uint64_t desired, memory_order order);
/* Whether a load that found `value` acquires nothing. */
bool mutant_forgets(enum place_kind kind, uint64_t value);
/* Whether a store is left out. */
bool mutant_drops(enum place_kind kind);
/* Whether a compare-and-exchange is a store that does not look. */
bool mutant_is_blind(uint64_t desired);

#endif
