/* The schedule of an open loop. */
#include <math.h>
#include <stdint.h>

#include "arrivals.h"
#include "check.h"

#define COUNT 200000

static void the_same_seed_gives_the_same_arrivals(void) {
    struct arrivals one, two, other;
    arrivals_start(&one, 1e5, 7, 1000);
    arrivals_start(&two, 1e5, 7, 1000);
    arrivals_start(&other, 1e5, 8, 1000);
    int different = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t at = arrivals_next(&one);
        CHECK_EQ(arrivals_next(&two), at);
        different += arrivals_next(&other) != at;
    }
    CHECK(different > 900);
}

static void time_never_goes_back_and_begins_at_the_start(void) {
    struct arrivals arrivals;
    uint64_t last = 5000000000;
    arrivals_start(&arrivals, 3e8, 1, last);
    for (int i = 0; i < COUNT; i++) {
        uint64_t at = arrivals_next(&arrivals);
        CHECK(at >= last);
        last = at;
    }
}

/* Of one seed, so that these are always the same numbers. */
static void gaps_are_those_of_a_poisson_process(void) {
    struct arrivals arrivals;
    const double mean = 1e9 / 2000;
    double sum = 0, squares = 0;
    int longer = 0, much_longer = 0;
    uint64_t last = 0;
    arrivals_start(&arrivals, 2000, 42, 0);
    for (int i = 0; i < COUNT; i++) {
        uint64_t at = arrivals_next(&arrivals);
        double gap = (double)(at - last);
        last = at;
        sum += gap, squares += gap * gap;
        longer += gap > mean, much_longer += gap > 3 * mean;
    }
    CHECK(fabs(sum / COUNT / mean - 1) < 0.01);
    CHECK(fabs(squares / COUNT / (2 * mean * mean) - 1) < 0.03); /* the deviation is the mean */
    CHECK(fabs((double)longer / COUNT - exp(-1)) < 0.01);
    CHECK(fabs((double)much_longer / COUNT - exp(-3)) < 0.003);
}

int main(void) {
    const struct test tests[] = {
        {TEST(the_same_seed_gives_the_same_arrivals)},
        {TEST(time_never_goes_back_and_begins_at_the_start)},
        {TEST(gaps_are_those_of_a_poisson_process)},
    };
    return RUN_TESTS(tests, 60);
}
