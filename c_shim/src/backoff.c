#define _GNU_SOURCE
#include "backoff.h"

#include <time.h>
#include <unistd.h>

#include "sidecaml/sidecaml.h"

#define FIRST_NS UINT64_C(1000000)
#define LONGEST_NS (256 * FIRST_NS)

void backoff_init(struct backoff *backoff) {
    /* Different in each process, thread and attempt; nothing secret. */
    *backoff = (struct backoff){.random = sidecaml_now_ns() ^ ((uint64_t)getpid() << 40) ^ (uint64_t)(uintptr_t)backoff,
                                .most_ns = FIRST_NS};
}

/* SplitMix64. */
static uint64_t next_random(struct backoff *backoff) {
    uint64_t mixed = backoff->random += UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ (mixed >> 31);
}

void backoff_sleep(struct backoff *backoff, uint64_t deadline_ns) {
    uint64_t pause = next_random(backoff) % (backoff->most_ns + 1), now = sidecaml_now_ns();
    uint64_t left = now < deadline_ns ? deadline_ns - now : 0;
    if (pause > left) pause = left;
    if (backoff->most_ns < LONGEST_NS) backoff->most_ns *= 2;
    /* A signal ends it early, which does no harm. */
    nanosleep(&(struct timespec){.tv_sec = (time_t)(pause / 1000000000u), .tv_nsec = (long)(pause % 1000000000u)},
              NULL);
}
