#define _GNU_SOURCE
#include "staging.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "checked.h"
#include "failure.h"
#include "layout.h"

static int open_memory(struct staging *staging, struct sidecaml_failure *why) {
    /* Present from the start, as a segment is: no request pays for the first touch. */
    void *base = mmap(NULL, staging->layout.segment_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (base == MAP_FAILED) return fail_errno(why, "private memory for a channel whose client is not trusted");
    staging->memory = (struct mapping){.base = base, .bytes = staging->layout.segment_bytes};
    return 0;
}

int staging_open(struct staging **out, const struct sidecaml_layout *layout, struct sidecaml_failure *why) {
    struct staging *staging = calloc(1, sizeof *staging);
    if (!staging) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for one more channel");
    layout_of_one_slot(layout, &staging->layout);
    int status = open_memory(staging, why);
    if (status < 0)
        free(staging);
    else
        *out = staging;
    return status;
}

void staging_free(struct staging *staging) {
    if (!staging) return;
    mapping_close(&staging->memory);
    free(staging);
}

/* --- Copying ------------------------------------------------------------------------------------------------------ */

static bool is_dynamic(const struct sidecaml_tensor_descriptor *tensor) {
    return tensor->flags & SIDECAML_TENSOR_DYNAMIC;
}

/* What a tensor of the request takes by its private dims, without the text of strings; 0 for dims that will be refused.
 */
static uint64_t bytes_of(const struct staging *staging, uint32_t tensor) {
    uint64_t dims[SIDECAML_MAX_RANK], bytes;
    int rank = dims_read(staging->memory.base, &staging->layout, 0, tensor, dims);
    if (rank < 0 || !sidecaml_tensor_bytes(staging->layout.tensor[tensor].dtype, dims, (uint32_t)rank, &bytes))
        return 0;
    return bytes;
}

/* `private` is the one of the two places that nobody else writes: what it says of the text's size is what is copied.
 * A table that leads outside is refused by whoever reads it. */
static void copy_text(const struct sidecaml_tensor_descriptor *tensor, const uint8_t *private, uint64_t table_bytes,
                      uint8_t *to, const uint8_t *from) {
    uint64_t text, begins = tensor->max_bytes - tensor->text_bytes;
    if (table_bytes < sizeof text) return;
    memcpy(&text, private + table_bytes - sizeof text, sizeof text);
    if (text <= tensor->text_bytes) memcpy(to + begins, from + begins, text);
}

static void copy_tensor(const struct staging *staging, uint32_t tensor, uint8_t *to, const uint8_t *from) {
    const struct sidecaml_tensor_descriptor *descriptor = &staging->layout.tensor[tensor];
    const uint8_t *private = tensor_at(staging->memory.base, &staging->layout, 0, tensor);
    uint64_t bytes = bytes_of(staging, tensor);
    memcpy(to, from, bytes);
    if (descriptor->text_bytes) copy_text(descriptor, private, bytes, to, from);
}

static void take_dims(struct staging *staging, uint8_t *segment, const struct sidecaml_layout *layout, uint32_t slot,
                      uint32_t tensor) {
    uint64_t *to = dims_at(staging->memory.base, &staging->layout, 0, tensor);
    const uint64_t *from = dims_at(segment, layout, slot, tensor);
    for (uint32_t axis = 0; axis < layout->tensor[tensor].rank; axis++)
        to[axis] = read_once(from[axis]);
}

static void give_dims(const struct staging *staging, uint8_t *segment, const struct sidecaml_layout *layout,
                      uint32_t slot, uint32_t tensor) {
    memcpy(dims_at(segment, layout, slot, tensor), dims_at(staging->memory.base, &staging->layout, 0, tensor),
           layout->tensor[tensor].rank * sizeof(uint64_t));
}

void staging_take(struct staging *staging, uint8_t *segment, const struct sidecaml_layout *layout, uint32_t slot) {
    uint8_t *base = staging->memory.base;
    for (uint32_t t = 0; t < layout->input_count; t++) {
        if (is_dynamic(&layout->tensor[t])) take_dims(staging, segment, layout, slot, t);
        copy_tensor(staging, t, tensor_at(base, &staging->layout, 0, t), tensor_at(segment, layout, slot, t));
    }
    for (uint32_t t = layout->input_count; t < tensor_count_of(layout); t++)
        if (is_dynamic(&layout->tensor[t]))
            memcpy(dims_at(base, &staging->layout, 0, t), layout->tensor[t].max_dims, sizeof(struct sidecaml_dims));
}

void staging_give(struct staging *staging, uint8_t *segment, const struct sidecaml_layout *layout, uint32_t slot) {
    for (uint32_t t = layout->input_count; t < tensor_count_of(layout); t++) {
        if (is_dynamic(&layout->tensor[t])) give_dims(staging, segment, layout, slot, t);
        const uint8_t *from = tensor_at(staging->memory.base, &staging->layout, 0, t);
        copy_tensor(staging, t, tensor_at(segment, layout, slot, t), from);
    }
}

void staging_give_needed(struct staging *staging, uint8_t *segment, const struct sidecaml_layout *layout,
                         uint32_t slot) {
    for (uint32_t t = layout->input_count; t < tensor_count_of(layout); t++)
        if (is_dynamic(&layout->tensor[t])) give_dims(staging, segment, layout, slot, t);
}
