/* Runs that are told to stop when their time is over. One thread for the whole process watches all deadlines; it is
 * started when the first is set, and sleeps until the earliest.
 *
 * Setting a deadline and taking it back are one atomic step each, without a lock or a system call, unless the watcher
 * sleeps beyond the new deadline. No deadline is lost:
 *
 *     a run (ARM)                               the watcher (LOOK)
 *     at = deadline             seq_cst         wake_at = the earliest it has seen    seq_cst
 *     deadline < wake_at?       seq_cst         looks at every `at` again             seq_cst
 *       then: lock, signal, unlock                is one earlier? then once more from the start
 *                                               sleeps until wake_at, giving the lock back in the same step
 *
 * All four are in one order. If the run's look comes after the watcher's store, it sees how long that means to sleep,
 * and wakes it: with the lock, so that the signal cannot fall between the watcher's second look and its sleep. If it
 * comes before, its own store came before too, and the watcher's second look sees the deadline.
 *
 * Whose is a run at its deadline? Run and watcher both go by compare-and-exchange on `at` (DONE), so one of them has
 * it. The watcher claims and tells the run to stop under the lock; a run that finds itself claimed takes the lock once
 * (STOPPED), and knows then that it has been told and will not be told again.
 */
#ifndef SIDECAML_DEADLINE_H
#define SIDECAML_DEADLINE_H

#include "atomics.h"
#include "sidecaml/sidecaml.h"

struct deadline {
    _Atomic uint64_t at; /* what is armed; otherwise DEADLINE_NONE or DEADLINE_PASSED */
    void (*tell)(void *context, bool stop);
    void *context;
    struct deadline *next;
};

#define DEADLINE_NONE UINT64_C(0)
#define DEADLINE_PASSED UINT64_MAX

/* Adds one to what is watched, idle: `tell(context, true)` will come from the watcher's thread, with the lock held, so
 * it must neither wait nor call anything here. */
void deadline_add(struct deadline *deadline, void (*tell)(void *context, bool stop), void *context);
/* Idle as well. */
void deadline_remove(struct deadline *deadline);

/* Before a run; `at` is neither DEADLINE_NONE nor DEADLINE_PASSED. Fails with SYSTEM where there is no watcher and none
 * can be started. */
int deadline_arm(struct deadline *deadline, uint64_t at, struct sidecaml_failure *why);
/* After it, with the same `at`; whether the run was told to stop, which is taken back here. */
bool deadline_disarm(struct deadline *deadline, uint64_t at);

#endif
