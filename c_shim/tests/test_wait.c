#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "doorbell.h"
#include "pair.h"
#include "spin.h"
#include "wait.h"
#include "word.h"

#define FOREVER UINT64_MAX

/* Posts on a doorbell, without taking one back. */
static bool is_posted(int fd, int control) {
    return doorbell_sleep(fd, control, 0) & WOKE_ANSWER;
}

/* --- Doorbells --------------------------------------------------------------------------------------------------- */

static void a_post_before_the_sleep_is_remembered(void) {
    int bell = make_doorbell(), ends[2];
    make_sockets(ends);
    doorbell_post(bell);
    CHECK_EQ(doorbell_sleep(bell, ends[0], FOREVER), WOKE_ANSWER);
    CHECK_EQ(doorbell_sleep(bell, ends[0], FOREVER), WOKE_ANSWER);
    doorbell_drain(bell, 1);
    CHECK_EQ(doorbell_sleep(bell, ends[0], 1000), WOKE_TIMEOUT);
    close(bell), close(ends[0]), close(ends[1]);
}

static void draining_takes_no_more_than_asked_and_never_blocks(void) {
    int bell = make_doorbell(), ends[2];
    make_sockets(ends);
    for (int i = 0; i < 5; i++)
        doorbell_post(bell);
    doorbell_drain(bell, 4);
    CHECK(is_posted(bell, ends[0]));
    doorbell_drain(bell, 100);
    CHECK(!is_posted(bell, ends[0]));
    doorbell_drain(bell, 1);
    close(bell), close(ends[0]), close(ends[1]);
}

static void a_full_doorbell_does_not_block_its_poster(void) {
    int bell = make_doorbell(), ends[2];
    make_sockets(ends);
    uint64_t most = UINT64_MAX - 1;
    CHECK_EQ(write(bell, &most, sizeof most), sizeof most);
    doorbell_post_unless_full(bell);
    CHECK(is_posted(bell, ends[0]));
    close(bell), close(ends[0]), close(ends[1]);
}

static void the_control_socket_wakes_with_a_message_and_with_its_end(void) {
    int bell = make_doorbell(), ends[2];
    make_sockets(ends);
    CHECK(!control_is_ready(ends[0]));
    CHECK_EQ(send(ends[1], "x", 1, 0), 1);
    CHECK(control_is_ready(ends[0]));
    CHECK_EQ(doorbell_sleep(bell, ends[0], FOREVER), WOKE_CONTROL);
    char byte;
    CHECK_EQ(recv(ends[0], &byte, 1, 0), 1);
    CHECK_EQ(doorbell_sleep(bell, ends[0], 0), WOKE_TIMEOUT);
    close(ends[1]);
    CHECK(control_is_ready(ends[0]));
    CHECK_EQ(doorbell_sleep(bell, ends[0], FOREVER), WOKE_CONTROL);
    close(bell), close(ends[0]);
}

static void *post_later(void *bell) {
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    doorbell_post(*(int *)bell);
    return NULL;
}

static void a_post_wakes_a_sleeper(void) {
    int bell = make_doorbell(), ends[2];
    make_sockets(ends);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, post_later, &bell), 0);
    CHECK_EQ(doorbell_sleep(bell, ends[0], FOREVER), WOKE_ANSWER);
    pthread_join(thread, NULL);
    close(bell), close(ends[0]), close(ends[1]);
}

static void ignore_signal(int number) {
    (void)number;
}

static void a_signal_interrupts_a_sleep(void) {
    int bell = make_doorbell(), ends[2];
    make_sockets(ends);
    signal(SIGUSR1, ignore_signal);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec often = {.it_value.tv_nsec = 1000000, .it_interval.tv_nsec = 1000000};
    CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    CHECK_EQ(timer_settime(timer, 0, &often, NULL), 0);
    CHECK_EQ(doorbell_sleep(bell, ends[0], FOREVER), WOKE_SIGNAL);
    timer_delete(timer);
    signal(SIGUSR1, SIG_DFL);
    close(bell), close(ends[0]), close(ends[1]);
}

/* --- Park and wake ----------------------------------------------------------------------------------------------- */

static struct sidecaml_slot slot;
static struct sidecaml_client_block block;
static uint64_t held;
static struct ring_client ring;

static void submit_one(void) {
    memset(&slot, 0, sizeof slot);
    memset(&block, 0, sizeof block);
    held = 0;
    ring = (struct ring_client){.slots = &slot, .count = 1, .held = &held};
    CHECK_EQ(ring_submit(&ring, 0, 0, 0), 0);
}

static void a_client_is_woken_once_a_park(void) {
    int bell = make_doorbell(), ends[2];
    make_sockets(ends);
    submit_one();
    client_wake(&block, bell);
    CHECK(!is_posted(bell, ends[0])); /* awake: no post */
    CHECK_EQ(client_park(&block, &ring, 0, bell), -SIDECAML_E_PENDING);
    client_wake(&block, bell);
    client_wake(&block, bell);
    CHECK(is_posted(bell, ends[0]));
    client_unpark(&block);
    CHECK_EQ(client_park(&block, &ring, 0, bell), -SIDECAML_E_PENDING);
    CHECK(!is_posted(bell, ends[0])); /* the earlier sleep's post does not end this one */
    client_unpark(&block);
    client_wake(&block, bell);
    CHECK(!is_posted(bell, ends[0]));
    close(bell), close(ends[0]), close(ends[1]);
}

static void a_client_that_finds_its_answer_does_not_sleep(void) {
    int bell = make_doorbell();
    submit_one();
    slot.word = word_of(0, SIDECAML_STATE_DONE);
    CHECK_EQ(client_park(&block, &ring, 0, bell), 0);
    client_unpark(&block);
    CHECK_EQ(block.waiting, 0);
    close(bell);
}

/* The worker took the flag, but its post comes only after the client has parked again. It may end that sleep, not
 * every one after it. */
static void a_late_post_ends_one_sleep_at_most(void) {
    int bell = make_doorbell(), ends[2];
    make_sockets(ends);
    submit_one();
    client_park(&block, &ring, 0, bell);
    block.waiting = 0; /* the worker's exchange */
    client_unpark(&block);
    client_park(&block, &ring, 0, bell);
    doorbell_post(bell); /* the worker's post */
    CHECK_EQ(doorbell_sleep(bell, ends[0], FOREVER), WOKE_ANSWER);
    client_unpark(&block);
    client_park(&block, &ring, 0, bell);
    CHECK_EQ(doorbell_sleep(bell, ends[0], 1000), WOKE_TIMEOUT);
    client_unpark(&block);
    close(bell), close(ends[0]), close(ends[1]);
}

static void a_worker_is_woken_only_while_it_is_parked(void) {
    static struct sidecaml_status_page status;
    int bell = make_doorbell(), ends[2];
    make_sockets(ends);
    worker_wake(&status, bell);
    CHECK(!is_posted(bell, ends[0]));
    worker_park(&status);
    CHECK_EQ(status.parked, 1);
    worker_wake(&status, bell);
    CHECK(is_posted(bell, ends[0]));
    worker_unpark(&status);
    CHECK_EQ(status.parked, 0);
    close(bell), close(ends[0]), close(ends[1]);
}

/* --- Spinning ---------------------------------------------------------------------------------------------------- */

static void policies_spin_as_they_say(void) {
    struct spinner spinner;
    spinner_init(&spinner, SIDECAML_BLOCK);
    CHECK_EQ(spinner_budget(&spinner, 0), 0);
    spinner_init(&spinner, SIDECAML_SPIN);
    CHECK_EQ(spinner_budget(&spinner, current_core()), SPIN_CHUNK_NS);
    spinner_init(&spinner, SIDECAML_ADAPTIVE);
    CHECK_EQ(spinner_budget(&spinner, 0), spinner.one_core ? 0 : SPIN_ADAPTIVE_NS);
}

static void nobody_spins_who_has_one_processor_only(void) {
    struct spinner spinner;
    spinner_init(&spinner, SIDECAML_ADAPTIVE);
    spinner.one_core = true;
    CHECK_EQ(spinner_budget(&spinner, 0), 0);
}

static void adaptive_spinning_stops_when_it_does_not_pay_and_is_tried_again(void) {
    struct spinner spinner;
    spinner_init(&spinner, SIDECAML_ADAPTIVE);
    spinner.one_core = false;
    for (int i = 0; i < 10; i++)
        spinner_learn(&spinner, 50 * SPIN_ADAPTIVE_NS);
    int spins = 0;
    for (int i = 0; i < 1000; i++)
        spins += spinner_budget(&spinner, 0) != 0;
    CHECK(spins > 0 && spins < 200);
    spinner_learn(&spinner, 1000);
    CHECK_EQ(spinner_budget(&spinner, 0), SPIN_ADAPTIVE_NS);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(a_post_before_the_sleep_is_remembered)},
        {TEST(draining_takes_no_more_than_asked_and_never_blocks)},
        {TEST(a_full_doorbell_does_not_block_its_poster)},
        {TEST(the_control_socket_wakes_with_a_message_and_with_its_end)},
        {TEST(a_post_wakes_a_sleeper)},
        {TEST(a_signal_interrupts_a_sleep)},
        {TEST(a_client_is_woken_once_a_park)},
        {TEST(a_client_that_finds_its_answer_does_not_sleep)},
        {TEST(a_late_post_ends_one_sleep_at_most)},
        {TEST(a_worker_is_woken_only_while_it_is_parked)},
        {TEST(policies_spin_as_they_say)},
        {TEST(nobody_spins_who_has_one_processor_only)},
        {TEST(adaptive_spinning_stops_when_it_does_not_pay_and_is_tried_again)},
    };
    return RUN_TESTS(tests, 20);
}
