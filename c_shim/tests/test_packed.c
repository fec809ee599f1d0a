/* Messages are only as large as they are. */
#include "packed.h"

#include <msgpack.h>
#include <string.h>

#include "check.h"

#define WHOLE(...) packed_is_whole((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void what_announces_more_than_there_is_is_not_whole(void) {
    CHECK(!packed_is_whole(NULL, 0));
    CHECK(!WHOLE(0xdd, 0xff, 0xff, 0xff, 0xff));
    CHECK(!WHOLE(0xdf, 0x7f, 0xff, 0xff, 0xff));
    CHECK(!WHOLE(0xdf, 0x00, 0x00, 0x00, 0x01, 0xc0)); /* a key without its value */
    CHECK(!WHOLE(0xdc, 0x00));
    CHECK(!WHOLE(0xdb, 0xff, 0xff, 0xff, 0xff, 'a'));
    CHECK(!WHOLE(0xc6, 0x00, 0x00, 0x00, 0x02, 'a'));
    CHECK(!WHOLE(0xc7, 0x01, 0x00));
    CHECK(!WHOLE(0xd8, 0x00));
    CHECK(!WHOLE(0xa2, 'a'));
    CHECK(!WHOLE(0x82, 0xc0, 0xc0, 0xc0));
    CHECK(!WHOLE(0x92, 0x91, 0xc0));
    CHECK(!WHOLE(0xcf, 0, 0, 0, 0, 0, 0, 0));
}

static void every_form_is_as_long_as_it_is(void) {
    CHECK(WHOLE(0x00) && WHOLE(0x7f) && WHOLE(0xe0) && WHOLE(0xff) && WHOLE(0xc0) && WHOLE(0xc2) && WHOLE(0xc3));
    CHECK(WHOLE(0x80) && WHOLE(0x81, 0xa1, 'a', 0x01) && WHOLE(0x90) && WHOLE(0x92, 0x90, 0x01) && WHOLE(0xa0));
    CHECK(WHOLE(0xc4, 1, 'a') && WHOLE(0xc5, 0, 1, 'a') && WHOLE(0xc6, 0, 0, 0, 1, 'a'));
    CHECK(WHOLE(0xc7, 1, 5, 'a') && WHOLE(0xc8, 0, 1, 5, 'a') && WHOLE(0xc9, 0, 0, 0, 1, 5, 'a'));
    CHECK(WHOLE(0xca, 0, 0, 0, 0) && WHOLE(0xcb, 0, 0, 0, 0, 0, 0, 0, 0));
    CHECK(WHOLE(0xcc, 1) && WHOLE(0xcd, 0, 1) && WHOLE(0xce, 0, 0, 0, 1) && WHOLE(0xd0, 1) && WHOLE(0xd1, 0, 1));
    CHECK(WHOLE(0xd4, 5, 'a') && WHOLE(0xd5, 5, 'a', 'b') && WHOLE(0xd6, 5, 'a', 'b', 'c', 'd'));
    CHECK(WHOLE(0xd9, 1, 'a') && WHOLE(0xda, 0, 1, 'a') && WHOLE(0xdb, 0, 0, 0, 1, 'a'));
    CHECK(WHOLE(0xdc, 0, 1, 0xc0) && WHOLE(0xdd, 0, 0, 0, 1, 0xc0));
    CHECK(WHOLE(0xde, 0, 1, 0xc0, 0xc0) && WHOLE(0xdf, 0, 0, 0, 1, 0xc0, 0xc0));
}

/* What the library can read is whole, and what is not whole it cannot read: on bytes that announce little. */
static void the_library_reads_nothing_that_is_not_whole(void) {
    struct numbers numbers = {1};
    int read = 0;
    for (int i = 0; i < 200000; i++) {
        uint8_t bytes[6];
        for (size_t at = 0; at < sizeof bytes; at++) {
            unsigned long long number = next_number(&numbers);
            bytes[at] = (uint8_t)(number % 3 ? number >> 8 & 3 : number >> 8);
            /* Four bytes of length may be gigabytes, which is what this is for. */
            if (bytes[at] == 0xdd || bytes[at] == 0xdf) bytes[at] = 0x92;
        }
        msgpack_unpacked unpacked;
        msgpack_unpacked_init(&unpacked);
        if (msgpack_unpack_next(&unpacked, (const char *)bytes, sizeof bytes, NULL) == MSGPACK_UNPACK_SUCCESS) {
            CHECK(packed_is_whole(bytes, sizeof bytes));
            read++;
        }
        msgpack_unpacked_destroy(&unpacked);
    }
    CHECK(read > 1000);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(what_announces_more_than_there_is_is_not_whole)},
        {TEST(every_form_is_as_long_as_it_is)},
        {TEST(the_library_reads_nothing_that_is_not_whole)},
    };
    return RUN_TESTS(tests, 60);
}
