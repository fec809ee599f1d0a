#define _GNU_SOURCE
#include "mapping.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "checked.h"
#include "failure.h"

int mapping_open(struct mapping *out, int fd, bool writable, bool populate, const char *what,
                 struct sidecaml_failure *why) {
    struct stat info;
    if (fstat(fd, &info) < 0) return fail_errno(why, what);
    if (info.st_size <= 0) return fail(why, SIDECAML_E_CORRUPT, "%s is empty", what);
    void *base = mmap(NULL, (size_t)info.st_size, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                      MAP_SHARED | (populate ? MAP_POPULATE : 0), fd, 0);
    if (base == MAP_FAILED) return fail_errno(why, what);
    *out = (struct mapping){.base = base, .bytes = (uint64_t)info.st_size};
    return 0;
}

void mapping_close(struct mapping *mapping) {
    if (mapping->base) munmap(mapping->base, mapping->bytes);
    *mapping = (struct mapping){0};
}

int dims_read(uint8_t *base, const struct sidecaml_layout *layout, uint32_t slot, uint32_t tensor, uint64_t *out) {
    if (slot >= layout->slot_count || tensor >= tensor_count_of(layout)) return -SIDECAML_E_INVALID;
    const struct sidecaml_tensor_descriptor *descriptor = &layout->tensor[tensor];
    memcpy(out, descriptor->max_dims, sizeof descriptor->max_dims);
    if (!(descriptor->flags & SIDECAML_TENSOR_DYNAMIC)) return (int)descriptor->rank;
    const uint64_t *dims = dims_at(base, layout, slot, tensor);
    for (uint32_t i = 0; i < descriptor->rank; i++) {
        out[i] = read_once(dims[i]);
        /* Dimension by dimension: then the product cannot exceed max_bytes either. */
        if (out[i] > descriptor->max_dims[i]) return -SIDECAML_E_BAD_DIMS;
    }
    return (int)descriptor->rank;
}

int dims_write(uint8_t *base, const struct sidecaml_layout *layout, uint32_t slot, uint32_t tensor,
               const uint64_t *dims, uint32_t rank) {
    if (slot >= layout->slot_count || tensor >= tensor_count_of(layout)) return -SIDECAML_E_INVALID;
    const struct sidecaml_tensor_descriptor *descriptor = &layout->tensor[tensor];
    if (rank != descriptor->rank) return -SIDECAML_E_INVALID;
    bool dynamic = descriptor->flags & SIDECAML_TENSOR_DYNAMIC;
    for (uint32_t i = 0; i < rank; i++) {
        if (!dynamic && dims[i] != descriptor->max_dims[i]) return -SIDECAML_E_INVALID;
        if (dims[i] > descriptor->max_dims[i]) return -SIDECAML_E_BAD_DIMS;
    }
    if (dynamic && rank) memcpy(dims_at(base, layout, slot, tensor), dims, rank * sizeof dims[0]);
    return 0;
}

int dims_read_needed(uint8_t *base, const struct sidecaml_layout *layout, uint32_t slot, uint32_t tensor,
                     uint64_t *out) {
    if (slot >= layout->slot_count || tensor >= tensor_count_of(layout)) return -SIDECAML_E_INVALID;
    const struct sidecaml_tensor_descriptor *descriptor = &layout->tensor[tensor];
    memcpy(out, descriptor->max_dims, sizeof descriptor->max_dims);
    if (descriptor->flags & SIDECAML_TENSOR_DYNAMIC)
        memcpy(out, dims_at(base, layout, slot, tensor), descriptor->rank * sizeof out[0]);
    return (int)descriptor->rank;
}

int dims_write_needed(uint8_t *base, const struct sidecaml_layout *layout, uint32_t slot, uint32_t tensor,
                      const uint64_t *dims, uint32_t rank) {
    if (slot >= layout->slot_count || tensor >= tensor_count_of(layout)) return -SIDECAML_E_INVALID;
    const struct sidecaml_tensor_descriptor *descriptor = &layout->tensor[tensor];
    if (rank != descriptor->rank || !(descriptor->flags & SIDECAML_TENSOR_DYNAMIC)) return -SIDECAML_E_INVALID;
    if (rank) memcpy(dims_at(base, layout, slot, tensor), dims, rank * sizeof dims[0]);
    return 0;
}
