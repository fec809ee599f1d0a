/* Keeps channels under load and notes how long each request took: what `sidecaml bench` measures with.
 *
 * Closed loop: `window` requests are in flight, and each answer is followed by the next request. A request's time
 * counts from before the inputs of its burst are filled to where its outputs are read. Answers that are there together
 * share a reading of the clock, after the last of some 16 KiB of them was read: no time is too short for that.
 *
 * Open loop: requests arrive as a Poisson process, whether or not earlier ones are answered. Each counts from the time
 * that it was to start. Where no slot is free then, it waits in the loop's own queue, and that counts: a server that
 * stalls is seen by all who would have come meanwhile, and not only by those who could. Where its deadline passes
 * while there is no slot it is not sent any more, and counts as TIMEOUT. Where there was a slot, and this thread only
 * comes to it after its deadline, it is sent all the same, and the worker is to refuse it: it is not given up then.
 *
 * Several channels in one thread are looked at in turn, each with a window and arrivals of its own. A sleeping thread
 * waits for one channel, so all of them spin.
 *
 * Nothing is allocated while it runs.
 */
#ifndef SIDECAML_LOAD_H
#define SIDECAML_LOAD_H

#include "sidecaml/sidecaml.h"

/* What an output must be. Of strings: the table of offsets, and the text behind it. */
struct sidecaml_load_answer {
    const void *start;
    uint64_t bytes;
};

/* Times are of CLOCK_MONOTONIC, so that several processes begin together. */
struct sidecaml_load {
    uint32_t window; /* the most requests in flight, from 1 to the channel's slots */
    uint32_t burst;  /* in a closed loop: how many are filled before they are handed over together, at most `window` */
    enum sidecaml_policy policy;
    double rate;   /* requests a second that arrive; 0 for a closed loop */
    uint64_t seed; /* of arrivals and of which inputs a request gets */
    uint64_t start_ns;
    uint64_t measure_ns; /* what was to start before is warm-up, and left out of the results */
    uint64_t end_ns;
    uint64_t deadline_ns; /* a request's, from the time that it was to start; 0 for none. With one, stamps are taken */

    /* What is copied to a slot before each request, chosen at random of so many sets. Dims are the caller's to set,
     * for every slot. */
    uint32_t sets;
    const void *const *inputs;   /* a row of the channel's inputs a set */
    const uint64_t *input_bytes; /* of each input, the same in all sets */
    /* A row of the channel's outputs a set, which each answer is compared with; NULL: answers are only read. */
    const struct sidecaml_load_answer *answers;

    /* Filled with the nanoseconds of each request that was answered. The load ends when there is no more room. */
    uint64_t *samples;
    uint64_t room;

    /* Called every few milliseconds, and after signals; false ends the load at once. Of several the first's is called,
     * and ends all. */
    bool (*go_on)(void *context);
    void *context;
};

#define SIDECAML_LOAD_CODES 128

struct sidecaml_load_result {
    uint64_t counts[SIDECAML_LOAD_CODES]; /* requests by outcome: 0 answered, else an enum sidecaml_error */
    uint64_t sampled;                     /* those of outcome 0 */
    uint64_t unsent;                      /* that were to start before the end and found no free slot */
    uint64_t late_by_worker; /* of those of outcome 0: whose outputs the worker had after the deadline, by its stamp */
    uint64_t sent_late;      /* after the deadline, because this thread came too late, with whatever outcome */
    uint64_t no_slot;        /* of those of outcome TIMEOUT: not sent, for there was no slot until the deadline */
    uint64_t wrong;          /* answers that differ from the given one, of the warm-up, too; they count as answered */
    uint64_t ended_ns;       /* when no more was to be sent: end_ns, or the time of a premature end */
    uint64_t answered_ns;    /* when the last answer came that counts; 0 for none */
    uint64_t cpu_ns; /* what this thread used of a processor since measure_ns; of several all of it is the first's */
    bool stopped;    /* by go_on: what was in flight is not among the counts */
    bool full;       /* by room */
};

/* Runs the load in this thread, to whom the channel belongs meanwhile; its policy and whether it takes stamps stay as
 * the load has them. 0 with *out filled; -SERVER_GONE and -CORRUPT
 * with what was measured until then, what was in flight counted as such; -INVALID for a load that cannot be, and
 * -NO_MEMORY, with nothing sent. Whether it succeeds or not, no request is in flight afterwards. */
int sidecaml_load_run(sidecaml_channel *channel, const struct sidecaml_load *what, struct sidecaml_load_result *out,
                      struct sidecaml_failure *why);

/* One channel of several, its load and where its result goes. */
struct sidecaml_load_job {
    sidecaml_channel *channel;
    const struct sidecaml_load *what;
    struct sidecaml_load_result *out;
};

/* Runs the loads of `count` different channels at once in this thread, each as sidecaml_load_run does alone; that is
 * the case of one. With more than one each policy is SPIN, or -INVALID. Where one ends early, because there is no more
 * room or its channel is over, the others go on; what is returned then is the first failure there is. */
int sidecaml_load_run_all(const struct sidecaml_load_job *jobs, uint32_t count, struct sidecaml_failure *why);

#endif
