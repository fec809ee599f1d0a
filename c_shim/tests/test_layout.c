#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "mapping.h"

#define TWO_TO(bits) (UINT64_C(1) << (bits))

static struct sidecaml_layout layout;
static struct sidecaml_failure why;

static int compute_one(uint32_t dtype, uint32_t rank, const uint64_t *dims, uint32_t slots) {
    struct sidecaml_tensor_spec spec = {.name = "tensor", .dtype = dtype, .rank = rank};
    memcpy(spec.max_dims, dims, (rank < SIDECAML_MAX_RANK ? rank : SIDECAML_MAX_RANK) * sizeof dims[0]);
    return sidecaml_layout_compute(&spec, 1, slots, 0, &layout, &why);
}

/* --- Computing --------------------------------------------------------------------------------------------------- */

static void tables_and_arrays_follow_one_another(void) {
    struct sidecaml_tensor_spec specs[] = {
        {.name = "x", .dtype = SIDECAML_FLOAT32, .rank = 2, .max_dims = {3, 5}},
        {.name = "n", .dtype = SIDECAML_INT64},
        {.name = "y", .dtype = SIDECAML_UINT8, .rank = 1, .output = true, .dynamic = true, .max_dims = {65}},
    };
    CHECK_EQ(sidecaml_layout_compute(specs, 3, 4, 9, &layout, &why), 0);
    CHECK_EQ(layout.input_count, 2);
    CHECK_EQ(layout.output_count, 1);
    CHECK_EQ(layout.tensors_offset, 128);
    CHECK_EQ(layout.client_offset, 128 + 3 * 256);
    CHECK_EQ(layout.worker_offset, layout.client_offset + 128);
    CHECK_EQ(layout.slots_offset, layout.worker_offset + 128);
    CHECK_EQ(layout.dims_offset, layout.slots_offset + 4 * 512);
    CHECK_EQ(layout.arrays_offset, 8192);
    CHECK_EQ(layout.tensor[0].array_offset, 8192);
    CHECK_EQ(layout.tensor[0].max_bytes, 60);
    CHECK_EQ(layout.tensor[0].slot_stride, 64);
    CHECK_EQ(layout.tensor[1].array_offset, 8192 + 4 * 64);
    CHECK_EQ(layout.tensor[1].max_bytes, 8);
    CHECK_EQ(layout.tensor[2].array_offset, 8192 + 8 * 64);
    CHECK_EQ(layout.tensor[2].slot_stride, 128);
    CHECK_EQ(layout.tensor[2].flags, SIDECAML_TENSOR_OUTPUT | SIDECAML_TENSOR_DYNAMIC);
    CHECK_EQ(layout.segment_bytes, 12288);
}

static void packed_slots_lie_side_by_side_where_their_bytes_allow_it(void) {
    struct sidecaml_tensor_spec specs[] = {
        {.name = "x", .dtype = SIDECAML_FLOAT32, .rank = 2, .packed = true, .max_dims = {1, 12}},
        {.name = "s", .dtype = SIDECAML_STRING, .rank = 1, .packed = true, .max_dims = {1}, .text_bytes = 64},
        {.name = "e", .dtype = SIDECAML_FLOAT32, .rank = 1, .packed = true, .max_dims = {0}},
        {.name = "y", .dtype = SIDECAML_FLOAT32, .rank = 1, .output = true, .packed = true, .max_dims = {10}},
    };
    CHECK_EQ(sidecaml_layout_compute(specs, 4, 3, 9, &layout, &why), 0);
    CHECK_EQ(layout.tensor[0].flags, SIDECAML_TENSOR_PACKED);
    CHECK_EQ(layout.tensor[0].slot_stride, 48);
    CHECK_EQ(layout.tensor[1].flags, 0);
    CHECK_EQ(layout.tensor[1].array_offset, layout.tensor[0].array_offset + 192); /* 3 * 48, on 64 */
    CHECK_EQ(layout.tensor[2].flags, 0);
    CHECK_EQ(layout.tensor[3].flags, SIDECAML_TENSOR_OUTPUT);
    CHECK_EQ(layout.tensor[3].slot_stride, 64);

    uint8_t *base = calloc(1, layout.segment_bytes);
    struct sidecaml_layout read;
    sidecaml_segment_format(base, &layout);
    CHECK_EQ(sidecaml_layout_read(base, layout.segment_bytes, &read, &why), 0);
    CHECK(memcmp(&read, &layout, sizeof read) == 0);
    struct sidecaml_tensor_descriptor *tensors = (void *)(base + layout.tensors_offset);
    tensors[0].slot_stride = 64;
    CHECK_EQ(sidecaml_layout_read(base, layout.segment_bytes, &read, &why), -SIDECAML_E_CORRUPT);
    tensors[0].slot_stride = 48;
    tensors[3].flags |= SIDECAML_TENSOR_PACKED; /* 40 bytes are no multiple of 16 */
    tensors[3].slot_stride = 40;
    CHECK_EQ(sidecaml_layout_read(base, layout.segment_bytes, &read, &why), -SIDECAML_E_CORRUPT);
    free(base);
}

static void an_empty_tensor_has_a_place_of_its_own(void) {
    CHECK_EQ(compute_one(SIDECAML_FLOAT64, 2, (uint64_t[]){0, 7}, 3), 0);
    CHECK_EQ(layout.tensor[0].max_bytes, 0);
    CHECK_EQ(layout.tensor[0].slot_stride, 64);
}

static void no_tensors_at_all_are_a_layout(void) {
    CHECK_EQ(sidecaml_layout_compute(NULL, 0, 1, 0, &layout, &why), 0);
    CHECK_EQ(layout.segment_bytes, layout.arrays_offset);
}

static void sizes_beyond_the_largest_are_refused_wherever_they_overflow(void) {
    uint64_t sixteen[SIDECAML_MAX_RANK];
    for (int i = 0; i < SIDECAML_MAX_RANK; i++)
        sixteen[i] = 16; /* 2^64 elements: the product wraps to 0 */
    CHECK_EQ(compute_one(SIDECAML_UINT8, 16, sixteen, 1), -SIDECAML_E_NO_SPACE);
    CHECK_SAYS(why.text, "\"tensor\"");
    CHECK_EQ(compute_one(SIDECAML_UINT8, 1, (uint64_t[]){UINT64_MAX}, 1), -SIDECAML_E_NO_SPACE);
    CHECK_EQ(compute_one(SIDECAML_FLOAT64, 1, (uint64_t[]){TWO_TO(61)}, 1), -SIDECAML_E_NO_SPACE); /* 2^64 bytes */
    CHECK_EQ(compute_one(SIDECAML_UINT8, 2, (uint64_t[]){TWO_TO(32), TWO_TO(31)}, 1), -SIDECAML_E_NO_SPACE);
    CHECK_EQ(compute_one(SIDECAML_UINT8, 1, (uint64_t[]){TWO_TO(62) + 1}, 1), -SIDECAML_E_NO_SPACE);
    CHECK_EQ(compute_one(SIDECAML_UINT8, 1, (uint64_t[]){TWO_TO(62)}, 1), -SIDECAML_E_NO_SPACE); /* with the tables */
    CHECK_EQ(compute_one(SIDECAML_UINT8, 1, (uint64_t[]){TWO_TO(61)}, 2), -SIDECAML_E_NO_SPACE);
    CHECK_EQ(compute_one(SIDECAML_UINT8, 1, (uint64_t[]){TWO_TO(61)}, 1), 0);
    CHECK(layout.segment_bytes > TWO_TO(61) && layout.segment_bytes <= TWO_TO(62));
    CHECK_EQ(compute_one(SIDECAML_UINT8, 1, (uint64_t[]){TWO_TO(54)}, SIDECAML_MAX_SLOTS), -SIDECAML_E_NO_SPACE);
}

static void a_zero_does_not_hide_an_absurd_dimension(void) {
    CHECK_EQ(compute_one(SIDECAML_UINT8, 2, (uint64_t[]){0, UINT64_MAX}, 1), -SIDECAML_E_NO_SPACE);
    CHECK_EQ(compute_one(SIDECAML_UINT8, 3, (uint64_t[]){TWO_TO(40), 0, TWO_TO(40)}, 1), -SIDECAML_E_NO_SPACE);
}

static void two_large_tensors_do_not_overflow_together(void) {
    struct sidecaml_tensor_spec specs[4];
    for (int i = 0; i < 4; i++)
        specs[i] =
            (struct sidecaml_tensor_spec){.name = "t", .dtype = SIDECAML_UINT8, .rank = 1, .max_dims = {TWO_TO(61)}};
    CHECK_EQ(sidecaml_layout_compute(specs, 4, 1, 0, &layout, &why), -SIDECAML_E_NO_SPACE);
}

static void counts_out_of_range_are_refused_with_the_limit(void) {
    uint64_t dims[17] = {0};
    CHECK_EQ(compute_one(SIDECAML_UINT8, 0, dims, 0), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "1 to 1024");
    CHECK_EQ(compute_one(SIDECAML_UINT8, 0, dims, 1025), -SIDECAML_E_INVALID);
    CHECK_EQ(compute_one(SIDECAML_UINT8, 17, dims, 1), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "17 dimensions");
    CHECK_EQ(compute_one(SIDECAML_UINT8, UINT32_MAX, dims, 1), -SIDECAML_E_INVALID);
    CHECK_EQ(compute_one(0, 0, dims, 1), -SIDECAML_E_INVALID);
    CHECK_EQ(compute_one(27, 0, dims, 1), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "code 27");
    CHECK_EQ(sidecaml_layout_compute(NULL, 257, 1, 0, &layout, &why), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "256");
}

static void an_input_after_an_output_is_refused(void) {
    struct sidecaml_tensor_spec specs[] = {
        {.name = "y", .dtype = SIDECAML_BOOL, .output = true},
        {.name = "late", .dtype = SIDECAML_BOOL},
    };
    CHECK_EQ(sidecaml_layout_compute(specs, 2, 1, 0, &layout, &why), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "\"late\"");
}

static void a_long_name_is_cut_to_its_place(void) {
    char name[200];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    struct sidecaml_tensor_spec spec = {.name = name, .dtype = SIDECAML_BOOL};
    CHECK_EQ(sidecaml_layout_compute(&spec, 1, 1, 0, &layout, &why), 0);
    CHECK_EQ(strnlen((char *)layout.tensor[0].name, SIDECAML_NAME_BYTES), SIDECAML_NAME_BYTES);
}

static void the_most_of_everything_fits(void) {
    struct sidecaml_tensor_spec specs[SIDECAML_MAX_TENSORS];
    for (int i = 0; i < SIDECAML_MAX_TENSORS; i++)
        specs[i] = (struct sidecaml_tensor_spec){.name = "t", .dtype = SIDECAML_BOOL, .output = i >= 100};
    CHECK_EQ(sidecaml_layout_compute(specs, SIDECAML_MAX_TENSORS, SIDECAML_MAX_SLOTS, 0, &layout, &why), 0);
    CHECK_EQ(layout.input_count, 100);
    uint64_t end = layout.dims_offset + 1024 * 256 * 128;
    CHECK(layout.arrays_offset >= end && layout.arrays_offset - end < SIDECAML_PAGE_BYTES);
}

/* --- Reading ----------------------------------------------------------------------------------------------------- */

/* A segment of two slots and three tensors; to be freed. */
static uint8_t *make_segment(struct sidecaml_layout *out) {
    struct sidecaml_tensor_spec specs[] = {
        {.name = "x", .dtype = SIDECAML_FLOAT32, .rank = 2, .dynamic = true, .max_dims = {3, 5}},
        {.name = "n", .dtype = SIDECAML_INT64},
        {.name = "y", .dtype = SIDECAML_UINT8, .rank = 1, .output = true, .max_dims = {65}},
    };
    CHECK_EQ(sidecaml_layout_compute(specs, 3, 2, 9, out, &why), 0);
    uint8_t *base = aligned_alloc(SIDECAML_PAGE_BYTES, out->segment_bytes);
    CHECK(base != NULL);
    memset(base, 0, out->segment_bytes);
    sidecaml_segment_format(base, out);
    return base;
}

static void what_was_formatted_is_read(void) {
    struct sidecaml_layout made, read;
    uint8_t *base = make_segment(&made);
    CHECK_EQ(sidecaml_layout_read(base, made.segment_bytes, &read, &why), 0);
    CHECK(memcmp(&made, &read, sizeof made) == 0);
    const struct sidecaml_slot *slots = slots_of(base, &made);
    CHECK_EQ(slots[0].word, 0 << SIDECAML_STATE_BITS);
    CHECK_EQ(slots[1].word, 1 << SIDECAML_STATE_BITS);
    free(base);
}

/* Reads no byte beyond what it is given: AddressSanitizer watches. */
static void every_shorter_segment_is_refused(void) {
    struct sidecaml_layout made, read;
    uint8_t *base = make_segment(&made);
    for (uint64_t bytes = 0; bytes < made.segment_bytes; bytes += bytes < 2048 ? 1 : 512) {
        uint8_t *copy = malloc(bytes ? bytes : 1);
        CHECK(copy != NULL);
        memcpy(copy, base, bytes);
        CHECK_EQ(sidecaml_layout_read(copy, bytes, &read, &why), -SIDECAML_E_CORRUPT);
        /* And when it says itself that it is that short. */
        if (bytes >= 24) memcpy(copy + 16, &bytes, sizeof bytes);
        CHECK_EQ(sidecaml_layout_read(copy, bytes, &read, NULL), -SIDECAML_E_CORRUPT);
        free(copy);
    }
    free(base);
}

static void another_version_is_said_before_anything_else(void) {
    struct sidecaml_layout made, read;
    uint8_t *base = make_segment(&made);
    memset(base + 12, 0xff, made.segment_bytes - 12);
    base[8] = SIDECAML_ABI_VERSION + 100;
    CHECK_EQ(sidecaml_layout_read(base, made.segment_bytes, &read, &why), -SIDECAML_E_ABI_MISMATCH);
    CHECK_SAYS(why.text, "version 104");
    free(base);
}

static void check_accepted(const uint8_t *base, const struct sidecaml_layout *read) {
    uint64_t dims[SIDECAML_MAX_RANK];
    uint8_t *start = (uint8_t *)base;
    for (uint32_t slot = 0; slot < read->slot_count; slot++)
        for (uint32_t t = 0; t < tensor_count_of(read); t++) {
            uint8_t *tensor = tensor_at(start, read, slot, t);
            CHECK(tensor >= start + read->arrays_offset);
            CHECK(tensor + read->tensor[t].max_bytes <= start + read->segment_bytes);
            CHECK(dims_read(start, read, slot, t, dims) <= SIDECAML_MAX_RANK);
        }
}

/* What is accepted never leads outside, whatever the header says. */
static void mutated_tables_never_lead_outside(void) {
    struct sidecaml_layout made, read;
    uint8_t *base = make_segment(&made);
    uint8_t *copy = aligned_alloc(SIDECAML_PAGE_BYTES, made.segment_bytes);
    CHECK(copy != NULL);
    static const uint64_t edges[] = {0,          1,          2,          17,         64,         65,        4096,
                                     TWO_TO(31), TWO_TO(32), TWO_TO(61), TWO_TO(62), TWO_TO(63), UINT64_MAX};
    struct numbers numbers = {1};
    int accepted = 0;
    for (int round = 0; round < 100000; round++) {
        memcpy(copy, base, made.segment_bytes);
        for (unsigned long long i = next_number(&numbers) % 3 + 1; i > 0; i--) {
            uint64_t value = next_number(&numbers) % 2 ? edges[next_number(&numbers) % (sizeof edges / sizeof edges[0])]
                                                       : next_number(&numbers);
            size_t width = next_number(&numbers) % 2 ? 4 : 1;
            size_t at = next_number(&numbers) % (made.client_offset / 4) * 4;
            memcpy(copy + at, &value, width);
        }
        if (sidecaml_layout_read(copy, made.segment_bytes, &read, &why) < 0) {
            CHECK(why.code == SIDECAML_E_CORRUPT || why.code == SIDECAML_E_ABI_MISMATCH);
            continue;
        }
        check_accepted(copy, &read);
        accepted++;
    }
    CHECK(accepted > 0);
    free(copy);
    free(base);
}

/* --- Dims -------------------------------------------------------------------------------------------------------- */

static void dims_are_checked_one_by_one(void) {
    struct sidecaml_layout made;
    uint8_t *base = make_segment(&made);
    uint64_t dims[SIDECAML_MAX_RANK];
    CHECK_EQ(dims_read(base, &made, 1, 0, dims), 2);
    CHECK(dims[0] == 3 && dims[1] == 5);
    CHECK_EQ(dims_write(base, &made, 1, 0, (uint64_t[]){0, 5}, 2), 0);
    CHECK_EQ(dims_read(base, &made, 1, 0, dims), 2);
    CHECK(dims[0] == 0 && dims[1] == 5);
    CHECK_EQ(dims_read(base, &made, 0, 0, dims), 2);
    CHECK_EQ(dims[0], 3); /* the other slot keeps its own */
    CHECK_EQ(dims_write(base, &made, 1, 0, (uint64_t[]){1, 6}, 2), -SIDECAML_E_BAD_DIMS);
    CHECK_EQ(dims_write(base, &made, 1, 0, (uint64_t[]){1}, 1), -SIDECAML_E_INVALID);
    CHECK_EQ(dims_write(base, &made, 2, 0, (uint64_t[]){1, 1}, 2), -SIDECAML_E_INVALID);
    CHECK_EQ(dims_write(base, &made, 0, 3, (uint64_t[]){1, 1}, 2), -SIDECAML_E_INVALID);
    CHECK_EQ(dims_read(base, &made, 2, 0, dims), -SIDECAML_E_INVALID);
    CHECK_EQ(dims_read(base, &made, 0, 3, dims), -SIDECAML_E_INVALID);
    free(base);
}

static void a_static_tensor_keeps_its_dims(void) {
    struct sidecaml_layout made;
    uint8_t *base = make_segment(&made);
    uint64_t dims[SIDECAML_MAX_RANK];
    CHECK_EQ(dims_write(base, &made, 0, 2, (uint64_t[]){65}, 1), 0);
    CHECK_EQ(dims_write(base, &made, 0, 2, (uint64_t[]){64}, 1), -SIDECAML_E_INVALID);
    memset(base + made.dims_offset, 0xff, 2 * 3 * sizeof(struct sidecaml_dims));
    CHECK_EQ(dims_read(base, &made, 0, 2, dims), 1);
    CHECK_EQ(dims[0], 65);
    CHECK_EQ(dims_read(base, &made, 0, 1, dims), 0);
    CHECK_EQ(dims_read(base, &made, 0, 0, dims), -SIDECAML_E_BAD_DIMS);
    free(base);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(tables_and_arrays_follow_one_another)},
        {TEST(packed_slots_lie_side_by_side_where_their_bytes_allow_it)},
        {TEST(an_empty_tensor_has_a_place_of_its_own)},
        {TEST(no_tensors_at_all_are_a_layout)},
        {TEST(sizes_beyond_the_largest_are_refused_wherever_they_overflow)},
        {TEST(a_zero_does_not_hide_an_absurd_dimension)},
        {TEST(two_large_tensors_do_not_overflow_together)},
        {TEST(counts_out_of_range_are_refused_with_the_limit)},
        {TEST(an_input_after_an_output_is_refused)},
        {TEST(a_long_name_is_cut_to_its_place)},
        {TEST(the_most_of_everything_fits)},
        {TEST(what_was_formatted_is_read)},
        {TEST(every_shorter_segment_is_refused)},
        {TEST(another_version_is_said_before_anything_else)},
        {TEST(mutated_tables_never_lead_outside)},
        {TEST(dims_are_checked_one_by_one)},
        {TEST(a_static_tensor_keeps_its_dims)},
    };
    return RUN_TESTS(tests, 30);
}
