#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "pair.h"

#define CHANNELS 3
#define SECOND UINT64_C(1000000000)

/* One worker and several channels. */
static struct sidecaml_layout layout;
static sidecaml_worker *worker;
static int status_fd, control, supervisor;
static sidecaml_channel *channels[CHANNELS];
static int daemons[CHANNELS];

static void open_worker_of(int count, uint32_t slots) {
    pair_layout(&layout, slots, 64);
    worker = make_worker(SIDECAML_BLOCK, &status_fd, &control, &supervisor);
    for (int i = 0; i < count; i++) {
        int index;
        channels[i] = pair_add_channel(worker, &layout, status_fd, SIDECAML_BLOCK, &index, &daemons[i]);
        CHECK_EQ(index, i);
    }
}

static void open_worker(int count) {
    open_worker_of(count, 2);
}

static void close_channel(int i) {
    sidecaml_channel_close(channels[i]);
    close(daemons[i]);
    channels[i] = NULL;
}

static void close_worker(void) {
    for (int i = 0; i < CHANNELS; i++)
        if (channels[i]) close_channel(i);
    sidecaml_worker_destroy(worker);
    close(status_fd), close(control), close(supervisor);
}

static struct sidecaml_status_page *map_status(void) {
    struct sidecaml_status_page *page = mmap(NULL, sizeof *page, PROT_READ, MAP_SHARED, status_fd, 0);
    CHECK((void *)page != MAP_FAILED);
    return page;
}

static void run_from(uint32_t channel) {
    struct sidecaml_request request;
    CHECK_EQ(sidecaml_worker_next(worker, UINT64_MAX, &request), 1);
    CHECK_EQ(request.channel, channel);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, 0, NULL), 0);
}

/* --- The crowd --------------------------------------------------------------------------------------------------- */

static struct sidecaml_crowd_page *map_crowd(int fd) {
    struct sidecaml_crowd_page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK((void *)page != MAP_FAILED);
    return page;
}

static void *submit(void *channel) {
    CHECK_EQ(sidecaml_channel_submit(channel, 0), 0);
    return NULL;
}

static void submit_elsewhere(sidecaml_channel *channel) {
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, submit, channel), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

/* The crowd with a request of another thread, after those of this one. */
static uint32_t crowd_of_two_threads(void) {
    open_worker(3);
    struct sidecaml_status_page *page = map_status();
    CHECK_EQ(page->crowd, 0);
    for (uint32_t i = 0; i < 2; i++) {
        submit(channels[i]);
        run_from(i);
        CHECK_EQ(page->crowd, 2); /* the worker and this thread, whose second channel makes it no other */
    }
    submit_elsewhere(channels[2]);
    run_from(2);
    uint32_t crowd = page->crowd;
    munmap(page, sizeof *page);
    close_worker();
    return crowd;
}

static void clients_are_told_how_many_threads_there_are(void) {
    uint32_t crowd = 2;
    /* One thread in 256 has the other's bit, and where the machine stands still for two epochs one is forgotten. */
    for (int tries = 0; tries < 8 && crowd == 2; tries++)
        crowd = crowd_of_two_threads();
    CHECK_EQ(crowd, 3);
}

static void a_worker_counts_among_its_daemon_s(void) {
    struct sidecaml_failure why;
    int crowd_fd = make_memfd(sizeof(struct sidecaml_crowd_page)), other = make_memfd(SIDECAML_PAGE_BYTES);
    struct sidecaml_crowd_page *crowd = map_crowd(crowd_fd);
    crowd->used = 2;
    crowd->entries[1].threads = 5;
    open_worker(1);
    struct sidecaml_status_page *page = map_status();
    CHECK_EQ(sidecaml_worker_join_crowd(worker, other, 0, 1, 16, &why), -SIDECAML_E_CORRUPT);
    CHECK_EQ(sidecaml_worker_join_crowd(worker, crowd_fd, SIDECAML_CROWD_ENTRIES, 1, 16, &why), -SIDECAML_E_INVALID);
    CHECK_EQ(page->cores, 0);
    CHECK_EQ(sidecaml_worker_join_crowd(worker, crowd_fd, 0, 2, 16, &why), 0);
    CHECK_EQ(page->cores, 16);
    CHECK_EQ(crowd->entries[0].threads, 2);
    submit(channels[0]);
    run_from(0);
    CHECK_EQ(page->crowd, 2 + 5 + 1);
    close_worker();
    CHECK_EQ(crowd->entries[0].threads, 0);
    CHECK_EQ(crowd->entries[1].threads, 5);
    munmap(page, sizeof *page), munmap(crowd, sizeof *crowd);
    close(other);
}

static void *run_one(void *unused) {
    (void)unused;
    run_from(0);
    return NULL;
}

static void a_worker_that_sleeps_counts_for_nothing(void) {
    struct sidecaml_failure why;
    pthread_t thread;
    int crowd_fd = make_memfd(sizeof(struct sidecaml_crowd_page));
    struct sidecaml_crowd_page *crowd = map_crowd(crowd_fd);
    open_worker(1);
    CHECK_EQ(sidecaml_worker_join_crowd(worker, crowd_fd, 0, 1, 2, &why), 0);
    CHECK_EQ(pthread_create(&thread, NULL, run_one, NULL), 0);
    while (crowd->entries[0].threads)
        sched_yield();
    submit(channels[0]);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(crowd->entries[0].threads, 1);
    close_worker();
    munmap(crowd, sizeof *crowd);
}

/* --- Taking turns ------------------------------------------------------------------------------------------------ */

static void channels_take_turns(void) {
    open_worker(3);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(sidecaml_channel_submit(channels[i], 0), 0);
        CHECK_EQ(sidecaml_channel_submit(channels[i], 0), 1);
    }
    for (uint32_t i = 0; i < 6; i++)
        run_from(i % 3);
    close_worker();
}

/* Clients that flood, each with requests of one cost, and the time on the engine that each of them had. */
struct client {
    uint64_t cost_ns;
    int thinks; /* runs of others from its answer to its next request, which is its only one; 0: it always has some */
    int idle;
    uint64_t had_ns;
    int runs;
};

static void be_busy(uint64_t ns) {
    for (uint64_t began = sidecaml_now_ns(); sidecaml_now_ns() - began < ns;)
        ;
}

/* Runs the next request; how long it took. */
static uint64_t run_of(struct client *clients, int count) {
    struct sidecaml_request request;
    CHECK_EQ(sidecaml_worker_next(worker, UINT64_MAX, &request), 1);
    CHECK(request.channel < (uint32_t)count);
    struct client *client = &clients[request.channel];
    sidecaml_worker_started(worker, &request);
    uint64_t began = sidecaml_now_ns();
    be_busy(client->cost_ns);
    uint64_t took_ns = sidecaml_now_ns() - began;
    CHECK_EQ(sidecaml_worker_complete(worker, &request, 0, NULL), 0);
    CHECK_EQ(sidecaml_channel_release(channels[request.channel], request.slot), 0);
    client->had_ns += took_ns;
    client->runs++;
    client->idle = client->thinks;
    return took_ns;
}

static void ask_again(struct client *client, int channel) {
    if (sidecaml_channel_claim(channels[channel]) >= 0) CHECK(sidecaml_channel_submit(channels[channel], 0) >= 0);
    if (client->thinks) client->idle = INT_MAX; /* until it is answered */
}

static bool is_shared(const struct client *unlike, int count) {
    struct client clients[CHANNELS];
    uint64_t longest_ns = 0, total_ns = 0;
    bool is_fair = true;
    memcpy(clients, unlike, (size_t)count * sizeof clients[0]);
    open_worker(count);
    while (total_ns < 50 * (uint64_t)1000000) {
        for (int i = 0; i < count; i++)
            if (clients[i].idle-- <= 0) ask_again(&clients[i], i);
        uint64_t took_ns = run_of(clients, count);
        total_ns += took_ns;
        if (took_ns > longest_ns) longest_ns = took_ns;
    }
    for (int i = 0; i < count; i++) /* 2 for a run that is not made up for yet, on either side */
        is_fair &= clients[i].had_ns + 2 * longest_ns + total_ns / 10 >= total_ns / (uint64_t)count;
    close_worker();
    return is_fair;
}

/* What is measured here is not all that the worker measures, where this thread is not run in between. */
static void check_shares(const struct client *clients, int count) {
    for (int tries = 0; !is_shared(clients, count); tries++)
        CHECK(tries < 5);
}

static void channels_of_unlike_costs_have_equal_time(void) {
    struct client two[] = {{.cost_ns = 20000}, {.cost_ns = 1000000}};
    struct client three[] = {{.cost_ns = 1000000}, {.cost_ns = 20000}, {.cost_ns = 200000}};
    check_shares(two, 2);
    check_shares(three, 3);
}

/* It has no request when its turn comes: what it owes is not forgotten. */
static void who_waits_for_its_answers_has_no_more_time_than_that(void) {
    struct client clients[] = {{.cost_ns = 20000}, {.cost_ns = 1000000, .thinks = 2}};
    check_shares(clients, 2);
}

/* What it owes for such a run is bounded: each run of the other is a round in which it makes up for as long as the
 * shortest one took, so it has its next after as many of them as make up for a second. */
static void a_run_in_which_the_machine_stood_still_keeps_nobody_out(void) {
    struct client clients[] = {{.cost_ns = 5 * SECOND / 2}, {.cost_ns = SECOND / 20}};
    open_worker(2);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(sidecaml_channel_submit(channels[0], 0), i);
    CHECK_EQ(sidecaml_channel_submit(channels[1], 0), 0);
    run_of(clients, 2);
    CHECK_EQ(clients[0].runs, 1);
    clients[0].cost_ns = 0;
    while (clients[0].runs < 2) {
        if (sidecaml_channel_claim(channels[1]) >= 0) CHECK(sidecaml_channel_submit(channels[1], 0) >= 0);
        run_of(clients, 2);
        CHECK((uint64_t)clients[1].runs <= SECOND / clients[1].cost_ns + 1);
    }
    close_worker();
}

/* --- Deadlines, where the caller runs all requests --------------------------------------------------------------- */

#define LONG_NS 50000000u

static void submit_by(uint64_t deadline_ns) {
    CHECK(sidecaml_channel_claim(channels[0]) >= 0);
    CHECK(sidecaml_channel_submit(channels[0], deadline_ns) >= 0);
}

/* Of the next request, which takes so long; whether there was one to run. */
static bool run_for(uint64_t ns, int status) {
    struct sidecaml_request request;
    if (sidecaml_worker_next(worker, 0, &request) == -SIDECAML_E_PENDING) return false;
    sidecaml_worker_started(worker, &request);
    be_busy(ns);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, status, "so it is"), 0);
    return true;
}

/* The first has no estimate; a request that failed says nothing. */
static void what_the_caller_runs_is_refused_too_when_it_cannot_make_its_deadline(void) {
    open_worker(1);
    sidecaml_channel_set_stamps(channels[0], true);
    submit_by(sidecaml_now_ns() + 100 * SECOND);
    CHECK(run_for(0, -SIDECAML_E_ENGINE));
    CHECK_EQ(sidecaml_channel_release(channels[0], 0), 0);
    submit_by(sidecaml_now_ns() + 100 * SECOND);
    CHECK(run_for(LONG_NS, 0));
    CHECK_EQ(sidecaml_channel_release(channels[0], 1), 0);
    submit_by(sidecaml_now_ns() + LONG_NS / 2);
    CHECK(!run_for(0, 0));
    CHECK_EQ(sidecaml_channel_poll(channels[0], 0), -SIDECAML_E_DEADLINE);
    struct sidecaml_stamps stamps;
    CHECK_EQ(sidecaml_channel_stamps(channels[0], 0, &stamps), 0);
    CHECK(stamps.seen_ns >= stamps.submitted_ns && stamps.submitted_ns > 0);
    CHECK_EQ(stamps.started_ns, 0);
    CHECK_EQ(stamps.finished_ns, 0); /* nor that of the slot's request before */
    CHECK_EQ(sidecaml_channel_release(channels[0], 0), 0);
    struct sidecaml_status_page *page = map_status();
    CHECK_EQ(page->refused, 1);
    munmap(page, sizeof *page);
    close_worker();
}

/* Whoever has requests that come too late, by the dozen. */
static void one_look_refuses_a_few_and_others_have_their_turn(void) {
    open_worker_of(2, 64);
    struct sidecaml_status_page *page = map_status();
    for (int i = 0; i < 64; i++)
        CHECK_EQ(sidecaml_channel_submit(channels[0], 1), i);
    CHECK_EQ(sidecaml_channel_submit(channels[1], 0), 0);
    run_from(1);
    CHECK(page->refused >= 1 && page->refused <= 16);
    struct sidecaml_request request;
    CHECK_EQ(sidecaml_worker_next(worker, 0, &request), -SIDECAML_E_PENDING);
    CHECK_EQ(page->refused, 64);
    munmap(page, sizeof *page);
    close_worker();
}

static void a_wrong_estimate_of_the_callers_runs_does_not_refuse_for_ever(void) {
    uint32_t slot = 1;
    open_worker(1);
    submit_by(sidecaml_now_ns() + 100 * SECOND);
    CHECK(run_for(LONG_NS, 0));
    CHECK_EQ(sidecaml_channel_release(channels[0], 0), 0);
    uint64_t end = sidecaml_now_ns() + 100 * SECOND;
    submit_by(sidecaml_now_ns() + LONG_NS / 2);
    while (!run_for(0, 0)) {
        CHECK(sidecaml_now_ns() < end);
        CHECK_EQ(sidecaml_channel_release(channels[0], slot), 0);
        slot = 1 - slot;
        submit_by(sidecaml_now_ns() + LONG_NS / 2);
    }
    close_worker();
}

/* --- Places ------------------------------------------------------------------------------------------------------ */

static void a_detached_place_is_used_again(void) {
    open_worker(3);
    struct sidecaml_status_page *page = map_status();
    CHECK_EQ(page->channels, 3);
    close_channel(1);
    CHECK_EQ(sidecaml_worker_detach(worker, 1), 0);
    CHECK_EQ(page->channels, 2);
    CHECK_EQ(sidecaml_worker_detach(worker, 1), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_worker_detach(worker, 99), -SIDECAML_E_INVALID);
    CHECK(sidecaml_worker_layout(worker, 1) == NULL);
    CHECK_EQ(sidecaml_channel_submit(channels[2], 0), 0);
    run_from(2);
    int index;
    channels[1] = pair_add_channel(worker, &layout, status_fd, SIDECAML_BLOCK, &index, &daemons[1]);
    CHECK_EQ(index, 1);
    CHECK_EQ(sidecaml_channel_submit(channels[1], 0), 0);
    run_from(1);
    munmap(page, sizeof *page);
    close_worker();
}

static void misuse_is_invalid(void) {
    open_worker(1);
    uint64_t dims[SIDECAML_MAX_RANK];
    struct sidecaml_request strange[] = {{.channel = 1}, {.slot = 2}, {.channel = UINT32_MAX, .slot = UINT32_MAX}};
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(sidecaml_worker_complete(worker, &strange[i], 0, NULL), -SIDECAML_E_INVALID);
        CHECK_EQ(sidecaml_worker_get_dims(worker, &strange[i], 0, dims), -SIDECAML_E_INVALID);
        sidecaml_worker_started(worker, &strange[i]);
    }
    close_worker();
}

/* --- Waiting ----------------------------------------------------------------------------------------------------- */

static void next_comes_back_when_its_time_is_up(void) {
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    pair_layout(&layout, 2, 64);
    for (int p = 0; p < 3; p++) {
        struct sidecaml_request request;
        worker = make_worker(policies[p], &status_fd, &control, &supervisor);
        CHECK_EQ(sidecaml_worker_next(worker, 0, &request), -SIDECAML_E_PENDING);
        uint64_t before = sidecaml_now_ns();
        CHECK_EQ(sidecaml_worker_next(worker, 3000000, &request), -SIDECAML_E_TIMEOUT);
        CHECK(sidecaml_now_ns() - before >= 3000000);
        close_worker();
    }
}

static void a_control_message_interrupts_next_under_every_policy(void) {
    const enum sidecaml_policy policies[] = {SIDECAML_SPIN, SIDECAML_ADAPTIVE, SIDECAML_BLOCK};
    for (int p = 0; p < 3; p++) {
        struct sidecaml_request request;
        worker = make_worker(policies[p], &status_fd, &control, &supervisor);
        CHECK_EQ(send(supervisor, "x", 1, 0), 1);
        CHECK_EQ(sidecaml_worker_next(worker, UINT64_MAX, &request), -SIDECAML_E_AGAIN);
        close_worker();
    }
}

static void control_is_looked_at_under_load(void) {
    open_worker(1);
    struct sidecaml_request request;
    CHECK_EQ(send(supervisor, "x", 1, 0), 1);
    int status;
    do {
        int slot = sidecaml_channel_submit(channels[0], 0);
        CHECK(slot >= 0);
        status = sidecaml_worker_next(worker, UINT64_MAX, &request);
        if (status == 1) sidecaml_worker_complete(worker, &request, 0, NULL);
        sidecaml_channel_abandon(channels[0], (uint32_t)slot);
    } while (status == 1);
    CHECK_EQ(status, -SIDECAML_E_AGAIN);
    close_worker();
}

static void scribbling_does_not_keep_the_worker_from_its_control_socket(void) {
    open_worker(1);
    struct sidecaml_request request;
    uint8_t *base = mmap(NULL, layout.segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                         sidecaml_channel_segment_fd(channels[0]), 0);
    CHECK((void *)base != MAP_FAILED);
    struct sidecaml_slot *slots = (void *)(base + layout.slots_offset);
    /* Tickets so late that the worker skips for ever. */
    for (uint32_t i = 0; i < layout.slot_count; i++)
        slots[i].word = (uint64_t)1 << 62;
    CHECK_EQ(send(supervisor, "x", 1, 0), 1);
    CHECK_EQ(sidecaml_worker_next(worker, UINT64_MAX, &request), -SIDECAML_E_AGAIN);
    munmap(base, layout.segment_bytes);
    close_worker();
}

static void *submit_later(void *unused) {
    (void)unused;
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    CHECK(sidecaml_channel_submit(channels[1], 0) >= 0);
    return NULL;
}

static void a_sleeping_worker_is_woken_by_any_channel(void) {
    open_worker(3);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, submit_later, NULL), 0);
    run_from(1);
    pthread_join(thread, NULL);
    close_worker();
}

/* A client may post as often as it likes: that costs wake-ups, no more. */
static void posts_without_requests_are_harmless(void) {
    open_worker(1);
    struct sidecaml_request request;
    int bell = make_doorbell();
    struct sidecaml_worker_fds fds = {make_memfd(layout.segment_bytes), bell, make_doorbell(), -1};
    CHECK_EQ(sidecaml_worker_attach(worker, &fds, &layout, 0, NULL), 1);
    uint64_t many = 1000;
    CHECK_EQ(write(bell, &many, sizeof many), sizeof many);
    CHECK_EQ(sidecaml_worker_next(worker, 2000000, &request), -SIDECAML_E_TIMEOUT);
    close_worker();
}

static void fill_doorbell(int bell, uint64_t posts) {
    CHECK_EQ(write(bell, &posts, sizeof posts), sizeof posts);
}

static void a_doorbell_that_is_always_full_keeps_nobody_awake(void) {
    open_worker(1);
    struct sidecaml_status_page *page = map_status();
    struct sidecaml_request request;
    int bell = make_doorbell();
    struct sidecaml_worker_fds fds = {make_memfd(layout.segment_bytes), bell, make_doorbell(), -1};
    CHECK_EQ(sidecaml_worker_attach(worker, &fds, &layout, 0, NULL), 1);
    fill_doorbell(bell, UINT64_MAX - 1);
    CHECK_EQ(sidecaml_worker_next(worker, 20000000, &request), -SIDECAML_E_TIMEOUT);
    CHECK(page->parks <= 3);
    munmap(page, sizeof *page);
    close_worker();
}

/* The flags of an eventfd belong to both ends: the client may take O_NONBLOCK from the worker. */
static void a_client_that_makes_its_doorbells_block_stops_nobody(void) {
    open_worker(2);
    struct sidecaml_request request;
    int bell = make_doorbell();
    CHECK_EQ(fcntl(bell, F_SETFL, 0), 0);
    struct sidecaml_worker_fds fds = {make_memfd(layout.segment_bytes), bell, make_doorbell(), -1};
    CHECK_EQ(sidecaml_worker_attach(worker, &fds, &layout, 0, NULL), 2);
    fill_doorbell(bell, 1);
    CHECK_EQ(sidecaml_worker_next(worker, 2000000, &request), -SIDECAML_E_TIMEOUT);

    int answer = sidecaml_channel_answer_fd(channels[0]);
    CHECK_EQ(fcntl(answer, F_SETFL, 0), 0);
    fill_doorbell(answer, UINT64_MAX - 1);
    CHECK_EQ(sidecaml_channel_submit(channels[0], 0), 0);
    CHECK_EQ(sidecaml_channel_arm(channels[0], 0), 0);
    run_from(0);
    CHECK_EQ(sidecaml_channel_submit(channels[1], 0), 0);
    run_from(1);
    close_worker();
}

/* A post more than one a request is heard for a while, then no more: the worker sleeps through what comes. */
static void a_client_that_posts_without_end_is_heard_no_more(void) {
    open_worker(2);
    struct sidecaml_status_page *page = map_status();
    struct sidecaml_request request;
    int bell = make_doorbell();
    struct sidecaml_worker_fds fds = {make_memfd(layout.segment_bytes), bell, make_doorbell(), -1};
    CHECK_EQ(sidecaml_worker_attach(worker, &fds, &layout, 0, NULL), 2);
    for (int round = 0; round < 100; round++) {
        fill_doorbell(bell, 3);
        CHECK_EQ(sidecaml_worker_next(worker, 1000000, &request), -SIDECAML_E_TIMEOUT);
    }
    uint64_t parks = page->parks;
    fill_doorbell(bell, 1000000);
    CHECK_EQ(sidecaml_worker_next(worker, 1000000, &request), -SIDECAML_E_TIMEOUT);
    CHECK_EQ(page->parks, parks + 1);

    /* Who posts once a request wakes it as before, however often. */
    for (int i = 0; i < 40; i++) {
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, submit_later, NULL), 0);
        run_from(1);
        pthread_join(thread, NULL);
        CHECK_EQ(sidecaml_channel_release(channels[1], (uint32_t)i % 2), 0);
    }
    munmap(page, sizeof *page);
    close_worker();
}

/* Whatever a client writes into its segment while the worker serves it, the other channels are served as before. */
static void a_client_that_scribbles_harms_nobody_else(void) {
    open_worker(2);
    struct numbers numbers = {11};
    int segment = sidecaml_channel_segment_fd(channels[0]);
    uint64_t *words = mmap(NULL, layout.segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, segment, 0);
    CHECK((void *)words != MAP_FAILED);
    for (uint32_t round = 0; round < 5000; round++) {
        struct sidecaml_request request;
        uint64_t dims[SIDECAML_MAX_RANK];
        size_t tables = layout.arrays_offset / sizeof words[0];
        for (int i = 0; i < 8; i++)
            words[next_number(&numbers) % tables] = next_number(&numbers) % 2 ? next_number(&numbers) % 64 : 0;
        /* A word that the worker waits for, so that it takes a request from here as well. */
        words[(layout.slots_offset + round % 2 * sizeof(struct sidecaml_slot)) / sizeof words[0]] =
            next_number(&numbers) % 256;
        uint32_t slot = (uint32_t)sidecaml_channel_submit(channels[1], 0);
        CHECK_EQ(slot, round % 2);
        int result = -SIDECAML_E_PENDING;
        while (result == -SIDECAML_E_PENDING) {
            int status = sidecaml_worker_next(worker, UINT64_MAX, &request);
            if (status == -SIDECAML_E_AGAIN) continue;
            CHECK_EQ(status, 1);
            CHECK(request.channel < 2 && request.slot < 2);
            CHECK(sidecaml_worker_get_dims(worker, &request, 0, dims) <= SIDECAML_MAX_RANK);
            memset(sidecaml_worker_tensor(worker, request.channel, request.slot, 1), (int)round, 64);
            CHECK(sidecaml_worker_complete(worker, &request, 0, NULL) >= 0);
            result = sidecaml_channel_poll(channels[1], slot);
        }
        CHECK_EQ(result, 0);
        CHECK_EQ(sidecaml_channel_release(channels[1], slot), 0);
    }
    munmap(words, layout.segment_bytes);
    close_worker();
}

static void the_status_page_counts(void) {
    open_worker(1);
    struct sidecaml_status_page *page = map_status();
    struct sidecaml_request request;
    CHECK(memcmp(page->magic, SIDECAML_STATUS_MAGIC, sizeof page->magic) == 0);
    CHECK_EQ(page->pid, getpid());
    CHECK(page->started_ns > 0 && page->started_ns <= sidecaml_now_ns());
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(sidecaml_channel_submit(channels[0], 0), i % 2);
        CHECK_EQ(page->running_ns, 0);
        CHECK_EQ(sidecaml_worker_next(worker, UINT64_MAX, &request), 1);
        CHECK(page->running_ns > 0 && page->running_ns <= sidecaml_now_ns());
        if (i == 3) CHECK_EQ(sidecaml_channel_abandon(channels[0], 1), 0);
        CHECK_EQ(sidecaml_worker_complete(worker, &request, i == 2 ? -SIDECAML_E_ENGINE : 0, NULL), i == 3);
        if (i < 3) CHECK_EQ(sidecaml_channel_release(channels[0], (uint32_t)i % 2), 0);
    }
    CHECK(page->served == 2 && page->failed == 1 && page->abandoned == 1);
    CHECK_EQ(page->running_ns, 0);
    uint64_t parks = page->parks, before = sidecaml_now_ns();
    CHECK_EQ(sidecaml_worker_next(worker, 1000000, &request), -SIDECAML_E_TIMEOUT);
    CHECK_EQ(page->parks, parks + 1);
    CHECK(page->heartbeat_ns >= before);
    CHECK_EQ(page->parked, 0);
    munmap(page, sizeof *page);
    close_worker();
}

/* --- Opening ----------------------------------------------------------------------------------------------------- */

static void a_worker_needs_its_status_page(void) {
    struct sidecaml_failure why;
    sidecaml_worker *made;
    int sockets[2], large = make_memfd(2 * SIDECAML_PAGE_BYTES + 1), empty = make_memfd(0);
    make_sockets(sockets);
    CHECK_EQ(sidecaml_worker_create(large, 0, sockets[0], SIDECAML_BLOCK, &made, &why), -SIDECAML_E_CORRUPT);
    CHECK_SAYS(why.text, "8193");
    CHECK_EQ(sidecaml_worker_create(empty, 0, sockets[0], SIDECAML_BLOCK, &made, &why), -SIDECAML_E_CORRUPT);
    CHECK_EQ(sidecaml_worker_create(-1, 0, sockets[0], SIDECAML_BLOCK, &made, &why), -SIDECAML_E_SYSTEM);
    int page = make_memfd(SIDECAML_PAGE_BYTES);
    CHECK_EQ(sidecaml_worker_create(page, 0, -1, SIDECAML_BLOCK, &made, &why), -SIDECAML_E_SYSTEM);
    CHECK_EQ(sidecaml_worker_create(page, 1, sockets[0], SIDECAML_BLOCK, &made, &why), -SIDECAML_E_CORRUPT);
    CHECK_SAYS(why.text, "no page 1");
    CHECK_EQ(ftruncate(page, SIDECAML_PAGE_BYTES), 0); /* still the caller's */
    close(page), close(large), close(empty), close(sockets[0]), close(sockets[1]);
    sidecaml_worker_destroy(NULL);
}

static void a_failed_attach_leaves_the_descriptors_to_the_caller(void) {
    open_worker(1);
    struct sidecaml_failure why;
    int before = count_fds();
    struct sidecaml_worker_fds fds = {make_memfd(SIDECAML_PAGE_BYTES), make_doorbell(), make_doorbell(), -1};
    CHECK_EQ(sidecaml_worker_attach(worker, &fds, &layout, 0, &why), -SIDECAML_E_CORRUPT);
    CHECK_SAYS(why.text, "4096");
    CHECK_EQ(ftruncate(fds.segment, (off_t)layout.segment_bytes), 0);
    close(fds.request);
    int request = fds.request;
    fds.request = -1;
    CHECK_EQ(sidecaml_worker_attach(worker, &fds, &layout, 0, &why), -SIDECAML_E_SYSTEM);
    fds.request = request;
    close(fds.segment), close(fds.answer);
    CHECK_EQ(count_fds(), before);
    CHECK_EQ(sidecaml_channel_submit(channels[0], 0), 0);
    run_from(0);
    close_worker();
}

/* --- The native lane --------------------------------------------------------------------------------------------- */

static int bind_runner(uint32_t channel, uint32_t slot, sidecaml_runner run, void *context) {
    struct sidecaml_failure why;
    return sidecaml_worker_bind(worker, channel, slot, &(struct sidecaml_bound){.run = run, .context = context}, &why);
}

struct counted_run {
    int runs;
    int failing; /* the run that fails, counted from 1 */
};

static int count_run(void *context, struct sidecaml_failure *why) {
    struct counted_run *counted = context;
    if (++counted->runs != counted->failing) return 0;
    why->code = SIDECAML_E_ENGINE;
    strcpy(why->text, "as told");
    return -SIDECAML_E_ENGINE;
}

static void submit_both_slots(int channel) {
    CHECK_EQ(sidecaml_channel_submit(channels[channel], 0), 0);
    CHECK_EQ(sidecaml_channel_submit(channels[channel], 0), 1);
}

static void release_both_slots(int channel) {
    for (uint32_t slot = 0; slot < 2; slot++) {
        CHECK_EQ(sidecaml_channel_poll(channels[channel], slot), 0);
        CHECK_EQ(sidecaml_channel_release(channels[channel], slot), 0);
    }
}

static void serve_runs_bound_slots_and_gives_out_the_others(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    struct counted_run counted = {0};
    open_worker(2);
    for (uint32_t slot = 0; slot < 2; slot++)
        CHECK_EQ(bind_runner(1, slot, count_run, &counted), 0);
    submit_both_slots(0), submit_both_slots(1);
    for (uint32_t slot = 0; slot < 2; slot++) {
        CHECK_EQ(pair_serve(worker, 0, &request, &why), 1);
        CHECK_EQ(why.code, 0);
        CHECK_EQ(request.channel, 0);
        CHECK_EQ(request.slot, slot);
        sidecaml_worker_complete(worker, &request, 0, NULL);
    }
    CHECK_EQ(pair_serve(worker, 0, &request, &why), -SIDECAML_E_PENDING);
    CHECK_EQ(pair_serve(worker, 1000000, &request, &why), -SIDECAML_E_TIMEOUT);
    CHECK_EQ(counted.runs, 2);
    release_both_slots(0), release_both_slots(1);
    CHECK_EQ(sidecaml_worker_bind(worker, 1, 0, NULL, &why), 0);
    submit_both_slots(1);
    CHECK_EQ(pair_serve(worker, 0, &request, &why), 1);
    CHECK_EQ(request.slot, 0);
    sidecaml_worker_complete(worker, &request, 0, NULL);
    close_worker();
}

static void a_failed_run_is_the_callers_to_complete(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    struct counted_run counted = {.failing = 2};
    open_worker(1);
    for (uint32_t slot = 0; slot < 2; slot++)
        CHECK_EQ(bind_runner(0, slot, count_run, &counted), 0);
    submit_both_slots(0);
    CHECK_EQ(pair_serve(worker, UINT64_MAX, &request, &why), 1);
    CHECK_EQ(request.slot, 1);
    CHECK_EQ(why.code, SIDECAML_E_ENGINE);
    CHECK_SAYS(why.text, "as told");
    CHECK_EQ(sidecaml_channel_poll(channels[0], 0), 0);
    CHECK_EQ(sidecaml_channel_poll(channels[0], 1), -SIDECAML_E_PENDING);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, -SIDECAML_E_ENGINE, why.text), 0);
    CHECK_EQ(sidecaml_channel_poll(channels[0], 1), -SIDECAML_E_ENGINE);
    CHECK_EQ(counted.runs, 2);
    close_worker();
}

static void binding_what_is_not_there_is_invalid(void) {
    open_worker(1);
    CHECK_EQ(bind_runner(7, 0, count_run, NULL), -SIDECAML_E_INVALID);
    CHECK_EQ(bind_runner(0, 2, count_run, NULL), -SIDECAML_E_INVALID);
    close_worker();
}

/* Keeps its own slot full, so that the worker is never idle. */
static int submit_the_next(void *context, struct sidecaml_failure *why) {
    (void)why;
    sidecaml_channel *channel = context;
    for (int slot = 0; slot < 2; slot++)
        if (sidecaml_channel_poll(channel, (uint32_t)slot) == 0) sidecaml_channel_release(channel, (uint32_t)slot);
    sidecaml_channel_submit(channel, 0);
    return 0;
}

static void serve_comes_back_now_and_then_while_requests_keep_coming(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    open_worker(1);
    for (uint32_t slot = 0; slot < 2; slot++)
        CHECK_EQ(bind_runner(0, slot, submit_the_next, channels[0]), 0);
    CHECK_EQ(sidecaml_channel_submit(channels[0], 0), 0);
    CHECK_EQ(sidecaml_worker_serve(worker, UINT64_MAX, &request, &why), -SIDECAML_E_AGAIN);
    close_worker();
}

static int run_for_long(void *count, struct sidecaml_failure *why) {
    (void)why;
    const struct timespec longer_than_a_turn = {.tv_nsec = 150000000};
    nanosleep(&longer_than_a_turn, NULL);
    ++*(int *)count;
    return 0;
}

static void serve_comes_back_after_one_long_run(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    int count = 0;
    open_worker(1);
    for (uint32_t slot = 0; slot < 2; slot++) {
        CHECK_EQ(bind_runner(0, slot, run_for_long, &count), 0);
        CHECK_EQ(sidecaml_channel_submit(channels[0], 0), (int)slot);
    }
    CHECK_EQ(sidecaml_worker_serve(worker, 0, &request, &why), -SIDECAML_E_AGAIN);
    CHECK_EQ(count, 1);
    close_worker();
}

/* --- The native lane: requests that bring dims of their own ------------------------------------------------------- */

/* Two dynamic inputs, [8,3] at most and [5] at most, a static one between them, and a dynamic output. */
static void open_dynamic_worker(void) {
    struct sidecaml_tensor_spec specs[] = {
        {.name = "a", .dtype = SIDECAML_UINT8, .rank = 2, .dynamic = true, .max_dims = {64, 3}},
        {.name = "b", .dtype = SIDECAML_UINT8, .rank = 1, .max_dims = {4}},
        {.name = "c", .dtype = SIDECAML_UINT8, .rank = 1, .dynamic = true, .max_dims = {5}},
        {.name = "y", .dtype = SIDECAML_UINT8, .rank = 1, .output = true, .dynamic = true, .max_dims = {99}},
    };
    int index;
    CHECK_EQ(sidecaml_layout_compute(specs, 4, 1, 77, &layout, NULL), 0);
    worker = make_worker(SIDECAML_BLOCK, &status_fd, &control, &supervisor);
    channels[0] = pair_add_channel(worker, &layout, status_fd, SIDECAML_BLOCK, &index, &daemons[0]);
}

/* Where the dims of slot 0's tensor stand in the segment. */
static uint64_t *dims_of(uint32_t tensor) {
    uint8_t *base = (uint8_t *)sidecaml_channel_tensor(channels[0], 0, 0) - layout.tensor[0].array_offset;
    return ((struct sidecaml_dims *)(base + layout.dims_offset))[tensor].dim;
}

/* A runner for a = [rows,3], c = [c], which tells y = [told]. */
struct dims_runner {
    struct counted_run counted;
    int drops;
};

static void count_drop(void *context) {
    ((struct dims_runner *)context)->drops++;
}

static int bind_dims(struct dims_runner *runner, uint64_t rows, uint64_t c, uint64_t told, uint64_t state,
                     uint64_t next_state) {
    const uint64_t dims[3][SIDECAML_MAX_RANK] = {{rows, 3}, {c}, {told}};
    struct sidecaml_failure why;
    return sidecaml_worker_bind(worker, 0, 0,
                                &(struct sidecaml_bound){.run = count_run,
                                                         .context = runner,
                                                         .drop = count_drop,
                                                         .state = state,
                                                         .next_state = next_state,
                                                         .dims = dims},
                                &why);
}

static void ask(uint64_t rows, uint64_t c) {
    CHECK_EQ(sidecaml_channel_set_dims(channels[0], 0, 0, (uint64_t[]){rows, 3}, 2), 0);
    CHECK_EQ(sidecaml_channel_set_dims(channels[0], 0, 2, &c, 1), 0);
    CHECK_EQ(sidecaml_channel_submit(channels[0], 0), 0);
}

/* Whether the request is run by a runner, whose count then goes up. */
static bool is_served(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    int status = pair_serve(worker, 0, &request, &why);
    if (status == 1) {
        CHECK_EQ(why.code, 0);
        sidecaml_worker_complete(worker, &request, 0, NULL);
    } else {
        CHECK_EQ(status, -SIDECAML_E_PENDING);
    }
    CHECK_EQ(sidecaml_channel_poll(channels[0], 0), 0);
    return status != 1;
}

static uint64_t told(void) {
    uint64_t dims[SIDECAML_MAX_RANK];
    CHECK_EQ(sidecaml_channel_get_dims(channels[0], 0, 3, dims), 1);
    return dims[0];
}

static bool asked_is_served(uint64_t rows, uint64_t c) {
    ask(rows, c);
    bool served = is_served();
    CHECK_EQ(sidecaml_channel_release(channels[0], 0), 0);
    return served;
}

static void dims_choose_the_runner_and_outputs_are_told(void) {
    struct dims_runner one = {0}, two = {0};
    open_dynamic_worker();
    CHECK(!asked_is_served(2, 5));
    CHECK_EQ(bind_dims(&one, 2, 5, 7, 0, 0), 0);
    CHECK_EQ(bind_dims(&two, 3, 5, 9, 0, 0), 0);
    for (int round = 0; round < 3; round++) {
        CHECK(asked_is_served(2, 5));
        CHECK_EQ(told(), 7);
        CHECK(asked_is_served(2, 5));
        CHECK(asked_is_served(3, 5));
        CHECK_EQ(told(), 9);
        CHECK(!asked_is_served(3, 4));
        CHECK(!asked_is_served(0, 5));
    }
    CHECK_EQ(one.counted.runs, 6);
    CHECK_EQ(two.counted.runs, 3);
    CHECK_EQ(one.drops + two.drops, 0);
    close_worker();
    CHECK(one.drops == 1 && two.drops == 1);
}

static void the_latest_used_runners_are_kept_and_each_is_dropped_once(void) {
    struct dims_runner runners[SIDECAML_SLOT_RUNNERS + 8] = {0};
    uint64_t all = SIDECAML_SLOT_RUNNERS + 8;
    open_dynamic_worker();
    for (uint64_t i = 0; i < SIDECAML_SLOT_RUNNERS; i++)
        CHECK_EQ(bind_dims(&runners[i], i, 1, i, 0, 0), 0);
    CHECK(asked_is_served(0, 1));
    for (uint64_t i = SIDECAML_SLOT_RUNNERS; i < all; i++)
        CHECK_EQ(bind_dims(&runners[i], i, 1, i, 0, 0), 0);
    for (uint64_t i = 0; i < all; i++) {
        bool dropped = i >= 1 && i <= 8;
        CHECK_EQ(runners[i].drops, dropped);
        CHECK_EQ(asked_is_served(i, 1), !dropped);
        if (!dropped) CHECK_EQ(told(), i);
    }
    struct sidecaml_failure why;
    CHECK_EQ(sidecaml_worker_bind(worker, 0, 0, NULL, &why), 0);
    for (uint64_t i = 0; i < all; i++) {
        CHECK_EQ(runners[i].drops, 1);
        CHECK(!asked_is_served(i, 1));
    }
    close_worker();
}

static void a_runner_for_the_same_takes_the_place_of_the_one_before(void) {
    struct dims_runner runners[100] = {0};
    open_dynamic_worker();
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(bind_dims(&runners[i], 4, 4, (uint64_t)i % 99, 0, 0), 0);
        CHECK(asked_is_served(4, 4));
        CHECK_EQ(runners[i].counted.runs, 1);
        if (i) CHECK_EQ(runners[i - 1].drops, 1);
    }
    close_worker();
}

static void dims_beyond_the_largest_are_never_bound_and_never_served(void) {
    struct dims_runner runner = {0};
    open_dynamic_worker();
    CHECK_EQ(bind_dims(&runner, 65, 5, 1, 0, 0), -SIDECAML_E_BAD_DIMS);
    CHECK_EQ(bind_dims(&runner, 2, UINT64_MAX, 1, 0, 0), -SIDECAML_E_BAD_DIMS);
    CHECK_EQ(bind_dims(&runner, 2, 5, 100, 0, 0), -SIDECAML_E_BAD_DIMS);
    CHECK_EQ(runner.drops, 0);
    CHECK_EQ(bind_dims(&runner, 64, 5, 1, 0, 0), 0);
    uint64_t *dims = dims_of(0);
    const uint64_t hostile[] = {65, UINT64_MAX, (uint64_t)1 << 63};
    for (int i = 0; i < 3; i++) {
        ask(64, 5);
        dims[0] = hostile[i];
        CHECK(!is_served());
        CHECK_EQ(sidecaml_channel_release(channels[0], 0), 0);
    }
    CHECK_EQ(runner.counted.runs, 0);
    close_worker();
}

static uint64_t *dims_to_change;

/* A client that goes on writing while its request runs. */
static int change_dims(void *context, struct sidecaml_failure *why) {
    *dims_to_change = UINT64_MAX;
    return count_run(context, why);
}

static void dims_are_read_once(void) {
    struct counted_run counted = {0};
    open_dynamic_worker();
    dims_to_change = dims_of(0);
    const uint64_t dims[3][SIDECAML_MAX_RANK] = {{2, 3}, {5}, {42}};
    struct sidecaml_failure why;
    const struct sidecaml_bound bound = {.run = change_dims, .context = &counted, .dims = dims};
    CHECK_EQ(sidecaml_worker_bind(worker, 0, 0, &bound, &why), 0);
    for (int run = 1; run <= 3; run++) {
        CHECK(asked_is_served(2, 5));
        CHECK_EQ(counted.runs, run);
        CHECK_EQ(told(), 42);
    }
    close_worker();
}

/* --- The native lane: channels with a state ----------------------------------------------------------------------- */

static void a_runner_serves_one_state_and_leads_to_the_next(void) {
    struct dims_runner even = {0}, odd = {0};
    open_dynamic_worker();
    CHECK_EQ(bind_dims(&even, 2, 5, 1, 6, 7), 0);
    CHECK_EQ(bind_dims(&odd, 2, 5, 1, 7, 6), 0);
    CHECK_EQ(sidecaml_worker_state(worker, 0), 0);
    CHECK(!asked_is_served(2, 5));
    sidecaml_worker_set_state(worker, 0, 6);
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(sidecaml_worker_state(worker, 0), (uint64_t)(6 + i % 2));
        CHECK(asked_is_served(2, 5));
    }
    CHECK(even.counted.runs == 5 && odd.counted.runs == 5);
    CHECK(!asked_is_served(3, 5));
    CHECK_EQ(sidecaml_worker_state(worker, 0), 6);
    CHECK_EQ(sidecaml_worker_state(worker, 9), 0);
    close_worker();
}

static void a_request_that_resets_is_the_callers(void) {
    struct dims_runner runner = {0};
    open_dynamic_worker();
    CHECK_EQ(bind_dims(&runner, 2, 5, 1, 0, 0), 0);
    CHECK(asked_is_served(2, 5));
    sidecaml_channel_reset(channels[0]);
    CHECK(!asked_is_served(2, 5));
    CHECK(asked_is_served(2, 5));
    CHECK_EQ(runner.counted.runs, 2);
    close_worker();
}

static void a_failed_run_leaves_the_state(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    struct dims_runner failing = {.counted.failing = 1};
    open_dynamic_worker();
    CHECK_EQ(bind_dims(&failing, 2, 5, 1, 0, 1), 0);
    ask(2, 5);
    CHECK_EQ(pair_serve(worker, 0, &request, &why), 1);
    CHECK_EQ(why.code, SIDECAML_E_ENGINE);
    CHECK_EQ(sidecaml_worker_state(worker, 0), 0);
    sidecaml_worker_complete(worker, &request, -SIDECAML_E_ENGINE, why.text);
    CHECK_EQ(sidecaml_channel_release(channels[0], 0), 0);
    CHECK(asked_is_served(2, 5));
    CHECK_EQ(sidecaml_worker_state(worker, 0), 1);
    close_worker();
}

/* --- A worker whose supervisor ends ------------------------------------------------------------------------------ */

static void a_worker_ends_with_its_peer(void) {
    int ends[2], status;
    make_sockets(ends);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        close(ends[1]);
        if (sidecaml_exit_with_peer(ends[0], NULL) != 0) _exit(9);
        for (;;)
            pause();
    }
    close(ends[0]);
    CHECK_EQ(send(ends[1], "x", 1, 0), 1); /* a message does not end it */
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    CHECK_EQ(waitpid(child, &status, WNOHANG), 0);
    close(ends[1]);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(clients_are_told_how_many_threads_there_are)},
        {TEST(a_worker_counts_among_its_daemon_s)},
        {TEST(a_worker_that_sleeps_counts_for_nothing)},
        {TEST(channels_take_turns)},
        {TEST(channels_of_unlike_costs_have_equal_time)},
        {TEST(who_waits_for_its_answers_has_no_more_time_than_that)},
        {TEST(a_run_in_which_the_machine_stood_still_keeps_nobody_out)},
        {TEST(what_the_caller_runs_is_refused_too_when_it_cannot_make_its_deadline)},
        {TEST(one_look_refuses_a_few_and_others_have_their_turn)},
        {TEST(a_wrong_estimate_of_the_callers_runs_does_not_refuse_for_ever)},
        {TEST(a_detached_place_is_used_again)},
        {TEST(misuse_is_invalid)},
        {TEST(next_comes_back_when_its_time_is_up)},
        {TEST(a_control_message_interrupts_next_under_every_policy)},
        {TEST(control_is_looked_at_under_load)},
        {TEST(scribbling_does_not_keep_the_worker_from_its_control_socket)},
        {TEST(a_sleeping_worker_is_woken_by_any_channel)},
        {TEST(posts_without_requests_are_harmless)},
        {TEST(a_doorbell_that_is_always_full_keeps_nobody_awake)},
        {TEST(a_client_that_posts_without_end_is_heard_no_more)},
        {TEST(a_client_that_makes_its_doorbells_block_stops_nobody)},
        {TEST(a_client_that_scribbles_harms_nobody_else)},
        {TEST(the_status_page_counts)},
        {TEST(a_worker_needs_its_status_page)},
        {TEST(a_failed_attach_leaves_the_descriptors_to_the_caller)},
        {TEST(serve_runs_bound_slots_and_gives_out_the_others)},
        {TEST(a_failed_run_is_the_callers_to_complete)},
        {TEST(binding_what_is_not_there_is_invalid)},
        {TEST(serve_comes_back_now_and_then_while_requests_keep_coming)},
        {TEST(serve_comes_back_after_one_long_run)},
        {TEST(dims_choose_the_runner_and_outputs_are_told)},
        {TEST(the_latest_used_runners_are_kept_and_each_is_dropped_once)},
        {TEST(a_runner_for_the_same_takes_the_place_of_the_one_before)},
        {TEST(dims_beyond_the_largest_are_never_bound_and_never_served)},
        {TEST(dims_are_read_once)},
        {TEST(a_runner_serves_one_state_and_leads_to_the_next)},
        {TEST(a_request_that_resets_is_the_callers)},
        {TEST(a_failed_run_leaves_the_state)},
        {TEST(a_worker_ends_with_its_peer)},
    };
    return RUN_TESTS(tests, 20);
}
