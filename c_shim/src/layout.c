/* Where everything lies in a segment: computed by whoever creates it, read and checked by whoever is handed one. */
#include <string.h>

#include "atomics.h"
#include "checked.h"
#include "failure.h"
#include "layout.h"
#include "word.h"

/* Beyond this nothing is a size any more; it keeps every later sum inside 64 bits. */
#define LARGEST SIDECAML_LARGEST_BYTES

/* Of one slot: the tensor, and its text where it is of strings. */
static int slot_bytes(const char *name, const struct sidecaml_tensor_descriptor *tensor, uint64_t *out,
                      struct sidecaml_failure *why) {
    if (!sidecaml_dtype_name(tensor->dtype))
        return fail(why, SIDECAML_E_INVALID, "tensor \"%s\": no element type has the code %u", name, tensor->dtype);
    if (tensor->rank > SIDECAML_MAX_RANK)
        return fail(why, SIDECAML_E_INVALID, "tensor \"%s\" has %u dimensions; at most %d are possible", name,
                    tensor->rank, SIDECAML_MAX_RANK);
    if (tensor->text_bytes && tensor->dtype != SIDECAML_STRING)
        return fail(why, SIDECAML_E_INVALID, "tensor \"%s\" is of %s and has room for text: only strings have", name,
                    sidecaml_dtype_name(tensor->dtype));
    if (!sidecaml_tensor_bytes(tensor->dtype, tensor->max_dims, tensor->rank, out) ||
        !checked_add(*out, tensor->text_bytes, out) || *out > LARGEST)
        return fail(why, SIDECAML_E_NO_SPACE, "tensor \"%s\" would be larger than 2^62 bytes", name);
    return 0;
}

/* A slot's place is never empty, so that every tensor of every slot has an address of its own. */
static bool stride_of(const struct sidecaml_tensor_descriptor *tensor, uint64_t *out) {
    *out = tensor->max_bytes;
    if (tensor->flags & SIDECAML_TENSOR_PACKED) return true;
    return checked_align(tensor->max_bytes ? tensor->max_bytes : 1, SIDECAML_TENSOR_ALIGN, out);
}

/* Strings are no part of one tensor: their table and text lie side by side in each slot. */
static bool can_be_packed(const struct sidecaml_tensor_descriptor *tensor) {
    return tensor->dtype != SIDECAML_STRING && tensor->max_bytes && tensor->max_bytes % SIDECAML_PACKED_ALIGN == 0;
}

static int describe_tensor(const struct sidecaml_tensor_spec *spec, struct sidecaml_tensor_descriptor *out,
                           struct sidecaml_failure *why) {
    memset(out, 0, sizeof *out);
    out->dtype = spec->dtype;
    out->rank = spec->rank;
    out->flags = (spec->output ? SIDECAML_TENSOR_OUTPUT : 0) | (spec->dynamic ? SIDECAML_TENSOR_DYNAMIC : 0);
    out->text_bytes = spec->text_bytes;
    if (spec->rank <= SIDECAML_MAX_RANK) memcpy(out->max_dims, spec->max_dims, spec->rank * sizeof spec->max_dims[0]);
    int status = slot_bytes(spec->name, out, &out->max_bytes, why);
    if (status < 0) return status;
    memcpy(out->name, spec->name, strnlen(spec->name, SIDECAML_NAME_BYTES));
    if (spec->packed && can_be_packed(out)) out->flags |= SIDECAML_TENSOR_PACKED;
    if (!stride_of(out, &out->slot_stride))
        return fail(why, SIDECAML_E_NO_SPACE, "tensor \"%s\" is too large", spec->name);
    return 0;
}

/* Everything before the arrays; small, so plain sums cannot overflow. */
static void place_tables(struct sidecaml_layout *layout) {
    uint64_t tensors = layout->input_count + layout->output_count;
    layout->tensors_offset = sizeof(struct sidecaml_segment_header);
    layout->client_offset = layout->tensors_offset + tensors * sizeof(struct sidecaml_tensor_descriptor);
    layout->worker_offset = layout->client_offset + sizeof(struct sidecaml_client_block);
    layout->slots_offset = layout->worker_offset + sizeof(struct sidecaml_worker_block);
    layout->dims_offset = layout->slots_offset + (uint64_t)layout->slot_count * sizeof(struct sidecaml_slot);
    uint64_t end = layout->dims_offset + layout->slot_count * tensors * sizeof(struct sidecaml_dims);
    layout->arrays_offset = (end + SIDECAML_PAGE_BYTES - 1) & ~(uint64_t)(SIDECAML_PAGE_BYTES - 1);
}

static bool place_arrays(struct sidecaml_layout *layout) {
    uint64_t end = layout->arrays_offset;
    for (uint32_t i = 0; i < layout->input_count + layout->output_count; i++) {
        struct sidecaml_tensor_descriptor *tensor = &layout->tensor[i];
        uint64_t bytes;
        tensor->array_offset = end;
        if (!checked_mul(tensor->slot_stride, layout->slot_count, &bytes) ||
            !checked_align(bytes, SIDECAML_TENSOR_ALIGN, &bytes) || !checked_add(end, bytes, &end))
            return false;
        if (end > LARGEST) return false;
    }
    return checked_align(end, SIDECAML_PAGE_BYTES, &layout->segment_bytes);
}

int sidecaml_layout_compute(const struct sidecaml_tensor_spec *spec, uint32_t count, uint32_t slots,
                            uint64_t fingerprint, struct sidecaml_layout *out, struct sidecaml_failure *why) {
    if (slots < 1 || slots > SIDECAML_MAX_SLOTS)
        return fail(why, SIDECAML_E_INVALID, "a channel has 1 to %d slots, not %u", SIDECAML_MAX_SLOTS, slots);
    if (count > SIDECAML_MAX_TENSORS)
        return fail(why, SIDECAML_E_INVALID, "a model has at most %d inputs and outputs, not %u", SIDECAML_MAX_TENSORS,
                    count);
    memset(out, 0, sizeof *out);
    out->fingerprint = fingerprint;
    out->slot_count = slots;
    for (uint32_t i = 0; i < count; i++) {
        if (!spec[i].output && out->output_count)
            return fail(why, SIDECAML_E_INVALID, "tensor \"%s\": inputs come before outputs", spec[i].name);
        int status = describe_tensor(&spec[i], &out->tensor[i], why);
        if (status < 0) return status;
        if (spec[i].output)
            out->output_count++;
        else
            out->input_count++;
    }
    place_tables(out);
    if (!place_arrays(out)) return fail(why, SIDECAML_E_NO_SPACE, "the channel would be larger than 2^62 bytes");
    return 0;
}

void layout_of_one_slot(const struct sidecaml_layout *layout, struct sidecaml_layout *out) {
    *out = *layout;
    out->slot_count = 1;
    place_tables(out);
    place_arrays(out); /* smaller than one that was placed before */
}

void sidecaml_segment_format(void *base, const struct sidecaml_layout *layout) {
    uint8_t *bytes = base;
    uint32_t tensors = layout->input_count + layout->output_count;
    struct sidecaml_segment_header header = {
        .abi_version = SIDECAML_ABI_VERSION,
        .header_bytes = sizeof header,
        .segment_bytes = layout->segment_bytes,
        .fingerprint = layout->fingerprint,
        .slot_count = layout->slot_count,
        .input_count = layout->input_count,
        .output_count = layout->output_count,
        .tensors_offset = layout->tensors_offset,
        .client_offset = layout->client_offset,
        .slots_offset = layout->slots_offset,
        .dims_offset = layout->dims_offset,
        .arrays_offset = layout->arrays_offset,
        .worker_offset = layout->worker_offset,
    };
    memcpy(header.magic, SIDECAML_SEGMENT_MAGIC, sizeof header.magic);
    memcpy(bytes, &header, sizeof header);
    memcpy(bytes + layout->tensors_offset, layout->tensor, tensors * sizeof layout->tensor[0]);
    struct sidecaml_slot *slots = (struct sidecaml_slot *)(bytes + layout->slots_offset);
    struct sidecaml_dims *dims = (struct sidecaml_dims *)(bytes + layout->dims_offset);
    for (uint32_t slot = 0; slot < layout->slot_count; slot++) {
        /* Relaxed: the segment is handed over by a socket, which orders everything. */
        store64(&slots[slot].word, word_of(slot, SIDECAML_STATE_FREE), relaxed);
        for (uint32_t t = 0; t < tensors; t++)
            memcpy(dims[slot * tensors + t].dim, layout->tensor[t].max_dims, sizeof dims->dim);
    }
}

/* --- Reading ----------------------------------------------------------------------------------------------------- */

static bool all_zero(const void *bytes, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (((const uint8_t *)bytes)[i]) return false;
    return true;
}

static int check_tensor(const struct sidecaml_layout *layout, uint32_t index, struct sidecaml_failure *why) {
    const struct sidecaml_tensor_descriptor *tensor = &layout->tensor[index];
    uint64_t bytes, stride, array;
    char name[32];
    __builtin_snprintf(name, sizeof name, "#%u", index);
    int status = slot_bytes(name, tensor, &bytes, NULL);
    if (status < 0 || bytes != tensor->max_bytes ||
        !all_zero(&tensor->max_dims[tensor->rank], (SIDECAML_MAX_RANK - tensor->rank) * sizeof tensor->max_dims[0]))
        return fail(why, SIDECAML_E_CORRUPT,
                    "tensor descriptor %u: type, dimensions, text_bytes and max_bytes %llu disagree", index,
                    (unsigned long long)tensor->max_bytes);
    if (tensor->flags & ~(SIDECAML_TENSOR_OUTPUT | SIDECAML_TENSOR_DYNAMIC | SIDECAML_TENSOR_PACKED) ||
        tensor->reserved0)
        return fail(why, SIDECAML_E_CORRUPT, "tensor descriptor %u: flags 0x%x, reserved 0x%x", index, tensor->flags,
                    tensor->reserved0);
    if (((tensor->flags & SIDECAML_TENSOR_OUTPUT) != 0) != (index >= layout->input_count))
        return fail(why, SIDECAML_E_CORRUPT, "tensor descriptor %u: inputs must come before outputs", index);
    bool is_packed = tensor->flags & SIDECAML_TENSOR_PACKED;
    if (is_packed ? !can_be_packed(tensor) || tensor->slot_stride != bytes
                  : !stride_of(tensor, &stride) || tensor->slot_stride < stride ||
                        tensor->slot_stride % SIDECAML_TENSOR_ALIGN)
        return fail(why, SIDECAML_E_CORRUPT, "tensor descriptor %u: its slots do not lie %llu bytes apart", index,
                    (unsigned long long)tensor->slot_stride);
    if (tensor->array_offset % SIDECAML_TENSOR_ALIGN || tensor->array_offset < layout->arrays_offset ||
        !checked_mul(tensor->slot_stride, layout->slot_count, &array) ||
        !range_inside(tensor->array_offset, array, layout->segment_bytes))
        return fail(why, SIDECAML_E_CORRUPT, "tensor descriptor %u: its array does not lie inside the segment", index);
    return 0;
}

static int check_header(const struct sidecaml_segment_header *header, uint64_t bytes, struct sidecaml_failure *why) {
    if (memcmp(header->magic, SIDECAML_SEGMENT_MAGIC, sizeof header->magic) != 0)
        return fail(why, SIDECAML_E_CORRUPT, "no sidecaml segment: the magic bytes are missing");
    if (header->abi_version != SIDECAML_ABI_VERSION)
        return fail(why, SIDECAML_E_ABI_MISMATCH,
                    "the segment has ABI version %u, this library speaks version %u: "
                    "use the same release of sidecaml on both sides",
                    header->abi_version, SIDECAML_ABI_VERSION);
    if (header->header_bytes != sizeof *header || header->segment_bytes != bytes)
        return fail(why, SIDECAML_E_CORRUPT, "the segment says it has %llu bytes and is %llu long",
                    (unsigned long long)header->segment_bytes, (unsigned long long)bytes);
    if (bytes % SIDECAML_PAGE_BYTES || header->reserved0 || !all_zero(header->reserved1, sizeof header->reserved1))
        return fail(why, SIDECAML_E_CORRUPT,
                    "the segment is no multiple of a page, or its header's reserved bytes are "
                    "not zero");
    if (header->slot_count < 1 || header->slot_count > SIDECAML_MAX_SLOTS ||
        header->input_count > SIDECAML_MAX_TENSORS || header->output_count > SIDECAML_MAX_TENSORS - header->input_count)
        return fail(why, SIDECAML_E_CORRUPT, "the segment says it has %u slots, %u inputs and %u outputs",
                    header->slot_count, header->input_count, header->output_count);
    return 0;
}

int sidecaml_layout_read(const void *base, uint64_t bytes, struct sidecaml_layout *out, struct sidecaml_failure *why) {
    struct sidecaml_segment_header header;
    if (bytes < sizeof header)
        return fail(why, SIDECAML_E_CORRUPT, "a segment of %llu bytes has no room for a header",
                    (unsigned long long)bytes);
    memcpy(&header, base, sizeof header); /* once: the checks below are on this copy */
    int status = check_header(&header, bytes, why);
    if (status < 0) return status;

    memset(out, 0, sizeof *out);
    out->segment_bytes = header.segment_bytes;
    out->fingerprint = header.fingerprint;
    out->slot_count = header.slot_count;
    out->input_count = header.input_count;
    out->output_count = header.output_count;
    /* The tables follow from the counts alone: a header that places them elsewhere is not ours. */
    place_tables(out);
    if (header.tensors_offset != out->tensors_offset || header.client_offset != out->client_offset ||
        header.worker_offset != out->worker_offset || header.slots_offset != out->slots_offset ||
        header.dims_offset != out->dims_offset || header.arrays_offset != out->arrays_offset ||
        out->arrays_offset > bytes)
        return fail(why, SIDECAML_E_CORRUPT, "the segment's tables are not where its counts put them");
    uint32_t tensors = out->input_count + out->output_count;
    memcpy(out->tensor, (const uint8_t *)base + out->tensors_offset, tensors * sizeof out->tensor[0]);
    for (uint32_t i = 0; i < tensors; i++) {
        status = check_tensor(out, i, why);
        if (status < 0) return status;
    }
    return 0;
}
