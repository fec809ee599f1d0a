#include <string.h>

#include "atomics.h"
#include "check.h"
#include "ring.h"
#include "word.h"

#define MOST 4

/* Both halves of one ring, in plain memory. */
static struct sidecaml_slot slots[MOST];
static uint64_t held[MOST];
static struct ring_client client;
static struct ring_worker worker;

/* Starts with ticket `first`, which must be a multiple of `count`. */
static void make_ring_at(uint32_t count, uint64_t first) {
    memset(slots, 0, sizeof slots);
    memset(held, 0, sizeof held);
    client = (struct ring_client){.slots = slots, .count = count, .ticket = first, .held = held};
    worker = (struct ring_worker){.slots = slots, .count = count, .ticket = first};
    for (uint32_t i = 0; i < count; i++)
        slots[i].word = word_of(first + i, SIDECAML_STATE_FREE);
}

static void make_ring(uint32_t count) {
    make_ring_at(count, 0);
}

static int submit(void) {
    return ring_submit(&client, 0, 0, 0);
}

/* Takes the next request and checks that it lies in `slot`. */
/* The slot of the request that was taken, or -PENDING. */
static int try_to_take(uint64_t *ticket) {
    uint64_t seen;
    int slot = ring_peek(&worker, &seen);
    if (slot >= 0) CHECK(ring_take(&worker, seen, ticket));
    return slot;
}

static uint64_t take(int slot) {
    uint64_t ticket;
    CHECK_EQ(try_to_take(&ticket), slot);
    return ticket;
}

static void take_nothing(void) {
    uint64_t ticket;
    CHECK_EQ(try_to_take(&ticket), -SIDECAML_E_PENDING);
}

static void run_next(int slot) {
    CHECK_EQ(ring_complete(&worker, (uint32_t)slot, take(slot), SIDECAML_STATE_DONE), 0);
}

/* --- The life of a slot ------------------------------------------------------------------------------------------ */

static void a_request_goes_through_its_life(void) {
    make_ring(2);
    CHECK_EQ(ring_claim(&client), 0);
    CHECK_EQ(ring_submit(&client, 5, 6, 7), 0);
    CHECK_EQ(slots[0].word, word_of(0, SIDECAML_STATE_SUBMITTED));
    CHECK(slots[0].deadline_ns == 5 && slots[0].submitted_ns == 6 && slots[0].flags == 7);
    CHECK_EQ(ring_poll(&client, 0), -SIDECAML_E_PENDING);
    uint64_t ticket = take(0);
    CHECK_EQ(slots[0].word, word_of(0, SIDECAML_STATE_RUNNING));
    CHECK_EQ(ring_poll(&client, 0), -SIDECAML_E_PENDING);
    CHECK_EQ(ring_complete(&worker, 0, ticket, SIDECAML_STATE_DONE), 0);
    CHECK_EQ(ring_poll(&client, 0), 0);
    CHECK_EQ(ring_poll(&client, 0), 0);
    CHECK_EQ(ring_release(&client, 0), 0);
    CHECK_EQ(slots[0].word, word_of(2, SIDECAML_STATE_FREE));
    CHECK_EQ(ring_poll(&client, 0), -SIDECAML_E_INVALID);
}

static void claim_changes_nothing(void) {
    make_ring(2);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(ring_claim(&client), 0);
    take_nothing();
    CHECK_EQ(submit(), 0);
    CHECK_EQ(ring_claim(&client), 1);
}

static void tickets_are_taken_in_order_across_the_wrap(void) {
    make_ring(3);
    for (uint64_t ticket = 0; ticket < 10; ticket++) {
        int slot = (int)(ticket % 3);
        CHECK_EQ(submit(), slot);
        CHECK_EQ(take(slot), ticket);
        CHECK_EQ(ring_complete(&worker, (uint32_t)slot, ticket, SIDECAML_STATE_DONE), 0);
        CHECK_EQ(ring_release(&client, (uint32_t)slot), 0);
    }
}

static void a_ring_of_one_slot_works(void) {
    make_ring(1);
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(submit(), 0);
        CHECK_EQ(submit(), -SIDECAML_E_FULL);
        run_next(0);
        CHECK_EQ(submit(), -SIDECAML_E_FULL);
        CHECK_EQ(ring_release(&client, 0), 0);
    }
}

static void requests_complete_and_are_freed_in_any_order(void) {
    make_ring(3);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(submit(), i);
    uint64_t first = take(0), second = take(1), third = take(2);
    CHECK_EQ(ring_complete(&worker, 2, third, SIDECAML_STATE_DONE), 0);
    CHECK_EQ(ring_poll(&client, 2), 0);
    CHECK_EQ(ring_poll(&client, 0), -SIDECAML_E_PENDING);
    CHECK_EQ(ring_release(&client, 2), 0);
    /* Slot 2 is free, but the next ticket is slot 0's. */
    CHECK_EQ(ring_claim(&client), -SIDECAML_E_FULL);
    CHECK_EQ(ring_complete(&worker, 0, first, SIDECAML_STATE_DONE), 0);
    CHECK_EQ(ring_complete(&worker, 1, second, SIDECAML_STATE_DONE), 0);
    CHECK_EQ(ring_release(&client, 0), 0);
    CHECK_EQ(submit(), 0);
    CHECK_EQ(submit(), -SIDECAML_E_FULL);
    CHECK_EQ(ring_release(&client, 1), 0);
    CHECK_EQ(submit(), 1);
    CHECK_EQ(submit(), 2);
}

static void tickets_wrap_at_61_bits(void) {
    uint64_t last = (UINT64_C(1) << 61) - 3;
    make_ring_at(3, last - last % 3);
    for (int round = 0; round < 12; round++) {
        CHECK_EQ(submit(), 0);
        CHECK_EQ(submit(), 1);
        CHECK_EQ(ring_give_up(&client, 1), 0);
        run_next(0);
        CHECK_EQ(ring_poll(&client, 0), 0);
        CHECK_EQ(ring_release(&client, 0), 0);
        CHECK_EQ(submit(), 2);
        run_next(2);
        CHECK_EQ(ring_release(&client, 2), 0);
    }
}

/* --- Giving up --------------------------------------------------------------------------------------------------- */

static void a_cancelled_ticket_is_skipped(void) {
    make_ring(3);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(submit(), i);
    CHECK_EQ(ring_give_up(&client, 0), 0);
    CHECK_EQ(ring_give_up(&client, 1), 0);
    CHECK_EQ(slots[0].word, word_of(3, SIDECAML_STATE_FREE));
    CHECK(ring_has_work_seq_cst(&worker));
    CHECK_EQ(take(2), 2);
    CHECK_EQ(submit(), 0);
    CHECK_EQ(take(0), 3);
}

static void many_cancelled_tickets_are_skipped_in_one_call(void) {
    for (uint32_t count = 1; count <= MOST; count++) {
        make_ring(count);
        uint32_t cancelled = RING_SKIPS_MOST - 1;
        for (uint32_t i = 0; i < cancelled; i++) {
            CHECK_EQ(submit(), i % count);
            CHECK_EQ(ring_give_up(&client, i % count), 0);
        }
        CHECK_EQ(submit(), cancelled % count);
        CHECK_EQ(take((int)(cancelled % count)), cancelled);
    }
}

static void skipping_is_bounded_and_goes_on(void) {
    make_ring(2);
    for (uint32_t i = 0; i < 2 * RING_SKIPS_MOST + 1; i++) {
        CHECK_EQ(submit(), i % 2);
        CHECK_EQ(ring_give_up(&client, i % 2), 0);
    }
    CHECK_EQ(submit(), 1);
    for (int calls = 0; calls < 2; calls++) {
        CHECK(ring_has_work_seq_cst(&worker)); /* so that the worker does not sleep */
        take_nothing();
    }
    CHECK_EQ(take(1), 2 * RING_SKIPS_MOST + 1);
}

static void a_running_request_is_abandoned_and_busy_until_quiet(void) {
    make_ring(1);
    CHECK_EQ(submit(), 0);
    uint64_t ticket = take(0);
    CHECK_EQ(ring_give_up(&client, 0), 0);
    CHECK(ring_is_abandoned(&client, 0));
    CHECK_EQ(ring_poll(&client, 0), -SIDECAML_E_INVALID);
    CHECK_EQ(ring_claim(&client), -SIDECAML_E_BUSY);
    CHECK_EQ(submit(), -SIDECAML_E_BUSY);
    take_nothing();
    CHECK_EQ(ring_complete(&worker, 0, ticket, SIDECAML_STATE_DONE), 1);
    CHECK(!ring_is_abandoned(&client, 0));
    CHECK_EQ(slots[0].word, word_of(1, SIDECAML_STATE_FREE));
    CHECK_EQ(submit(), 0);
    CHECK_EQ(take(0), 1);
}

static void a_finished_request_is_not_given_up(void) {
    make_ring(1);
    CHECK_EQ(submit(), 0);
    run_next(0);
    CHECK_EQ(ring_give_up(&client, 0), 1);
    CHECK_EQ(ring_poll(&client, 0), 0);
    CHECK_EQ(ring_release(&client, 0), 0);
}

static void what_the_client_does_not_hold_it_cannot_touch(void) {
    make_ring(2);
    CHECK_EQ(ring_poll(&client, 0), -SIDECAML_E_INVALID);
    CHECK_EQ(ring_poll(&client, 2), -SIDECAML_E_INVALID);
    CHECK_EQ(ring_poll_seq_cst(&client, UINT32_MAX), -SIDECAML_E_INVALID);
    CHECK_EQ(ring_release(&client, 0), -SIDECAML_E_INVALID);
    CHECK_EQ(ring_release(&client, 2), -SIDECAML_E_INVALID);
    CHECK_EQ(ring_give_up(&client, 0), -SIDECAML_E_INVALID);
    CHECK_EQ(ring_give_up(&client, 2), -SIDECAML_E_INVALID);
    CHECK_EQ(submit(), 0);
    CHECK_EQ(ring_release(&client, 0), -SIDECAML_E_INVALID); /* not finished */
    take(0);
    CHECK_EQ(ring_release(&client, 0), -SIDECAML_E_INVALID);
}

/* --- Words and statuses that nobody vouches for ------------------------------------------------------------------ */

static void a_failure_carries_only_codes_that_a_request_can_have(void) {
    for (int code = -100; code <= 100; code++) {
        make_ring(1);
        CHECK_EQ(submit(), 0);
        uint64_t ticket = take(0);
        slots[0].status = code;
        CHECK_EQ(ring_complete(&worker, 0, ticket, SIDECAML_STATE_FAILED), 0);
        bool known = code == -SIDECAML_E_WORKER_CRASHED || code == -SIDECAML_E_ENGINE || code == -SIDECAML_E_BAD_DIMS ||
                     code == -SIDECAML_E_OUTPUT_TOO_LARGE || code == -SIDECAML_E_BAD_STRINGS ||
                     code == -SIDECAML_E_DEADLINE;
        CHECK_EQ(ring_poll(&client, 0), known ? code : -SIDECAML_E_ENGINE);
        CHECK_EQ(ring_release(&client, 0), 0);
    }
}

static void a_scribbled_word_is_corrupt_for_its_client(void) {
    const uint64_t words[] = {UINT64_MAX, word_of(0, 6), word_of(0, 7), word_of(1, SIDECAML_STATE_DONE),
                              word_of(9, SIDECAML_STATE_FREE)};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        make_ring(1);
        slots[0].word = words[i];
        CHECK_EQ(ring_claim(&client), -SIDECAML_E_CORRUPT);
        make_ring(1);
        CHECK_EQ(submit(), 0);
        slots[0].word = words[i];
        CHECK_EQ(ring_poll(&client, 0), -SIDECAML_E_CORRUPT);
        CHECK_EQ(ring_give_up(&client, 0), -SIDECAML_E_CORRUPT);
        CHECK_EQ(slots[0].word, words[i]);
    }
}

/* A hostile client cannot make the worker publish, take or free anything but what it took. */
static void the_worker_leaves_a_scribbled_word_alone(void) {
    const uint64_t words[] = {0,
                              UINT64_MAX,
                              word_of(1, SIDECAML_STATE_RUNNING),
                              word_of(1, SIDECAML_STATE_ABANDONED),
                              word_of(0, SIDECAML_STATE_DONE),
                              word_of(0, SIDECAML_STATE_SUBMITTED)};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        make_ring(1);
        CHECK_EQ(submit(), 0);
        uint64_t ticket = take(0);
        slots[0].word = words[i];
        CHECK_EQ(ring_complete(&worker, 0, ticket, SIDECAML_STATE_DONE), 1);
        CHECK_EQ(slots[0].word, words[i]);
    }
}

static void random_words_never_keep_the_worker(void) {
    struct numbers numbers = {7};
    make_ring(MOST);
    for (int round = 0; round < 200000; round++) {
        uint64_t ticket, near = worker.ticket + next_number(&numbers) % 8 - 4;
        slots[next_number(&numbers) % MOST].word = next_number(&numbers) % 4
                                                       ? word_of(near, (enum sidecaml_state)(next_number(&numbers) % 8))
                                                       : next_number(&numbers);
        int slot = try_to_take(&ticket);
        CHECK(slot == -SIDECAML_E_PENDING || (slot >= 0 && slot < MOST));
        CHECK_EQ(worker.slot, worker.ticket % MOST);
        if (slot >= 0) ring_complete(&worker, (uint32_t)slot, ticket, SIDECAML_STATE_DONE);
    }
}

int main(void) {
    static const struct test tests[] = {
        {TEST(a_request_goes_through_its_life)},
        {TEST(claim_changes_nothing)},
        {TEST(tickets_are_taken_in_order_across_the_wrap)},
        {TEST(a_ring_of_one_slot_works)},
        {TEST(requests_complete_and_are_freed_in_any_order)},
        {TEST(tickets_wrap_at_61_bits)},
        {TEST(a_cancelled_ticket_is_skipped)},
        {TEST(many_cancelled_tickets_are_skipped_in_one_call)},
        {TEST(skipping_is_bounded_and_goes_on)},
        {TEST(a_running_request_is_abandoned_and_busy_until_quiet)},
        {TEST(a_finished_request_is_not_given_up)},
        {TEST(what_the_client_does_not_hold_it_cannot_touch)},
        {TEST(a_failure_carries_only_codes_that_a_request_can_have)},
        {TEST(a_scribbled_word_is_corrupt_for_its_client)},
        {TEST(the_worker_leaves_a_scribbled_word_alone)},
        {TEST(random_words_never_keep_the_worker)},
    };
    return RUN_TESTS(tests, 20);
}
