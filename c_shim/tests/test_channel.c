/* The client's channel against the worker of the same process, one step at a time. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "channel.h"
#include "check.h"
#include "cores.h"
#include "pair.h"

static struct sidecaml_layout layout;
static struct pair pair;

static void open_pair(uint32_t slots, enum sidecaml_policy policy) {
    pair_layout(&layout, slots, 1000);
    pair_open(&pair, &layout, policy);
}

static struct sidecaml_request take(void) {
    struct sidecaml_request request;
    CHECK_EQ(sidecaml_worker_next(pair.worker, 0, &request), 1);
    return request;
}

static void run_next(int status, const char *message) {
    struct sidecaml_request request = take();
    sidecaml_worker_started(pair.worker, &request);
    CHECK_EQ(sidecaml_worker_complete(pair.worker, &request, status, message), 0);
}

static int is_readable(int fd) {
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    return poll(&poller, 1, 0) == 1;
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

static void tensors_are_the_same_memory_on_both_sides(void) {
    open_pair(3, SIDECAML_BLOCK);
    for (uint32_t slot = 0; slot < 3; slot++)
        for (uint32_t tensor = 0; tensor < 2; tensor++) {
            uint8_t *mine = sidecaml_channel_tensor(pair.channel, slot, tensor);
            uint8_t *theirs = sidecaml_worker_tensor(pair.worker, 0, slot, tensor);
            CHECK_EQ((uintptr_t)mine % SIDECAML_TENSOR_ALIGN, 0);
            memset(mine, (int)(10 * slot + tensor + 1), 1000);
            CHECK_EQ(theirs[0], 10 * slot + tensor + 1);
            CHECK_EQ(theirs[999], 10 * slot + tensor + 1);
        }
    CHECK(sidecaml_channel_tensor(pair.channel, 3, 0) == NULL);
    CHECK(sidecaml_channel_tensor(pair.channel, 0, 2) == NULL);
    CHECK(sidecaml_worker_tensor(pair.worker, 0, 3, 0) == NULL);
    CHECK(sidecaml_worker_tensor(pair.worker, 1, 0, 0) == NULL);
    pair_close(&pair);
}

static void a_request_is_answered_under_every_policy(void) {
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    for (int p = 0; p < 3; p++) {
        open_pair(2, policies[p]);
        for (int i = 0; i < 6; i++) {
            int slot = sidecaml_channel_submit(pair.channel, 0);
            CHECK_EQ(slot, i % 2);
            CHECK_EQ(sidecaml_channel_poll(pair.channel, (uint32_t)slot), -SIDECAML_E_PENDING);
            CHECK_EQ(sidecaml_channel_spin(pair.channel, (uint32_t)slot, 1000), -SIDECAML_E_PENDING);
            run_next(0, NULL);
            CHECK_EQ(sidecaml_channel_wait(pair.channel, (uint32_t)slot, 0), 0);
            CHECK_EQ(sidecaml_channel_spin(pair.channel, (uint32_t)slot, 0), 0);
            CHECK_EQ(sidecaml_channel_release(pair.channel, (uint32_t)slot), 0);
        }
        pair_close(&pair);
    }
}

static void a_full_channel_says_so(void) {
    open_pair(2, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 1);
    CHECK_EQ(sidecaml_channel_claim(pair.channel), -SIDECAML_E_FULL);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), -SIDECAML_E_FULL);
    pair_close(&pair);
}

static void a_failure_carries_its_code_and_message(void) {
    char text[1000];
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    run_next(-SIDECAML_E_BAD_DIMS, "input \"x\":\n\ttoo \x1b[31mlong\x7f");
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, 0), -SIDECAML_E_BAD_DIMS);
    size_t length = sidecaml_channel_message(pair.channel, 0, text, sizeof text);
    CHECK_EQ(length, strlen(text));
    CHECK(strcmp(text, "input \"x\":  too  [31mlong ") == 0); /* control characters replaced */
    CHECK_EQ(sidecaml_channel_message(pair.channel, 0, text, 6), 5);
    CHECK(strcmp(text, "input") == 0);
    CHECK_EQ(sidecaml_channel_message(pair.channel, 0, text, 0), 0);
    CHECK_EQ(sidecaml_channel_message(pair.channel, 9, text, sizeof text), 0);
    CHECK_EQ(sidecaml_channel_release(pair.channel, 0), 0);
    pair_close(&pair);
}

static void a_long_message_is_cut_between_characters(void) {
    char message[2000], text[1000];
    open_pair(1, SIDECAML_BLOCK);
    strcpy(message, "x");
    while (strlen(message) < 1000)
        strcat(message, "\xe2\x82\xac"); /* three bytes a character: byte 384 is in the middle of one */
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    run_next(-SIDECAML_E_ENGINE, message);
    CHECK_EQ(sidecaml_channel_message(pair.channel, 0, text, sizeof text), 1 + 127 * 3);
    CHECK(memcmp(text, message, 1 + 127 * 3) == 0);
    pair_close(&pair);
}

static void a_failure_needs_no_message(void) {
    char text[10] = "old";
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    run_next(-SIDECAML_E_ENGINE, NULL);
    CHECK_EQ(sidecaml_channel_poll(pair.channel, 0), -SIDECAML_E_ENGINE);
    CHECK_EQ(sidecaml_channel_message(pair.channel, 0, text, sizeof text), 0);
    CHECK_EQ(text[0], 0);
    pair_close(&pair);
}

/* --- Giving up --------------------------------------------------------------------------------------------------- */

static void a_deadline_abandons_and_the_slot_is_busy_until_quiet(void) {
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    for (int p = 0; p < 3; p++) {
        open_pair(1, policies[p]);
        CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
        struct sidecaml_request request = take();
        uint64_t deadline = sidecaml_now_ns() + 2000000;
        int result;
        do
            result = sidecaml_channel_wait(pair.channel, 0, deadline);
        while (result == -SIDECAML_E_AGAIN);
        CHECK_EQ(result, -SIDECAML_E_TIMEOUT);
        CHECK(sidecaml_now_ns() >= deadline);
        CHECK_EQ(sidecaml_channel_poll(pair.channel, 0), -SIDECAML_E_INVALID);
        CHECK_EQ(sidecaml_channel_claim(pair.channel), -SIDECAML_E_BUSY);
        CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), -SIDECAML_E_BUSY);
        CHECK_EQ(sidecaml_worker_complete(pair.worker, &request, 0, NULL), 1);
        CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
        run_next(0, NULL);
        CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, 0), 0);
        pair_close(&pair);
    }
}

static void a_deadline_cancels_what_has_not_started(void) {
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, 1), -SIDECAML_E_TIMEOUT); /* long past */
    CHECK_EQ(sidecaml_channel_claim(pair.channel), 0);
    struct sidecaml_request request;
    CHECK_EQ(sidecaml_worker_next(pair.worker, 0, &request), -SIDECAML_E_PENDING);
    pair_close(&pair);
}

static void an_answer_that_is_there_beats_its_deadline(void) {
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    run_next(0, NULL);
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, 1), 0);
    pair_close(&pair);
}

static void abandoning_works_at_every_stage(void) {
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_abandon(pair.channel, 0), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_abandon(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    struct sidecaml_request request = take();
    CHECK_EQ(sidecaml_channel_abandon(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_claim(pair.channel), -SIDECAML_E_BUSY);
    CHECK_EQ(sidecaml_worker_complete(pair.worker, &request, 0, NULL), 1);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    run_next(0, NULL);
    CHECK_EQ(sidecaml_channel_abandon(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_claim(pair.channel), 0);
    pair_close(&pair);
}

/* --- The daemon is gone ------------------------------------------------------------------------------------------ */

static int wait_on(uint32_t slot) {
    int result;
    do
        result = sidecaml_channel_wait(pair.channel, slot, 0);
    while (result == -SIDECAML_E_AGAIN);
    return result;
}

static void the_end_of_the_control_socket_ends_the_channel(void) {
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    for (int p = 0; p < 3; p++) {
        size_t bytes;
        open_pair(2, policies[p]);
        CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
        CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 1);
        run_next(0, NULL);
        CHECK(!sidecaml_channel_gone(pair.channel));
        close(pair.daemon);
        pair.daemon = -1;
        CHECK_EQ(wait_on(1), -SIDECAML_E_SERVER_GONE);
        CHECK(sidecaml_channel_gone(pair.channel));
        CHECK(sidecaml_channel_gone_event(pair.channel, &bytes) == NULL);
        CHECK_EQ(sidecaml_channel_claim(pair.channel), -SIDECAML_E_SERVER_GONE);
        CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), -SIDECAML_E_SERVER_GONE);
        CHECK_EQ(sidecaml_channel_poll(pair.channel, 1), -SIDECAML_E_SERVER_GONE);
        CHECK_EQ(sidecaml_channel_spin(pair.channel, 1, UINT64_MAX), -SIDECAML_E_SERVER_GONE);
        CHECK_EQ(sidecaml_channel_arm(pair.channel, 1), 1);
        CHECK_EQ(wait_on(0), 0); /* what was answered before counts */
        pair_close(&pair);
    }
}

static void an_event_ends_the_channel_and_is_kept(void) {
    size_t bytes;
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    CHECK_EQ(send(pair.daemon, "last words", 10, 0), 10);
    CHECK_EQ(wait_on(0), -SIDECAML_E_SERVER_GONE);
    const uint8_t *event = sidecaml_channel_gone_event(pair.channel, &bytes);
    CHECK(event != NULL && bytes == 10 && memcmp(event, "last words", 10) == 0);
    pair_close(&pair);
}

#define SAY(bytes) CHECK_EQ(send(pair.daemon, bytes, sizeof bytes - 1, MSG_DONTWAIT), sizeof bytes - 1)

static void events_of_a_later_daemon_are_ignored(void) {
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    SAY("\x82\xa5"
        "event\xa8"
        "reloaded\xa7"
        "channel\x01");
    SAY("\x82\xa7"
        "details\xde\x00\x01\x93\xc0\xca\x00\x00\x00\x00\x81\x01\xc7\x01\x05x\xdb\x00\x00\x00\x01y\xa5"
        "event\xd9\x05"
        "gone!");
    /* A reply: to whoever asked, a second time. */
    SAY("\x82\xa2id\x07\xa2ok\xc3");
    for (int i = 0; i < 40; i++)
        SAY("\x81\xa5"
            "event\xa3"
            "gon");
    CHECK_EQ(sidecaml_channel_poll(pair.channel, 0), -SIDECAML_E_PENDING);
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, 1), -SIDECAML_E_TIMEOUT);
    CHECK(!sidecaml_channel_gone(pair.channel));
    pair_close(&pair);
}

static void a_daemon_that_talks_without_end_holds_nobody_up(void) {
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    char event[] = "\x81\xa5"
                   "event\xa4"
                   "chat";
    while (send(pair.daemon, event, sizeof event - 1, MSG_DONTWAIT) > 0) {
    }
    /* Each look comes back, for the caller's own signals and deadlines. */
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, 0), -SIDECAML_E_AGAIN);
    CHECK(send(pair.daemon, event, sizeof event - 1, MSG_DONTWAIT) > 0);
    run_next(0, NULL);
    CHECK_EQ(wait_on(0), 0);
    pair_close(&pair);
}

static void check_ends(const char *bytes, size_t count) {
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    CHECK_EQ(send(pair.daemon, bytes, count, 0), count);
    CHECK_EQ(wait_on(0), -SIDECAML_E_SERVER_GONE);
    pair_close(&pair);
}

#define CHECK_ENDS(bytes) check_ends(bytes, sizeof bytes - 1)

static void take_memory_back(void) {
    CHECK_EQ(fallocate(pair.segment, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, lseek(pair.segment, 0, SEEK_END)),
             0);
}

static void a_channel_whose_memory_was_taken_back_is_gone_not_corrupt(void) {
    size_t bytes;
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    for (int p = 0; p < 3; p++) {
        open_pair(2, policies[p]);
        CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
        run_next(0, NULL);
        CHECK_EQ(wait_on(0), 0);
        CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 1);
        CHECK(sidecaml_channel_is_intact(pair.channel));
        CHECK_EQ(send(pair.daemon, "last words", 10, 0), 10);
        take_memory_back();
        CHECK(!sidecaml_channel_is_intact(pair.channel));
        CHECK_EQ(wait_on(1), -SIDECAML_E_SERVER_GONE);
        CHECK(sidecaml_channel_gone(pair.channel));
        CHECK(sidecaml_channel_gone_event(pair.channel, &bytes) != NULL && bytes == 10);
        /* Nothing is held for ever. */
        CHECK_EQ(sidecaml_channel_release(pair.channel, 0), 0);
        CHECK_EQ(sidecaml_channel_release(pair.channel, 0), -SIDECAML_E_INVALID);
        CHECK_EQ(sidecaml_channel_abandon(pair.channel, 1), 0);
        CHECK_EQ(sidecaml_channel_abandon(pair.channel, 1), -SIDECAML_E_INVALID);
        CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), -SIDECAML_E_SERVER_GONE);
        pair_close(&pair);
    }
}

static void an_idle_client_whose_memory_was_taken_back_is_told_so(void) {
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    run_next(0, NULL);
    CHECK_EQ(wait_on(0), 0);
    CHECK_EQ(sidecaml_channel_release(pair.channel, 0), 0);
    take_memory_back();
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), -SIDECAML_E_SERVER_GONE);
    CHECK(sidecaml_channel_gone(pair.channel));
    pair_close(&pair);
}

static void what_is_no_event_ends_the_channel(void) {
    CHECK_ENDS("\x80");
    CHECK_ENDS("\x81\xa5"
               "event\xa4"
               "gone");
    CHECK_ENDS("\x81\xa5"
               "event\x07");
    CHECK_ENDS("\x81\xa5"
               "event\xa9"
               "cut");
    CHECK_ENDS("\x81\xa5"
               "event");
    CHECK_ENDS("\x81\xa2ok\xc2");
    CHECK_ENDS("\x81\xc1\xa5"
               "event\xa3"
               "any");
    CHECK_ENDS("\x91\xa5"
               "event");
    CHECK_ENDS("\x82\x01\xdf\xff\xff\xff\xff\xa5"
               "event\xa3"
               "any");
    CHECK_ENDS("\x82\x01\xc6\xff\xff\xff\xff\xa5"
               "event\xa3"
               "any");
}

static void *end_later(void *unused) {
    (void)unused;
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    shutdown(pair.daemon, SHUT_RDWR);
    return NULL;
}

static void a_sleeping_client_learns_of_the_end(void) {
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, end_later, NULL), 0);
    CHECK_EQ(wait_on(0), -SIDECAML_E_SERVER_GONE);
    pthread_join(thread, NULL);
    pair_close(&pair);
}

/* --- Waits ------------------------------------------------------------------------------------------------------- */

static void ignore_signal(int number) {
    (void)number;
}

static void a_signal_makes_a_wait_return(void) {
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    signal(SIGUSR1, ignore_signal);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec often = {.it_value.tv_nsec = 1000000, .it_interval.tv_nsec = 1000000};
    CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    CHECK_EQ(timer_settime(timer, 0, &often, NULL), 0);
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, 0), -SIDECAML_E_AGAIN);
    timer_delete(timer);
    signal(SIGUSR1, SIG_DFL);
    pair_close(&pair);
}

static void a_spinning_wait_returns_now_and_then(void) {
    open_pair(1, SIDECAML_SPIN);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, 0), -SIDECAML_E_AGAIN);
    sidecaml_channel_set_policy(pair.channel, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, sidecaml_now_ns() + 1000), -SIDECAML_E_TIMEOUT);
    pair_close(&pair);
}

static bool spins_in_a_crowd_of(uint32_t crowd, uint32_t cores) {
    int status_fd, control, supervisor, index, daemon;
    pair_layout(&layout, 1, 100);
    sidecaml_worker *worker = make_worker(SIDECAML_BLOCK, &status_fd, &control, &supervisor);
    sidecaml_channel *channel = pair_add_channel(worker, &layout, status_fd, SIDECAML_ADAPTIVE, &index, &daemon);
    struct sidecaml_status_page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, status_fd, 0);
    CHECK((void *)page != MAP_FAILED);
    page->crowd = crowd;
    page->cores = cores;
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    CHECK_EQ(sidecaml_channel_spin(channel, 0, 1000), -SIDECAML_E_PENDING);
    CHECK_EQ(sidecaml_channel_wait(channel, 0, sidecaml_now_ns() + 1000), -SIDECAML_E_TIMEOUT);
    bool spun = channel_spins(channel) > 0;
    sidecaml_channel_close(channel);
    sidecaml_worker_destroy(worker);
    munmap(page, sizeof *page);
    close(status_fd), close(control), close(supervisor), close(daemon);
    return spun;
}

static void a_client_spins_where_the_crowd_leaves_it_a_core(void) {
    struct cores cores;
    cores_read(&cores, "");
    uint32_t ours = cores_usable(&cores);
    CHECK_EQ(spins_in_a_crowd_of(0, 0), ours >= 2);
    CHECK_EQ(spins_in_a_crowd_of(2, 0), ours >= 2);
    CHECK(!spins_in_a_crowd_of(ours + 1, ours));
    CHECK(!spins_in_a_crowd_of(UINT32_MAX, ours));
    CHECK_EQ(spins_in_a_crowd_of(1000, 1000), cores.quota >= 1000); /* of the daemon, when the client has few */
}

static void waiting_for_nothing_is_invalid(void) {
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, 0), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 7, 0), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_channel_spin(pair.channel, 7, 0), -SIDECAML_E_INVALID);
    pair_close(&pair);
}

static void an_event_loop_is_woken_through_the_answer_descriptor(void) {
    open_pair(2, SIDECAML_BLOCK);
    int answer = sidecaml_channel_answer_fd(pair.channel);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_arm(pair.channel, 0), 0);
    CHECK(!is_readable(answer));
    run_next(0, NULL);
    CHECK(is_readable(answer));
    sidecaml_channel_disarm(pair.channel);
    CHECK(!is_readable(answer));
    CHECK_EQ(sidecaml_channel_poll(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_arm(pair.channel, 0), 1); /* there already */
    sidecaml_channel_disarm(pair.channel);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 1);
    run_next(0, NULL);
    CHECK(!is_readable(answer)); /* nobody announced that he sleeps */
    pair_close(&pair);
}

/* --- Stamps and dims --------------------------------------------------------------------------------------------- */

static void stamps_are_taken_when_asked_for(void) {
    struct sidecaml_stamps stamps;
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    run_next(0, NULL);
    CHECK_EQ(sidecaml_channel_stamps(pair.channel, 0, &stamps), 0);
    CHECK(stamps.submitted_ns == 0 && stamps.seen_ns == 0 && stamps.started_ns == 0 && stamps.finished_ns == 0);
    CHECK_EQ(sidecaml_channel_release(pair.channel, 0), 0);
    sidecaml_channel_set_stamps(pair.channel, true);
    uint64_t before = sidecaml_now_ns();
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    run_next(0, NULL);
    CHECK_EQ(sidecaml_channel_stamps(pair.channel, 0, &stamps), 0);
    CHECK(before <= stamps.submitted_ns && stamps.submitted_ns <= stamps.seen_ns);
    CHECK(stamps.seen_ns <= stamps.started_ns && stamps.started_ns <= stamps.finished_ns);
    CHECK(stamps.finished_ns <= sidecaml_now_ns());
    CHECK_EQ(sidecaml_channel_stamps(pair.channel, 1, &stamps), -SIDECAML_E_INVALID);
    pair_close(&pair);
}

static void submit_expecting(bool resets) {
    CHECK(sidecaml_channel_submit(pair.channel, 0) >= 0);
    struct sidecaml_request request = take();
    CHECK_EQ(request.resets, resets);
    CHECK_EQ(sidecaml_worker_complete(pair.worker, &request, 0, NULL), 0);
    CHECK_EQ(sidecaml_channel_release(pair.channel, request.slot), 0);
}

static void a_reset_goes_with_the_next_request_that_is_not_given_up(void) {
    open_pair(1, SIDECAML_BLOCK);
    submit_expecting(false);
    sidecaml_channel_reset(pair.channel);
    sidecaml_channel_set_stamps(pair.channel, true);
    submit_expecting(true);
    submit_expecting(false);
    /* Cancelled: it never ran. */
    sidecaml_channel_reset(pair.channel);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_abandon(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, 1), -SIDECAML_E_TIMEOUT);
    submit_expecting(true);
    submit_expecting(false);
    /* Not submitted: the slot is taken. */
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    sidecaml_channel_reset(pair.channel);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), -SIDECAML_E_FULL);
    run_next(0, NULL);
    CHECK_EQ(sidecaml_channel_release(pair.channel, 0), 0);
    submit_expecting(true);
    /* Abandoned as it ran: whoever gave it up does not know how far it came. */
    sidecaml_channel_reset(pair.channel);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    struct sidecaml_request request = take();
    CHECK_EQ(sidecaml_channel_abandon(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_worker_complete(pair.worker, &request, 0, NULL), 1);
    submit_expecting(true);
    pair_close(&pair);
}

/* A dynamic input "x" and output "y" of at most 3 by 4, and a static input "n". */
static void open_dynamic(void) {
    struct sidecaml_tensor_spec specs[] = {
        {.name = "x", .dtype = SIDECAML_INT32, .rank = 2, .dynamic = true, .max_dims = {3, 4}},
        {.name = "n", .dtype = SIDECAML_INT32, .rank = 1, .max_dims = {2}},
        {.name = "y", .dtype = SIDECAML_INT32, .rank = 2, .output = true, .dynamic = true, .max_dims = {3, 4}},
    };
    CHECK_EQ(sidecaml_layout_compute(specs, 3, 2, 5, &layout, NULL), 0);
    pair_open(&pair, &layout, SIDECAML_BLOCK);
}

static void fail_too_large(const uint64_t *dims, uint64_t text_bytes) {
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    struct sidecaml_request request = take();
    CHECK_EQ(sidecaml_worker_set_needed(pair.worker, &request, 2, dims, 2), 0);
    CHECK_EQ(sidecaml_worker_set_needed(pair.worker, &request, 2, dims, 1), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_worker_set_needed(pair.worker, &request, 1, dims, 1), -SIDECAML_E_INVALID); /* static */
    CHECK_EQ(sidecaml_worker_set_text_needed(pair.worker, &request, text_bytes), 0);
    CHECK_EQ(sidecaml_worker_complete(pair.worker, &request, -SIDECAML_E_OUTPUT_TOO_LARGE, "no room"), 0);
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, 0), -SIDECAML_E_OUTPUT_TOO_LARGE);
}

static void pass_slot_1(void) {
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 1);
    run_next(0, NULL);
    CHECK_EQ(sidecaml_channel_release(pair.channel, 1), 0);
}

static void an_answer_without_room_says_how_much_it_needs(void) {
    uint64_t dims[SIDECAML_MAX_RANK], text_bytes;
    open_dynamic();
    CHECK_EQ(sidecaml_channel_needed(pair.channel, 0, 2, dims), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_channel_text_needed(pair.channel, 0, &text_bytes), -SIDECAML_E_INVALID);
    fail_too_large((const uint64_t[]){7, UINT64_MAX}, 99);
    CHECK_EQ(sidecaml_channel_needed(pair.channel, 0, 2, dims), 2);
    CHECK(dims[0] == 7 && dims[1] == UINT64_MAX);
    CHECK_EQ(sidecaml_channel_needed(pair.channel, 0, 1, dims), 1);
    CHECK_EQ(dims[0], 2); /* a static tensor needs what it has */
    CHECK_EQ(sidecaml_channel_needed(pair.channel, 0, 3, dims), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_channel_needed(pair.channel, 2, 2, dims), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_channel_text_needed(pair.channel, 0, &text_bytes), 0);
    CHECK_EQ(text_bytes, 99);
    CHECK_EQ(sidecaml_channel_get_dims(pair.channel, 0, 2, dims), -SIDECAML_E_OUTPUT_TOO_LARGE);
    CHECK_EQ(sidecaml_channel_release(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_needed(pair.channel, 0, 2, dims), -SIDECAML_E_INVALID);
    pass_slot_1();
    /* The next request of the slot begins with dims that fit, whatever becomes of it. */
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    run_next(-SIDECAML_E_ENGINE, "failed");
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, 0), -SIDECAML_E_ENGINE);
    CHECK_EQ(sidecaml_channel_needed(pair.channel, 0, 2, dims), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_channel_get_dims(pair.channel, 0, 2, dims), 2);
    CHECK(dims[0] == 3 && dims[1] == 4);
    CHECK_EQ(sidecaml_channel_release(pair.channel, 0), 0);
    pass_slot_1();
    fail_too_large((const uint64_t[]){1, 5}, 0);
    CHECK_EQ(sidecaml_channel_text_needed(pair.channel, 0, &text_bytes), 0);
    CHECK_EQ(text_bytes, 0);
    pair_close(&pair);
}

static void dims_travel_with_their_request(void) {
    uint64_t dims[SIDECAML_MAX_RANK];
    open_dynamic();
    CHECK_EQ(sidecaml_channel_set_dims(pair.channel, 0, 0, (uint64_t[]){2, 0}, 2), 0);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    struct sidecaml_request request = take();
    CHECK_EQ(sidecaml_worker_get_dims(pair.worker, &request, 0, dims), 2);
    CHECK(dims[0] == 2 && dims[1] == 0);
    CHECK_EQ(sidecaml_worker_get_dims(pair.worker, &request, 1, dims), 1);
    CHECK_EQ(dims[0], 2);
    CHECK_EQ(sidecaml_worker_set_dims(pair.worker, &request, 2, (uint64_t[]){3, 1}, 2), 0);
    CHECK_EQ(sidecaml_worker_complete(pair.worker, &request, 0, NULL), 0);
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, 0), 0);
    CHECK_EQ(sidecaml_channel_get_dims(pair.channel, 0, 2, dims), 2);
    CHECK(dims[0] == 3 && dims[1] == 1);
    CHECK_EQ(sidecaml_channel_get_dims(pair.channel, 1, 2, dims), 2);
    CHECK(dims[0] == 3 && dims[1] == 4); /* the other slot's, still the largest */
    pair_close(&pair);
}

static void wrong_dims_are_refused_on_both_sides(void) {
    uint64_t dims[SIDECAML_MAX_RANK];
    open_dynamic();
    CHECK_EQ(sidecaml_channel_set_dims(pair.channel, 0, 0, (uint64_t[]){4, 4}, 2), -SIDECAML_E_BAD_DIMS);
    CHECK_EQ(sidecaml_channel_set_dims(pair.channel, 0, 0, (uint64_t[]){UINT64_MAX, 0}, 2), -SIDECAML_E_BAD_DIMS);
    CHECK_EQ(sidecaml_channel_set_dims(pair.channel, 0, 0, (uint64_t[]){1}, 1), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_channel_set_dims(pair.channel, 0, 1, (uint64_t[]){1}, 1), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_channel_set_dims(pair.channel, 0, 1, (uint64_t[]){2}, 1), 0);
    CHECK_EQ(sidecaml_channel_set_dims(pair.channel, 0, 2, (uint64_t[]){1, 1}, 2), -SIDECAML_E_INVALID); /* an output */
    CHECK_EQ(sidecaml_channel_set_dims(pair.channel, 0, 3, (uint64_t[]){1, 1}, 2), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_channel_set_dims(pair.channel, 2, 0, (uint64_t[]){1, 1}, 2), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_set_dims(pair.channel, 0, 0, (uint64_t[]){1, 1}, 2), -SIDECAML_E_INVALID); /* under way */
    struct sidecaml_request request = take();
    CHECK_EQ(sidecaml_worker_set_dims(pair.worker, &request, 2, (uint64_t[]){3, 5}, 2), -SIDECAML_E_OUTPUT_TOO_LARGE);
    CHECK_EQ(sidecaml_worker_set_dims(pair.worker, &request, 2, (uint64_t[]){3}, 1), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_worker_get_dims(pair.worker, &request, 3, dims), -SIDECAML_E_INVALID);
    pair_close(&pair);
}

static void dims_scribbled_over_are_found_out(void) {
    uint64_t dims[SIDECAML_MAX_RANK];
    open_dynamic();
    uint8_t *base = mmap(NULL, layout.segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, pair.segment, 0);
    CHECK(base != MAP_FAILED);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    struct sidecaml_request request = take();
    memset(base + layout.dims_offset, 0xff, 3 * sizeof(struct sidecaml_dims));
    CHECK_EQ(sidecaml_worker_get_dims(pair.worker, &request, 0, dims), -SIDECAML_E_BAD_DIMS);
    CHECK_EQ(sidecaml_channel_get_dims(pair.channel, 0, 2, dims), -SIDECAML_E_CORRUPT);
    munmap(base, layout.segment_bytes);
    pair_close(&pair);
}

/* --- Opening and closing ----------------------------------------------------------------------------------------- */

static void try_attach(int segment, int status, uint64_t fingerprint, int code, const char *says) {
    struct sidecaml_failure why;
    sidecaml_channel *channel;
    struct sidecaml_channel_fds fds = {segment, -1, -1, status, -1};
    int before = count_fds();
    CHECK_EQ(sidecaml_channel_attach(&fds, fingerprint, SIDECAML_BLOCK, &channel, &why), -code);
    CHECK_EQ(why.code, code);
    CHECK_SAYS(why.text, says);
    CHECK_EQ(count_fds(), before);
}

static void what_is_no_channel_is_refused_and_stays_the_callers(void) {
    int status_fd, control, supervisor, index, daemon;
    pair_layout(&layout, 2, 100);
    sidecaml_worker *worker = make_worker(SIDECAML_BLOCK, &status_fd, &control, &supervisor);
    sidecaml_channel *channel = pair_add_channel(worker, &layout, status_fd, SIDECAML_BLOCK, &index, &daemon);
    int segment = sidecaml_channel_segment_fd(channel);
    int empty = make_memfd(0), zeros = make_memfd(SIDECAML_PAGE_BYTES), small = make_memfd(100);
    try_attach(segment, status_fd, 78, SIDECAML_E_CORRUPT, "another signature");
    try_attach(zeros, status_fd, 77, SIDECAML_E_CORRUPT, "magic");
    try_attach(empty, status_fd, 77, SIDECAML_E_CORRUPT, "empty");
    try_attach(small, status_fd, 77, SIDECAML_E_CORRUPT, "no room for a header");
    try_attach(-1, status_fd, 77, SIDECAML_E_SYSTEM, "Bad file descriptor");
    try_attach(segment, zeros, 77, SIDECAML_E_CORRUPT, "status page");
    try_attach(segment, segment, 77, SIDECAML_E_CORRUPT, "status page");
    try_attach(segment, -1, 77, SIDECAML_E_SYSTEM, "Bad file descriptor");
    uint32_t version = 99;
    CHECK_EQ(pwrite(status_fd, &version, sizeof version, 8), sizeof version);
    try_attach(segment, status_fd, 77, SIDECAML_E_ABI_MISMATCH, "version 99");
    sidecaml_channel_close(channel);
    sidecaml_worker_destroy(worker);
    close(status_fd), close(control), close(supervisor), close(daemon), close(empty), close(zeros), close(small);
}

/* The first byte of slot 0's input, seen through a mapping of its own after the channel has ended. */
static uint8_t byte_after(void (*end)(sidecaml_channel *)) {
    const uint8_t *view = mmap(NULL, layout.segment_bytes, PROT_READ, MAP_SHARED, pair.segment, 0);
    CHECK((const void *)view != MAP_FAILED);
    memset(sidecaml_channel_tensor(pair.channel, 0, 0), 42, 1000);
    CHECK_EQ(view[layout.tensor[0].array_offset], 42);
    end(pair.channel);
    pair.channel = NULL;
    uint8_t byte = view[layout.tensor[0].array_offset];
    munmap((void *)view, layout.segment_bytes);
    return byte;
}

static void a_late_view_of_a_closed_channel_reads_zeros(void) {
    open_pair(2, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    CHECK_EQ(byte_after(sidecaml_channel_close), 0);
    struct sidecaml_request request;
    CHECK_EQ(sidecaml_worker_next(pair.worker, 0, &request), -SIDECAML_E_PENDING);
    pair_close(&pair);
}

static void closing_under_a_running_request_leaves_its_input_alone(void) {
    open_pair(2, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    struct sidecaml_request request = take();
    CHECK_EQ(byte_after(sidecaml_channel_close), 42);
    CHECK_EQ(sidecaml_worker_complete(pair.worker, &request, 0, NULL), 1);
    pair_close(&pair);
}

static void a_forked_child_that_closes_leaves_the_parents_request_alone(void) {
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        sidecaml_channel_close(pair.channel);
        _exit(0);
    }
    CHECK_EQ(waitpid(child, NULL, 0), child);
    run_next(0, NULL);
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 0, 0), 0);
    pair_close(&pair);
}

static void a_dropped_channel_leaves_the_pages_to_its_views(void) {
    open_pair(2, SIDECAML_BLOCK);
    CHECK_EQ(byte_after(sidecaml_channel_drop), 42);
    sidecaml_channel_close(NULL);
    pair_close(&pair);
}

/* --- Any of several ------------------------------------------------------------------------------------------------
 */

static void any_request_that_ended_is_told_once_the_oldest_first(void) {
    open_pair(4, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_wait_any(pair.channel, 0), -SIDECAML_E_INVALID);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), i);
    CHECK_EQ(sidecaml_channel_spin_any(pair.channel, 0), -SIDECAML_E_PENDING);
    CHECK_EQ(sidecaml_channel_wait_any(pair.channel, 1), -SIDECAML_E_TIMEOUT); /* long ago */
    run_next(0, NULL);
    run_next(-SIDECAML_E_ENGINE, "no");
    run_next(0, NULL);
    CHECK_EQ(sidecaml_channel_wait_any(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_wait_any(pair.channel, 0), 1);
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 1, 0), -SIDECAML_E_ENGINE);
    CHECK_EQ(sidecaml_channel_poll(pair.channel, 2), 0); /* tells of it, too */
    CHECK_EQ(sidecaml_channel_spin_any(pair.channel, 1000), -SIDECAML_E_PENDING);
    CHECK_EQ(sidecaml_channel_abandon(pair.channel, 3), 0);
    CHECK_EQ(sidecaml_channel_wait_any(pair.channel, 0), -SIDECAML_E_INVALID);
    for (uint32_t slot = 0; slot < 3; slot++)
        CHECK_EQ(sidecaml_channel_release(pair.channel, slot), 0);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    run_next(0, NULL);
    CHECK_EQ(sidecaml_channel_wait_any(pair.channel, 0), 0); /* the slot's next request is another one */
    pair_close(&pair);
}

static void any_is_found_after_many_requests_that_were_awaited_one_by_one(void) {
    open_pair(3, SIDECAML_BLOCK);
    for (int i = 0; i < 100; i++) {
        int slot = sidecaml_channel_submit(pair.channel, 0);
        run_next(0, NULL);
        CHECK_EQ(sidecaml_channel_wait(pair.channel, (uint32_t)slot, 0), 0);
        CHECK_EQ(sidecaml_channel_release(pair.channel, (uint32_t)slot), 0);
    }
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 100 % 3);
    run_next(0, NULL);
    CHECK_EQ(sidecaml_channel_wait_any(pair.channel, 0), 100 % 3);
    pair_close(&pair);
}

static void a_request_past_its_own_deadline_has_ended(void) {
    open_pair(2, SIDECAML_ADAPTIVE);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    uint64_t deadline = sidecaml_now_ns() + 2000000;
    CHECK_EQ(sidecaml_channel_submit(pair.channel, deadline), 1);
    int slot;
    while ((slot = sidecaml_channel_wait_any(pair.channel, 0)) == -SIDECAML_E_AGAIN)
        ;
    CHECK_EQ(slot, 1);
    CHECK(sidecaml_now_ns() >= deadline);
    CHECK_EQ(sidecaml_channel_wait(pair.channel, 1, deadline), -SIDECAML_E_TIMEOUT);
    CHECK_EQ(sidecaml_channel_wait_any(pair.channel, 1), -SIDECAML_E_TIMEOUT); /* the other goes on */
    pair_close(&pair);
}

static void each_request_of_a_channel_that_is_gone_has_ended(void) {
    open_pair(2, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 1);
    close(pair.daemon), pair.daemon = -1;
    for (int i = 0; i < 2; i++) {
        int slot;
        while ((slot = sidecaml_channel_wait_any(pair.channel, 0)) == -SIDECAML_E_AGAIN)
            ;
        CHECK_EQ(slot, i);
        CHECK_EQ(sidecaml_channel_wait(pair.channel, (uint32_t)slot, 0), -SIDECAML_E_SERVER_GONE);
    }
    CHECK_EQ(sidecaml_channel_wait_any(pair.channel, 0), -SIDECAML_E_INVALID);
    pair_close(&pair);
}

static void a_wait_for_an_end_tells_nobody_and_gives_nothing_up(void) {
    open_pair(2, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_wait_end(pair.channel, 0, 0), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_channel_wait_end(pair.channel, 2, 0), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_channel_submit_run(pair.channel, 2, 0), 0);
    run_next(0, NULL);
    CHECK_EQ(sidecaml_channel_wait_end(pair.channel, 0, 0), 0);
    CHECK_EQ(sidecaml_channel_wait_end(pair.channel, 1, 1), -SIDECAML_E_TIMEOUT);
    run_next(-SIDECAML_E_ENGINE, "no");
    CHECK_EQ(sidecaml_channel_wait_end(pair.channel, 1, 1), -SIDECAML_E_ENGINE);
    CHECK_EQ(sidecaml_channel_wait_any(pair.channel, 0), 0);
    CHECK_EQ(sidecaml_channel_wait_any(pair.channel, 0), 1);
    pair_close(&pair);
}

static void *run_two(void *arg) {
    for (int i = 0; i < 2; i++) {
        struct sidecaml_request request;
        if (sidecaml_worker_next(pair.worker, UINT64_MAX, &request) != 1) return NULL;
        sidecaml_worker_started(pair.worker, &request);
        sidecaml_worker_complete(pair.worker, &request, 0, NULL);
    }
    return arg;
}

static void a_sleep_for_any_ends_with_an_answer(void) {
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    for (int p = 0; p < 3; p++) {
        open_pair(2, policies[p]);
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, run_two, &pair), 0);
        CHECK_EQ(sidecaml_channel_submit_run(pair.channel, 2, 0), 0);
        /* Not always the oldest first: both may end just after one look at it. */
        int told[2] = {0, 0};
        for (int seen = 0; seen < 2;) {
            int slot = sidecaml_channel_wait_any(pair.channel, 0);
            if (slot == -SIDECAML_E_AGAIN) continue;
            CHECK(slot == 0 || slot == 1);
            told[slot]++;
            seen++;
        }
        CHECK_EQ(told[0], 1);
        CHECK_EQ(told[1], 1);
        void *ended;
        pthread_join(thread, &ended);
        CHECK(ended != NULL);
        pair_close(&pair);
    }
}

/* --- Runs of slots ---------------------------------------------------------------------------------------------------
 */

static void a_run_of_slots_is_claimed_submitted_and_released_at_once(void) {
    open_pair(4, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_claim_run(pair.channel, 3), 3);
    CHECK_EQ(sidecaml_channel_claim_run(pair.channel, 9), 4);
    CHECK_EQ(sidecaml_channel_submit_run(pair.channel, 3, INT64_MAX), 0);
    CHECK_EQ(sidecaml_channel_claim_run(pair.channel, 3), 1);
    CHECK_EQ(sidecaml_channel_submit_run(pair.channel, 2, 0), -SIDECAML_E_INVALID); /* one is not free */
    CHECK_EQ(sidecaml_channel_submit_run(pair.channel, 0, 0), -SIDECAML_E_INVALID);
    for (uint32_t i = 0; i < 3; i++) {
        struct sidecaml_request request = take();
        CHECK_EQ(request.slot, i);
        CHECK_EQ(request.deadline_ns, INT64_MAX);
        CHECK_EQ(sidecaml_channel_answered(pair.channel, 0, 4), i);
        sidecaml_worker_started(pair.worker, &request);
        sidecaml_worker_complete(pair.worker, &request, 0, NULL);
    }
    CHECK_EQ(sidecaml_channel_answered(pair.channel, 0, 2), 2);
    CHECK_EQ(sidecaml_channel_release_run(pair.channel, 0, 2), 0);
    CHECK_EQ(sidecaml_channel_submit_run(pair.channel, 3, 0), 3); /* round the ring's end */
    CHECK_EQ(sidecaml_channel_claim(pair.channel), -SIDECAML_E_FULL);
    CHECK_EQ(sidecaml_channel_claim_run(pair.channel, 1), -SIDECAML_E_FULL);
    CHECK_EQ(sidecaml_channel_answered(pair.channel, 2, 4), 1);
    CHECK_EQ(sidecaml_channel_release_run(pair.channel, 2, 2), -SIDECAML_E_INVALID); /* slot 3 is under way */
    CHECK_EQ(sidecaml_channel_claim(pair.channel), 2);
    CHECK_EQ(sidecaml_channel_answered(pair.channel, 4, 1), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_channel_ended(pair.channel, 4, 1), -SIDECAML_E_INVALID);
    pair_close(&pair);
}

static void a_failure_ends_a_run_of_answers(void) {
    open_pair(3, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit_run(pair.channel, 3, 0), 0);
    run_next(0, NULL);
    run_next(-SIDECAML_E_ENGINE, "no");
    run_next(0, NULL);
    CHECK_EQ(sidecaml_channel_answered(pair.channel, 0, 3), 1);
    CHECK_EQ(sidecaml_channel_answered(pair.channel, 1, 3), 0);
    CHECK_EQ(sidecaml_channel_wait_any(pair.channel, 0), 1);
    CHECK_EQ(sidecaml_channel_answered(pair.channel, 2, 3), 1);
    pair_close(&pair);
}

static void what_has_ended_is_counted_and_told_to_nobody(void) {
    open_pair(4, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_ended(pair.channel, 0, 4), 0); /* none was submitted */
    CHECK_EQ(sidecaml_channel_submit_run(pair.channel, 4, 0), 0);
    CHECK_EQ(sidecaml_channel_ended(pair.channel, 0, 4), 0);
    run_next(0, NULL);
    run_next(-SIDECAML_E_ENGINE, "no");
    run_next(0, NULL);
    CHECK_EQ(sidecaml_channel_ended(pair.channel, 0, 4), 3);
    CHECK_EQ(sidecaml_channel_ended(pair.channel, 0, 2), 2);
    CHECK_EQ(sidecaml_channel_ended(pair.channel, 1, 4), 2);
    CHECK_EQ(sidecaml_channel_ended(pair.channel, 3, 4), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(sidecaml_channel_wait_any(pair.channel, 0), i);
    run_next(0, NULL);
    CHECK_EQ(sidecaml_channel_ended(pair.channel, 3, 4), 1); /* not round to the oldest */
    CHECK_EQ(sidecaml_channel_abandon(pair.channel, 1), 0);
    CHECK_EQ(sidecaml_channel_ended(pair.channel, 0, 4), 4); /* the last is DONE, so none is in flight */
    CHECK_EQ(sidecaml_channel_ended(pair.channel, 0, 3), 3);
    CHECK_EQ(sidecaml_channel_ended(pair.channel, 0, 2), 1);
    pair_close(&pair);
}

static void only_the_first_of_a_run_resets_state(void) {
    open_pair(3, SIDECAML_BLOCK);
    sidecaml_channel_reset(pair.channel);
    CHECK_EQ(sidecaml_channel_submit_run(pair.channel, 3, 0), 0);
    for (int i = 0; i < 3; i++) {
        struct sidecaml_request request = take();
        CHECK_EQ(request.resets, i == 0);
        sidecaml_worker_started(pair.worker, &request);
        sidecaml_worker_complete(pair.worker, &request, 0, NULL);
    }
    pair_close(&pair);
}

/* --- A slot's turn ---------------------------------------------------------------------------------------------------
 */

static void *complete_late(void *request) {
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    sidecaml_worker_complete(pair.worker, request, 0, NULL);
    return NULL;
}

static void a_claim_waits_for_what_was_given_up_and_not_for_what_is_held(void) {
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    for (int p = 0; p < 3; p++) {
        open_pair(1, policies[p]);
        CHECK_EQ(sidecaml_channel_claim_wait(pair.channel, 0), 0);
        CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
        CHECK_EQ(sidecaml_channel_claim_wait(pair.channel, 0), -SIDECAML_E_FULL);
        struct sidecaml_request request = take();
        sidecaml_worker_started(pair.worker, &request);
        CHECK_EQ(sidecaml_channel_abandon(pair.channel, 0), 0);
        CHECK_EQ(sidecaml_channel_claim_wait(pair.channel, 1), -SIDECAML_E_TIMEOUT);
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, complete_late, &request), 0);
        int slot;
        while ((slot = sidecaml_channel_claim_wait(pair.channel, 0)) == -SIDECAML_E_AGAIN)
            ;
        CHECK_EQ(slot, 0);
        pthread_join(thread, NULL);
        pair_close(&pair);
    }
}

static void a_claim_that_waits_learns_of_the_daemon_s_end(void) {
    open_pair(1, SIDECAML_BLOCK);
    CHECK_EQ(sidecaml_channel_submit(pair.channel, 0), 0);
    take();
    CHECK_EQ(sidecaml_channel_abandon(pair.channel, 0), 0);
    close(pair.daemon), pair.daemon = -1;
    int result;
    while ((result = sidecaml_channel_claim_wait(pair.channel, 0)) == -SIDECAML_E_AGAIN)
        ;
    CHECK_EQ(result, -SIDECAML_E_SERVER_GONE);
    pair_close(&pair);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(tensors_are_the_same_memory_on_both_sides)},
        {TEST(a_request_is_answered_under_every_policy)},
        {TEST(a_full_channel_says_so)},
        {TEST(a_failure_carries_its_code_and_message)},
        {TEST(a_long_message_is_cut_between_characters)},
        {TEST(a_failure_needs_no_message)},
        {TEST(a_deadline_abandons_and_the_slot_is_busy_until_quiet)},
        {TEST(a_deadline_cancels_what_has_not_started)},
        {TEST(an_answer_that_is_there_beats_its_deadline)},
        {TEST(abandoning_works_at_every_stage)},
        {TEST(the_end_of_the_control_socket_ends_the_channel)},
        {TEST(an_event_ends_the_channel_and_is_kept)},
        {TEST(events_of_a_later_daemon_are_ignored)},
        {TEST(a_daemon_that_talks_without_end_holds_nobody_up)},
        {TEST(what_is_no_event_ends_the_channel)},
        {TEST(a_channel_whose_memory_was_taken_back_is_gone_not_corrupt)},
        {TEST(an_idle_client_whose_memory_was_taken_back_is_told_so)},
        {TEST(a_sleeping_client_learns_of_the_end)},
        {TEST(a_signal_makes_a_wait_return)},
        {TEST(a_spinning_wait_returns_now_and_then)},
        {TEST(a_client_spins_where_the_crowd_leaves_it_a_core)},
        {TEST(waiting_for_nothing_is_invalid)},
        {TEST(an_event_loop_is_woken_through_the_answer_descriptor)},
        {TEST(stamps_are_taken_when_asked_for)},
        {TEST(a_reset_goes_with_the_next_request_that_is_not_given_up)},
        {TEST(an_answer_without_room_says_how_much_it_needs)},
        {TEST(dims_travel_with_their_request)},
        {TEST(wrong_dims_are_refused_on_both_sides)},
        {TEST(dims_scribbled_over_are_found_out)},
        {TEST(what_is_no_channel_is_refused_and_stays_the_callers)},
        {TEST(a_late_view_of_a_closed_channel_reads_zeros)},
        {TEST(closing_under_a_running_request_leaves_its_input_alone)},
        {TEST(a_forked_child_that_closes_leaves_the_parents_request_alone)},
        {TEST(a_dropped_channel_leaves_the_pages_to_its_views)},
        {TEST(any_request_that_ended_is_told_once_the_oldest_first)},
        {TEST(any_is_found_after_many_requests_that_were_awaited_one_by_one)},
        {TEST(a_request_past_its_own_deadline_has_ended)},
        {TEST(each_request_of_a_channel_that_is_gone_has_ended)},
        {TEST(a_wait_for_an_end_tells_nobody_and_gives_nothing_up)},
        {TEST(a_sleep_for_any_ends_with_an_answer)},
        {TEST(a_run_of_slots_is_claimed_submitted_and_released_at_once)},
        {TEST(a_failure_ends_a_run_of_answers)},
        {TEST(what_has_ended_is_counted_and_told_to_nobody)},
        {TEST(only_the_first_of_a_run_resets_state)},
        {TEST(a_claim_waits_for_what_was_given_up_and_not_for_what_is_held)},
        {TEST(a_claim_that_waits_learns_of_the_daemon_s_end)},
    };
    return RUN_TESTS(tests, 20);
}
