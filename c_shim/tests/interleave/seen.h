/* The states that were seen already, as hashes of 128 bits. */
#ifndef SIDECAML_INTERLEAVE_SEEN_H
#define SIDECAML_INTERLEAVE_SEEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct state_key {
    uint64_t a, b;
};

void seen_forget(void);
/* True when the key is new. */
bool seen_add(struct state_key key);
uint64_t seen_count(void);

/* Zeroed memory that is never given back. */
void *new_memory(size_t bytes);

#endif
