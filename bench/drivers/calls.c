#include "calls.h"

#include <stddef.h>

#include "caller.h"
#include "memory.h"

#define SEEDS 4
#define LEAST_CALLS 20
#define LEAST_WARM_CALLS 3
#define MOST_WARM_CALLS 64
#define WARM_NS 20000000u

int calls_run(const struct driver *driver, uint64_t seed, struct sidecaml_failure *why) {
    const struct opened *opened = &driver->opened;
    for (uint32_t i = 0; i < opened->tensors->inputs; i++) {
        const struct tensor *input = &opened->tensors->tensor[i];
        caller_fill(opened->block + input->offset, input->dtype, input->elements, seed);
    }
    return driver->path->run(why);
}

static void read_outputs(const struct opened *opened) {
    for (uint32_t i = opened->tensors->inputs; i < opened->tensors->count; i++) {
        const struct tensor *output = &opened->tensors->tensor[i];
        caller_read(opened->block + output->offset, output->bytes);
    }
}

static int time_one(const struct driver *driver, uint64_t index, uint64_t *begin, uint64_t *end,
                    struct sidecaml_failure *why) {
    *begin = caller_now_ns();
    int status = calls_run(driver, index % SEEDS, why);
    read_outputs(&driver->opened);
    *end = caller_now_ns();
    return status;
}

static int warm_up(const struct driver *driver, const struct timing *timing, void *buffer,
                   struct sidecaml_failure *why) {
    uint64_t start = caller_now_ns(), begin, now = start;
    int status = 0;
    for (uint64_t i = 0; status == 0 && i < MOST_WARM_CALLS && (i < LEAST_WARM_CALLS || now - start < WARM_NS); i++) {
        caller_touch(buffer, timing->touch_bytes);
        status = time_one(driver, i, &begin, &now, why);
    }
    return status;
}

static int time_all(const struct driver *driver, const struct timing *timing, void *buffer, uint64_t *samples,
                    uint64_t *made, struct sidecaml_failure *why) {
    uint64_t start = caller_now_ns(), begin, now = start, i = 0;
    int status = 0;
    for (; status == 0 && i < timing->count && (i < LEAST_CALLS || now - start < timing->budget_ns); i++) {
        caller_touch(buffer, timing->touch_bytes);
        status = time_one(driver, i, &begin, &now, why);
        samples[i] = now - begin;
    }
    *made = i;
    return status;
}

int calls_time(const struct driver *driver, const struct timing *timing, uint64_t *samples, uint64_t *made,
               struct sidecaml_failure *why) {
    void *buffer;
    int status = memory_map(timing->touch_bytes, PRIVATE, &buffer, why);
    if (status < 0) return status;
    status = warm_up(driver, timing, buffer, why);
    if (status == 0) status = time_all(driver, timing, buffer, samples, made, why);
    memory_unmap(buffer, timing->touch_bytes);
    return status;
}
