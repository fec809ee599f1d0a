/* The load loop against a worker of the same process. */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "arrivals.h"
#include "atomics.h"
#include "check.h"
#include "pair.h"
#include "sidecaml/load.h"

#define BYTES 9000 /* two answers share a reading of the clock, and the third has another */
#define SETS 3
#define ROOM 2000000
#define SECOND 1000000000u

static struct sidecaml_layout layout;
static struct pair pair;
static uint64_t samples[ROOM];
static uint8_t questions[SETS][BYTES], answers[SETS][BYTES];

/* --- The worker's side: y = x + 1 -------------------------------------------------------------------------------- */

static struct {
    uint32_t at_once;       /* so many are taken before the first is answered, and answered in reverse */
    int overtaken_by;       /* so many are answered before the first is */
    uint64_t quiet_until;   /* before it, nothing is answered */
    int fail_every;         /* with ENGINE */
    int spoil_every;        /* answered wrongly */
    uint64_t hold_ns;       /* between taking a request and answering it */
    _Atomic uint64_t away;  /* until then it looks at nothing */
    _Atomic int late;       /* answers that were there only after their deadline, or just before */
    _Atomic uint32_t ready; /* to end */
    _Atomic int taken;
} worker;

static void answer(const struct sidecaml_request *request) {
    const uint8_t *x = sidecaml_worker_tensor(pair.worker, request->channel, request->slot, 0);
    uint8_t *y = sidecaml_worker_tensor(pair.worker, request->channel, request->slot, 1);
    int number = ++worker.taken;
    for (int i = 0; i < BYTES; i++)
        y[i] = (uint8_t)(x[i] + 1);
    if (worker.spoil_every && number % worker.spoil_every == 0) y[BYTES - 1]++;
    bool fails = worker.fail_every && number % worker.fail_every == 0;
    uint64_t until = sidecaml_now_ns() + worker.hold_ns;
    while (sidecaml_now_ns() < (until > worker.quiet_until ? until : worker.quiet_until))
        cpu_relax();
    sidecaml_worker_started(pair.worker, request);
    sidecaml_worker_complete(pair.worker, request, fails ? -SIDECAML_E_ENGINE : 0, fails ? "so it is" : NULL);
    worker.late += request->deadline_ns && sidecaml_now_ns() > request->deadline_ns;
}

static void *serve(void *unused) {
    struct sidecaml_request taken[64];
    uint32_t held = 0;
    (void)unused;
    while (!load32(&worker.ready, acquire)) {
        if (sidecaml_now_ns() < worker.away) continue;
        if (sidecaml_worker_next(pair.worker, 1000000, &taken[held]) != 1) continue;
        if (++held < worker.at_once) continue;
        if (held == 1 && worker.overtaken_by) continue;
        if (held == 2 && worker.overtaken_by && worker.taken + 1 < worker.overtaken_by) {
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

/* --- The load ---------------------------------------------------------------------------------------------------- */

/* Until the worker has taken so many. */
static bool go_on(void *context) {
    const int *most = context;
    return !most || worker.taken < *most;
}

/* The client's thread is not run for a while, as on a machine that has other things to do. */
static struct {
    int at;            /* the number of the call at which that begins; 0: never; -1: at each */
    uint64_t nap_ns;   /* and how long it takes */
    uint64_t stall_ns; /* how much longer the worker is away, which it is from the begin of the nap on */
    int calls;
    uint64_t begin_ns, end_ns;
} absence;

static bool go_on_after_a_nap(void *context) {
    (void)context;
    absence.calls++;
    if (absence.at >= 0 && absence.calls != absence.at) return true;
    absence.begin_ns = sidecaml_now_ns();
    if (absence.stall_ns) worker.away = UINT64_MAX;
    usleep((useconds_t)(absence.nap_ns / 1000));
    absence.end_ns = sidecaml_now_ns();
    if (absence.stall_ns) worker.away = absence.end_ns + absence.stall_ns;
    return true;
}

static const void *inputs[SETS];
static const uint64_t input_bytes[] = {BYTES};
static struct sidecaml_load_answer wanted[SETS];

static struct sidecaml_load a_load(uint32_t window, double rate) {
    uint64_t now = sidecaml_now_ns();
    for (int set = 0; set < SETS; set++) {
        memset(questions[set], 10 * set, BYTES);
        memset(answers[set], 10 * set + 1, BYTES);
        inputs[set] = questions[set];
        wanted[set] = (struct sidecaml_load_answer){answers[set], BYTES};
    }
    return (struct sidecaml_load){.window = window,
                                  .burst = 1,
                                  .policy = SIDECAML_ADAPTIVE,
                                  .rate = rate,
                                  .seed = 11,
                                  .start_ns = now,
                                  .measure_ns = now,
                                  .end_ns = now + SECOND / 10,
                                  .sets = SETS,
                                  .inputs = inputs,
                                  .input_bytes = input_bytes,
                                  .answers = wanted,
                                  .samples = samples,
                                  .room = ROOM,
                                  .go_on = go_on};
}

static void open_pair(uint32_t slots) {
    memset(&worker, 0, sizeof worker);
    memset(&absence, 0, sizeof absence);
    pair_layout(&layout, slots, BYTES);
    pair_open(&pair, &layout, SIDECAML_ADAPTIVE);
}

static struct sidecaml_load_result run(const struct sidecaml_load *load, int expected) {
    struct sidecaml_load_result result = {0};
    struct sidecaml_failure why;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, serve, NULL), 0);
    int status = sidecaml_load_run(pair.channel, load, &result, &why);
    store32(&worker.ready, 1, release);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    if (status != expected) check_failed(__FILE__, __LINE__, "status %d: %s", status, status < 0 ? why.text : "");
    CHECK_EQ(result.counts[0], result.sampled);
    return result;
}

/* Everything that was sent has come to an end: every slot can be used again. */
static void check_quiet(void) {
    for (uint32_t slot = 0; slot < layout.slot_count; slot++)
        CHECK_EQ(sidecaml_channel_poll(pair.channel, slot), -SIDECAML_E_INVALID);
    for (uint32_t slot = 0; slot < layout.slot_count; slot++)
        CHECK(sidecaml_channel_submit(pair.channel, 0) >= 0);
}

static uint64_t arrivals_between(const struct sidecaml_load *load, uint64_t from, uint64_t to) {
    struct arrivals arrivals;
    uint64_t count = 0, at;
    arrivals_start(&arrivals, load->rate, load->seed, load->start_ns);
    while ((at = arrivals_next(&arrivals)) < to)
        count += at >= from;
    return count;
}

/* --- Closed loop ------------------------------------------------------------------------------------------------- */

static void a_closed_loop_ends_at_its_time_under_every_policy(void) {
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    for (int p = 0; p < 3; p++) {
        open_pair(4);
        struct sidecaml_load load = a_load(3, 0);
        load.policy = policies[p];
        load.end_ns += SECOND;
        struct sidecaml_load_result result = run(&load, 0);
        CHECK(sidecaml_now_ns() >= load.end_ns);
        CHECK(result.sampled > 3);
        CHECK_EQ(result.wrong, 0);
        CHECK_EQ(result.unsent, 0);
        CHECK_EQ(result.full, 0);
        CHECK_EQ(result.stopped, 0);
        CHECK_EQ(result.ended_ns, load.end_ns);
        CHECK(result.answered_ns > load.measure_ns);
        CHECK(result.cpu_ns > 0);
        check_quiet();
        pair_close(&pair);
    }
}

static void the_whole_window_is_in_flight_and_answers_come_in_any_order(void) {
    open_pair(8);
    worker.at_once = 5; /* it would wait for ever for a fifth that does not come */
    struct sidecaml_load load = a_load(5, 0);
    load.room = 1000;
    load.end_ns += 3600ull * SECOND;
    struct sidecaml_load_result result = run(&load, 0);
    CHECK_EQ(result.sampled, 1000);
    CHECK_EQ(result.wrong, 0);
    check_quiet();
    pair_close(&pair);
}

static void answers_that_overtake_an_older_one_are_not_kept_waiting(void) {
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    for (int p = 0; p < 3; p++) {
        open_pair(6);
        worker.overtaken_by = 3; /* each of them comes when the one before was taken */
        struct sidecaml_load load = a_load(2, 0);
        load.policy = policies[p];
        load.room = 4;
        load.end_ns += 3600ull * SECOND;
        struct sidecaml_load_result result = run(&load, 0);
        CHECK_EQ(result.sampled, 4);
        CHECK_EQ(result.wrong, 0);
        /* The oldest may be read together with the last that overtook it. */
        uint64_t longest = samples[2] > samples[3] ? samples[2] : samples[3];
        CHECK(longest > samples[0]);
        CHECK(longest > samples[1]);
        check_quiet();
        pair_close(&pair);
    }
}

static void a_burst_is_handed_over_when_all_of_it_can_be(void) {
    open_pair(8);
    struct sidecaml_load load = a_load(8, 0);
    load.burst = 4;
    load.room = 1002; /* the last one is smaller */
    load.end_ns += 3600ull * SECOND;
    struct sidecaml_load_result result = run(&load, 0);
    CHECK_EQ(result.sampled, 1002);
    CHECK_EQ(result.wrong, 0);
    check_quiet();
    pair_close(&pair);
}

static void it_ends_when_there_is_no_room_for_samples(void) {
    open_pair(8);
    struct sidecaml_load load = a_load(7, 0);
    load.room = 20;
    load.end_ns += 3600ull * SECOND;
    struct sidecaml_load_result result = run(&load, 0);
    CHECK_EQ(result.full, 1);
    CHECK_EQ(result.sampled, 20);
    CHECK(result.ended_ns < load.end_ns);
    pair_close(&pair);
}

static void a_time_is_at_least_what_the_worker_took(void) {
    open_pair(2);
    struct sidecaml_load load = a_load(2, 0);
    worker.hold_ns = SECOND / 100;
    load.room = 10;
    load.end_ns += 3600ull * SECOND;
    struct sidecaml_load_result result = run(&load, 0);
    CHECK_EQ(result.sampled, 10);
    for (uint64_t i = 0; i < result.sampled; i++)
        CHECK(samples[i] >= worker.hold_ns);
    pair_close(&pair);
}

/* The most samples in a row that are the same. */
static uint64_t most_alike(uint64_t count) {
    uint64_t most = 1;
    for (uint64_t i = 1, alike = 1; i < count; i++) {
        alike = samples[i] == samples[i - 1] ? alike + 1 : 1;
        if (alike > most) most = alike;
    }
    return most;
}

static void answers_share_a_reading_of_the_clock_as_far_as_reading_them_takes_no_time(void) {
    open_pair(8);
    struct sidecaml_load load = a_load(8, 0);
    load.burst = 8; /* which start at one time */
    load.room = 24;
    load.end_ns += 3600ull * SECOND;
    load.go_on = go_on_after_a_nap; /* so that all eight are there */
    absence.at = -1;
    absence.nap_ns = SECOND / 20;
    struct sidecaml_load_result result = run(&load, 0);
    CHECK_EQ(result.sampled, 24);
    CHECK_EQ(most_alike(24), 2);
    pair_close(&pair);
}

static void warm_up_is_left_out(void) {
    open_pair(2);
    struct sidecaml_load load = a_load(2, 0);
    load.measure_ns = load.end_ns += SECOND;
    struct sidecaml_load_result result = run(&load, 0);
    CHECK_EQ(result.sampled, 0);
    CHECK_EQ(result.answered_ns, 0);
    CHECK(worker.taken > 0);
    pair_close(&pair);
}

/* --- Open loop --------------------------------------------------------------------------------------------------- */

static void an_open_loop_sends_what_arrives_under_every_policy(void) {
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    for (int p = 0; p < 3; p++) {
        open_pair(4);
        struct sidecaml_load load = a_load(4, 3000);
        load.policy = policies[p];
        load.measure_ns += SECOND / 50;
        load.end_ns += SECOND;
        struct sidecaml_load_result result = run(&load, 0);
        CHECK_EQ(result.sampled + result.unsent, arrivals_between(&load, load.measure_ns, load.end_ns));
        CHECK(result.sampled > 0);
        CHECK_EQ(result.wrong, 0);
        check_quiet();
        pair_close(&pair);
    }
}

static void those_that_wait_for_a_slot_count_from_when_they_were_due(void) {
    open_pair(1);
    struct sidecaml_load load = a_load(1, 10000);
    load.end_ns += 2 * (uint64_t)SECOND;
    worker.quiet_until = load.start_ns + SECOND / 20;
    struct sidecaml_load_result result = run(&load, 0);
    struct arrivals arrivals;
    arrivals_start(&arrivals, load.rate, load.seed, load.start_ns);
    uint64_t due = arrivals_next(&arrivals);
    CHECK(result.sampled > 0);
    /* One slot, so they are answered in the order of arrival. */
    for (uint64_t i = 0; i < result.sampled && due < worker.quiet_until; i++, due = arrivals_next(&arrivals))
        CHECK(samples[i] >= worker.quiet_until - due);
    pair_close(&pair);
}

static void those_whose_deadline_passes_before_there_is_a_slot_are_not_sent(void) {
    open_pair(1);
    struct sidecaml_load load = a_load(1, 10000);
    load.deadline_ns = SECOND / 100;
    worker.quiet_until = load.start_ns + SECOND / 20;
    struct sidecaml_load_result result = run(&load, 0);
    uint64_t arrived = arrivals_between(&load, 0, load.end_ns);
    uint64_t refused = result.counts[SIDECAML_E_DEADLINE]; /* by the worker: sent in time, but only just */
    uint64_t lost = result.counts[SIDECAML_E_TIMEOUT];
    CHECK_EQ(result.sampled + refused + result.unsent + lost, arrived);
    /* Those of the first 40 ms have nobody to answer them in time, and one of them has the slot. */
    uint64_t hopeless = arrivals_between(&load, 0, load.start_ns + SECOND / 25);
    CHECK((uint64_t)worker.taken <= arrived - hopeless + 1);
    /* But for those that this thread, if it was not run for so long, never saw wait. */
    CHECK(lost + result.sent_late + result.unsent >= hopeless);
    CHECK(result.no_slot + result.sent_late + result.unsent > 0);
    CHECK(result.no_slot <= lost);
    pair_close(&pair);
}

/* Of what came while the client was not run, and was too late when it was. */
static uint64_t unseen(const struct sidecaml_load *load) {
    if (!absence.end_ns) return 0; /* on a busy machine it was away before, until all was over */
    uint64_t until_ns = absence.end_ns - load->deadline_ns;
    return arrivals_between(load, absence.begin_ns, until_ns < load->end_ns ? until_ns : load->end_ns);
}

static void those_that_the_client_comes_to_too_late_are_the_worker_s_to_refuse(void) {
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    for (int p = 0; p < 3; p++) {
        open_pair(4);
        struct sidecaml_load load = a_load(4, 2000);
        load.policy = policies[p];
        load.deadline_ns = SECOND / 200;
        load.go_on = go_on_after_a_nap;
        absence.at = 3;
        absence.nap_ns = SECOND / 20;
        struct sidecaml_load_result result = run(&load, 0);
        uint64_t refused = result.counts[SIDECAML_E_DEADLINE], lost = result.counts[SIDECAML_E_TIMEOUT];
        CHECK(result.sent_late + result.unsent > 0); /* what comes too late even for that, on a busy machine */
        CHECK(refused >= result.sent_late);
        CHECK(result.sent_late + result.no_slot + result.unsent >= unseen(&load));
        CHECK_EQ(result.sampled + refused + lost + result.unsent, arrivals_between(&load, 0, load.end_ns));
        check_quiet();
        pair_close(&pair);
    }
}

/* The client is away, and when it is there again the worker is: with fewer slots than requests that are too late by
 * then, and with more. False: this thread was not run when that mattered. */
static bool is_not_excused(enum sidecaml_policy policy, uint32_t slots) {
    open_pair(slots);
    struct sidecaml_load load = a_load(slots, 1000);
    load.policy = policy;
    load.deadline_ns = SECOND / 200;
    load.end_ns += SECOND / 2;
    load.go_on = go_on_after_a_nap;
    absence.at = 3;
    absence.nap_ns = SECOND / 20;
    absence.stall_ns = SECOND * 3 / 20;
    struct sidecaml_load_result result = run(&load, 0);
    uint64_t refused = result.counts[SIDECAML_E_DEADLINE], lost = result.counts[SIDECAML_E_TIMEOUT];
    CHECK_EQ(result.sampled + refused + lost + result.unsent, arrivals_between(&load, 0, load.end_ns));
    CHECK(refused >= result.sent_late);
    /* Until shortly before the stall's end nobody answers what comes, nor refuses it before it is given up. */
    uint64_t until_ns = worker.away - load.deadline_ns - SECOND / 20;
    uint64_t hopeless = arrivals_between(&load, absence.begin_ns, until_ns < load.end_ns ? until_ns : load.end_ns);
    check_quiet();
    pair_close(&pair);
    return result.sent_late > 0 && (slots > 4 || result.no_slot > 0) &&
           lost + result.sent_late + result.unsent >= hopeless;
}

static void a_server_that_stalls_meanwhile_is_not_excused(void) {
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    for (int p = 0; p < 6; p++)
        for (int tries = 0; !is_not_excused(policies[p % 3], p < 3 ? 4 : 512); tries++)
            CHECK(tries < 5);
}

static void what_never_found_a_slot_is_told(void) {
    open_pair(1);
    struct sidecaml_load load = a_load(1, 10000);
    worker.quiet_until = load.end_ns + SECOND; /* longer than what has arrived may still be sent */
    struct sidecaml_load_result result = run(&load, 0);
    CHECK_EQ(result.sampled, 1);
    CHECK_EQ(result.unsent, arrivals_between(&load, 0, load.end_ns) - 1);
    pair_close(&pair);
}

/* --- Outcomes ---------------------------------------------------------------------------------------------------- */

static void failures_count_by_their_code(void) {
    open_pair(4);
    worker.fail_every = 3;
    struct sidecaml_load load = a_load(4, 0);
    load.room = 200;
    load.end_ns += 3600ull * SECOND;
    struct sidecaml_load_result result = run(&load, 0);
    CHECK_EQ(result.counts[SIDECAML_E_ENGINE], worker.taken / 3);
    CHECK_EQ(result.counts[0], worker.taken - worker.taken / 3);
    check_quiet();
    pair_close(&pair);
}

static void wrong_answers_count(void) {
    open_pair(2);
    worker.spoil_every = 4;
    struct sidecaml_load load = a_load(2, 0);
    load.room = 100;
    load.end_ns += 3600ull * SECOND;
    struct sidecaml_load_result result = run(&load, 0);
    CHECK_EQ(result.sampled, 100);
    CHECK_EQ(result.wrong, 25);
    pair_close(&pair);
}

static void answers_need_not_be_compared(void) {
    open_pair(2);
    worker.spoil_every = 1;
    struct sidecaml_load load = a_load(2, 0);
    load.room = 100;
    load.end_ns += 3600ull * SECOND;
    load.answers = NULL;
    CHECK_EQ(run(&load, 0).wrong, 0);
    pair_close(&pair);
}

static void requests_past_their_deadline_are_given_up_and_the_slots_used_again(void) {
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    for (int p = 0; p < 3; p++) {
        open_pair(2);
        struct sidecaml_load load = a_load(2, p == 1 ? 2000 : 0);
        load.policy = policies[p];
        load.deadline_ns = SECOND / 100;
        load.room = 20;
        load.end_ns += 3600ull * SECOND;
        worker.quiet_until = load.start_ns + SECOND;
        struct sidecaml_load_result result = run(&load, 0);
        CHECK(result.counts[SIDECAML_E_TIMEOUT] >= 2);
        /* When the worker had left the slots. The last two have room, and may miss their deadline. */
        CHECK(result.sampled >= 18);
        CHECK(p == 1 || result.no_slot + result.sent_late == 0);
        CHECK_EQ(result.wrong, 0);
        pair_close(&pair);
    }
}

static void what_the_worker_answers_late_is_told_apart(void) {
    open_pair(1);
    struct sidecaml_load load = a_load(1, 0);
    load.deadline_ns = SECOND / 100;
    load.room = 3;
    load.end_ns += 3600ull * SECOND;
    worker.hold_ns = SECOND / 50;
    load.go_on = go_on_after_a_nap; /* so that it does not look at the deadline, and gives nothing up */
    absence.at = -1;
    absence.nap_ns = SECOND / 20;
    struct sidecaml_load_result result = run(&load, 0);
    CHECK(result.sampled >= 2); /* the last one has room, and may be given up */
    CHECK_EQ(result.late_by_worker, result.sampled);
    pair_close(&pair);
}

static void what_was_answered_in_time_and_read_late_is_not_the_worker_s(void) {
    open_pair(1);
    struct sidecaml_load load = a_load(1, 0);
    load.deadline_ns = SECOND / 50;
    load.room = 3;
    load.end_ns += 3600ull * SECOND;
    load.go_on = go_on_after_a_nap;
    absence.at = -1;
    absence.nap_ns = SECOND / 20;
    struct sidecaml_load_result result = run(&load, 0);
    CHECK_EQ(result.sampled, 3);
    for (uint64_t i = 0; i < result.sampled; i++)
        CHECK(samples[i] > load.deadline_ns);
    CHECK(result.late_by_worker <= (uint64_t)worker.late);
    pair_close(&pair);
}

/* --- Ends -------------------------------------------------------------------------------------------------------- */

static void the_caller_can_end_it(void) {
    open_pair(3);
    int most = 10; /* more than the window, so that some have been answered */
    struct sidecaml_load load = a_load(3, 0);
    load.end_ns += 3600ull * SECOND;
    load.context = &most;
    struct sidecaml_load_result result = run(&load, 0);
    CHECK_EQ(result.stopped, 1);
    CHECK(result.ended_ns < load.end_ns);
    CHECK(result.sampled > 0);
    check_quiet();
    pair_close(&pair);
}

static void the_end_of_the_daemon_ends_it_with_what_was_measured(void) {
    const double rates[] = {0, 1000};
    for (int r = 0; r < 2; r++) {
        open_pair(2);
        struct sidecaml_load load = a_load(2, rates[r]);
        load.end_ns += 3600ull * SECOND;
        worker.at_once = 64; /* more than can come: nothing is answered */
        close(pair.daemon);
        pair.daemon = -1;
        struct sidecaml_load_result result = run(&load, -SIDECAML_E_SERVER_GONE);
        CHECK(result.ended_ns < load.end_ns);
        CHECK_EQ(result.stopped, 0);
        /* In an open loop it may be known before the first request is due. */
        CHECK(rates[r] > 0 || result.counts[SIDECAML_E_SERVER_GONE] >= 1);
        pair_close(&pair);
    }
}

static void a_load_that_cannot_be_is_refused_before_anything_is_sent(void) {
    struct sidecaml_load_result result = {0};
    struct sidecaml_failure why;
    open_pair(4);
    struct sidecaml_load load = a_load(5, 0);
    CHECK_EQ(sidecaml_load_run(pair.channel, &load, &result, &why), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "a window of 5 requests: the channel has 4 slots");
    load = a_load(0, 0);
    CHECK_EQ(sidecaml_load_run(pair.channel, &load, &result, NULL), -SIDECAML_E_INVALID);
    load = a_load(1, -1);
    CHECK_EQ(sidecaml_load_run(pair.channel, &load, &result, NULL), -SIDECAML_E_INVALID);
    load = a_load(1, 1.0 / 0.0);
    CHECK_EQ(sidecaml_load_run(pair.channel, &load, &result, &why), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "a rate of inf");
    load = a_load(2, 0);
    load.burst = 3;
    CHECK_EQ(sidecaml_load_run(pair.channel, &load, &result, &why), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "bursts of 3 requests in a window of 2");
    load = a_load(1, 0);
    load.sets = 0;
    CHECK_EQ(sidecaml_load_run(pair.channel, &load, &result, NULL), -SIDECAML_E_INVALID);
    load = a_load(1, 0);
    load.end_ns = load.start_ns - 1;
    CHECK_EQ(sidecaml_load_run(pair.channel, &load, &result, NULL), -SIDECAML_E_INVALID);
    check_quiet();
    pair_close(&pair);
}

int main(void) {
    const struct test tests[] = {
        {TEST(a_closed_loop_ends_at_its_time_under_every_policy)},
        {TEST(the_whole_window_is_in_flight_and_answers_come_in_any_order)},
        {TEST(answers_that_overtake_an_older_one_are_not_kept_waiting)},
        {TEST(a_burst_is_handed_over_when_all_of_it_can_be)},
        {TEST(it_ends_when_there_is_no_room_for_samples)},
        {TEST(a_time_is_at_least_what_the_worker_took)},
        {TEST(answers_share_a_reading_of_the_clock_as_far_as_reading_them_takes_no_time)},
        {TEST(warm_up_is_left_out)},
        {TEST(an_open_loop_sends_what_arrives_under_every_policy)},
        {TEST(those_that_wait_for_a_slot_count_from_when_they_were_due)},
        {TEST(those_whose_deadline_passes_before_there_is_a_slot_are_not_sent)},
        {TEST(those_that_the_client_comes_to_too_late_are_the_worker_s_to_refuse)},
        {TEST(a_server_that_stalls_meanwhile_is_not_excused)},
        {TEST(what_never_found_a_slot_is_told)},
        {TEST(failures_count_by_their_code)},
        {TEST(wrong_answers_count)},
        {TEST(answers_need_not_be_compared)},
        {TEST(requests_past_their_deadline_are_given_up_and_the_slots_used_again)},
        {TEST(what_the_worker_answers_late_is_told_apart)},
        {TEST(what_was_answered_in_time_and_read_late_is_not_the_worker_s)},
        {TEST(the_caller_can_end_it)},
        {TEST(the_end_of_the_daemon_ends_it_with_what_was_measured)},
        {TEST(a_load_that_cannot_be_is_refused_before_anything_is_sent)},
    };
    return RUN_TESTS(tests, 60);
}
