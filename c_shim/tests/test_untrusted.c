/* Workers whose clients take pages away, or write where a request is running. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "mapping.h"
#include "pair.h"

#define CLIENTS 2

static struct sidecaml_layout layout;
static sidecaml_worker *worker;
static struct sidecaml_failure why;
static int status_fd, control, supervisor;

/* One that holds its segment by hand, and does with it what it likes. */
static struct client {
    sidecaml_channel *channel;
    uint8_t *base;
    int segment, place, daemon;
} clients[CLIENTS];

static void add_client(struct client *client, uint32_t how) {
    int ends[2];
    make_sockets(ends);
    client->daemon = ends[0];
    client->segment = make_memfd(layout.segment_bytes);
    struct sidecaml_channel_fds theirs = {must_dup(client->segment), make_doorbell(), make_doorbell(),
                                          must_dup(status_fd), ends[1]};
    struct sidecaml_worker_fds ours = {must_dup(client->segment), must_dup(theirs.request), must_dup(theirs.answer),
                                       -1};
    client->place = sidecaml_worker_attach(worker, &ours, &layout, how, &why);
    if (client->place < 0) check_failed(__FILE__, __LINE__, "%s", why.text);
    CHECK_EQ(sidecaml_channel_attach(&theirs, layout.fingerprint, SIDECAML_BLOCK, &client->channel, &why), 0);
    client->base = mmap(NULL, layout.segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, client->segment, 0);
    CHECK((void *)client->base != MAP_FAILED);
}

static void remove_client(struct client *client) {
    CHECK_EQ(ftruncate(client->segment, (off_t)layout.segment_bytes), 0); /* the client's own code is not guarded */
    munmap(client->base, layout.segment_bytes);
    sidecaml_channel_close(client->channel);
    close(client->segment);
    close(client->daemon);
}

static void open_with(uint32_t how, uint64_t most) {
    const struct sidecaml_tensor_spec specs[] = {
        {.name = "x", .dtype = SIDECAML_UINT8, .rank = 1, .dynamic = true, .max_dims = {most}},
        {.name = "y", .dtype = SIDECAML_UINT8, .rank = 1, .output = true, .dynamic = true, .max_dims = {5000}},
    };
    CHECK_EQ(sidecaml_layout_compute(specs, 2, 2, 77, &layout, NULL), 0);
    worker = make_worker(SIDECAML_BLOCK, &status_fd, &control, &supervisor);
    for (int i = 0; i < CLIENTS; i++)
        add_client(&clients[i], how);
    CHECK_EQ(sidecaml_guard(&why), 0);
}

static void open_all(uint32_t how) {
    open_with(how, 3 * SIDECAML_PAGE_BYTES);
}

static void close_all(void) {
    for (int i = 0; i < CLIENTS; i++)
        remove_client(&clients[i]);
    sidecaml_worker_destroy(worker);
    close(status_fd), close(control), close(supervisor);
    signal(SIGBUS, SIG_DFL);
}

static int next(struct sidecaml_request *request) {
    return sidecaml_worker_next(worker, 0, request);
}

static void submit(const struct client *client, uint64_t length, uint8_t value) {
    int slot = sidecaml_channel_claim(client->channel);
    CHECK(slot >= 0);
    CHECK_EQ(sidecaml_channel_set_dims(client->channel, (uint32_t)slot, 0, &length, 1), 0);
    memset(tensor_at(client->base, &layout, (uint32_t)slot, 0), value, length);
    CHECK_EQ(sidecaml_channel_submit(client->channel, 0), slot);
}

/* The engine: y is x with every byte raised by one, cut to y's place. */
static void run_on(const struct sidecaml_request *request) {
    uint64_t dims[SIDECAML_MAX_RANK];
    CHECK_EQ(sidecaml_worker_get_dims(worker, request, 0, dims), 1);
    const uint8_t *x = sidecaml_worker_tensor(worker, request->channel, request->slot, 0);
    uint8_t *y = sidecaml_worker_tensor(worker, request->channel, request->slot, 1);
    if (dims[0] > 5000) dims[0] = 5000;
    for (uint64_t i = 0; i < dims[0]; i++)
        y[i] = (uint8_t)(x[i] + 1);
    CHECK_EQ(sidecaml_worker_set_dims(worker, request, 1, dims, 1), 0);
}

static void check_answer(const struct client *client, uint32_t slot, uint64_t length, uint8_t value) {
    uint64_t dims[SIDECAML_MAX_RANK];
    CHECK_EQ(sidecaml_channel_poll(client->channel, slot), 0);
    CHECK_EQ(sidecaml_channel_get_dims(client->channel, slot, 1, dims), 1);
    CHECK_EQ(dims[0], length);
    const uint8_t *y = tensor_at(client->base, &layout, slot, 1);
    for (uint64_t i = 0; i < length; i++)
        CHECK_EQ(y[i], value);
    CHECK_EQ(sidecaml_channel_release(client->channel, slot), 0);
}

static void check_that_it_serves(const struct client *client) {
    struct sidecaml_request request;
    uint32_t slot = (uint32_t)sidecaml_channel_claim(client->channel);
    submit(client, 100, 41);
    CHECK_EQ(next(&request), 1);
    CHECK_EQ(request.channel, client->place);
    run_on(&request);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, 0, NULL), 0);
    check_answer(client, slot, 100, 42);
}

static void cut(const struct client *client, uint64_t bytes) {
    CHECK_EQ(ftruncate(client->segment, (off_t)bytes), 0);
}

static void check_that_it_is_broken(const struct client *client) {
    CHECK_EQ(sidecaml_worker_broken(worker), client->place);
    CHECK_EQ(sidecaml_worker_broken(worker), -SIDECAML_E_PENDING);
}

/* --- Lost pages -------------------------------------------------------------------------------------------------- */

static void a_channel_without_pages_is_served_no_more(void) {
    struct sidecaml_request request;
    open_all(0);
    check_that_it_serves(&clients[0]);
    submit(&clients[0], 100, 1);
    cut(&clients[0], 0);
    CHECK_EQ(next(&request), -SIDECAML_E_PENDING); /* by this look it was found out */
    CHECK_EQ(next(&request), -SIDECAML_E_AGAIN);
    check_that_it_is_broken(&clients[0]);
    CHECK_EQ(next(&request), -SIDECAML_E_PENDING);
    cut(&clients[0], layout.segment_bytes); /* whatever it does to make up for it */
    clients[0].base[0] = 1;
    CHECK_EQ(next(&request), -SIDECAML_E_PENDING);
    check_that_it_serves(&clients[1]);
    CHECK_EQ(sidecaml_worker_detach(worker, (uint32_t)clients[0].place), 0);
    check_that_it_serves(&clients[1]);
    close_all();
}

static void pages_that_go_during_a_run_cost_its_answer(void) {
    const uint64_t rests[] = {0, SIDECAML_PAGE_BYTES, layout.arrays_offset + SIDECAML_PAGE_BYTES};
    for (int i = 0; i < 3; i++)
        for (uint32_t how = 0; how <= SIDECAML_ATTACH_STAGED; how += SIDECAML_ATTACH_STAGED) {
            struct sidecaml_request request;
            open_all(how);
            submit(&clients[0], 3 * SIDECAML_PAGE_BYTES, 1);
            CHECK_EQ(next(&request), 1);
            cut(&clients[0], rests[i]);
            run_on(&request);
            CHECK_EQ(sidecaml_worker_complete(worker, &request, 0, NULL), 1);
            CHECK_EQ(next(&request), -SIDECAML_E_AGAIN);
            check_that_it_is_broken(&clients[0]);
            check_that_it_serves(&clients[1]);
            close_all();
        }
}

static void whoever_waits_is_woken_by_what_it_finds(void) {
    struct sidecaml_request request;
    open_all(0);
    cut(&clients[1], 0);
    /* Once, though it would wait for ever. */
    CHECK_EQ(sidecaml_worker_next(worker, UINT64_MAX, &request), -SIDECAML_E_AGAIN);
    check_that_it_is_broken(&clients[1]);
    CHECK_EQ(sidecaml_worker_next(worker, 2000000, &request), -SIDECAML_E_TIMEOUT);
    close_all();
}

static void all_that_broke_are_told(void) {
    struct sidecaml_request request;
    open_all(0);
    cut(&clients[0], 0), cut(&clients[1], 0);
    CHECK_EQ(next(&request), -SIDECAML_E_PENDING);
    CHECK_EQ(sidecaml_worker_broken(worker), clients[0].place);
    CHECK_EQ(sidecaml_worker_broken(worker), clients[1].place);
    CHECK_EQ(sidecaml_worker_broken(worker), -SIDECAML_E_PENDING);
    CHECK_EQ(next(&request), -SIDECAML_E_PENDING); /* they are known */
    close_all();
}

static void a_place_that_is_used_again_is_not_broken(void) {
    struct sidecaml_request request;
    open_all(0);
    cut(&clients[0], 0);
    next(&request);
    check_that_it_is_broken(&clients[0]);
    CHECK_EQ(sidecaml_worker_detach(worker, (uint32_t)clients[0].place), 0);
    remove_client(&clients[0]);
    add_client(&clients[0], 0);
    check_that_it_serves(&clients[0]);
    CHECK_EQ(sidecaml_worker_broken(worker), -SIDECAML_E_PENDING);
    close_all();
}

/* --- Staging ----------------------------------------------------------------------------------------------------- */

static void staged_and_unstaged_channels_give_the_same(void) {
    static const uint64_t lengths[] = {0, 1, 63, 64, 65, 4999, 5000};
    for (uint32_t how = 0; how <= SIDECAML_ATTACH_STAGED; how += SIDECAML_ATTACH_STAGED) {
        open_all(how);
        for (uint32_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            struct sidecaml_request request;
            submit(&clients[0], lengths[i], (uint8_t)i);
            submit(&clients[1], lengths[i], (uint8_t)(i + 50));
            for (int k = 0; k < 2; k++) {
                CHECK_EQ(next(&request), 1);
                run_on(&request);
                CHECK_EQ(sidecaml_worker_complete(worker, &request, 0, NULL), 0);
            }
            check_answer(&clients[0], i % 2, lengths[i], (uint8_t)(i + 1));
            check_answer(&clients[1], i % 2, lengths[i], (uint8_t)(i + 51));
        }
        close_all();
    }
}

static void what_a_staged_client_writes_during_a_run_changes_nothing(void) {
    struct sidecaml_request request;
    open_all(SIDECAML_ATTACH_STAGED);
    submit(&clients[0], 5000, 7);
    CHECK_EQ(next(&request), 1);
    const uint8_t *x = sidecaml_worker_tensor(worker, 0, 0, 0);
    memset(tensor_at(clients[0].base, &layout, 0, 0), 0xff, 3 * SIDECAML_PAGE_BYTES);
    memset(tensor_at(clients[0].base, &layout, 0, 1), 0xff, 5000);
    memset(dims_at(clients[0].base, &layout, 0, 0), 0xff, 2 * sizeof(struct sidecaml_dims));
    for (int i = 0; i < 5000; i++)
        CHECK_EQ(x[i], 7);
    run_on(&request);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, 0, NULL), 0);
    check_answer(&clients[0], 0, 5000, 8);
    close_all();
}

static void every_slot_of_a_staged_channel_has_one_place(void) {
    open_all(SIDECAML_ATTACH_STAGED);
    uint8_t *place = sidecaml_worker_tensor(worker, 0, 0, 0);
    CHECK(place && place == sidecaml_worker_tensor(worker, 0, 1, 0));
    CHECK(place != sidecaml_worker_tensor(worker, 1, 0, 0));
    CHECK(sidecaml_worker_tensor(worker, 0, 2, 0) == NULL);
    CHECK(sidecaml_worker_tensor(worker, 0, UINT32_MAX, 0) == NULL);
    CHECK(sidecaml_worker_tensor(worker, 0, 0, 2) == NULL);
    CHECK_EQ(sidecaml_worker_layout(worker, 0)->slot_count, 2);
    const struct sidecaml_request strange = {.slot = 2};
    uint64_t dims[SIDECAML_MAX_RANK];
    CHECK_EQ(sidecaml_worker_get_dims(worker, &strange, 0, dims), -SIDECAML_E_INVALID);
    CHECK_EQ(sidecaml_worker_complete(worker, &strange, 0, NULL), -SIDECAML_E_INVALID);
    close_all();
}

/* So much is copied that it takes far longer than all else. */
static void copies_of_staged_requests_are_time_in_runs(void) {
    struct sidecaml_request request;
    struct mapping mapping;
    const uint64_t bytes = 32 << 20;
    open_with(SIDECAML_ATTACH_STAGED, bytes);
    CHECK_EQ(mapping_open(&mapping, status_fd, false, false, "the page", &why), 0);
    const struct sidecaml_status_page *page = (const void *)mapping.base;
    submit(&clients[0], bytes, 7);
    CHECK_EQ(next(&request), 1);
    sidecaml_worker_started(worker, &request);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, 0, NULL), 0);
    CHECK(page->busy_ns >= 200000);
    mapping_close(&mapping);
    close_all();
}

static void absurd_dims_are_refused_where_they_are_staged(void) {
    struct sidecaml_request request;
    open_all(SIDECAML_ATTACH_STAGED);
    CHECK_EQ(sidecaml_channel_submit(clients[0].channel, 0), 0);
    *dims_at(clients[0].base, &layout, 0, 0) = UINT64_MAX;
    CHECK_EQ(next(&request), 1);
    uint64_t dims[SIDECAML_MAX_RANK];
    CHECK_EQ(sidecaml_worker_get_dims(worker, &request, 0, dims), -SIDECAML_E_BAD_DIMS);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, -SIDECAML_E_BAD_DIMS, "too many"), 0);
    CHECK_EQ(sidecaml_channel_poll(clients[0].channel, 0), -SIDECAML_E_BAD_DIMS);
    CHECK_EQ(sidecaml_channel_release(clients[0].channel, 0), 0);
    check_that_it_serves(&clients[0]);
    close_all();
}

static void what_an_answer_needs_is_told_and_forgotten(void) {
    for (uint32_t how = 0; how <= SIDECAML_ATTACH_STAGED; how += SIDECAML_ATTACH_STAGED) {
        struct sidecaml_request request;
        const uint64_t needed = 123456;
        uint64_t dims[SIDECAML_MAX_RANK];
        open_all(how);
        for (uint32_t i = 0; i < 3; i++) {
            submit(&clients[0], 10, 1);
            CHECK_EQ(next(&request), 1);
            CHECK_EQ(sidecaml_worker_set_dims(worker, &request, 1, &needed, 1), -SIDECAML_E_OUTPUT_TOO_LARGE);
            CHECK_EQ(sidecaml_worker_set_needed(worker, &request, 1, &needed, 1), 0);
            CHECK_EQ(sidecaml_worker_complete(worker, &request, -SIDECAML_E_OUTPUT_TOO_LARGE, "more"), 0);
            CHECK_EQ(sidecaml_channel_poll(clients[0].channel, i % 2), -SIDECAML_E_OUTPUT_TOO_LARGE);
            CHECK_EQ(sidecaml_channel_needed(clients[0].channel, i % 2, 1, dims), 1);
            CHECK_EQ(dims[0], needed);
            CHECK_EQ(sidecaml_channel_release(clients[0].channel, i % 2), 0);
        }
        check_that_it_serves(&clients[0]);
        check_that_it_serves(&clients[0]);
        close_all();
    }
}

static void a_failed_run_gives_no_outputs(void) {
    struct sidecaml_request request;
    open_all(SIDECAML_ATTACH_STAGED);
    submit(&clients[0], 10, 1);
    memset(tensor_at(clients[0].base, &layout, 0, 1), 9, 10);
    CHECK_EQ(next(&request), 1);
    run_on(&request);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, -SIDECAML_E_ENGINE, "no"), 0);
    CHECK_EQ(sidecaml_channel_poll(clients[0].channel, 0), -SIDECAML_E_ENGINE);
    CHECK_EQ(*(uint8_t *)tensor_at(clients[0].base, &layout, 0, 1), 9);
    close_all();
}

/* A runner of the native lane: x to y, ten bytes. */
struct bound {
    const uint8_t *x;
    uint8_t *y;
    int runs;
};

static int raise_by_one(void *context, struct sidecaml_failure *unused) {
    struct bound *bound = context;
    (void)unused;
    bound->runs++;
    for (int i = 0; i < 10; i++)
        bound->y[i] = (uint8_t)(bound->x[i] + 1);
    return 0;
}

static void the_native_lane_runs_staged_requests(void) {
    static const uint64_t rows[][SIDECAML_MAX_RANK] = {{10}, {10}};
    struct sidecaml_request request;
    open_all(SIDECAML_ATTACH_STAGED);
    struct bound bound = {sidecaml_worker_tensor(worker, 0, 0, 0), sidecaml_worker_tensor(worker, 0, 0, 1), 0};
    for (uint32_t slot = 0; slot < 2; slot++) {
        const struct sidecaml_bound runner = {.run = raise_by_one, .context = &bound, .dims = rows};
        CHECK_EQ(sidecaml_worker_bind(worker, 0, slot, &runner, &why), 0);
    }
    for (uint32_t i = 0; i < 6; i++) {
        submit(&clients[0], 10, (uint8_t)i);
        CHECK_EQ(pair_serve(worker, 0, &request, &why), -SIDECAML_E_PENDING);
        check_answer(&clients[0], i % 2, 10, (uint8_t)(i + 1));
    }
    submit(&clients[0], 11, 1); /* other dims: not this runner's */
    CHECK_EQ(pair_serve(worker, 0, &request, &why), 1);
    CHECK_EQ(bound.runs, 6);
    run_on(&request);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, 0, NULL), 0);
    check_answer(&clients[0], 0, 11, 2);
    close_all();
}

/* --- Both at once, by a thread that never stops ------------------------------------------------------------------ */

static volatile bool stopped;

/* Everything behind the slots: dims and tensors. Plain stores, as a client in another process would make them. */
__attribute__((no_sanitize("thread"))) static void *scribble(void *unused) {
    struct numbers numbers = {7};
    (void)unused;
    while (!stopped) {
        uint64_t number = next_number(&numbers);
        uint64_t at = layout.dims_offset + number % (layout.segment_bytes - layout.dims_offset);
        ((volatile uint8_t *)clients[0].base)[at] = (uint8_t)(number >> 40);
    }
    return NULL;
}

static void a_client_that_scribbles_all_the_time_harms_nobody(void) {
    pthread_t thread;
    open_all(SIDECAML_ATTACH_STAGED);
    stopped = false;
    CHECK_EQ(pthread_create(&thread, NULL, scribble, NULL), 0);
    for (int i = 0; i < 300; i++) {
        struct sidecaml_request request;
        CHECK(sidecaml_channel_submit(clients[0].channel, 0) >= 0);
        CHECK_EQ(next(&request), 1);
        uint64_t dims[SIDECAML_MAX_RANK];
        int status = sidecaml_worker_get_dims(worker, &request, 0, dims);
        if (status == 1) {
            run_on(&request);
            CHECK_EQ(sidecaml_worker_complete(worker, &request, 0, NULL), 0);
        } else {
            CHECK_EQ(sidecaml_worker_complete(worker, &request, status, "no"), 0);
        }
        CHECK_EQ(sidecaml_channel_release(clients[0].channel, (uint32_t)i % 2), 0);
        check_that_it_serves(&clients[1]);
    }
    stopped = true;
    pthread_join(thread, NULL);
    close_all();
}

int main(void) {
    static const struct test tests[] = {
        {TEST(a_channel_without_pages_is_served_no_more)},
        {TEST(pages_that_go_during_a_run_cost_its_answer)},
        {TEST(whoever_waits_is_woken_by_what_it_finds)},
        {TEST(all_that_broke_are_told)},
        {TEST(a_place_that_is_used_again_is_not_broken)},
        {TEST(staged_and_unstaged_channels_give_the_same)},
        {TEST(what_a_staged_client_writes_during_a_run_changes_nothing)},
        {TEST(every_slot_of_a_staged_channel_has_one_place)},
        {TEST(copies_of_staged_requests_are_time_in_runs)},
        {TEST(absurd_dims_are_refused_where_they_are_staged)},
        {TEST(what_an_answer_needs_is_told_and_forgotten)},
        {TEST(a_failed_run_gives_no_outputs)},
        {TEST(the_native_lane_runs_staged_requests)},
        {TEST(a_client_that_scribbles_all_the_time_harms_nobody)},
    };
    return RUN_TESTS(tests, 60);
}
