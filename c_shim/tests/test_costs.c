/* What is learned of how long runs take. */
#include "costs.h"

#include "check.h"

#define US 1000

static struct cost cost;

static void learn(uint64_t took_ns, int times) {
    for (int i = 0; i < times; i++)
        cost_learn(&cost, took_ns);
}

/* Measured twice: no guess any more. */
static void known(uint64_t ns) {
    cost = (struct cost){0};
    learn(ns, 2);
    CHECK_EQ(cost.ns, ns);
}

static void the_first_run_says_what_there_is_to_know(void) {
    cost = (struct cost){0};
    learn(100 * US, 1);
    CHECK_EQ(cost.ns, 100 * US);
}

static void a_longer_run_counts_at_once_and_a_shorter_one_slowly(void) {
    known(100 * US);
    learn(150 * US, 1);
    CHECK_EQ(cost.ns, 150 * US);
    learn(70 * US, 1);
    CHECK_EQ(cost.ns, 145 * US);
    learn(70 * US, 100);
    CHECK(cost.ns < 71 * US);
}

static void the_first_measurement_takes_the_place_of_a_guess(void) {
    const uint64_t measured[] = {10 * US, 99 * US, 101 * US, 400 * US};
    for (int i = 0; i < 4; i++) {
        cost = cost_guess(100 * US);
        learn(measured[i], 1);
        CHECK_EQ(cost.ns, measured[i]);
        learn(measured[i] / 2, 1); /* from then on it is an estimate like any other */
        CHECK_EQ(cost.ns, measured[i] - (measured[i] - measured[i] / 2) / 16);
    }
}

/* Whatever a first run has to do besides. */
static void a_first_run_that_took_long_is_a_guess(void) {
    cost = (struct cost){0};
    learn(5000 * US, 1);
    learn(100 * US, 1);
    CHECK_EQ(cost.ns, 100 * US);
}

static void one_run_that_was_held_up_says_little(void) {
    known(100 * US);
    learn(100000 * US, 1);
    CHECK_EQ(cost.ns, 125 * US);
    learn(100 * US, 1);
    learn(100000 * US, 1); /* not the second in a row */
    CHECK(cost.ns < 160 * US);
}

static void of_a_guess_as_well_and_it_stays_one(void) {
    cost = cost_guess(100 * US);
    learn(100000 * US, 1);
    CHECK_EQ(cost.ns, 125 * US);
    learn(30 * US, 1);
    CHECK_EQ(cost.ns, 30 * US);
}

static void two_in_a_row_are_no_accident(void) {
    cost = cost_guess(100 * US);
    learn(3000 * US, 1);
    learn(2500 * US, 1);
    CHECK_EQ(cost.ns, 2500 * US);
    known(100 * US);
    learn(3000 * US, 1);
    learn(90000 * US, 1);
    CHECK_EQ(cost.ns, 3000 * US);
}

static void doubt_lowers_an_estimate_a_little_and_a_guess_by_half(void) {
    cost = cost_guess(160 * US);
    cost_doubt(&cost);
    CHECK_EQ(cost.ns, 80 * US);
    known(160 * US);
    cost_doubt(&cost);
    CHECK_EQ(cost.ns, 150 * US);
}

static void the_shortest_is_followed_down_at_once_and_up_slowly(void) {
    uint64_t least_ns = 0;
    cost_learn_least(&least_ns, 100 * US);
    CHECK_EQ(least_ns, 100 * US);
    cost_learn_least(&least_ns, 20 * US);
    CHECK_EQ(least_ns, 20 * US);
    cost_learn_least(&least_ns, 1000 * US);
    CHECK(least_ns > 20 * US && least_ns < 25 * US);
    for (int i = 0; i < 10000; i++)
        cost_learn_least(&least_ns, 1000 * US);
    CHECK(least_ns > 999 * US);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(the_first_run_says_what_there_is_to_know)},
        {TEST(a_longer_run_counts_at_once_and_a_shorter_one_slowly)},
        {TEST(the_first_measurement_takes_the_place_of_a_guess)},
        {TEST(a_first_run_that_took_long_is_a_guess)},
        {TEST(one_run_that_was_held_up_says_little)},
        {TEST(of_a_guess_as_well_and_it_stays_one)},
        {TEST(two_in_a_row_are_no_accident)},
        {TEST(doubt_lowers_an_estimate_a_little_and_a_guess_by_half)},
        {TEST(the_shortest_is_followed_down_at_once_and_up_slowly)},
    };
    return RUN_TESTS(tests, 20);
}
