/* Every interleaving of small scenarios, run by the real ring, waits, channel and worker; and the same with mutants of
 * the core, which must be found. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "machine.h"
#include "mutants.h"
#include "served.h"
#include "system.h"
#include "word.h"

/* --- What the threads do ----------------------------------------------------------------------------------------- */

static uint32_t slot_count;

/* Of the schedule that runs. */
static struct {
    uint64_t submitted[MOST_CHANNELS];
    uint64_t ran[MOST_CHANNELS]; /* bits: tickets that the worker took */
    uint64_t runs, published, freed;
    uint64_t clients_left;
    /* Of workers that may die: the ticket that runs, plus 1, how often each was started, and which were committed. */
    uint64_t running, started[4], finished;
    uint64_t batch; /* bits: the tickets of the run that is under way */
} so_far;

static int input_of(uint32_t channel, uint32_t slot) {
    return (int)(2 * (channel * slot_count + slot));
}

static int output_of(uint32_t channel, uint32_t slot) {
    return input_of(channel, slot) + 1;
}

static uint64_t question(uint32_t channel, uint64_t ticket) {
    return 1000 + 100 * channel + ticket;
}

static uint64_t answer(uint32_t channel, uint64_t ticket) {
    return 2000 + 100 * channel + ticket;
}

/* Claims, fills in place and submits; waits while the slot is busy. */
static uint32_t submit_on(uint32_t channel) {
    int slot;
    while ((slot = sidecaml_channel_claim(channels[channel])) == -SIDECAML_E_BUSY)
        wait_for_change();
    expect(slot >= 0, "a slot is free when it is not busy");
    uint64_t ticket = so_far.submitted[channel]++;
    payload_write(input_of(channel, (uint32_t)slot), question(channel, ticket));
    expect(sidecaml_channel_submit(channels[channel], 0) == slot, "submit takes the claimed slot");
    return (uint32_t)slot;
}

static int await_on(uint32_t channel, uint32_t slot, uint64_t deadline_ns) {
    int result;
    do {
        /* Where a client is follows from what it holds and for whom it waits. */
        checkpoint(deadline_ns << 8 | slot << 4 | channel << 1 | 1);
        result = sidecaml_channel_wait(channels[channel], slot, deadline_ns);
    } while (result == -SIDECAML_E_AGAIN);
    return result;
}

/* Reads the answer of `ticket` and gives the slot back. */
static void consume(uint32_t channel, uint32_t slot, uint64_t ticket) {
    expect(payload_read(output_of(channel, slot)) == answer(channel, ticket), "the answer is this request's");
    expect(sidecaml_channel_release(channels[channel], slot) == 0, "an answered slot can be released");
}

static void call_on(uint32_t channel) {
    uint32_t slot = submit_on(channel);
    expect(await_on(channel, slot, 0) == 0, "a request is answered");
    consume(channel, slot, so_far.submitted[channel] - 1);
}

static void client_ends(void) {
    if (--so_far.clients_left == 0) control_post(WORKER_CONTROL_BELL);
}

static void run_request(const struct sidecaml_request *request) {
    int input = input_of(request->channel, request->slot), output = output_of(request->channel, request->slot);
    uint64_t asked = question(request->channel, request->ticket);
    expect(!(so_far.ran[request->channel] >> request->ticket & 1), "a ticket runs once");
    so_far.ran[request->channel] |= UINT64_C(1) << request->ticket;
    so_far.runs++;
    sidecaml_worker_started(worker, request);
    expect(payload_read(input) == asked, "the input is this request's");
    payload_write(output, answer(request->channel, request->ticket));
    expect(payload_read(input) == asked, "nobody writes the input while it runs");
    if (sidecaml_worker_complete(worker, request, 0, NULL) == 0)
        so_far.published++;
    else
        so_far.freed++;
}

static void serve(void) {
    struct sidecaml_request request;
    for (;;) {
        checkpoint(0);
        int status = sidecaml_worker_next(worker, UINT64_MAX, &request);
        if (status == 1)
            run_request(&request);
        else if (bell_count(WORKER_CONTROL_BELL))
            return;
    }
}

static int current_deaths(void);

/* --- What holds at every end ------------------------------------------------------------------------------------- */

static void slots_are_quiet(void) {
    for (uint32_t channel = 0; channel < MOST_CHANNELS && channels[channel]; channel++) {
        for (uint32_t slot = 0; slot < slot_count; slot++) {
            uint64_t next = so_far.submitted[channel];
            while (next % slot_count != slot)
                next++;
            expect(slot_word(channel, slot) == word_of(next, SIDECAML_STATE_FREE),
                   "every slot is free for its next ticket");
        }
        /* One of the last sleep, and one that came late; and one of each successor. */
        expect(bell_count(ANSWER_BELL((int)channel)) <= 2 + current_deaths(), "at most two posts are left over");
    }
}

static void all_is_quiet(void) {
    expect(so_far.published + so_far.freed == so_far.runs, "every run ends once");
    expect(status_page()->served == so_far.published && status_page()->abandoned == so_far.freed,
           "the counters say the same");
    slots_are_quiet();
}

/* --- Stories --------------------------------------------------------------------------------------------------- */

static void two_calls(void) {
    call_on(0);
    call_on(0);
    client_ends();
}

static void two_slots_three_requests(void) {
    uint32_t first = submit_on(0), second = submit_on(0);
    expect(await_on(0, second, 0) == 0, "the second is answered");
    expect(await_on(0, first, 0) == 0, "the first is answered");
    consume(0, first, 0);
    uint32_t third = submit_on(0);
    consume(0, second, 1);
    expect(await_on(0, third, 0) == 0, "the third is answered");
    consume(0, third, 2);
    client_ends();
}

static void a_deadline_then_a_call(void) {
    uint32_t slot = submit_on(0);
    int result = await_on(0, slot, CLOCK_LATER);
    expect(result == 0 || result == -SIDECAML_E_TIMEOUT, "an answer or a timeout");
    if (result == 0) consume(0, slot, 0);
    call_on(0);
    client_ends();
}

static void a_cancel_then_a_call(void) {
    expect(sidecaml_channel_abandon(channels[0], submit_on(0)) == 0, "a request can be given up at any time");
    call_on(0);
    client_ends();
}

static void cancels_between_calls(void) {
    uint32_t first = submit_on(0), second = submit_on(0);
    expect(sidecaml_channel_abandon(channels[0], first) == 0, "the first can be given up");
    uint32_t third = submit_on(0);
    expect(await_on(0, second, 0) == 0, "the second is answered");
    consume(0, second, 1);
    expect(sidecaml_channel_abandon(channels[0], third) == 0, "the third can be given up");
    client_ends();
}

static int await_any(void) {
    int slot;
    do {
        checkpoint(so_far.submitted[0] << 4 | 2);
        slot = sidecaml_channel_wait_any(channels[0], 0);
    } while (slot == -SIDECAML_E_AGAIN);
    return slot;
}

/* Whichever it is, it is answered. */
static void consume_any(void) {
    int slot = await_any();
    expect(slot == 0 || slot == 1, "some request ends");
    expect(sidecaml_channel_poll(channels[0], (uint32_t)slot) == 0, "a request that has ended is answered");
    consume(0, (uint32_t)slot, (uint64_t)slot);
}

static void any_of_two(void) {
    submit_on(0);
    submit_on(0);
    consume_any();
    consume_any();
    client_ends();
}

/* The worker, which may be asleep, finds both. */
static void a_run_of_two(void) {
    expect(sidecaml_channel_claim_run(channels[0], 2) == 2, "both slots are free");
    for (uint32_t slot = 0; slot < 2; slot++)
        payload_write(input_of(0, slot), question(0, slot));
    so_far.submitted[0] = 2;
    expect(sidecaml_channel_submit_run(channels[0], 2, 0) == 0, "both are submitted");
    for (uint32_t slot = 0; slot < 2; slot++)
        expect(await_on(0, slot, 0) == 0, "both are answered");
    expect(sidecaml_channel_answered(channels[0], 0, 2) == 2, "both answers are there");
    for (uint32_t slot = 0; slot < 2; slot++)
        consume(0, slot, slot);
    client_ends();
}

/* Sleeps until the slot's turn, whoever frees it. */
static void a_turn_after_a_cancel(void) {
    expect(sidecaml_channel_abandon(channels[0], submit_on(0)) == 0, "a request can be given up at any time");
    int slot;
    do {
        checkpoint(3);
        slot = sidecaml_channel_claim_wait(channels[0], 0);
    } while (slot == -SIDECAML_E_AGAIN);
    expect(slot == 0, "the slot's turn comes");
    client_ends();
}

static void an_event_loop(void) {
    for (int i = 0; i < 2; i++) {
        uint32_t slot = submit_on(0);
        int result;
        while ((result = sidecaml_channel_poll(channels[0], slot)) == -SIDECAML_E_PENDING) {
            checkpoint(slot);
            if (!sidecaml_channel_arm(channels[0], slot)) bell_sleep(1u << ANSWER_BELL(0), CLIENT_CONTROL_BELL, false);
            sidecaml_channel_disarm(channels[0]);
        }
        expect(result == 0, "a request is answered");
        consume(0, slot, so_far.submitted[0] - 1);
    }
    client_ends();
}

static void poll_on(uint32_t channel) {
    uint32_t slot = submit_on(channel);
    int result;
    while ((result = sidecaml_channel_poll(channels[channel], slot)) == -SIDECAML_E_PENDING) {
        checkpoint(slot);
        wait_for_change();
    }
    expect(result == 0, "a request is answered");
    consume(channel, slot, so_far.submitted[channel] - 1);
}

static void a_polling_client(void) {
    poll_on(0);
    poll_on(0);
    client_ends();
}

static void one_call_on_the_first(void) {
    call_on(0);
    client_ends();
}

static void one_call_on_the_second(void) {
    call_on(1);
    client_ends();
}

static void a_call_that_loses_its_daemon(void) {
    uint32_t slot = submit_on(0);
    int result = await_on(0, slot, 0);
    expect(result == 0 || result == -SIDECAML_E_SERVER_GONE, "an answer, or the daemon is gone");
    if (result == 0) consume(0, slot, 0);
    sidecaml_channel_abandon(channels[0], slot);
}

static void a_worker_that_dies(void) {
    struct sidecaml_request request;
    if (sidecaml_worker_next(worker, UINT64_MAX, &request) == 1 && so_far.runs == 0) run_request(&request);
    control_post(CLIENT_CONTROL_BELL);
}

/* --- A worker that dies, and its successors --- */

static void run_of_mortal(const struct sidecaml_request *request) {
    int input = input_of(0, request->slot), output = output_of(0, request->slot);
    uint64_t asked = question(0, request->ticket);
    expect(!(so_far.finished >> request->ticket & 1), "what was committed is not run again");
    expect(request->attempts == so_far.started[request->ticket], "every run that was started is counted");
    so_far.running = request->ticket + 1;
    sidecaml_worker_started(worker, request);
    so_far.started[request->ticket]++;
    expect(payload_read(input) == asked, "the input is this request's");
    payload_write(output, answer(0, request->ticket));
    sidecaml_worker_complete(worker, request, 0, NULL);
    so_far.running = 0;
}

static void serve_as_mortal(void) {
    struct sidecaml_request request;
    for (;;) {
        checkpoint(0);
        int status = sidecaml_worker_next(worker, UINT64_MAX, &request);
        if (status == 1)
            run_of_mortal(&request);
        else if (bell_count(WORKER_CONTROL_BELL))
            return;
    }
}

static void succeed(void) {
    checkpoint(1);
    system_take_over();
    serve_as_mortal();
}

/* What the journal says of the run that the death cut off. */
static void bury(void) {
    uint64_t ticket = so_far.running - 1;
    if (so_far.running && died_before_publishing()) so_far.finished |= UINT64_C(1) << ticket;
    so_far.running = 0;
}

static void a_worker_and_its_successor(void) {
    if (!dies_in(serve_as_mortal)) return;
    bury();
    succeed();
}

static void a_worker_and_two_successors(void) {
    if (!dies_in(serve_as_mortal)) return;
    bury();
    if (!dies_in(succeed)) return;
    bury();
    succeed();
}

/* --- Two requests run as one, by a worker that may die --- */

/* Of one request, in a run that has been noted. */
static void run_in_batch(uint32_t slot) {
    uint64_t bit = UINT64_C(1) << slot, asked = question(0, slot); /* the first ticket of each slot */
    expect(!(so_far.finished & bit), "what was committed is not run again");
    so_far.runs++;
    so_far.started[slot]++;
    so_far.batch |= bit;
    expect(payload_read(input_of(0, slot)) == asked, "the input is this request's");
    payload_write(output_of(0, slot), answer(0, slot));
    expect(payload_read(input_of(0, slot)) == asked, "nobody writes the input while it runs");
}

static int run_slot(void *context, struct sidecaml_failure *why) {
    (void)why;
    so_far.batch = 0;
    run_in_batch(*(const uint32_t *)context);
    return 0;
}

static int run_taken(void *context, struct sidecaml_failure *why) {
    (void)context, (void)why;
    so_far.batch = 0;
    for (uint32_t i = 0; i < worker->taken_count; i++)
        run_in_batch(worker->taken[i].request.slot);
    return 0;
}

/* What killed a predecessor, or may have. */
static void finish_suspect(const struct sidecaml_request *request) {
    expect(request->attempts == so_far.started[request->slot], "every run that was started is counted");
    sidecaml_worker_started(worker, request);
    so_far.batch = 0;
    run_in_batch(request->slot);
    sidecaml_worker_complete(worker, request, 0, NULL);
}

static void serve_batches(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    for (;;) {
        checkpoint(0);
        int status = sidecaml_worker_serve(worker, UINT64_MAX, &request, &why);
        so_far.batch = 0;
        if (status == 1)
            finish_suspect(&request);
        else if (bell_count(WORKER_CONTROL_BELL))
            return;
    }
}

static void succeed_with_batches(void) {
    checkpoint(1);
    system_take_over();
    serve_batches();
}

static void a_worker_of_batches_and_its_successor(void) {
    if (!dies_in(serve_batches)) return;
    if (died_before_publishing()) so_far.finished |= so_far.batch;
    so_far.batch = 0;
    succeed_with_batches();
}

static void batches_are_quiet(void) {
    expect(status_page()->served + status_page()->abandoned == so_far.runs, "every run ends once");
    slots_are_quiet();
}

static void any_of_what_is_left(uint32_t given_up) {
    submit_on(0);
    submit_on(0);
    expect(sidecaml_channel_abandon(channels[0], given_up) == 0, "a request can be given up at any time");
    expect(await_any() == (int)(1 - given_up), "the other request ends");
    consume(0, 1 - given_up, 1 - given_up);
    client_ends();
}

static void the_first_of_two_given_up(void) {
    any_of_what_is_left(0);
}

static void the_second_of_two_given_up(void) {
    any_of_what_is_left(1);
}

/* Whoever frees it, the slot is free again. */
static void a_cancel(void) {
    expect(sidecaml_channel_abandon(channels[0], submit_on(0)) == 0, "a request can be given up at any time");
    while (sidecaml_channel_claim(channels[0]) == -SIDECAML_E_BUSY)
        wait_for_change();
    client_ends();
}

static void one_call(void) {
    call_on(0);
    client_ends();
}

/* As the supervisor does when a worker dies at any moment: the client never hangs. */
static void a_daemon_that_ends(void) {
    control_post(CLIENT_CONTROL_BELL);
}

static void nothing_more(void) {
}

static uint64_t hash_private(void) {
    const uint64_t *words = (const uint64_t *)&so_far;
    uint64_t hash = system_hash();
    for (size_t i = 0; i < sizeof so_far / sizeof words[0]; i++)
        hash = mix(hash, words[i]);
    return hash;
}

struct story {
    const char *name;
    uint32_t slots, channels;
    void (*threads[MOST_THREADS])(void);
    void (*at_end)(void);
    int deaths;    /* at most */
    bool in_order; /* every store arrives at once, where states would be too many otherwise */
    bool batches;
};

static const struct story stories[] = {
    {"a polling client", 1, 1, {a_polling_client, serve}, all_is_quiet, 0, false, false},
    {"one slot, two calls", 1, 1, {two_calls, serve}, all_is_quiet, 0, false, false},
    {"an event loop", 1, 1, {an_event_loop, serve}, all_is_quiet, 0, false, false},
    {"a cancel, then a call", 1, 1, {a_cancel_then_a_call, serve}, all_is_quiet, 0, false, false},
    {"a deadline, then a call", 1, 1, {a_deadline_then_a_call, serve}, all_is_quiet, 0, false, false},
    {"two slots, three requests", 2, 1, {two_slots_three_requests, serve}, all_is_quiet, 0, false, false},
    {"cancels between calls", 2, 1, {cancels_between_calls, serve}, all_is_quiet, 0, false, false},
    {"any of two", 2, 1, {any_of_two, serve}, all_is_quiet, 0, true, false},
    {"a run of two", 2, 1, {a_run_of_two, serve}, all_is_quiet, 0, true, false},
    {"a turn after a cancel", 1, 1, {a_turn_after_a_cancel, serve}, all_is_quiet, 0, false, false},
    {"two channels, one worker",
     1,
     2,
     {one_call_on_the_first, one_call_on_the_second, serve},
     all_is_quiet,
     0,
     true,
     false},
    {"an answer, then the end",
     1,
     1,
     {a_call_that_loses_its_daemon, a_worker_that_dies},
     nothing_more,
     0,
     false,
     false},
    {"the end at any moment", 1, 1, {a_call_that_loses_its_daemon, a_daemon_that_ends}, nothing_more, 0, false, false},
    {"a worker's death", 1, 1, {one_call, a_worker_and_its_successor}, slots_are_quiet, 1, false, false},
    {"a cancel and a worker's death", 1, 1, {a_cancel, a_worker_and_its_successor}, slots_are_quiet, 1, true, false},
    {"a turn and a worker's death",
     1,
     1,
     {a_turn_after_a_cancel, a_worker_and_its_successor},
     slots_are_quiet,
     1,
     true,
     false},
    {"two deaths", 1, 1, {one_call, a_worker_and_two_successors}, slots_are_quiet, 2, true, false},
    {"any of two, which run as one", 2, 1, {any_of_two, serve_batches}, batches_are_quiet, 0, true, true},
    {"the first of two given up", 2, 1, {the_first_of_two_given_up, serve_batches}, batches_are_quiet, 0, true, true},
    {"the second of two given up", 2, 1, {the_second_of_two_given_up, serve_batches}, batches_are_quiet, 0, true, true},
    {"a death with two as one",
     2,
     1,
     {a_run_of_two, a_worker_of_batches_and_its_successor},
     slots_are_quiet,
     1,
     true,
     true},
};
#define STORY_COUNT (sizeof stories / sizeof stories[0])

/* --- Exploring --------------------------------------------------------------------------------------------------- */

static const struct story *current;

static int current_deaths(void) {
    return current->deaths;
}

static void start(void) {
    system_expect_deaths(current->deaths);
    system_expect_batches(current->batches ? run_slot : NULL, current->batches ? run_taken : NULL);
    memset(&so_far, 0, sizeof so_far);
    memset(channels, 0, sizeof channels);
    so_far.clients_left = current->channels;
    register_region(&so_far, sizeof so_far);
    system_start(current->channels, current->slots);
}

static void explore_story(const struct story *story, enum mutant mutant, struct exploration *out) {
    struct scenario scenario = {
        .threads = story->threads,
        .thread_count = story->threads[2] ? 3 : 2,
        .most_buffered = story->in_order ? 0 : 4,
        .at_end = story->at_end,
        .hash_private = hash_private,
    };
    current = story;
    slot_count = story->slots;
    mutant_choose(mutant);
    explore(&scenario, start, out);
}

static bool check_core(void) {
    for (size_t i = 0; i < STORY_COUNT; i++) {
        struct exploration out;
        explore_story(&stories[i], NO_MUTANT, &out);
        if (out.finding != NOTHING_FOUND) {
            printf("FAILED %s\n  %s: %s\n", stories[i].name, finding_name(out.finding), out.what);
            print_found_schedule();
            return false;
        }
        printf("ok %s: every schedule, through %llu states and %llu steps to %llu ends\n", stories[i].name, out.states,
               out.steps, out.ends);
        fflush(stdout);
    }
    return true;
}

static bool check_mutant(enum mutant mutant) {
    for (size_t i = 0; i < STORY_COUNT; i++) {
        struct exploration out;
        if (mutant_is_of_take_over(mutant) && !stories[i].deaths) continue;
        explore_story(&stories[i], mutant, &out);
        if (out.finding == NOTHING_FOUND) continue;
        printf("ok mutant \"%s\" is found: %s in \"%s\" (%s)\n", mutant_name(mutant), finding_name(out.finding),
               stories[i].name, out.what);
        fflush(stdout);
        return true;
    }
    printf("FAILED mutant \"%s\" is not found\n", mutant_name(mutant));
    return false;
}

int main(void) {
    alarm(900);
    if (!check_core()) return 1;
    bool all = true;
    for (enum mutant mutant = NO_MUTANT + 1; mutant < MUTANT_COUNT; mutant++)
        all = check_mutant(mutant) && all;
    return all ? 0 : 1;
}
