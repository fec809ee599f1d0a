/* A tiny harness: tests are functions named as properties. The first failure ends the program, with the place and what
 * was found; a watchdog ends a test that hangs; a descriptor left open is a failure. */
#ifndef SIDECAML_CHECK_H
#define SIDECAML_CHECK_H

#include <stddef.h>

struct test {
    const char *name;
    void (*run)(void);
};
/* For an entry of a table: {TEST(a_property_holds)}. */
#define TEST(function) #function, function

/* Runs the tests in order and prints "ok NAME" for each; `watchdog_s` is each one's time to live. For main to return.
 */
int run_tests(const struct test *tests, size_t count, unsigned watchdog_s);

#define RUN_TESTS(tests, watchdog_s) run_tests((tests), sizeof(tests) / sizeof((tests)[0]), (watchdog_s))

/* Prints the failure and ends the program. */
void check_failed(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) check_failed(__FILE__, __LINE__, "%s", #condition);                                          \
    } while (0)

#define CHECK_EQ(found, expected)                                                                                      \
    do {                                                                                                               \
        long long found_ = (long long)(found), expected_ = (long long)(expected);                                      \
        if (found_ != expected_)                                                                                       \
            check_failed(__FILE__, __LINE__, "%s is %lld, expected %lld (%s)", #found, found_, expected_, #expected);  \
    } while (0)

/* Whether `text` contains `part`, for failure texts. */
#define CHECK_SAYS(text, part)                                                                                         \
    do {                                                                                                               \
        if (!check_contains((text), (part)))                                                                           \
            check_failed(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", (text), (part));                            \
    } while (0)
int check_contains(const char *text, const char *part);

/* Descriptors open in this process. */
int count_fds(void);

/* The same numbers in the same order every time. */
struct numbers {
    unsigned long long state;
};
unsigned long long next_number(struct numbers *numbers);

#endif
