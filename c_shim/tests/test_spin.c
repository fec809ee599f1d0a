/* How long to spin: what is learned, what it may cost, who may. The clock is made up. */
#define _GNU_SOURCE
#include "spin.h"

#include "check.h"

#define US UINT64_C(1000)
#define MS (1000 * US)
#define S (1000 * MS)
#define START (1000 * S)

/* As many cores as anybody wants. */
static struct spinner adaptive(void) {
    struct spinner spinner;
    spinner_init(&spinner, SIDECAML_ADAPTIVE);
    spinner.cores = (struct cores){.allowed = 64, .quota = CORES_NO_QUOTA, .mask = {UINT64_MAX}};
    return spinner;
}

static struct company company_of(uint32_t peer_core, uint32_t crowd, uint32_t cores) {
    return (struct company){peer_core, crowd, cores};
}

static const struct company unknown;

/* --- A waiter as worker and client are, on a made-up clock ------------------------------------------------------- */

#define WAKE_UP (55 * US)

struct waiter {
    struct spinner spinner;
    uint64_t now, hits, in_vain_ns;
};

/* Waits for what comes `after` so long. */
static void wait_for(struct waiter *waiter, uint64_t after) {
    uint64_t length = spinner_budget(&waiter->spinner, waiter->now, unknown), waited = after;
    if (length >= after) {
        waiter->hits++;
    } else {
        spinner_spun(&waiter->spinner, length, length);
        spinner_sleeps(&waiter->spinner, waiter->now + length);
        waiter->in_vain_ns += length;
        waited = after + WAKE_UP;
    }
    waiter->now += waited;
    spinner_learn(&waiter->spinner, waited);
}

static struct waiter new_waiter(void) {
    return (struct waiter){.spinner = adaptive(), .now = START};
}

/* The stated share of the time, and what may be spent beyond it in all. */
static void check_share(const struct waiter *waiter) {
    uint64_t most = (waiter->now - START) / SPIN_SHARE + SPIN_CREDIT_NS;
    if (waiter->in_vain_ns > most)
        check_failed(__FILE__, __LINE__, "%llu ns were spun in vain, at most %llu may be",
                     (unsigned long long)waiter->in_vain_ns, (unsigned long long)most);
}

/* --- Policies ---------------------------------------------------------------------------------------------------- */

static void policies_spin_as_they_say(void) {
    struct spinner spinner;
    spinner_init(&spinner, SIDECAML_BLOCK);
    CHECK_EQ(spinner_budget(&spinner, START, unknown), 0);
    CHECK(!spinner_may(&spinner, unknown));
    spinner_init(&spinner, SIDECAML_SPIN);
    CHECK_EQ(spinner_budget(&spinner, START, company_of(current_core(), 100, 1)), SPIN_CHUNK_NS);
    CHECK(spinner_may(&spinner, company_of(current_core(), 100, 1)));
    spinner = adaptive();
    CHECK_EQ(spinner_budget(&spinner, START, unknown), SPIN_SHORTEST_NS);
}

static void nobody_spins_where_there_is_one_core(void) {
    struct spinner spinner = adaptive();
    spinner.cores.allowed = 1;
    CHECK_EQ(spinner_budget(&spinner, START, unknown), 0);
    spinner.cores = (struct cores){.allowed = 8, .quota = 1, .mask = {0xff}};
    CHECK_EQ(spinner_budget(&spinner, START, company_of(0, 2, 8)), 0);
}

static void nobody_spins_against_a_peer_on_its_own_core(void) {
    struct spinner spinner = adaptive();
    CHECK_EQ(spinner_budget(&spinner, START, company_of(current_core(), 2, 64)), 0);
    CHECK(!spinner_may(&spinner, company_of(current_core(), 2, 64)));
}

static void nobody_spins_in_a_crowd_larger_than_the_cores(void) {
    struct spinner spinner = adaptive();
    spinner.cores = (struct cores){.allowed = 2, .quota = CORES_NO_QUOTA, .mask = {0x3}};
    CHECK(spinner_may(&spinner, company_of(0, 2, 2)));
    CHECK(!spinner_may(&spinner, company_of(0, 3, 2)));
    CHECK(!spinner_may(&spinner, company_of(0, 9, 2)));
    CHECK(spinner_may(&spinner, company_of(0, 9, 16))); /* the daemon has more than a program that was pinned */
    CHECK(!spinner_may(&spinner, company_of(0, 17, 16)));
    CHECK(spinner_may(&spinner, company_of(3, 3, 2))); /* the peer runs where this one may not */
    CHECK_EQ(spinner_budget(&spinner, START, company_of(0, 9, 2)), 0);
}

/* --- Learning ---------------------------------------------------------------------------------------------------- */

static void a_tight_loop_is_always_spun_for(void) {
    struct waiter waiter = new_waiter();
    for (int i = 0; i < 100000; i++)
        wait_for(&waiter, 8 * US);
    CHECK_EQ(waiter.hits, 100000);
    CHECK_EQ(waiter.in_vain_ns, 0);
}

static void a_spin_is_as_long_as_what_is_expected_asks_for(void) {
    struct waiter waiter = new_waiter();
    for (int i = 0; i < 20; i++)
        wait_for(&waiter, 20 * US);
    uint64_t length = spinner_budget(&waiter.spinner, waiter.now, unknown);
    CHECK(length > 100 * US && length <= 20 * US * SPIN_PATIENCE);
    for (int i = 0; i < 20; i++)
        wait_for(&waiter, 250 * US);
    CHECK_EQ(spinner_budget(&waiter.spinner, waiter.now, unknown), SPIN_LONGEST_NS);
}

/* Hardly ever: to find out that the pace has changed. */
static void what_comes_later_than_the_longest_spin_is_not_spun_for(void) {
    struct waiter waiter = new_waiter();
    for (int i = 0; i < 3200; i++)
        wait_for(&waiter, 5 * MS);
    CHECK(waiter.spinner.spins <= 3200 / SPIN_RETRY_EVERY + 2);
    CHECK(waiter.spinner.spins >= 3200 / SPIN_RETRY_EVERY);
    CHECK_EQ(waiter.hits, 0);
}

static void a_pace_that_quickens_is_noticed_within_a_few_waits(void) {
    struct waiter waiter = new_waiter();
    for (int i = 0; i < 100; i++)
        wait_for(&waiter, S);
    for (int i = 0; i < 8; i++)
        wait_for(&waiter, 10 * US);
    uint64_t before = waiter.hits;
    for (int i = 0; i < 100; i++)
        wait_for(&waiter, 10 * US);
    CHECK_EQ(waiter.hits - before, 100);
}

/* A wake-up can take longer than what is waited for: slept waits then never look worth a spin. */
static void slow_wake_ups_do_not_end_spinning_for_good(void) {
    struct waiter waiter = new_waiter();
    uint64_t slept = SPIN_LONGEST_NS + 100 * US;
    for (int i = 0; i < 20; i++)
        spinner_learn(&waiter.spinner, slept);
    uint64_t hits = 0;
    for (int i = 0; i < 1000; i++) {
        bool hit = spinner_budget(&waiter.spinner, waiter.now, unknown) > 0;
        hits += hit;
        spinner_learn(&waiter.spinner, hit ? 20 * US : slept);
        waiter.now += hit ? 20 * US : slept;
    }
    CHECK(hits > 900);
}

static void a_single_long_wait_among_short_ones_is_no_other_pace(void) {
    struct waiter waiter = new_waiter();
    for (int i = 0; i < 6400; i++)
        wait_for(&waiter, i % 64 ? 100 * US : 100 * MS);
    CHECK(waiter.hits >= 6400 / 64 * 63 - 1);
}

static void a_wait_that_is_cut_off_only_ever_lengthens_what_is_expected(void) {
    struct spinner spinner = adaptive();
    for (int i = 0; i < 20; i++)
        spinner_learn(&spinner, 100 * US);
    uint64_t expected = spinner.expected_ns;
    spinner_learn_longer(&spinner, START, 10 * US);
    CHECK_EQ(spinner.expected_ns, expected);
    spinner_learn_longer(&spinner, START, 10 * S);
    CHECK(spinner.expected_ns > 2 * expected);
}

/* --- What it costs ----------------------------------------------------------------------------------------------- */

static void requests_once_a_second_cost_hardly_anything(void) {
    struct waiter waiter = new_waiter();
    for (int i = 0; i < 1000; i++)
        wait_for(&waiter, S);
    check_share(&waiter);
    CHECK(waiter.in_vain_ns < (waiter.now - START) / 10000);
}

static void the_share_holds_at_any_pace(void) {
    for (uint64_t gap = 50 * US; gap < 100 * MS; gap += gap / 5) {
        struct waiter waiter = new_waiter();
        for (int i = 0; i < 3000; i++)
            wait_for(&waiter, gap);
        check_share(&waiter);
    }
}

static void the_share_holds_for_bursts_of_any_size_and_pause(void) {
    for (int size = 1; size <= 64; size *= 2)
        for (uint64_t pause = 200 * US; pause < S; pause *= 3) {
            struct waiter waiter = new_waiter();
            for (int i = 0; i < 3000; i++)
                wait_for(&waiter, i % size ? 15 * US : pause);
            check_share(&waiter);
        }
}

static void the_share_holds_for_random_waits(void) {
    struct numbers numbers = {.state = 1};
    for (int round = 0; round < 50; round++) {
        struct waiter waiter = new_waiter();
        uint64_t most = 10 * US << round % 14;
        for (int i = 0; i < 2000; i++)
            wait_for(&waiter, 1 + next_number(&numbers) % most);
        check_share(&waiter);
    }
}

/* Right within a burst: only the pause at its end is a bad guess. */
static void bursts_are_spun_for(void) {
    struct waiter waiter = new_waiter();
    for (int i = 0; i < 3200; i++)
        wait_for(&waiter, i % 32 ? 15 * US : 50 * MS);
    CHECK(waiter.hits > 3200 / 32 * 25);
}

static void after_a_long_rest_no_more_than_the_credit_is_there(void) {
    struct spinner spinner = adaptive();
    uint64_t now = START;
    for (int rest = 0; rest < 3; rest++) {
        uint64_t spent = 0;
        for (uint64_t length; (length = spinner_budget(&spinner, now, unknown)); spent += length) {
            spinner_spun(&spinner, length, length);
            spinner_sleeps(&spinner, now);
        }
        CHECK(spent <= SPIN_CREDIT_NS);
        CHECK(spent > SPIN_CREDIT_NS - SPIN_LONGEST_NS);
        now += 1000 * S;
    }
}

/* One that is in a spin while another has its core. */
static void time_in_which_it_did_not_run_is_not_held_against_it(void) {
    struct spinner spinner = adaptive();
    uint64_t length = spinner_budget(&spinner, START, unknown);
    spinner_spun(&spinner, length, S);
    spinner_sleeps(&spinner, START + S);
    CHECK_EQ(spinner.paid_back_at, START + S - SPIN_CREDIT_NS * SPIN_SHARE + length * SPIN_SHARE);
}

/* A machine that has just been started: its clock is younger than the time that credit takes. */
static void a_young_clock_is_no_other(void) {
    struct waiter waiter = {.spinner = adaptive(), .now = 1};
    for (int i = 0; i < 1000; i++)
        wait_for(&waiter, 2 * MS);
    CHECK(waiter.in_vain_ns <= waiter.now / SPIN_SHARE + SPIN_CREDIT_NS);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(policies_spin_as_they_say)},
        {TEST(nobody_spins_where_there_is_one_core)},
        {TEST(nobody_spins_against_a_peer_on_its_own_core)},
        {TEST(nobody_spins_in_a_crowd_larger_than_the_cores)},
        {TEST(a_tight_loop_is_always_spun_for)},
        {TEST(a_spin_is_as_long_as_what_is_expected_asks_for)},
        {TEST(what_comes_later_than_the_longest_spin_is_not_spun_for)},
        {TEST(a_pace_that_quickens_is_noticed_within_a_few_waits)},
        {TEST(slow_wake_ups_do_not_end_spinning_for_good)},
        {TEST(a_single_long_wait_among_short_ones_is_no_other_pace)},
        {TEST(a_wait_that_is_cut_off_only_ever_lengthens_what_is_expected)},
        {TEST(requests_once_a_second_cost_hardly_anything)},
        {TEST(the_share_holds_at_any_pace)},
        {TEST(the_share_holds_for_bursts_of_any_size_and_pause)},
        {TEST(the_share_holds_for_random_waits)},
        {TEST(bursts_are_spun_for)},
        {TEST(after_a_long_rest_no_more_than_the_credit_is_there)},
        {TEST(time_in_which_it_did_not_run_is_not_held_against_it)},
        {TEST(a_young_clock_is_no_other)},
    };
    return RUN_TESTS(tests, 20);
}
