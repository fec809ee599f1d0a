/* Staging: the requests of a client that is not trusted run on private memory.
 *
 * Kernels check a value and read it again, so a client that changes its inputs during a run could crash the worker.
 * Its inputs are therefore copied before the run, and its outputs after it: between the two, nothing that the client
 * writes is looked at. Only one request of a channel runs at a time, so one place for each tensor is enough.
 *
 * Everything that is copied is as long as this request's dims say. The dims themselves are read once, into the private
 * memory; those beyond a tensor's largest are copied as they are, for the engine to refuse, and nothing else with them.
 */
#ifndef SIDECAML_STAGING_H
#define SIDECAML_STAGING_H

#include "mapping.h"

struct staging {
    struct mapping memory; /* laid out as a segment whose only slot is 0 */
    struct sidecaml_layout layout;
};

int staging_open(struct staging **out, const struct sidecaml_layout *layout, struct sidecaml_failure *why);
/* May be NULL. */
void staging_free(struct staging *staging);

/* Copies the inputs of a slot here; the outputs' dims are the largest from now on. */
void staging_take(struct staging *staging, uint8_t *segment, const struct sidecaml_layout *layout, uint32_t slot);
/* Copies the outputs and their dims into a slot. */
void staging_give(struct staging *staging, uint8_t *segment, const struct sidecaml_layout *layout, uint32_t slot);
/* Copies the dims of the outputs alone, beyond the largest or not: of a request that failed for want of room. */
void staging_give_needed(struct staging *staging, uint8_t *segment, const struct sidecaml_layout *layout,
                         uint32_t slot);

#endif
