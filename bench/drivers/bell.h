/* A token passed from one process to another that sleeps until it comes, by each mechanism that could do it. */
#ifndef SIDECAML_BENCH_BELL_H
#define SIDECAML_BENCH_BELL_H

#include <semaphore.h>

#include "sidecaml/sidecaml.h"

/* One direction; each mechanism has its own field. */
struct bell {
    sem_t *semaphore;
    _Atomic uint32_t *word;
    int fd;
};

struct mechanism {
    const char *name;
    /* Before the fork. `semaphore` names one that exists; NULL when none was named. */
    int (*make)(struct bell *bell, const char *semaphore, struct sidecaml_failure *why);
    int (*post)(struct bell *bell, struct sidecaml_failure *why);
    int (*wait)(struct bell *bell, struct sidecaml_failure *why);
};

/* posix, futex or eventfd; INVALID for another. */
int find_mechanism(const char *name, const struct mechanism **out, struct sidecaml_failure *why);

#endif
