/* The process on the other side: pinned to its core, and gone with its parent, however that ends. */
#ifndef SIDECAML_BENCH_CHILD_H
#define SIDECAML_BENCH_CHILD_H

#include <sys/types.h>

#include "sidecaml/sidecaml.h"

#define ANY_CORE (-1)

struct child {
    pid_t pid; /* 0 when there is none */
    const char *what;
};

/* Forks: the child runs `body(argument)` on `core` and exits with what it returns, or with 1 when it has no answer.
 * It reads nothing, and writes to stderr. `what` names it in failures and must outlive it. */
int child_start(const char *what, int core, int (*body)(void *), void *argument, struct child *out,
                struct sidecaml_failure *why);

/* Waits for the end of a child that means to end: 0, what it `told`, or how it ended. */
int child_wait(struct child *child, const struct sidecaml_failure *told, struct sidecaml_failure *why);

/* From now on, until child_stop, this process prints what the child `told`, or else that it ended, and exits, should
 * the child end: nothing that waits for an answer needs to look. `told` may be NULL, and must outlive the child. */
int child_guard(const struct child *child, const struct sidecaml_failure *told, struct sidecaml_failure *why);

/* Kills it, stopped or not. */
void child_stop(struct child *child);

/* Moves this process to a core. */
int pin(int core, struct sidecaml_failure *why);

#endif
