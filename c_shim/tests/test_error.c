#include <errno.h>
#include <string.h>

#include "check.h"
#include "failure.h"

static void every_code_has_its_name_and_text_with_either_sign(void) {
#define SIDECAML_ERROR(NAME, code, text)                                                                               \
    CHECK(strcmp(sidecaml_error_name(code), #NAME) == 0);                                                              \
    CHECK(strcmp(sidecaml_error_name(-(code)), #NAME) == 0);                                                           \
    CHECK(strcmp(sidecaml_error_text(-(code)), text) == 0);
#include "sidecaml/errors.def"
#undef SIDECAML_ERROR
}

static void unknown_codes_say_so(void) {
    const int codes[] = {11, -11, 1000, -1000, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        CHECK(strcmp(sidecaml_error_name(codes[i]), "UNKNOWN") == 0);
        CHECK_SAYS(sidecaml_error_text(codes[i]), "does not know");
    }
    CHECK(strcmp(sidecaml_error_name(0), "OK") == 0);
}

static void a_failure_may_go_unread(void) {
    CHECK_EQ(fail(NULL, SIDECAML_E_FULL, "%d", 1), -SIDECAML_E_FULL);
}

static void a_long_text_is_cut_and_ends(void) {
    struct sidecaml_failure why;
    char text[2 * sizeof why.text];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    CHECK_EQ(fail(&why, SIDECAML_E_ENGINE, "%s", text), -SIDECAML_E_ENGINE);
    CHECK_EQ(why.code, SIDECAML_E_ENGINE);
    CHECK_EQ(strlen(why.text), sizeof why.text - 1);
}

static void texts_are_fit_to_be_shown_whoever_wrote_what_is_in_them(void) {
    struct sidecaml_failure why;
    fail(&why, SIDECAML_E_ENGINE, "%s", "tab\there \x1b[31m \xff \xc3\xa9 \x7f");
    CHECK(strcmp(why.text, "tab here  [31m ? \xc3\xa9  ") == 0);
    fail(&why, SIDECAML_E_ENGINE, "%s",
         "\xc2\x9b"
         "31m \xc2\xa0"); /* CSI in one character; a space that is none */
    CHECK(strcmp(why.text, "  31m \xc2\xa0") == 0);
    /* A character of two bytes for every place: the last may be cut in the middle. */
    char text[2 * sizeof why.text];
    for (size_t shift = 0; shift < 2; shift++) {
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = (i + shift) % 2 ? '\xa9' : '\xc3';
        if (shift) text[0] = 'x';
        text[sizeof text - 1] = '\0';
        fail(&why, SIDECAML_E_ENGINE, "%s", text);
        CHECK_EQ(strlen(why.text), sizeof why.text - (shift ? 1 : 2));
        CHECK(strchr(why.text, '?') == NULL);
    }
}

static void errno_gives_its_text_and_memory_its_own_code(void) {
    struct sidecaml_failure why;
    errno = EACCES;
    CHECK_EQ(fail_errno(&why, "opening"), -SIDECAML_E_SYSTEM);
    CHECK_SAYS(why.text, "opening: Permission denied");
    errno = ENOMEM;
    CHECK_EQ(fail_errno(&why, "mapping"), -SIDECAML_E_NO_MEMORY);
}

static void every_element_type_is_found_by_name_and_code(void) {
#define CHECK_DTYPE(NAME, name, code, bits)                                                                            \
    CHECK_EQ(sidecaml_dtype_bits(code), bits);                                                                         \
    CHECK(strcmp(sidecaml_dtype_name(code), #name) == 0);                                                              \
    CHECK_EQ(sidecaml_dtype_of_name(#name, strlen(#name)), code);
    SIDECAML_DTYPES(CHECK_DTYPE)
#undef CHECK_DTYPE
}

static void unknown_element_types_are_nothing(void) {
    CHECK_EQ(sidecaml_dtype_bits(0), 0);
    CHECK_EQ(sidecaml_dtype_bits(27), 0);
    CHECK_EQ(sidecaml_dtype_bits(UINT32_MAX), 0);
    CHECK(sidecaml_dtype_name(0) == NULL);
    CHECK_EQ(sidecaml_dtype_of_name("float3", 6), 0);
    CHECK_EQ(sidecaml_dtype_of_name("float322", 8), 0);
    CHECK_EQ(sidecaml_dtype_of_name("", 0), 0);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(every_code_has_its_name_and_text_with_either_sign)},
        {TEST(unknown_codes_say_so)},
        {TEST(a_failure_may_go_unread)},
        {TEST(a_long_text_is_cut_and_ends)},
        {TEST(texts_are_fit_to_be_shown_whoever_wrote_what_is_in_them)},
        {TEST(errno_gives_its_text_and_memory_its_own_code)},
        {TEST(every_element_type_is_found_by_name_and_code)},
        {TEST(unknown_element_types_are_nothing)},
    };
    return RUN_TESTS(tests, 20);
}
