/* Memory for tensors, samples and the caller's own buffer: whole pages that are there before the clock runs. */
#ifndef SIDECAML_BENCH_MEMORY_H
#define SIDECAML_BENCH_MEMORY_H

#include <stdint.h>

#include "sidecaml/sidecaml.h"

enum sharing { PRIVATE, SHARED };

/* At least `bytes`, zeroed; SHARED: with processes forked from now on. NO_MEMORY or SYSTEM. */
int memory_map(uint64_t bytes, enum sharing sharing, void **out, struct sidecaml_failure *why);
/* NULL is allowed. */
void memory_unmap(void *address, uint64_t bytes);

#endif
