/* How long runs take, learned from those that were measured: what deadlines and fairness go by.
 *
 * An estimate is to be kept, so it follows a longer run at once and a shorter one slowly. One that is far off, because
 * the processor was taken away meanwhile, moves it by a quarter only; two in a row are no accident. What was measured
 * before there were requests, perhaps of other dims, and what was measured only once, with all that a first run has to
 * do besides, are guesses: the next measurement takes their place. One that only refuses is doubted from time to time,
 * which lowers it a little, and a guess by half, lest a wrong one refuses everything for ever (schedule.c). */
#ifndef SIDECAML_COSTS_H
#define SIDECAML_COSTS_H

#include <stdbool.h>
#include <stdint.h>

struct cost {
    uint64_t ns;      /* 0: nothing is known */
    uint64_t last_ns; /* what the last run that was measured took */
    bool is_guess;
};

static inline struct cost cost_guess(uint64_t ns) {
    return (struct cost){.ns = ns, .is_guess = true};
}

static inline void cost_learn(struct cost *cost, uint64_t took_ns) {
    uint64_t now = cost->ns, last = cost->last_ns;
    bool is_far = now && took_ns > 4 * now, was_far = last > 4 * now, was_guess = cost->is_guess;
    cost->last_ns = took_ns;
    cost->is_guess = now == 0 || (was_guess && is_far && !was_far);
    if (is_far)
        cost->ns = !was_far ? now + now / 4 : took_ns < last ? took_ns : last;
    else if (took_ns > now || was_guess)
        cost->ns = took_ns;
    else
        cost->ns = now - (now - took_ns) / 16;
}

/* The shortest run of late: down at once, and up slowly. */
static inline void cost_learn_least(uint64_t *least_ns, uint64_t took_ns) {
    if (*least_ns == 0 || took_ns < *least_ns)
        *least_ns = took_ns;
    else
        *least_ns += (took_ns - *least_ns) / 256;
}

static inline void cost_doubt(struct cost *cost) {
    cost->ns -= cost->ns / (cost->is_guess ? 2 : 16);
}

#endif
