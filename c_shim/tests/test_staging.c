#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "sidecaml/strings.h"
#include "staging.h"

enum { X, N, WORDS, NOTHING, Y, SCORE, TEXT, TENSORS };

static struct sidecaml_layout layout;
static struct sidecaml_failure why;
static uint8_t *segment;
static struct staging *staging;

static void open_all(void) {
    const struct sidecaml_tensor_spec specs[TENSORS] = {
        [X] = {.name = "x", .dtype = SIDECAML_FLOAT32, .rank = 2, .dynamic = true, .max_dims = {3, 5}},
        [N] = {.name = "n", .dtype = SIDECAML_INT64},
        [WORDS] =
            {.name = "words", .dtype = SIDECAML_STRING, .rank = 1, .dynamic = true, .max_dims = {4}, .text_bytes = 100},
        [NOTHING] = {.name = "nothing", .dtype = SIDECAML_UINT8, .rank = 2, .max_dims = {0, 7}},
        [Y] = {.name = "y", .dtype = SIDECAML_INT4, .rank = 1, .output = true, .dynamic = true, .max_dims = {65}},
        [SCORE] = {.name = "score", .dtype = SIDECAML_FLOAT64, .output = true},
        [TEXT] = {.name = "text",
                  .dtype = SIDECAML_STRING,
                  .rank = 1,
                  .output = true,
                  .dynamic = true,
                  .max_dims = {2},
                  .text_bytes = 9},
    };
    CHECK_EQ(sidecaml_layout_compute(specs, TENSORS, 3, 9, &layout, &why), 0);
    segment = aligned_alloc(SIDECAML_PAGE_BYTES, layout.segment_bytes);
    CHECK(segment);
    memset(segment, 0, layout.segment_bytes);
    sidecaml_segment_format(segment, &layout);
    CHECK_EQ(staging_open(&staging, &layout, &why), 0);
}

static void close_all(void) {
    staging_free(staging);
    free(segment);
}

static uint8_t *theirs(uint32_t slot, uint32_t tensor) {
    return tensor_at(segment, &layout, slot, tensor);
}

static uint8_t *ours(uint32_t tensor) {
    return tensor_at(staging->memory.base, &staging->layout, 0, tensor);
}

static uint64_t *their_dims(uint32_t slot, uint32_t tensor) {
    return dims_at(segment, &layout, slot, tensor);
}

static uint64_t *our_dims(uint32_t tensor) {
    return dims_at(staging->memory.base, &staging->layout, 0, tensor);
}

static void take(uint32_t slot) {
    staging_take(staging, segment, &layout, slot);
}

static void give(uint32_t slot) {
    staging_give(staging, segment, &layout, slot);
}

/* Strings "ab", "", "c" where there is room for `most`. */
static void write_words(uint8_t *place, uint64_t most) {
    const uint64_t table[] = {0, 2, 2, 3};
    memcpy(place, table, sizeof table);
    memcpy(place + (most + 1) * sizeof table[0], "abc", 3);
}

static bool is_all(const uint8_t *bytes, uint8_t value, uint64_t count) {
    for (uint64_t i = 0; i < count; i++)
        if (bytes[i] != value) return false;
    return true;
}

/* --- Inputs ------------------------------------------------------------------------------------------------------- */

static void inputs_are_copied_as_far_as_their_dims_say(void) {
    open_all();
    memset(theirs(1, X), 7, 60);
    memset(ours(X), 9, 60);
    memset(theirs(1, N), 3, 8);
    memcpy(their_dims(1, X), (uint64_t[]){2, 5}, 16);
    take(1);
    CHECK(is_all(ours(X), 7, 40) && is_all(ours(X) + 40, 9, 20));
    CHECK(is_all(ours(N), 3, 8));
    CHECK_EQ(our_dims(X)[0], 2);
    CHECK_EQ(our_dims(X)[1], 5);
    close_all();
}

static void what_the_client_writes_afterwards_changes_nothing(void) {
    open_all();
    memset(theirs(0, X), 7, 60);
    take(0);
    memset(segment, 0xff, layout.segment_bytes);
    CHECK(is_all(ours(X), 7, 60));
    uint64_t dims[SIDECAML_MAX_RANK];
    CHECK_EQ(dims_read(staging->memory.base, &staging->layout, 0, X, dims), 2);
    CHECK_EQ(dims[0], 3);
    CHECK_EQ(dims[1], 5);
    close_all();
}

static void dims_beyond_the_largest_are_refused_and_nothing_is_copied(void) {
    const uint64_t strange[] = {4, UINT64_MAX, UINT64_C(1) << 62, UINT64_C(1) << 32};
    open_all();
    for (int i = 0; i < 4; i++) {
        memset(theirs(2, X), 7, 60);
        memset(ours(X), 9, 60);
        their_dims(2, X)[0] = strange[i];
        their_dims(2, WORDS)[0] = strange[i] + 1;
        take(2);
        uint64_t dims[SIDECAML_MAX_RANK];
        CHECK_EQ(dims_read(staging->memory.base, &staging->layout, 0, X, dims), -SIDECAML_E_BAD_DIMS);
        CHECK(is_all(ours(X), 9, 60));
    }
    close_all();
}

static int read_words(struct sidecaml_strings *out) {
    const struct sidecaml_strings_place place = {.start = ours(WORDS), .most = 4, .text_bytes = 100};
    return sidecaml_strings_read(&place, our_dims(WORDS)[0], "input", "words", out, &why);
}

static void strings_are_copied_table_and_text(void) {
    open_all();
    write_words(theirs(1, WORDS), 4);
    their_dims(1, WORDS)[0] = 3;
    take(1);
    struct sidecaml_strings read;
    CHECK_EQ(read_words(&read), 0);
    CHECK_EQ(read.count, 3);
    CHECK(memcmp(read.text, "abc", 3) == 0);
    sidecaml_strings_clear(&read);
    their_dims(1, WORDS)[0] = 0;
    take(1);
    CHECK_EQ(read_words(&read), 0);
    CHECK_EQ(read.count, 0);
    sidecaml_strings_clear(&read);
    close_all();
}

static void a_table_that_leads_outside_is_refused_as_ever(void) {
    const uint64_t ends[] = {101, UINT64_MAX, UINT64_MAX - 60, UINT64_C(1) << 62};
    open_all();
    for (int i = 0; i < 4; i++) {
        write_words(theirs(1, WORDS), 4);
        memcpy(theirs(1, WORDS) + 24, &ends[i], 8);
        their_dims(1, WORDS)[0] = 3;
        take(1);
        struct sidecaml_strings read;
        CHECK_EQ(read_words(&read), -SIDECAML_E_BAD_STRINGS);
    }
    close_all();
}

/* --- Outputs ------------------------------------------------------------------------------------------------------ */

static void outputs_and_their_dims_are_given_to_one_slot(void) {
    open_all();
    take(1);
    CHECK_EQ(our_dims(Y)[0], 65);
    our_dims(Y)[0] = 5;
    memset(ours(Y), 4, 33);
    memset(ours(SCORE), 5, 8);
    our_dims(TEXT)[0] = 2;
    memcpy(ours(TEXT), (uint64_t[]){0, 4, 9}, 24);
    memcpy(ours(TEXT) + 24, "twosorrow", 9);
    give(1);
    CHECK_EQ(their_dims(1, Y)[0], 5);
    CHECK(is_all(theirs(1, Y), 4, 3) && theirs(1, Y)[3] == 0); /* five numbers of four bits */
    CHECK(is_all(theirs(1, SCORE), 5, 8));
    CHECK(memcmp(theirs(1, TEXT) + 24, "twosorrow", 9) == 0);
    for (uint32_t other = 0; other < 3; other += 2) {
        CHECK_EQ(their_dims(other, Y)[0], 65);
        CHECK(is_all(theirs(other, Y), 0, 33) && is_all(theirs(other, SCORE), 0, 8) &&
              is_all(theirs(other, TEXT), 0, 33));
    }
    close_all();
}

static void inputs_are_never_given_back(void) {
    open_all();
    memset(theirs(0, X), 7, 60);
    take(0);
    memset(ours(X), 1, 60);
    our_dims(X)[0] = 1;
    give(0);
    CHECK(is_all(theirs(0, X), 7, 60));
    CHECK_EQ(their_dims(0, X)[0], 3);
    close_all();
}

static void what_is_needed_is_told_without_outputs(void) {
    open_all();
    take(2);
    our_dims(Y)[0] = 1000;
    our_dims(TEXT)[0] = UINT64_C(1) << 40;
    memset(ours(Y), 4, 33);
    staging_give_needed(staging, segment, &layout, 2);
    CHECK_EQ(their_dims(2, Y)[0], 1000);
    CHECK_EQ(their_dims(2, TEXT)[0], UINT64_C(1) << 40);
    CHECK(is_all(theirs(2, Y), 0, 33));
    take(2); /* and forgotten with the next request */
    CHECK_EQ(our_dims(Y)[0], 65);
    close_all();
}

static void a_model_without_tensors_has_nothing_to_copy(void) {
    CHECK_EQ(sidecaml_layout_compute(NULL, 0, 2, 0, &layout, &why), 0);
    segment = calloc(1, layout.segment_bytes);
    sidecaml_segment_format(segment, &layout);
    CHECK_EQ(staging_open(&staging, &layout, &why), 0);
    take(1);
    give(1);
    staging_give_needed(staging, segment, &layout, 1);
    close_all();
    staging_free(NULL);
}

/* Kernels are as fast there, and give the same bits. */
static void private_tensors_lie_as_well_aligned(void) {
    open_all();
    for (uint32_t t = 0; t < TENSORS; t++) {
        CHECK_EQ((uintptr_t)ours(t) % SIDECAML_TENSOR_ALIGN, 0);
        CHECK(ours(t) + layout.tensor[t].max_bytes <= staging->memory.base + staging->memory.bytes);
    }
    close_all();
}

static void no_memory_is_said(void) {
    const struct sidecaml_tensor_spec spec = {
        .name = "x", .dtype = SIDECAML_UINT8, .rank = 1, .max_dims = {UINT64_C(1) << 60}};
    CHECK_EQ(sidecaml_layout_compute(&spec, 1, 1, 0, &layout, &why), 0);
    CHECK_EQ(staging_open(&staging, &layout, &why), -SIDECAML_E_NO_MEMORY);
    CHECK_SAYS(why.text, "private memory");
}

int main(void) {
    static const struct test tests[] = {
        {TEST(inputs_are_copied_as_far_as_their_dims_say)},
        {TEST(what_the_client_writes_afterwards_changes_nothing)},
        {TEST(dims_beyond_the_largest_are_refused_and_nothing_is_copied)},
        {TEST(strings_are_copied_table_and_text)},
        {TEST(a_table_that_leads_outside_is_refused_as_ever)},
        {TEST(outputs_and_their_dims_are_given_to_one_slot)},
        {TEST(inputs_are_never_given_back)},
        {TEST(what_is_needed_is_told_without_outputs)},
        {TEST(a_model_without_tensors_has_nothing_to_copy)},
        {TEST(private_tensors_lie_as_well_aligned)},
        {TEST(no_memory_is_said)},
    };
    return RUN_TESTS(tests, 30);
}
