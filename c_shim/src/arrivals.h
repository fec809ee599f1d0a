/* When the requests of an open loop arrive: a Poisson process, so gaps of an exponential distribution. */
#ifndef SIDECAML_ARRIVALS_H
#define SIDECAML_ARRIVALS_H

#include <stdint.h>

struct arrivals {
    uint64_t random;
    uint64_t start_ns;
    double mean_ns;
    /* Since the start. Rounded to whole nanoseconds only when told, so that rounding does not add up. */
    double passed_ns;
};

void arrivals_start(struct arrivals *arrivals, double rate, uint64_t seed, uint64_t start_ns);

/* The next one: never before the one before it. */
uint64_t arrivals_next(struct arrivals *arrivals);

#endif
