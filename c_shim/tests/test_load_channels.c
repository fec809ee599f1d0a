/* The load loop on several channels of one thread, against a worker of the same process. */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "arrivals.h"
#include "atomics.h"
#include "check.h"
#include "pair.h"
#include "sidecaml/load.h"

#define BYTES 64
#define CHANNELS 5
#define SLOTS 4
#define ROOM 2000000
#define SECOND 1000000000u
#define HOUR (3600ull * SECOND)

static struct sidecaml_layout layout;
static struct sidecaml_load loads[CHANNELS];
static struct sidecaml_load_result results[CHANNELS];
static struct sidecaml_load_job jobs[CHANNELS];
static uint64_t samples[CHANNELS][ROOM];

/* --- The worker's side: y = x + 1 -------------------------------------------------------------------------------- */

static struct {
    sidecaml_worker *worker;
    sidecaml_channel *channels[CHANNELS];
    int daemons[CHANNELS];
    int control, supervisor;
    uint32_t at_once;     /* so many are taken before the first is answered, and answered in reverse */
    int overtaken_by;     /* so many are answered before the first is */
    int silent;           /* the channel whose requests are never answered; -1 for none */
    _Atomic int answered; /* of all */
    _Atomic uint32_t over;
} server;

static void answer(const struct sidecaml_request *request) {
    const uint8_t *x = sidecaml_worker_tensor(server.worker, request->channel, request->slot, 0);
    uint8_t *y = sidecaml_worker_tensor(server.worker, request->channel, request->slot, 1);
    for (int i = 0; i < BYTES; i++)
        y[i] = (uint8_t)(x[i] + 1);
    sidecaml_worker_started(server.worker, request);
    sidecaml_worker_complete(server.worker, request, 0, NULL);
    server.answered++;
}

static bool is_held_back(uint32_t held) {
    if (server.overtaken_by) return held == 1 && server.answered < server.overtaken_by;
    return held < server.at_once;
}

static void *serve(void *unused) {
    struct sidecaml_request taken[CHANNELS * SLOTS];
    uint32_t held = 0;
    (void)unused;
    while (!load32(&server.over, acquire)) {
        if (sidecaml_worker_next(server.worker, 1000000, &taken[held]) != 1) continue;
        if ((int)taken[held].channel == server.silent || is_held_back(++held)) continue;
        if (server.overtaken_by && server.answered < server.overtaken_by) {
            answer(&taken[--held]);
            continue;
        }
        while (held)
            answer(&taken[--held]);
    }
    while (held)
        answer(&taken[--held]);
    return NULL;
}

static void open_channels(uint32_t count) {
    int status_fd, place;
    memset(&server, 0, sizeof server);
    server.silent = -1;
    pair_layout(&layout, SLOTS, BYTES);
    server.worker = make_worker(SIDECAML_ADAPTIVE, &status_fd, &server.control, &server.supervisor);
    for (uint32_t i = 0; i < count; i++) {
        server.channels[i] =
            pair_add_channel(server.worker, &layout, status_fd, SIDECAML_ADAPTIVE, &place, &server.daemons[i]);
        CHECK_EQ(place, (int)i);
    }
    close(status_fd);
}

static void close_channels(uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        sidecaml_channel_close(server.channels[i]);
        close(server.daemons[i]);
    }
    sidecaml_worker_destroy(server.worker);
    close(server.control);
    close(server.supervisor);
}

/* --- The loads --------------------------------------------------------------------------------------------------- */

/* Until so many were answered; 0: for ever. */
static bool go_on(void *context) {
    const int *most = context;
    return *most == 0 || server.answered < *most;
}

static int no_end = 0;

static void make_loads(uint32_t count, uint32_t window, double rate) {
    static uint8_t questions[BYTES], answers[BYTES];
    static const void *inputs[] = {questions};
    static const uint64_t input_bytes[] = {BYTES};
    static struct sidecaml_load_answer wanted[] = {{answers, BYTES}};
    uint64_t now = sidecaml_now_ns();
    memset(questions, 7, BYTES);
    memset(answers, 8, BYTES);
    for (uint32_t i = 0; i < count; i++) {
        loads[i] = (struct sidecaml_load){.window = window,
                                          .burst = 1,
                                          .policy = SIDECAML_SPIN,
                                          .rate = rate,
                                          .seed = 20 + i,
                                          .start_ns = now,
                                          .measure_ns = now,
                                          .end_ns = now + SECOND / 10,
                                          .sets = 1,
                                          .inputs = inputs,
                                          .input_bytes = input_bytes,
                                          .answers = wanted,
                                          .samples = samples[i],
                                          .room = ROOM,
                                          .go_on = go_on,
                                          .context = &no_end};
        jobs[i] = (struct sidecaml_load_job){server.channels[i], &loads[i], &results[i]};
    }
}

static void run(uint32_t count, int expected) {
    struct sidecaml_failure why;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, serve, NULL), 0);
    int status = sidecaml_load_run_all(jobs, count, &why);
    store32(&server.over, 1, release);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    if (status != expected) check_failed(__FILE__, __LINE__, "status %d: %s", status, status < 0 ? why.text : "");
    for (uint32_t i = 0; i < count; i++) {
        CHECK_EQ(results[i].counts[0], results[i].sampled);
        CHECK_EQ(results[i].wrong, 0);
    }
}

/* Everything that was sent has come to an end: every slot can be used again. */
static void check_quiet(uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t slot = 0; slot < SLOTS; slot++)
            CHECK_EQ(sidecaml_channel_poll(server.channels[i], slot), -SIDECAML_E_INVALID);
}

static uint64_t arrivals_of(const struct sidecaml_load *load) {
    struct arrivals arrivals;
    uint64_t count = 0;
    arrivals_start(&arrivals, load->rate, load->seed, load->start_ns);
    while (arrivals_next(&arrivals) < load->end_ns)
        count++;
    return count;
}

/* --- Properties -------------------------------------------------------------------------------------------------- */

static void each_channel_has_arrivals_of_its_own(void) {
    open_channels(CHANNELS);
    make_loads(CHANNELS, SLOTS, 1000);
    run(CHANNELS, 0);
    for (uint32_t i = 0; i < CHANNELS; i++) {
        CHECK_EQ(results[i].sampled + results[i].unsent, arrivals_of(&loads[i]));
        CHECK_EQ(results[i].ended_ns, loads[i].end_ns);
        CHECK_EQ(results[i].cpu_ns > 0, i == 0);
    }
    CHECK(arrivals_of(&loads[0]) != arrivals_of(&loads[1]));
    check_quiet(CHANNELS);
    close_channels(CHANNELS);
}

/* False: this thread was not run as the first one's deadline passed, and saw nobody wait. */
static bool waits_from_when_it_was_due(void) {
    open_channels(2);
    make_loads(2, 1, 1000);
    server.silent = 0; /* its one slot is never free again */
    loads[0].deadline_ns = SECOND / 100;
    run(2, 0);
    CHECK_EQ(results[0].sampled, 0);
    /* One that is sent after its deadline, on a busy machine, is the worker's to refuse. */
    CHECK_EQ(results[0].counts[SIDECAML_E_TIMEOUT] + results[0].counts[SIDECAML_E_DEADLINE] + results[0].unsent,
             arrivals_of(&loads[0]));
    CHECK_EQ(results[1].sampled + results[1].unsent, arrivals_of(&loads[1]));
    close_channels(2);
    return results[0].counts[SIDECAML_E_TIMEOUT] > 1 && results[0].no_slot > 0;
}

static void one_that_waits_for_a_slot_counts_from_when_it_was_due(void) {
    for (int tries = 0; !waits_from_when_it_was_due(); tries++)
        CHECK(tries < 5);
}

static void all_windows_are_in_flight_together(void) {
    open_channels(3);
    make_loads(3, 2, 0);
    server.at_once = 6; /* it would wait for ever for a sixth that does not come */
    for (int i = 0; i < 3; i++) {
        loads[i].end_ns += HOUR;
        loads[i].room = 300;
    }
    run(3, 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(results[i].sampled, 300);
        CHECK_EQ(results[i].full, 1);
    }
    check_quiet(3);
    close_channels(3);
}

static void answers_that_overtake_an_older_one_are_not_kept_waiting(void) {
    open_channels(2);
    make_loads(2, 2, 0);
    server.overtaken_by = 200; /* more than the windows, so that they end only where such answers are taken */
    int most = 1000;
    for (int i = 0; i < 2; i++) {
        loads[i].end_ns += HOUR;
        loads[i].context = &most;
    }
    run(2, 0);
    CHECK(results[0].sampled > 0 && results[1].sampled > 0);
    CHECK(results[0].sampled + results[1].sampled > 200);
    close_channels(2);
}

static bool one_that_is_full_leaves_the_other_be(void) {
    open_channels(2);
    make_loads(2, 2, 0);
    loads[0].room = 10;
    loads[0].end_ns += SECOND / 4, loads[1].end_ns += SECOND / 4;
    run(2, 0);
    CHECK(results[0].sampled <= 10);
    CHECK_EQ(results[1].full, 0);
    CHECK_EQ(results[1].ended_ns, loads[1].end_ns);
    check_quiet(2);
    close_channels(2);
    return results[0].sampled == 10 && results[0].full && results[0].ended_ns < loads[0].end_ns &&
           results[1].sampled > 10;
}

/* The server may stand still for all of the time that there is. */
static void one_that_is_full_leaves_the_others_be(void) {
    for (int tries = 0; !one_that_is_full_leaves_the_other_be(); tries++)
        CHECK(tries < 5);
}

static void the_first_s_caller_ends_all(void) {
    open_channels(3);
    make_loads(3, 2, 0);
    int most = 20, others = 1;
    for (int i = 0; i < 3; i++) {
        loads[i].end_ns += HOUR;
        loads[i].context = i == 0 ? &most : &others;
    }
    run(3, 0);
    CHECK(server.answered >= most);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(results[i].stopped, 1);
        CHECK(results[i].ended_ns < loads[i].end_ns);
    }
    check_quiet(3);
    close_channels(3);
}

static bool one_whose_daemon_is_gone_leaves_the_other_be(void) {
    open_channels(2);
    make_loads(2, 2, 0);
    server.silent = 1; /* so that its requests are in flight when it is seen */
    loads[0].end_ns += SECOND / 4, loads[1].end_ns += SECOND / 4;
    close(server.daemons[1]);
    server.daemons[1] = must_dup(server.daemons[0]);
    run(2, -SIDECAML_E_SERVER_GONE);
    CHECK_EQ(results[1].counts[SIDECAML_E_SERVER_GONE], 2);
    CHECK_EQ(results[0].counts[SIDECAML_E_SERVER_GONE], 0);
    CHECK_EQ(results[0].ended_ns, loads[0].end_ns);
    close_channels(2);
    return results[0].sampled > 0 && results[1].ended_ns < loads[1].end_ns;
}

static void one_whose_daemon_is_gone_leaves_the_others_be(void) {
    for (int tries = 0; !one_whose_daemon_is_gone_leaves_the_other_be(); tries++)
        CHECK(tries < 5);
}

static void loads_that_cannot_be_are_refused_before_anything_is_sent(void) {
    struct sidecaml_failure why;
    open_channels(2);
    make_loads(2, 2, 0);
    CHECK_EQ(sidecaml_load_run_all(jobs, 0, &why), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "no channel");
    loads[1].policy = SIDECAML_ADAPTIVE;
    CHECK_EQ(sidecaml_load_run_all(jobs, 2, &why), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "2 channels in one thread, and channel 1 is not to spin");
    loads[1].policy = SIDECAML_SPIN;
    loads[1].window = SLOTS + 1;
    CHECK_EQ(sidecaml_load_run_all(jobs, 2, &why), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "a window of 5 requests");
    check_quiet(2);
    close_channels(2);
}

int main(void) {
    const struct test tests[] = {
        {TEST(each_channel_has_arrivals_of_its_own)},
        {TEST(one_that_waits_for_a_slot_counts_from_when_it_was_due)},
        {TEST(all_windows_are_in_flight_together)},
        {TEST(answers_that_overtake_an_older_one_are_not_kept_waiting)},
        {TEST(one_that_is_full_leaves_the_others_be)},
        {TEST(the_first_s_caller_ends_all)},
        {TEST(one_whose_daemon_is_gone_leaves_the_others_be)},
        {TEST(loads_that_cannot_be_are_refused_before_anything_is_sent)},
    };
    return RUN_TESTS(tests, 60);
}
