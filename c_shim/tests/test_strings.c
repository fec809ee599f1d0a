#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "sidecaml/strings.h"

static struct sidecaml_failure why;

/* A place on the heap, of exactly its size: AddressSanitizer sees whatever leads outside. */
static struct sidecaml_strings_place make_place(uint64_t most, uint64_t text_bytes) {
    void *start = calloc(1, (most + 1) * sizeof(uint64_t) + text_bytes);
    CHECK(start != NULL);
    return (struct sidecaml_strings_place){start, most, text_bytes};
}

static void fill(const struct sidecaml_strings_place *place, const uint64_t *offsets, uint64_t count, const char *text,
                 size_t bytes) {
    memcpy(place->start, offsets, (count + 1) * sizeof offsets[0]);
    memcpy(sidecaml_strings_text(place), text, bytes);
}

static int read(const struct sidecaml_strings_place *place, uint64_t count, struct sidecaml_strings *out) {
    return sidecaml_strings_read(place, count, "input", "x", out, &why);
}

static void strings_are_read_as_they_were_written(void) {
    static const char text[] = "a\0b"
                               "\xc3\xa9"
                               "end";
    struct sidecaml_strings_place place = make_place(5, 20);
    struct sidecaml_strings strings;
    fill(&place, (const uint64_t[]){0, 3, 3, 5, 8}, 4, text, 8);
    CHECK_EQ(read(&place, 4, &strings), 0);
    CHECK_EQ(strings.count, 4);
    CHECK_EQ(strings.offsets[4], 8);
    CHECK(memcmp(strings.text, text, 8) == 0);
    /* A private copy: what is written to the place afterwards does not reach it. */
    memset(place.start, 0xff, 6 * 8 + 20);
    CHECK_EQ(strings.offsets[1], 3);
    CHECK_EQ(strings.text[7], 'd');
    sidecaml_strings_clear(&strings);
    CHECK(strings.offsets == NULL && strings.text == NULL);
    free(place.start);
}

static void zeros_are_empty_strings(void) {
    struct sidecaml_strings_place place = make_place(3, 0);
    struct sidecaml_strings strings;
    for (uint64_t count = 0; count <= 3; count++) {
        CHECK_EQ(read(&place, count, &strings), 0);
        CHECK_EQ(strings.offsets[count], 0);
        sidecaml_strings_clear(&strings);
    }
    CHECK_EQ(read(&place, 4, &strings), -SIDECAML_E_INVALID);
    free(place.start);
}

/* The text lies behind the largest table, whatever the number of strings. */
static void the_text_has_a_fixed_place(void) {
    struct sidecaml_strings_place place = make_place(7, 4);
    CHECK_EQ(sidecaml_strings_text(&place) - (char *)place.start, 64);
    free(place.start);
}

static void check_bad(const uint64_t *offsets, uint64_t count, const char *text, size_t bytes, const char *sentence) {
    struct sidecaml_strings_place place = make_place(4, 8);
    struct sidecaml_strings strings;
    fill(&place, offsets, count, text, bytes);
    CHECK_EQ(read(&place, count, &strings), -SIDECAML_E_BAD_STRINGS);
    CHECK_EQ(why.code, SIDECAML_E_BAD_STRINGS);
    if (strcmp(why.text, sentence) != 0) check_failed(__FILE__, __LINE__, "%s", why.text);
    CHECK(strings.offsets == NULL && strings.text == NULL);
    free(place.start);
}

static void a_bad_table_is_told_by_its_string(void) {
    check_bad((const uint64_t[]){1, 2}, 1, "ab", 2,
              "input 'x': the first string begins at byte 1 of the text: expected 0");
    check_bad((const uint64_t[]){5}, 0, "", 0, "input 'x': the first string begins at byte 5 of the text: expected 0");
    check_bad((const uint64_t[]){0, 2, 1}, 2, "ab", 2,
              "input 'x': string 1 begins at byte 2 of the text and ends at 1");
    check_bad((const uint64_t[]){0, 9}, 1, "ab", 2,
              "input 'x': string 0 ends at byte 9 of the text, which has room for 8");
    check_bad((const uint64_t[]){0, 1, UINT64_MAX, UINT64_MAX}, 3, "ab", 2,
              "input 'x': string 1 ends at byte 18446744073709551615 of the text, which has room for 8");
}

static void text_that_is_not_utf8_is_told_by_its_string(void) {
    check_bad((const uint64_t[]){0, 1, 4}, 2, "abc\xff", 4, "input 'x': string 1 is not UTF-8 from its byte 2 on");
    /* A character of two strings belongs to neither. */
    check_bad((const uint64_t[]){0, 1, 2}, 2, "\xc3\xa9", 2, "input 'x': string 0 is not UTF-8 from its byte 0 on");
    check_bad((const uint64_t[]){0, 3}, 1, "\xed\xa0\x80", 3, "input 'x': string 0 is not UTF-8 from its byte 0 on");
}

static void sentences_fit_a_slot_whatever_the_name(void) {
    static char name[5000];
    struct sidecaml_strings_place place = make_place(0, 0);
    struct sidecaml_strings strings;
    memset(name, 'n', sizeof name - 1);
    *(uint64_t *)place.start = 1;
    CHECK_EQ(sidecaml_strings_read(&place, 0, "input", name, &strings, &why), -SIDECAML_E_BAD_STRINGS);
    CHECK_EQ(strlen(why.text), SIDECAML_MESSAGE_BYTES);
    CHECK_EQ(sidecaml_strings_read(&place, 0, "input", name, &strings, NULL), -SIDECAML_E_BAD_STRINGS);
    free(place.start);
}

static void text_without_room_is_counted(void) {
    CHECK_EQ(sidecaml_strings_check_room("y", 8, 8, &why), 0);
    CHECK_EQ(sidecaml_strings_check_room("y", 9, 8, &why), -SIDECAML_E_OUTPUT_TOO_LARGE);
    CHECK(strcmp(why.text, "output 'y': its strings came out as 9 bytes of text, and the channel has room for 8: open "
                           "with larger text_bytes") == 0);
}

/* Whether the table is one, by the page's own words. */
static bool is_table(const uint64_t *offsets, uint64_t count, uint64_t text_bytes) {
    bool is = offsets[0] == 0 && offsets[count] <= text_bytes;
    for (uint64_t i = 0; i < count; i++)
        is = is && offsets[i] <= offsets[i + 1];
    return is;
}

/* What is taken never leads outside, and what is refused was no table or no text. */
static void hostile_tables_never_lead_outside(void) {
    static const uint64_t edges[] = {0, 1, 7, 8, 15, 16, 17, UINT64_C(1) << 32, UINT64_C(1) << 63, UINT64_MAX};
    struct numbers numbers = {7};
    int taken = 0, refused = 0;
    for (int round = 0; round < 200000; round++) {
        uint64_t most = next_number(&numbers) % 5, count = next_number(&numbers) % (most + 1), offset = 0;
        struct sidecaml_strings_place place = make_place(most, 16);
        uint64_t *offsets = place.start;
        for (uint64_t i = 0; i <= count; i++) {
            offsets[i] = next_number(&numbers) % 8 ? offset : edges[next_number(&numbers) % 10];
            offset += next_number(&numbers) % 5;
        }
        bool ascii = next_number(&numbers) % 2;
        for (int i = 0; i < 16; i++)
            sidecaml_strings_text(&place)[i] = (char)(next_number(&numbers) & (ascii ? 0x7f : 0xff));
        struct sidecaml_strings strings;
        int status = read(&place, count, &strings);
        if (status == 0) {
            CHECK(is_table(offsets, count, 16));
            CHECK(memcmp(strings.text, sidecaml_strings_text(&place), strings.offsets[count]) == 0);
            sidecaml_strings_clear(&strings);
            taken++;
        } else {
            CHECK_EQ(status, -SIDECAML_E_BAD_STRINGS);
            CHECK(!ascii || !is_table(offsets, count, 16));
            refused++;
        }
        free(place.start);
    }
    CHECK(taken > 1000 && refused > 1000);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(strings_are_read_as_they_were_written)},
        {TEST(zeros_are_empty_strings)},
        {TEST(the_text_has_a_fixed_place)},
        {TEST(a_bad_table_is_told_by_its_string)},
        {TEST(text_that_is_not_utf8_is_told_by_its_string)},
        {TEST(sentences_fit_a_slot_whatever_the_name)},
        {TEST(text_without_room_is_counted)},
        {TEST(hostile_tables_never_lead_outside)},
    };
    return RUN_TESTS(tests, 60);
}
