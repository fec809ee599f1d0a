#include "runners.h"

#include <stdlib.h>
#include <string.h>

static bool serves(const struct runner *runner, uint64_t state, const uint64_t *dims, uint32_t words) {
    if (runner->state != state) return false;
    for (uint32_t i = 0; i < words; i++)
        if (runner->dims[i] != dims[i]) return false;
    return true;
}

/* The place at `index` becomes free for one that is put first. */
static void make_latest(struct runners *runners, uint32_t index, struct runner *runner) {
    memmove(&runners->latest[1], &runners->latest[0], index * sizeof runners->latest[0]);
    runners->latest[0] = runner;
}

/* `count` when there is none. */
static uint32_t index_of(const struct runners *runners, uint64_t state, const uint64_t *dims, uint32_t words) {
    uint32_t index = 0;
    while (index < runners->count && !serves(runners->latest[index], state, dims, words))
        index++;
    return index;
}

struct runner *runners_find(struct runners *runners, uint64_t state, const uint64_t *dims, uint32_t words) {
    uint32_t index = index_of(runners, state, dims, words);
    if (index == runners->count) return NULL;
    struct runner *found = runners->latest[index];
    if (index) make_latest(runners, index, found);
    return found;
}

static void end(struct runner *runner) {
    if (runner->drop) runner->drop(runner->context);
    free(runner);
}

void runners_add(struct runners *runners, struct runner *added, uint32_t words) {
    uint32_t index = index_of(runners, added->state, added->dims, words);
    struct runner *dropped = NULL;
    if (index == runners->count && runners->count < SIDECAML_SLOT_RUNNERS) {
        runners->count++;
    } else {
        if (index == runners->count) index--;
        dropped = runners->latest[index];
    }
    make_latest(runners, index, added);
    /* Last: whatever `drop` calls finds the slot as it is from now on. */
    if (dropped) end(dropped);
}

void runners_clear(struct runners *runners) {
    while (runners->count)
        end(runners->latest[--runners->count]);
}
