#include "arrivals.h"

#include <math.h>

#include "random.h"

void arrivals_start(struct arrivals *arrivals, double rate, uint64_t seed, uint64_t start_ns) {
    *arrivals = (struct arrivals){.random = seed, .start_ns = start_ns, .mean_ns = 1e9 / rate};
}

uint64_t arrivals_next(struct arrivals *arrivals) {
    /* Above 0 and at most 1, so that the logarithm is finite. */
    double uniform = (double)((random_next(&arrivals->random) >> 11) + 1) * 0x1p-53;
    arrivals->passed_ns -= log(uniform) * arrivals->mean_ns;
    return arrivals->start_ns + (uint64_t)arrivals->passed_ns;
}
