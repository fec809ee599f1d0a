/* Telling events apart, in bytes that may be anything. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "event.h"

/* On the heap and of the very size, so that the sanitizers see a byte too many. */
static bool is_unknown(const void *bytes, size_t count) {
    uint8_t *copy = malloc(count ? count : 1);
    CHECK(copy != NULL);
    if (count) memcpy(copy, bytes, count);
    bool found = event_is_unknown(copy, count);
    free(copy);
    return found;
}

#define IS_UNKNOWN(text) is_unknown(text, sizeof(text) - 1)

static void names_other_than_gone_are_unknown(void) {
    CHECK(IS_UNKNOWN("\x81\xa5"
                     "event\xa3"
                     "new"));
    CHECK(IS_UNKNOWN("\x81\xa5"
                     "event\xa0"));
    CHECK(IS_UNKNOWN("\x82\xa4"
                     "none\xc0\xa5"
                     "event\xda\x00\x03"
                     "new"));
    CHECK(IS_UNKNOWN("\xde\x00\x01\xa5"
                     "event\xa5"
                     "gone."));
    CHECK(!IS_UNKNOWN("\x81\xa5"
                      "event\xa4"
                      "gone"));
    CHECK(!IS_UNKNOWN("\x81\xd9\x05"
                      "event\xdb\x00\x00\x00\x04"
                      "gone"));
}

/* Before the name: a value of every kind of msgpack, which is stepped over. */
static void every_kind_of_value_is_stepped_over(void) {
    static const char *const values[] = {
        "\x7f",
        "\xc0",
        "\xc2",
        "\xe0",
        "\xa1x",
        "\x91\x01",
        "\x81\x01\x02",
        "\xcc\x01",
        "\xcd\x01\x01",
        "\xd0\x01",
        "\xd1\x01\x01",
        "\xc4\x01x",
        "\xd9\x01x",
        "\xd4\x01\x01",
        "\xd5\x01\x01\x01",
        "\xc7\x01\x01\x01",
        "\xca\x01\x01\x01\x01",
        "\xce\x01\x01\x01\x01",
        "\xd2\x01\x01\x01\x01",
        "\xcb\x01\x01\x01\x01\x01\x01\x01\x01",
        "\xcf\x01\x01\x01\x01\x01\x01\x01\x01",
        "\xd3\x01\x01\x01\x01\x01\x01\x01\x01",
        "\x92\x91\x91\x01\x81\x01\x91\x02",
        "\xd7\x01\x01\x01\x01\x01\x01\x01\x01\x01",
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char message[64] = "\x82\xa1k";
        size_t length = strlen(values[i]);
        memcpy(message + 3, values[i], length);
        memcpy(message + 3 + length,
               "\xa5"
               "event"
               "\xa3"
               "new",
               10);
        if (!is_unknown(message, length + 13)) check_failed(__FILE__, __LINE__, "value %zu is not stepped over", i);
        for (size_t cut = 0; cut < length + 13; cut++)
            if (is_unknown(message, cut)) check_failed(__FILE__, __LINE__, "value %zu, cut to %zu bytes", i, cut);
    }
}

static void anything_may_come(void) {
    struct numbers numbers = {7};
    char bytes[80];
    for (int round = 0; round < 200000; round++) {
        size_t count = next_number(&numbers) % sizeof bytes;
        for (size_t i = 0; i < count; i++)
            bytes[i] = (char)(next_number(&numbers) >> 7);
        /* More of what gets far: a map, and containers and lengths in it. */
        if (count && round % 2) bytes[0] = (char)(0x80 | (bytes[0] & 0x0f));
        for (size_t i = 1; i < count && round % 4 == 3; i += 3)
            bytes[i] = (char)(0xc0 | (bytes[i] & 0x1f));
        is_unknown(bytes, count);
    }
}

int main(void) {
    static const struct test tests[] = {
        {TEST(names_other_than_gone_are_unknown)},
        {TEST(every_kind_of_value_is_stepped_over)},
        {TEST(anything_may_come)},
    };
    return RUN_TESTS(tests, 60);
}
