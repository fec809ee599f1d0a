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
#include "wait.h"
#include "word.h"

#define FOREVER UINT64_MAX

/* Posts on a doorbell, without taking one back. */
static bool is_posted(struct doorbell bell, int control) {
    return doorbell_sleep(bell, control, 0) & WOKE_ANSWER;
}

/* --- Doorbells --------------------------------------------------------------------------------------------------- */

static void a_post_before_the_sleep_is_remembered(void) {
    int ends[2];
    struct doorbell bell = doorbell_of(make_doorbell());
    make_sockets(ends);
    doorbell_post(bell);
    CHECK_EQ(doorbell_sleep(bell, ends[0], FOREVER), WOKE_ANSWER);
    CHECK_EQ(doorbell_sleep(bell, ends[0], FOREVER), WOKE_ANSWER);
    doorbell_drain(bell, 1);
    CHECK_EQ(doorbell_sleep(bell, ends[0], 1000), WOKE_TIMEOUT);
    close(bell.fd), close(ends[0]), close(ends[1]);
}

static void draining_takes_no_more_than_asked_and_never_blocks(void) {
    int ends[2];
    struct doorbell bell = doorbell_of(make_doorbell());
    make_sockets(ends);
    for (int i = 0; i < 5; i++)
        doorbell_post(bell);
    doorbell_drain(bell, 4);
    CHECK(is_posted(bell, ends[0]));
    doorbell_drain(bell, 100);
    CHECK(!is_posted(bell, ends[0]));
    doorbell_drain(bell, 1);
    close(bell.fd), close(ends[0]), close(ends[1]);
}

static void a_full_doorbell_does_not_block_its_poster(void) {
    int ends[2];
    struct doorbell bell = doorbell_of(make_doorbell());
    make_sockets(ends);
    uint64_t most = UINT64_MAX - 1;
    CHECK_EQ(write(bell.fd, &most, sizeof most), sizeof most);
    doorbell_post_unless_full(bell);
    CHECK(is_posted(bell, ends[0]));
    close(bell.fd), close(ends[0]), close(ends[1]);
}

static void the_control_socket_wakes_with_a_message_and_with_its_end(void) {
    int ends[2];
    struct doorbell bell = doorbell_of(make_doorbell());
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
    close(bell.fd), close(ends[0]);
}

static void *post_later(void *bell) {
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    doorbell_post(*(struct doorbell *)bell);
    return NULL;
}

static void a_post_wakes_a_sleeper(void) {
    int ends[2];
    struct doorbell bell = doorbell_of(make_doorbell());
    make_sockets(ends);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, post_later, &bell), 0);
    CHECK_EQ(doorbell_sleep(bell, ends[0], FOREVER), WOKE_ANSWER);
    pthread_join(thread, NULL);
    close(bell.fd), close(ends[0]), close(ends[1]);
}

static void ignore_signal(int number) {
    (void)number;
}

static void a_signal_interrupts_a_sleep(void) {
    int ends[2];
    struct doorbell bell = doorbell_of(make_doorbell());
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
    close(bell.fd), close(ends[0]), close(ends[1]);
}

/* --- Doorbells that are sockets ----------------------------------------------------------------------------------- */

static struct doorbell poster, sleeper;
static int control_ends[2];

static void open_socket_doorbell(void) {
    int worker, client;
    make_socket_doorbell(&worker, &client);
    make_sockets(control_ends);
    poster = doorbell_of(worker);
    sleeper = doorbell_of(client);
}

static void close_socket_doorbell(void) {
    if (poster.fd >= 0) close(poster.fd);
    if (sleeper.fd >= 0) close(sleeper.fd);
    close(control_ends[0]), close(control_ends[1]);
}

static void a_socket_s_posts_are_remembered_and_taken_one_by_one(void) {
    open_socket_doorbell();
    CHECK(poster.socket && sleeper.socket);
    CHECK(!is_posted(sleeper, control_ends[0]));
    CHECK_EQ(doorbell_drain(sleeper, 5), 0);
    for (int i = 0; i < 3; i++)
        doorbell_post_unless_full(poster);
    CHECK_EQ(doorbell_sleep(sleeper, control_ends[0], FOREVER), WOKE_ANSWER);
    CHECK_EQ(doorbell_drain(sleeper, 2), 2);
    CHECK(is_posted(sleeper, control_ends[0]));
    CHECK_EQ(doorbell_drain(sleeper, 5), 1);
    CHECK_EQ(doorbell_sleep(sleeper, control_ends[0], 1000), WOKE_TIMEOUT);
    close_socket_doorbell();
}

/* Nothing that the other side does to its own end, the open file's flags included, makes a post wait. */
static void a_socket_that_nobody_empties_does_not_block_its_poster(void) {
    open_socket_doorbell();
    for (int i = 0; i < 10000; i++)
        doorbell_post_unless_full(poster);
    CHECK(is_posted(sleeper, control_ends[0]));
    doorbell_drain(sleeper, UINT32_MAX);
    doorbell_post_unless_full(poster);
    CHECK(is_posted(sleeper, control_ends[0]));
    close_socket_doorbell();
}

static void nobody_dies_of_a_socket_whose_other_end_is_gone(void) {
    open_socket_doorbell();
    close(sleeper.fd);
    sleeper.fd = -1;
    doorbell_post_unless_full(poster); /* SIGPIPE would end the test */
    doorbell_post(poster);
    close_socket_doorbell();

    open_socket_doorbell();
    close(poster.fd);
    poster.fd = -1;
    CHECK_EQ(doorbell_drain(sleeper, 5), 0);
    CHECK(is_posted(sleeper, control_ends[0]));
    close_socket_doorbell();
}

/* What lies unread in the worker's end would be closed by the worker, and a file that waits when it is closed exists.
 */
static void a_client_can_put_nothing_into_the_worker_s_end(void) {
    open_socket_doorbell();
    uint64_t one = 1;
    CHECK_EQ(send(sleeper.fd, &one, sizeof one, MSG_NOSIGNAL), -1);
    close_socket_doorbell();
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
    int ends[2];
    struct doorbell bell = doorbell_of(make_doorbell());
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
    close(bell.fd), close(ends[0]), close(ends[1]);
}

static void a_client_that_finds_its_answer_does_not_sleep(void) {
    struct doorbell bell = doorbell_of(make_doorbell());
    submit_one();
    slot.word = word_of(0, SIDECAML_STATE_DONE);
    CHECK_EQ(client_park(&block, &ring, 0, bell), 0);
    client_unpark(&block);
    CHECK_EQ(block.waiting, 0);
    close(bell.fd);
}

/* The worker took the flag, but its post comes only after the client has parked again. It may end that sleep, not
 * every one after it. */
static void a_late_post_ends_one_sleep_at_most(void) {
    int ends[2];
    struct doorbell bell = doorbell_of(make_doorbell());
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
    close(bell.fd), close(ends[0]), close(ends[1]);
}

static void a_worker_is_woken_only_while_it_is_parked(void) {
    static struct sidecaml_status_page status;
    int ends[2];
    struct doorbell bell = doorbell_of(make_doorbell());
    make_sockets(ends);
    worker_wake(&status, bell);
    CHECK(!is_posted(bell, ends[0]));
    worker_park(&status);
    CHECK_EQ(status.parked, 1);
    worker_wake(&status, bell);
    CHECK(is_posted(bell, ends[0]));
    worker_unpark(&status);
    CHECK_EQ(status.parked, 0);
    close(bell.fd), close(ends[0]), close(ends[1]);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(a_post_before_the_sleep_is_remembered)},
        {TEST(draining_takes_no_more_than_asked_and_never_blocks)},
        {TEST(a_full_doorbell_does_not_block_its_poster)},
        {TEST(the_control_socket_wakes_with_a_message_and_with_its_end)},
        {TEST(a_post_wakes_a_sleeper)},
        {TEST(a_signal_interrupts_a_sleep)},
        {TEST(a_socket_s_posts_are_remembered_and_taken_one_by_one)},
        {TEST(a_socket_that_nobody_empties_does_not_block_its_poster)},
        {TEST(nobody_dies_of_a_socket_whose_other_end_is_gone)},
        {TEST(a_client_can_put_nothing_into_the_worker_s_end)},
        {TEST(a_client_is_woken_once_a_park)},
        {TEST(a_client_that_finds_its_answer_does_not_sleep)},
        {TEST(a_late_post_ends_one_sleep_at_most)},
        {TEST(a_worker_is_woken_only_while_it_is_parked)},
    };
    return RUN_TESTS(tests, 20);
}
