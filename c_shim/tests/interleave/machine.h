/* The machine that the threads run on: memory with store buffers, doorbells, and what each thread wants to do next. */
#ifndef SIDECAML_INTERLEAVE_MACHINE_H
#define SIDECAML_INTERLEAVE_MACHINE_H

#include <setjmp.h>

#include "scheduler.h"

#define MOST_PLACES 16
#define MOST_BUFFERED 8

/* What a thread knows to lie before it: for each payload place a bit for its last write and one for each thread's last
 * read of it. Vector clocks in a form that is the same for the same state. */
typedef uint64_t knowledge;
#define KNOWS_ALL UINT64_MAX
#define KNOWS_NOTHING UINT64_C(0)

struct cell {
    const volatile void *address;
    enum place_kind kind;
    uint64_t value;
    knowledge message; /* what an acquire of the value learns */
    int locked_by;     /* thread with a read-modify-write on its way here; -1 for none */
};

/* A store on its way. */
struct buffered {
    int place;
    uint64_t value;
    bool ordered; /* release or stronger: arrives after everything before it */
    bool seq_cst;
    bool locks; /* of a read-modify-write */
    knowledge message;
};

enum operation { OP_NONE, OP_LOAD, OP_STORE, OP_EXCHANGE, OP_CAS, OP_POST, OP_DRAIN, OP_SLEEP, OP_CHANGE, OP_DEATH };

struct step {
    enum operation operation;
    int place; /* or doorbell */
    uint64_t value, expected;
    memory_order order;
    uint32_t mask;
    int control;
    bool timed;
};

/* How a step ends: all but a sleep in one way, or not at all, by the thread's death. */
enum way { AS_ASKED, BY_CONTROL, BY_TIME, BY_DEATH, WAYS };

struct thread {
    jmp_buf resume;
    char *stack_used; /* down to here, between two steps */
    bool started, ended;
    bool mortal, died;
    jmp_buf grave;         /* where it goes on after its death */
    struct step last_wish; /* the step before which it died */
    struct step next;      /* what it wants to do */
    uint64_t result;       /* of the step, for the thread */
    uint64_t history;      /* hash of every result since the last checkpoint */
    uint64_t last_word;    /* read from a slot's word, for RECHECK_REMOVED */
    unsigned version;      /* of the machine, when it began to wait for a change */
    uint64_t clock;
    knowledge knows;
    int buffered_count;
    struct buffered buffered[MOST_BUFFERED];
};

/* Everything that a step changes, but for the threads' stacks and registered regions. */
struct machine {
    int place_count, thread_count;
    int most_buffered;
    unsigned version; /* grows with whatever another thread might wait for */
    int bells[MOST_BELLS];
    int posts_left[MOST_BELLS]; /* posts that have not ended a sleep yet */
    uint64_t payloads[MOST_PAYLOADS];
    struct cell places[MOST_PLACES];
    struct thread threads[MOST_THREADS];
};
extern struct machine machine;

/* Starts with no places; `settle` takes the values of those that were registered. */
void machine_reset(int thread_count, int most_buffered);
void machine_settle(void);
/* Writes the places' values back to their addresses. */
void machine_store_back(void);

bool machine_may_step(int thread, enum way way);
/* Does what the thread wants; its result. */
uint64_t machine_step(int thread, enum way way);
/* Whether the store at `index` of the thread's buffer may arrive now, and its arrival. */
bool machine_may_arrive(int thread, int index);
void machine_arrive(int thread, int index);

static inline uint64_t mix(uint64_t hash, uint64_t value) {
    hash ^= value + 0x9e3779b97f4a7c15u + (hash << 12) + (hash >> 4);
    hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9u;
    return hash ^ hash >> 27;
}
uint64_t machine_hash(uint64_t hash);

/* --- Between the machine and its threads ------------------------------------------------------------------------- */

/* The thread inside its coroutine; -1 outside. */
extern int running;
/* Called by a thread: says what it wants to do next, and comes back with the result when that was done. */
uint64_t take_step(struct step step);
/* The number of a registered place, while threads run; otherwise -1. */
int find_place(const volatile void *address);
/* Reports a finding; called by a thread, it does not come back. */
void found(enum finding finding, const char *what);

#endif
