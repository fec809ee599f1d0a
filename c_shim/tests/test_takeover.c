/* A worker dies and another takes its channel over. The dead one is left as it was: nothing of it runs any more. */
#define _GNU_SOURCE
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "pair.h"

#define SLOTS 2

static struct sidecaml_layout layout;
static struct sidecaml_failure why;
static sidecaml_worker *dead, *successor;
static sidecaml_channel *channel;
static int fds[4]; /* segment, request, answer, journal */
static int status_page, answer, controls[4], daemon_end, place;

static int attach(sidecaml_worker *worker, uint32_t how) {
    struct sidecaml_worker_fds mine = {must_dup(fds[0]), must_dup(fds[1]), must_dup(fds[2]), must_dup(fds[3])};
    int index = sidecaml_worker_attach(worker, &mine, &layout, how, &why);
    if (index >= 0) return index;
    close(mine.segment);
    close(mine.request);
    close(mine.answer);
    close(mine.journal);
    return index;
}

static sidecaml_worker *begin(int *control) {
    sidecaml_worker *worker;
    CHECK_EQ(sidecaml_worker_create(must_dup(status_page), 0, *control, SIDECAML_BLOCK, &worker, &why), 0);
    return worker;
}

static void set_up(void) {
    pair_layout(&layout, SLOTS, 8);
    make_sockets(controls);
    make_sockets(controls + 2);
    status_page = make_memfd(SIDECAML_PAGE_BYTES);
    fds[0] = make_memfd(layout.segment_bytes);
    fds[1] = make_doorbell();
    fds[2] = answer = make_doorbell();
    fds[3] = make_memfd(SIDECAML_PAGE_BYTES + 64);
    dead = begin(&controls[0]);
    successor = NULL;
    CHECK_EQ(attach(dead, 0), 0);
    int ends[2];
    make_sockets(ends);
    daemon_end = ends[1];
    struct sidecaml_channel_fds client = {must_dup(fds[0]), must_dup(fds[1]), must_dup(fds[2]), must_dup(status_page),
                                          ends[0]};
    CHECK_EQ(sidecaml_channel_attach(&client, layout.fingerprint, SIDECAML_BLOCK, &channel, &why), 0);
}

static void take_over(void) {
    sidecaml_worker_destroy(successor); /* of a take-over before: dead as well */
    successor = begin(&controls[2]);
    place = attach(successor, SIDECAML_ATTACH_RESUME);
    CHECK_EQ(place, 0);
}

static void tear_down(void) {
    sidecaml_channel_close(channel);
    sidecaml_worker_destroy(dead);
    sidecaml_worker_destroy(successor);
    for (int i = 0; i < 4; i++) {
        close(fds[i]);
        close(controls[i]);
    }
    close(status_page);
    close(daemon_end);
}

static int next(sidecaml_worker *worker, struct sidecaml_request *request) {
    return sidecaml_worker_next(worker, 0, request);
}

static void complete(sidecaml_worker *worker, const struct sidecaml_request *request) {
    CHECK_EQ(sidecaml_worker_complete(worker, request, 0, NULL), 0);
}

static void serve_next(sidecaml_worker *worker) {
    struct sidecaml_request request;
    CHECK_EQ(next(worker, &request), 1);
    sidecaml_worker_started(worker, &request);
    complete(worker, &request);
}

static void submitted_requests_go_on(void) {
    struct sidecaml_request request;
    set_up();
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 1);
    take_over();
    CHECK_EQ(sidecaml_worker_interrupted(successor, 0), 0);
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        CHECK_EQ(next(successor, &request), 1);
        CHECK_EQ(request.slot, slot);
        CHECK_EQ(request.attempts, 0);
        complete(successor, &request);
        CHECK_EQ(sidecaml_channel_poll(channel, slot), 0);
    }
    tear_down();
}

static void a_started_request_is_taken_again_and_counted(void) {
    struct sidecaml_request request;
    set_up();
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    CHECK_EQ(next(dead, &request), 1);
    sidecaml_worker_started(dead, &request);
    for (uint32_t attempt = 1; attempt <= SIDECAML_MOST_ATTEMPTS + 2; attempt++) {
        uint32_t counted = attempt < SIDECAML_MOST_ATTEMPTS ? attempt : SIDECAML_MOST_ATTEMPTS;
        take_over();
        CHECK_EQ(sidecaml_worker_interrupted(successor, 0), counted);
        CHECK_EQ(next(successor, &request), 1);
        CHECK_EQ(request.attempts, counted);
        CHECK_EQ(sidecaml_channel_poll(channel, 0), -SIDECAML_E_PENDING);
        sidecaml_worker_started(successor, &request);
    }
    complete(successor, &request);
    CHECK_EQ(sidecaml_channel_poll(channel, 0), 0);
    CHECK_EQ(sidecaml_channel_release(channel, 0), 0);
    /* Another ticket begins to count anew. */
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 1);
    CHECK_EQ(next(successor, &request), 1);
    CHECK_EQ(request.attempts, 0);
    tear_down();
}

static void a_request_that_was_only_taken_is_not_counted(void) {
    struct sidecaml_request request;
    set_up();
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    CHECK_EQ(next(dead, &request), 1);
    take_over();
    CHECK_EQ(sidecaml_worker_interrupted(successor, 0), 0);
    CHECK_EQ(next(successor, &request), 1);
    CHECK_EQ(request.attempts, 0);
    tear_down();
}

/* The dead worker's DONE, taken back: as if it had died just before it. */
static void unpublish(uint32_t slot, uint64_t ticket, enum sidecaml_state state) {
    uint64_t word = ticket << SIDECAML_STATE_BITS | state;
    CHECK_EQ(pwrite(fds[0], &word, sizeof word, (off_t)(layout.slots_offset + slot * sizeof(struct sidecaml_slot))),
             sizeof word);
}

static void what_was_committed_is_only_published(void) {
    struct sidecaml_request request;
    set_up();
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    serve_next(dead);
    unpublish(0, 0, SIDECAML_STATE_RUNNING);
    CHECK_EQ(sidecaml_channel_poll(channel, 0), -SIDECAML_E_PENDING);
    take_over();
    CHECK_EQ(sidecaml_worker_interrupted(successor, 0), 0);
    CHECK_EQ(next(successor, &request), -SIDECAML_E_PENDING);
    CHECK_EQ(sidecaml_channel_poll(channel, 0), 0);
    tear_down();
}

static void what_was_published_is_left_alone(void) {
    struct sidecaml_request request;
    set_up();
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    serve_next(dead);
    take_over();
    CHECK_EQ(next(successor, &request), -SIDECAML_E_PENDING);
    CHECK_EQ(sidecaml_channel_poll(channel, 0), 0);
    CHECK_EQ(sidecaml_channel_release(channel, 0), 0);
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 1);
    CHECK_EQ(next(successor, &request), 1);
    CHECK_EQ(request.ticket, 1);
    tear_down();
}

static void a_slot_that_was_given_up_is_free_again(void) {
    struct sidecaml_request request;
    set_up();
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    CHECK_EQ(next(dead, &request), 1);
    sidecaml_worker_started(dead, &request);
    CHECK_EQ(sidecaml_channel_abandon(channel, 0), 0);
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 1);
    CHECK_EQ(sidecaml_channel_claim(channel), -SIDECAML_E_BUSY);
    take_over();
    CHECK_EQ(next(successor, &request), 1);
    CHECK_EQ(request.ticket, 1);
    CHECK_EQ(sidecaml_channel_claim(channel), 0);
    tear_down();
}

static void a_request_that_failed_before_it_was_started_is_stepped_over(void) {
    struct sidecaml_request request;
    set_up();
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    serve_next(dead);
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 1);
    CHECK_EQ(next(dead, &request), 1);
    CHECK_EQ(sidecaml_worker_complete(dead, &request, -SIDECAML_E_ENGINE, "no"), 0);
    take_over();
    CHECK_EQ(sidecaml_channel_release(channel, 0), 0);
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    CHECK_EQ(next(successor, &request), 1);
    CHECK_EQ(request.ticket, 2);
    tear_down();
}

static void tickets_cancelled_since_the_last_run_are_skipped(void) {
    struct sidecaml_request request;
    set_up();
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    serve_next(dead);
    CHECK_EQ(sidecaml_channel_release(channel, 0), 0);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(sidecaml_channel_abandon(channel, (uint32_t)sidecaml_channel_submit(channel, 0)), 0);
    int slot = sidecaml_channel_submit(channel, 0);
    /* Taken, but not noted: the journal still says ticket 0. */
    CHECK_EQ(next(dead, &request), 1);
    CHECK_EQ(request.ticket, 6);
    take_over();
    CHECK_EQ(next(successor, &request), 1);
    CHECK_EQ(request.ticket, 6);
    CHECK_EQ(request.slot, slot);
    tear_down();
}

static void a_client_that_sleeps_is_woken_even_if_its_flag_was_taken_down(void) {
    set_up();
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    serve_next(dead);
    take_over();
    struct pollfd bell = {.fd = answer, .events = POLLIN};
    CHECK_EQ(poll(&bell, 1, 0), 1);
    tear_down();
}

static void carried_state_is_committed_with_the_answer(void) {
    struct sidecaml_request request;
    uint64_t bytes;
    set_up();
    CHECK_EQ(sidecaml_worker_committed(dead, 0), 0);
    memcpy(sidecaml_worker_journal(dead, 0, &bytes), "state", 6);
    CHECK_EQ(bytes, 64);
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    CHECK_EQ(next(dead, &request), 1);
    sidecaml_worker_started(dead, &request);
    sidecaml_worker_set_state(dead, 0, 7);
    take_over();
    /* Not yet. */
    CHECK_EQ(sidecaml_worker_committed(successor, 0), 0);
    CHECK_EQ(sidecaml_worker_state(successor, 0), 0);
    CHECK_EQ(next(successor, &request), 1);
    sidecaml_worker_set_state(successor, 0, 7);
    complete(successor, &request);
    take_over();
    CHECK_EQ(sidecaml_worker_committed(successor, 0), SIDECAML_CARRIED | SIDECAML_PLACE);
    CHECK_EQ(sidecaml_worker_state(successor, 0), SIDECAML_PLACE);
    CHECK_EQ(strcmp(sidecaml_worker_journal(successor, 0, &bytes), "state"), 0);
    sidecaml_worker_drop_carried(successor, 0);
    CHECK_EQ(sidecaml_worker_committed(successor, 0), SIDECAML_PLACE);
    tear_down();
}

static void a_failed_run_commits_nothing(void) {
    struct sidecaml_request request;
    set_up();
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    CHECK_EQ(next(dead, &request), 1);
    sidecaml_worker_started(dead, &request);
    CHECK_EQ(sidecaml_worker_complete(dead, &request, -SIDECAML_E_ENGINE, "no"), 0);
    CHECK_EQ(sidecaml_worker_committed(dead, 0), 0);
    take_over();
    CHECK_EQ(sidecaml_channel_poll(channel, 0), -SIDECAML_E_ENGINE);
    tear_down();
}

static struct sidecaml_journal noted(void) {
    struct sidecaml_journal journal;
    CHECK_EQ(pread(fds[3], &journal, sizeof journal, 0), sizeof journal);
    return journal;
}

static uint64_t failed_last(void) {
    struct sidecaml_journal journal = noted();
    return journal.failed;
}

static void a_run_that_failed_is_told_from_one_that_ended_its_worker(void) {
    struct sidecaml_request request;
    set_up();
    for (uint64_t ticket = 0; ticket < 2; ticket++) {
        CHECK_EQ(sidecaml_channel_submit(channel, 0), ticket);
        CHECK_EQ(next(dead, &request), 1);
        sidecaml_worker_started(dead, &request);
        CHECK_EQ(failed_last(), ticket);
        CHECK_EQ(sidecaml_worker_complete(dead, &request, -SIDECAML_E_ENGINE, "no"), 0);
        CHECK_EQ(failed_last(), ticket + 1);
        CHECK_EQ(sidecaml_channel_release(channel, (uint32_t)ticket), 0);
    }
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    serve_next(dead);
    CHECK_EQ(failed_last(), 2);
    tear_down();
}

static void the_status_page_goes_on(void) {
    set_up();
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    serve_next(dead);
    take_over();
    struct sidecaml_status_page page;
    CHECK_EQ(pread(status_page, &page, sizeof page, 0), sizeof page);
    CHECK_EQ(page.served, 1);
    CHECK_EQ(page.channels, 1);
    CHECK_EQ(page.parked, 0);
    CHECK_EQ(page.running_ns, 0);
    tear_down();
}

static void a_journal_must_be_one(void) {
    set_up();
    CHECK_EQ(ftruncate(fds[3], 100), 0);
    CHECK_EQ(attach(dead, SIDECAML_ATTACH_RESUME), -SIDECAML_E_CORRUPT);
    CHECK_EQ(ftruncate(fds[3], 0), 0);
    CHECK_EQ(ftruncate(fds[3], SIDECAML_PAGE_BYTES), 0);
    CHECK_EQ(attach(dead, SIDECAML_ATTACH_RESUME), -SIDECAML_E_CORRUPT);
    CHECK_SAYS(why.text, "no worker has served");
    uint8_t other[12] = "SIDEJRNL\x63";
    CHECK_EQ(pwrite(fds[3], other, sizeof other, 0), sizeof other);
    CHECK_EQ(attach(dead, SIDECAML_ATTACH_RESUME), -SIDECAML_E_ABI_MISMATCH);
    CHECK_SAYS(why.text, "version 99");
    tear_down();
}

int main(void) {
    static const struct test tests[] = {
        {TEST(submitted_requests_go_on)},
        {TEST(a_started_request_is_taken_again_and_counted)},
        {TEST(a_request_that_was_only_taken_is_not_counted)},
        {TEST(what_was_committed_is_only_published)},
        {TEST(what_was_published_is_left_alone)},
        {TEST(a_slot_that_was_given_up_is_free_again)},
        {TEST(a_request_that_failed_before_it_was_started_is_stepped_over)},
        {TEST(tickets_cancelled_since_the_last_run_are_skipped)},
        {TEST(a_client_that_sleeps_is_woken_even_if_its_flag_was_taken_down)},
        {TEST(carried_state_is_committed_with_the_answer)},
        {TEST(a_failed_run_commits_nothing)},
        {TEST(a_run_that_failed_is_told_from_one_that_ended_its_worker)},
        {TEST(the_status_page_goes_on)},
        {TEST(a_journal_must_be_one)},
    };
    return RUN_TESTS(tests, 20);
}
