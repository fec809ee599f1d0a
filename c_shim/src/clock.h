/* The clock, as cheap as it may be where a tick does not matter. */
#ifndef SIDECAML_CLOCK_H
#define SIDECAML_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC at the last tick of the kernel, some milliseconds ago at most: a fraction of what sidecaml_now_ns
 * costs. */
uint64_t coarse_now_ns(void);

#endif
