/* Pauses between attempts: exponential with full jitter, so that clients which lost the same daemon do not come back in
 * step. */
#ifndef SIDECAML_BACKOFF_H
#define SIDECAML_BACKOFF_H

#include <stdint.h>

struct backoff {
    uint64_t random;
    uint64_t most_ns; /* of the next pause */
};

void backoff_init(struct backoff *backoff);

/* Sleeps for the next pause, which is random from 0 to 1, 2, 4 ... 256 ms, but not beyond the deadline. */
void backoff_sleep(struct backoff *backoff, uint64_t deadline_ns);

#endif
