/* Runs two or three threads through every interleaving of their shared accesses, under a memory model weaker than any
 * processor's that the project runs on, and looks for what must not happen.
 *
 * The threads are coroutines. Each atomic access, doorbell and sleep of theirs is a step; between steps the scheduler
 * chooses who goes next, depth first through all choices, going back by copying memory and stacks. A state is what
 * shared memory, buffers, private memory and every thread's history of read values since its last checkpoint say: a
 * state seen before is not explored twice.
 *
 * The memory model (allowed by C11, and looser than x86 and Armv8 for the accesses that the core makes):
 *   - Every store, also that of a read-modify-write, waits in its thread's buffer and reaches memory at any later step.
 *     The thread itself sees it at once, the others when it arrives. Stores to one place arrive in order; a release
 *     store, and a seq_cst one, only after everything that its thread stored before.
 *   - A seq_cst load or read-modify-write first waits for its thread's seq_cst stores to arrive: this is what makes
 *     seq_cst accesses one order, and a release store followed by a load no order at all.
 *   - A read-modify-write reads the latest value; nobody else may store to its place until its own store has arrived.
 *   - Happens-before is tracked from release to acquire. Payload is accessed through payload_write
 *     and payload_read, which fail on a race: that finds a missing acquire as well as a missing release.
 */
#ifndef SIDECAML_INTERLEAVE_SCHEDULER_H
#define SIDECAML_INTERLEAVE_SCHEDULER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOST_THREADS 3

enum finding {
    NOTHING_FOUND,
    LOST_WAKE_UP,  /* a thread sleeps for ever */
    DATA_RACE,     /* payload is accessed without order */
    WRONG_ANSWER,  /* an expectation of the scenario does not hold */
    ENDLESS_LOOP,  /* more steps than any schedule needs */
    STALE_DOORBELL /* a sleep was cut short by a post of long ago, again and again */
};
const char *finding_name(enum finding finding);

/* --- What a scenario is made of ---------------------------------------------------------------------------------- */

struct scenario {
    int thread_count;
    int most_buffered; /* stores of a thread on their way at a time; 0: they arrive at once */
    void (*const *threads)(void);
    /* After all threads have ended and every store has arrived. */
    void (*at_end)(void);
    /* What the threads remember outside their stacks, as a number. */
    uint64_t (*hash_private)(void);
};

/* For use inside threads and at_end: reports what was found and gives the schedule up. */
void expect(bool holds, const char *what);

/* Runs `life`, in which the thread may die before any of its steps: nothing more of it happens then, and the thread
 * goes on here, as a process that learns of the death. Whether it died. Who takes part in no such story never dies. */
bool dies_in(void (*life)(void));
/* Whether the thread's last death kept it from publishing the answer that it had computed. */
bool died_before_publishing(void);

/* Payload: place numbers are the scenario's own, below MOST_PAYLOADS. */
#define MOST_PAYLOADS 8
void payload_write(int place, uint64_t value);
uint64_t payload_read(int place);

/* Says that what the running thread will do from here on follows from `where` and private memory alone. */
void checkpoint(uint64_t where);

/* Waits until another thread has changed something: for loops that would poll. */
void wait_for_change(void);

/* --- Places and doorbells ---------------------------------------------------------------------------------------- */

enum place_kind { WORD, WAITING, PARKED, STARTED, COMMITTED, KINDS };
/* Accesses to places that are not registered (counters, hints) are no steps: nothing depends on them. */
void register_place(const volatile void *place, enum place_kind kind);
/* Memory that the threads change besides. */
void register_region(void *at, size_t bytes);

/* Doorbells are numbers below MOST_BELLS; their counts are the scheduler's. */
#define MOST_BELLS 8
void bell_post(int bell);
void bell_drain(int bell, uint32_t most);
/* Sleeps until one of the doorbells of `mask` is posted (their mask), the control socket `control` (a doorbell too; -1
 * for none) is posted (SLEEP_CONTROL), or the time is up, if `timed` (SLEEP_TIMEOUT). */
#define SLEEP_CONTROL (1u << 30)
#define SLEEP_TIMEOUT (1u << 31)
uint32_t bell_sleep(uint32_t mask, int control, bool timed);
int bell_count(int bell);
/* Posts a control socket; no mutant drops that. */
void control_post(int bell);
/* The clock of the running thread: jumps ahead when its sleep times out. */
uint64_t thread_clock(void);
#define CLOCK_START 1000u
#define CLOCK_LATER 3000u

/* --- Exploring --------------------------------------------------------------------------------------------------- */

struct exploration {
    enum finding finding;
    char what[256]; /* of the finding */
    unsigned long long states, steps;
    unsigned long long ends; /* different states in which all threads have ended */
};
/* Explores every schedule of the scenario, or up to the first finding. `start` brings the memory that is not the
 * scheduler's to the start, and registers places and regions. */
void explore(const struct scenario *scenario, void (*start)(void), struct exploration *out);

/* Prints the accesses of the schedule in which something was found. */
void print_found_schedule(void);

#endif
