/* A segment of any bytes: what sidecaml_layout_read accepts lies inside it, and can be read. */
#include <string.h>

#include "fuzz.h"
#include "mapping.h"
#include "sidecaml/strings.h"

/* Pages of the image: more only costs time. */
#define PAGES_MOST 8

static void read_strings(uint8_t *base, const struct sidecaml_layout *layout, uint32_t slot, uint32_t index) {
    const struct sidecaml_tensor_descriptor *tensor = &layout->tensor[index];
    uint64_t most = tensor->max_bytes - tensor->text_bytes;
    const struct sidecaml_strings_place place = {tensor_at(base, layout, slot, index), most / 8 - 1,
                                                 tensor->text_bytes};
    struct sidecaml_strings strings;
    struct sidecaml_failure why = {0};
    int status = sidecaml_strings_read(&place, place.most, "input", "x", &strings, &why);
    HOLDS(status <= 0);
    if (status < 0)
        check_text(why.text, strlen(why.text));
    else
        HOLDS(strings.offsets[strings.count] <= tensor->text_bytes);
    sidecaml_strings_clear(&strings);
}

static void read_tensor(uint8_t *base, const struct sidecaml_layout *layout, uint32_t slot, uint32_t index) {
    const struct sidecaml_tensor_descriptor *tensor = &layout->tensor[index];
    uint8_t *start = tensor_at(base, layout, slot, index);
    HOLDS(start >= base + layout->arrays_offset && (size_t)(start - base) <= layout->segment_bytes);
    HOLDS(tensor->max_bytes <= layout->segment_bytes - (size_t)(start - base));
    HOLDS((start - base) % SIDECAML_TENSOR_ALIGN == 0);
    /* Its first and last byte, for AddressSanitizer. */
    volatile uint8_t sum = 0;
    if (tensor->max_bytes) sum = (uint8_t)(start[0] + start[tensor->max_bytes - 1]);
    (void)sum;
    uint64_t dims[SIDECAML_MAX_RANK], bytes;
    int rank = dims_read(base, layout, slot, index, dims);
    HOLDS(rank == (int)tensor->rank || rank == -SIDECAML_E_BAD_DIMS);
    if (rank >= 0)
        HOLDS(sidecaml_tensor_bytes(tensor->dtype, dims, tensor->rank, &bytes) && bytes <= tensor->max_bytes);
    HOLDS(dims_read_needed(base, layout, slot, index, dims) == (int)tensor->rank);
    if (tensor->dtype == SIDECAML_STRING) read_strings(base, layout, slot, index);
}

/* What is only ever right or wrong: made right unless the input wants it as it is, so that what lies behind is tried.
 */
static void mend(uint8_t *base, uint64_t bytes, uint8_t as_it_is) {
    struct sidecaml_segment_header header;
    if (bytes < sizeof header) return;
    memcpy(&header, base, sizeof header);
    if (!(as_it_is & 1)) {
        memcpy(header.magic, SIDECAML_SEGMENT_MAGIC, sizeof header.magic);
        header.abi_version = SIDECAML_ABI_VERSION;
        header.header_bytes = sizeof header;
        header.segment_bytes = bytes;
    }
    if (!(as_it_is & 2)) {
        header.slot_count = header.slot_count % 4 + 1;
        header.input_count %= 4;
        header.output_count %= 4;
    }
    if (!(as_it_is & 4)) {
        uint64_t tensors = header.input_count + header.output_count;
        header.tensors_offset = sizeof header;
        header.client_offset = header.tensors_offset + tensors * sizeof(struct sidecaml_tensor_descriptor);
        header.worker_offset = header.client_offset + sizeof(struct sidecaml_client_block);
        header.slots_offset = header.worker_offset + sizeof(struct sidecaml_worker_block);
        header.dims_offset = header.slots_offset + header.slot_count * sizeof(struct sidecaml_slot);
        uint64_t end = header.dims_offset + header.slot_count * tensors * sizeof(struct sidecaml_dims);
        header.arrays_offset = (end + SIDECAML_PAGE_BYTES - 1) / SIDECAML_PAGE_BYTES * SIDECAML_PAGE_BYTES;
    }
    memcpy(base, &header, sizeof header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct sidecaml_layout layout;
    struct sidecaml_failure why;
    struct input input = {data, size};
    uint64_t bytes = (uint64_t)take_number(&input, PAGES_MOST) * SIDECAML_PAGE_BYTES;
    uint8_t as_it_is = take_byte(&input);
    if (as_it_is & 8) bytes += take_byte(&input);
    /* On the heap and no byte longer, for AddressSanitizer; aligned as a mapping is. */
    void *memory;
    HOLDS(posix_memalign(&memory, SIDECAML_TENSOR_ALIGN, bytes) == 0);
    uint8_t *base = memory;
    memset(base, 0, bytes);
    size_t said = input.left < bytes ? input.left : bytes;
    if (said) memcpy(base, input.at, said);
    mend(base, bytes, as_it_is);
    int status = sidecaml_layout_read(base, bytes, &layout, &why);
    HOLDS(status <= 0);
    if (status < 0) {
        HOLDS(why.code == -status);
        check_text(why.text, strlen(why.text));
    } else {
        for (uint32_t slot = 0; slot < layout.slot_count; slot++)
            for (uint32_t i = 0; i < tensor_count_of(&layout); i++)
                read_tensor(base, &layout, slot, i);
        HOLDS(tensor_at(base, &layout, layout.slot_count, 0) == NULL);
    }
    free(base);
    return 0;
}
