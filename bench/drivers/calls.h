/* A caller's calls: what is timed, and what is done around it. */
#ifndef SIDECAML_BENCH_CALLS_H
#define SIDECAML_BENCH_CALLS_H

#include "path.h"

/* A path that was opened. */
struct driver {
    const struct path *path;
    struct opened opened;
};

/* What `call` asks for. */
struct timing {
    uint64_t touch_bytes; /* of the caller's own memory, between calls */
    uint64_t count;
    uint64_t budget_ns;
};

/* Fills every input and runs. */
int calls_run(const struct driver *driver, uint64_t seed, struct sidecaml_failure *why);

/* Warms up, then times calls into `samples`, room for `count`: how many were made. */
int calls_time(const struct driver *driver, const struct timing *timing, uint64_t *samples, uint64_t *made,
               struct sidecaml_failure *why);

#endif
