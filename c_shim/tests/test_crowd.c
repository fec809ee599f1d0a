/* Who counts: workers that are awake, and their clients of late. The clock is made up. */
#define _GNU_SOURCE
#include "crowd.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "atomics.h"
#include "check.h"

#define EPOCH (UINT64_C(1) << CROWD_EPOCH_SHIFT)
#define START (1000 * EPOCH)

static struct sidecaml_failure why;

/* A page of which so many entries were given to workers. */
static int new_page(uint32_t used) {
    int fd = memfd_create("crowd", MFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQ(ftruncate(fd, sizeof(struct sidecaml_crowd_page)), 0);
    CHECK_EQ(pwrite(fd, &used, sizeof used, offsetof(struct sidecaml_crowd_page, used)), (ssize_t)sizeof used);
    return fd;
}

static struct crowd *joined(int fd, uint32_t entry, uint32_t threads) {
    struct crowd *crowd = calloc(1, sizeof *crowd);
    crowd_init(crowd);
    CHECK_EQ(crowd_join(crowd, fd, entry, threads, &why), 0);
    return crowd;
}

static void end(struct crowd *crowd) {
    crowd_leave(crowd);
    free(crowd);
}

/* --- Workers ----------------------------------------------------------------------------------------------------- */

static void a_worker_alone_is_a_crowd_of_one(void) {
    struct crowd crowd;
    crowd_init(&crowd);
    CHECK_EQ(crowd_count(&crowd, START), 1);
    crowd_meet(&crowd, START, 77);
    CHECK_EQ(crowd_count(&crowd, START), 2);
    crowd_leave(&crowd);
}

static void workers_count_while_they_are_awake_each_with_its_threads(void) {
    int fd = new_page(3);
    struct crowd *one = joined(fd, 0, 1), *two = joined(fd, 2, 4);
    CHECK_EQ(crowd_count(one, START), 5);
    CHECK_EQ(crowd_count(two, START), 5);
    crowd_sleep(two);
    CHECK_EQ(crowd_count(one, START + CROWD_LOOK_NS), 1);
    crowd_wake(two);
    CHECK_EQ(crowd_count(two, START + CROWD_LOOK_NS), 5); /* who wakes looks at once */
    CHECK_EQ(crowd_count(one, START + 2 * CROWD_LOOK_NS), 5);
    end(two);
    CHECK_EQ(crowd_count(one, START + 3 * CROWD_LOOK_NS), 1);
    end(one), close(fd);
}

static void others_are_looked_at_now_and_then(void) {
    int fd = new_page(2);
    struct crowd *one = joined(fd, 0, 1), *two = joined(fd, 1, 1);
    CHECK_EQ(crowd_count(one, START), 2);
    crowd_sleep(two);
    CHECK_EQ(crowd_count(one, START + CROWD_LOOK_NS - 1), 2);
    CHECK_EQ(crowd_count(one, START + CROWD_LOOK_NS), 1);
    end(one), end(two), close(fd);
}

static void an_entry_that_was_zeroed_counts_no_more(void) {
    int fd = new_page(2);
    struct crowd *one = joined(fd, 0, 1), *dead = joined(fd, 1, 3);
    crowd_meet(dead, START, 5);
    CHECK_EQ(crowd_count(one, START), 5);
    static const struct sidecaml_crowd_entry nothing;
    off_t place = (off_t)offsetof(struct sidecaml_crowd_page, entries[1]);
    CHECK_EQ(pwrite(fd, &nothing, sizeof nothing, place), (ssize_t)sizeof nothing);
    CHECK_EQ(crowd_count(one, START + CROWD_LOOK_NS), 1);
    end(one), end(dead), close(fd);
}

static void a_successor_begins_without_its_predecessor_s_clients(void) {
    int fd = new_page(1);
    struct crowd *dead = joined(fd, 0, 1);
    crowd_meet(dead, START, 5);
    CHECK_EQ(crowd_count(dead, START), 2);
    struct crowd *successor = joined(fd, 0, 1);
    CHECK_EQ(crowd_count(successor, START), 1);
    end(successor), end(dead), close(fd);
}

static void only_a_crowd_page_and_an_entry_of_it_will_do(void) {
    struct crowd crowd;
    crowd_init(&crowd);
    int fd = new_page(0), before = count_fds();
    CHECK_EQ(crowd_join(&crowd, fd, SIDECAML_CROWD_ENTRIES, 1, &why), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "entries");
    CHECK_EQ(ftruncate(fd, SIDECAML_PAGE_BYTES), 0);
    CHECK_EQ(crowd_join(&crowd, fd, 0, 1, &why), -SIDECAML_E_CORRUPT);
    CHECK_SAYS(why.text, "crowd page has");
    CHECK_EQ(count_fds(), before);
    CHECK_EQ(crowd_count(&crowd, START), 1); /* alone, as before */
    close(fd);
}

/* Whoever scribbles over the page makes others sleep or spin, and no more. */
static void nothing_in_the_page_leads_out_of_it(void) {
    int fd = new_page(UINT32_MAX);
    struct crowd *one = joined(fd, 0, 1);
    memset(one->page->entries + 1, 0xff, sizeof one->page->entries - sizeof one->page->entries[0]);
    CHECK_EQ(crowd_count(one, START), UINT32_MAX);
    end(one), close(fd);
}

/* --- Clients ----------------------------------------------------------------------------------------------------- */

static void a_client_counts_for_an_epoch_and_the_next(void) {
    struct crowd crowd;
    crowd_init(&crowd);
    crowd_meet(&crowd, START, 1);
    crowd_meet(&crowd, START + 1, 1);
    crowd_meet(&crowd, START + 2, 200);
    CHECK_EQ(crowd_count(&crowd, START + EPOCH - 1), 3);
    CHECK_EQ(crowd_count(&crowd, START + EPOCH + CROWD_LOOK_NS), 3);
    crowd_meet(&crowd, START + EPOCH, 200);
    CHECK_EQ(crowd_count(&crowd, START + 2 * EPOCH - 1), 3);
    CHECK_EQ(crowd_count(&crowd, START + 2 * EPOCH + CROWD_LOOK_NS), 2);
    CHECK_EQ(crowd_count(&crowd, START + 3 * EPOCH), 1);
    crowd_meet(&crowd, START + 3 * EPOCH, 7);
    CHECK_EQ(crowd_count(&crowd, START + 9 * EPOCH), 1); /* after a rest nothing is left of before */
}

static void a_client_of_two_workers_counts_once(void) {
    int fd = new_page(2);
    struct crowd *one = joined(fd, 0, 1), *two = joined(fd, 1, 1);
    crowd_meet(one, START, 1000003);
    crowd_meet(two, START, 1000003);
    crowd_meet(two, START, 5);
    CHECK_EQ(crowd_count(one, START), 4);
    CHECK_EQ(crowd_count(two, START), 4);
    crowd_sleep(two); /* and with it whoever only it met */
    CHECK_EQ(crowd_count(one, START + CROWD_LOOK_NS), 2);
    end(one), end(two), close(fd);
}

static void many_clients_are_counted_nearly_right(void) {
    struct crowd crowd;
    struct numbers numbers = {.state = 7};
    crowd_init(&crowd);
    for (int i = 0; i < 50; i++)
        crowd_meet(&crowd, START, (uint32_t)next_number(&numbers));
    uint32_t count = crowd_count(&crowd, START) - 1;
    CHECK(count <= 50);
    CHECK(count >= 40);
}

/* --- Two that wake at the same time ------------------------------------------------------------------------------ */

enum { ROUNDS = 20000 };

struct racer {
    struct crowd *crowd;
    pthread_barrier_t *barrier;
    uint32_t seen[ROUNDS];
};

static void *race(void *argument) {
    struct racer *racer = argument;
    for (int i = 0; i < ROUNDS; i++) {
        crowd_sleep(racer->crowd);
        pthread_barrier_wait(racer->barrier);
        crowd_wake(racer->crowd);
        racer->seen[i] = crowd_count(racer->crowd, START);
        pthread_barrier_wait(racer->barrier);
    }
    return NULL;
}

static void of_two_that_wake_at_once_one_sees_the_other(void) {
    static struct racer racers[2];
    pthread_barrier_t barrier;
    pthread_t threads[2];
    int fd = new_page(2);
    pthread_barrier_init(&barrier, NULL, 2);
    for (uint32_t i = 0; i < 2; i++) {
        racers[i].crowd = joined(fd, i, 1);
        racers[i].barrier = &barrier;
        CHECK_EQ(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < ROUNDS; i++)
        CHECK(racers[0].seen[i] == 2 || racers[1].seen[i] == 2);
    end(racers[0].crowd), end(racers[1].crowd), close(fd);
    pthread_barrier_destroy(&barrier);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(a_worker_alone_is_a_crowd_of_one)},
        {TEST(workers_count_while_they_are_awake_each_with_its_threads)},
        {TEST(others_are_looked_at_now_and_then)},
        {TEST(an_entry_that_was_zeroed_counts_no_more)},
        {TEST(a_successor_begins_without_its_predecessor_s_clients)},
        {TEST(only_a_crowd_page_and_an_entry_of_it_will_do)},
        {TEST(nothing_in_the_page_leads_out_of_it)},
        {TEST(a_client_counts_for_an_epoch_and_the_next)},
        {TEST(a_client_of_two_workers_counts_once)},
        {TEST(many_clients_are_counted_nearly_right)},
        {TEST(of_two_that_wake_at_once_one_sees_the_other)},
    };
    return RUN_TESTS(tests, 240);
}
