/* What keeps a worker alive when pages of a segment are taken away under it.
 *
 * Client and worker map the same file, and a client may shorten it, or punch pages out that a full file system cannot
 * give back: whoever touches such a page next gets SIGBUS. Ranges that are entered here get private pages of zeros in
 * their place, and are broken from then on; a fault anywhere else is what it would be without this (guard.c).
 *
 * Any thread may fault, while others add and remove ranges: the handler reads a fixed table of atomics.
 */
#ifndef SIDECAML_GUARD_H
#define SIDECAML_GUARD_H

#include <stddef.h>

#include "atomics.h"

/* More than the channels that a daemon has by default. */
#define GUARD_RANGES 4096

struct guarded {
    _Atomic uint64_t start; /* 0: the entry is free */
    _Atomic uint64_t end;
    _Atomic uint64_t pins;   /* handlers that look at the entry: it must not be removed under them */
    _Atomic uint32_t broken; /* pages of the range were missing: what it holds is the client's no longer */
};

/* Guards [base, base + bytes), a whole mapping, until it is removed, which must come before it is unmapped. NULL when
 * GUARD_RANGES are entered. Not for two threads at once. */
struct guarded *guard_add(void *base, uint64_t bytes);
/* May be NULL. Returns when no handler can touch the range any more. */
void guard_remove(struct guarded *range);

/* sidecaml_guard, if it was ever called: whoever runs code of others does so now and then. */
void guard_again(void);

/* How many ranges of this process have broken so far: whoever saw the number before knows whether to look. */
extern _Atomic uint64_t guard_breaks;

#ifdef SIDECAML_UNCHECKED /* bench/drivers: what do checks cost? */

static inline uint64_t guard_breaks_so_far(void) {
    return 0;
}

static inline bool guard_is_broken(const struct guarded *range) {
    (void)range;
    return false;
}

#else

/* Acquire: who sees the number sees `broken` of the range as well. */
static inline uint64_t guard_breaks_so_far(void) {
    return load64(&guard_breaks, acquire);
}

/* Relaxed: a run that has ended has seen what broke in it, by whatever orders the end of its threads. */
static inline bool guard_is_broken(const struct guarded *range) {
    return range && load32(&range->broken, relaxed);
}

#endif

#endif
