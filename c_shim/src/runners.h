/* The runners that a worker has for one slot: found by the dims of a request and the state of its channel.
 *
 * The latest used lies first, so that a request like the one before it costs one comparison. Nothing is allocated but
 * when a runner is bound. Dims are compared as numbers in a row, those of all dynamic inputs of the channel.
 */
#ifndef SIDECAML_RUNNERS_H
#define SIDECAML_RUNNERS_H

#include "sidecaml/sidecaml.h"

struct runner {
    sidecaml_runner run;
    void *context;
    void (*drop)(void *context);
    uint64_t state;
    uint64_t next_state;
    bool alone;      /* never together with other requests */
    uint64_t dims[]; /* of the dynamic inputs, then of the dynamic outputs */
};

struct runners {
    uint32_t count;
    struct runner *latest[SIDECAML_SLOT_RUNNERS];
};

/* The one for `words` numbers of dims, now the latest; NULL when there is none. */
struct runner *runners_find(struct runners *runners, uint64_t state, const uint64_t *dims, uint32_t words);
/* Takes `added` over. Its first `words` dims are those of the inputs. */
void runners_add(struct runners *runners, struct runner *added, uint32_t words);
void runners_clear(struct runners *runners);

#endif
