/* Shared memory of a descriptor. */
#ifndef SIDECAML_MAPPING_H
#define SIDECAML_MAPPING_H

#include "sidecaml/sidecaml.h"

struct mapping {
    uint8_t *base;
    uint64_t bytes;
};

/* Maps the whole object (its size by fstat), pages present from the start where `populate` is set. */
int mapping_open(struct mapping *out, int fd, bool writable, bool populate, const char *what,
                 struct sidecaml_failure *why);
void mapping_close(struct mapping *mapping);

static inline struct sidecaml_slot *slots_of(uint8_t *base, const struct sidecaml_layout *layout) {
    return (struct sidecaml_slot *)(base + layout->slots_offset);
}

static inline struct sidecaml_client_block *client_block_of(uint8_t *base, const struct sidecaml_layout *layout) {
    return (struct sidecaml_client_block *)(base + layout->client_offset);
}

static inline struct sidecaml_worker_block *worker_block_of(uint8_t *base, const struct sidecaml_layout *layout) {
    return (struct sidecaml_worker_block *)(base + layout->worker_offset);
}

static inline uint32_t tensor_count_of(const struct sidecaml_layout *layout) {
    return layout->input_count + layout->output_count;
}

/* NULL when slot or tensor is out of range. */
static inline void *tensor_at(uint8_t *base, const struct sidecaml_layout *layout, uint32_t slot, uint32_t tensor) {
    if (slot >= layout->slot_count || tensor >= tensor_count_of(layout)) return NULL;
    const struct sidecaml_tensor_descriptor *descriptor = &layout->tensor[tensor];
    return base + descriptor->array_offset + slot * descriptor->slot_stride;
}

/* Where the dims of a slot's tensor stand; both in range. */
static inline uint64_t *dims_at(uint8_t *base, const struct sidecaml_layout *layout, uint32_t slot, uint32_t tensor) {
    struct sidecaml_dims *dims = (struct sidecaml_dims *)(base + layout->dims_offset);
    return dims[(size_t)slot * tensor_count_of(layout) + tensor].dim;
}

/* The dims of a slot's tensor, out of shared memory where they are dynamic: each is read once and checked against the
 * maximum. Returns the rank, -INVALID out of range, or -BAD_DIMS. */
int dims_read(uint8_t *base, const struct sidecaml_layout *layout, uint32_t slot, uint32_t tensor, uint64_t *out);
/* -INVALID out of range, for another rank, or for other dims of a static tensor; -BAD_DIMS beyond the maximum. */
int dims_write(uint8_t *base, const struct sidecaml_layout *layout, uint32_t slot, uint32_t tensor,
               const uint64_t *dims, uint32_t rank);

/* The same two of a request that failed with OUTPUT_TOO_LARGE: dims beyond the maximum are said. */
int dims_read_needed(uint8_t *base, const struct sidecaml_layout *layout, uint32_t slot, uint32_t tensor,
                     uint64_t *out);
int dims_write_needed(uint8_t *base, const struct sidecaml_layout *layout, uint32_t slot, uint32_t tensor,
                      const uint64_t *dims, uint32_t rank);

#endif
