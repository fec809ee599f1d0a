/* ffi-helper-spin: a thread of this process that spins on another core and runs the model there, as one would write it
 * by hand. A helper belongs to one caller at a time. */
#ifndef SIDECAML_BENCH_HELPER_H
#define SIDECAML_BENCH_HELPER_H

#include "sidecaml/ort.h"

struct helper;

/* Loads a model; nothing is bound yet, and the thread does not run. */
int helper_open(const char *model, struct helper **out, struct sidecaml_failure *why);
/* Inputs, then outputs; all dimensions are fixed. */
const struct sidecaml_session_tensor *helper_tensors(const struct helper *helper, uint32_t *inputs, uint32_t *count);
/* The memory outlives the helper. */
int helper_bind(struct helper *helper, uint32_t tensor, void *address, struct sidecaml_failure *why);
/* Starts the thread, asleep, on a core. */
int helper_start(struct helper *helper, int core, struct sidecaml_failure *why);

/* From wake to rest, the thread spins. */
void helper_wake(struct helper *helper);
void helper_rest(struct helper *helper);

/* Between the two: has the thread run the model, and spins until it has. 0, or a negative code: see helper_problem. */
int helper_run(struct helper *helper);
/* Why the last run failed. */
const char *helper_problem(const struct helper *helper);

/* NULL is allowed. */
void helper_close(struct helper *helper);

#endif
