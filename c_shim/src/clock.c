#include "clock.h"

#include <time.h>

#include "sidecaml/sidecaml.h"

/* In the vDSO: no system call. */
static uint64_t read_clock(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t sidecaml_now_ns(void) {
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t coarse_now_ns(void) {
    return read_clock(CLOCK_MONOTONIC_COARSE);
}
