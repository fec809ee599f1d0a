#include <time.h>

#include "sidecaml/sidecaml.h"

uint64_t sidecaml_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* in the vDSO: no system call */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
