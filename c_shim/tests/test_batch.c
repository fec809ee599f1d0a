/* Several requests run as one: what is bound in place, what is copied, what goes together, and what happens when it
 * fails or dies. The model adds up: y[n,i] = x[n,i] + rate, and z[i,n] = 2 * x[n,i], whose batch is its second axis. */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "batch.h"
#include "check.h"
#include "journal.h"
#include "mapping.h"
#include "pair.h"
#include "served.h"

#define WIDTH 4
#define SLOTS 8
#define LONG_NS 50000000u
/* Where nothing takes as long: a machine that stands still changes nothing. */
#define FAR_NS UINT64_C(100000000000)
#define CHANNELS (BATCH_KINDS + 3)

enum { X, RATE, Y, Z, TENSORS };

static sidecaml_worker *worker;
static int control, supervisor, status_fd;
static sidecaml_channel *channels[CHANNELS];
static int daemons[CHANNELS], places[CHANNELS];
static struct sidecaml_layout layout;

/* --- The model --------------------------------------------------------------------------------------------------- */

struct run {
    float *tensors[TENSORS];
    uint64_t rows;
};

static struct {
    int binds, drops, batches, singles;
    uint64_t last_rows;
    const void *last[TENSORS];
    uint64_t rows[16]; /* of each run */
    int runs;
    int late;              /* requests of channel 1 that come while a run is under way, one each */
    void (*during)(void);  /* called in each run */
    void (*binding)(void); /* called when a batch is bound */
    int bind_fails;        /* so many times */
    bool fails_batches;    /* whatever is in them */
    const float *x;        /* of the run that is under way */
    float poison;          /* an x that makes a run fail */
    float *changes;        /* what a hostile client changes while a run is made ready; NULL for nothing */
} model;

static int run_model(void *context, struct sidecaml_failure *why) {
    struct run *run = context;
    const float *x = run->tensors[X], rate = *run->tensors[RATE];
    for (uint64_t i = 0; i < run->rows * WIDTH; i++)
        if (model.poison && x[i] == model.poison) {
            why->code = SIDECAML_E_ENGINE;
            strcpy(why->text, "it is poison");
            return -SIDECAML_E_ENGINE;
        }
    for (uint64_t n = 0; n < run->rows; n++)
        for (uint64_t i = 0; i < WIDTH; i++) {
            run->tensors[Y][n * WIDTH + i] = x[n * WIDTH + i] + rate;
            run->tensors[Z][i * run->rows + n] = 2 * x[n * WIDTH + i];
        }
    return 0;
}

static void submit(int channel, float first);

static void note_run(const struct run *run) {
    if (model.runs < (int)(sizeof model.rows / sizeof model.rows[0])) model.rows[model.runs++] = run->rows;
    if (model.late-- > 0) submit(1, (float)model.late);
    model.x = run->tensors[X];
    if (model.during) model.during();
}

static int run_batch(void *context, struct sidecaml_failure *why) {
    struct run *run = context;
    model.batches++;
    model.last_rows = run->rows;
    memcpy(model.last, run->tensors, sizeof model.last);
    note_run(run);
    return model.fails_batches ? -SIDECAML_E_ENGINE : run_model(context, why);
}

static int run_single(void *context, struct sidecaml_failure *why) {
    model.singles++;
    note_run(context);
    return run_model(context, why);
}

static struct run *new_run(void *const *addresses, uint64_t rows) {
    struct run *run = calloc(1, sizeof *run);
    memcpy(run->tensors, addresses, sizeof run->tensors);
    run->rows = rows;
    return run;
}

static int bind_batch(void *context, void *const *addresses, const uint64_t (*dims)[SIDECAML_MAX_RANK], void **runner,
                      struct sidecaml_failure *why) {
    (void)context, (void)why;
    CHECK_EQ(dims[X][1], WIDTH);
    CHECK_EQ(dims[Y][0], dims[X][0]);
    CHECK_EQ(dims[Z][0], WIDTH);
    CHECK_EQ(dims[Z][1], dims[X][0]);
    if (model.binding) model.binding();
    if (model.bind_fails-- > 0) return -SIDECAML_E_NO_MEMORY;
    model.binds++;
    if (model.changes) *model.changes = 7;
    *runner = new_run(addresses, dims[X][0]);
    return 0;
}

static void drop_batch(void *runner) {
    model.drops++;
    free(runner);
}

/* --- Setting up -------------------------------------------------------------------------------------------------- */

static void make_layout(uint64_t rows) {
    struct sidecaml_tensor_spec specs[TENSORS] = {
        {.name = "x", .dtype = SIDECAML_FLOAT32, .rank = 2, .dynamic = true, .packed = true, .max_dims = {rows, WIDTH}},
        {.name = "rate", .dtype = SIDECAML_FLOAT32},
        {.name = "y",
         .dtype = SIDECAML_FLOAT32,
         .rank = 2,
         .output = true,
         .dynamic = true,
         .packed = true,
         .max_dims = {rows, WIDTH}},
        {.name = "z", .dtype = SIDECAML_FLOAT32, .rank = 2, .output = true, .dynamic = true, .max_dims = {WIDTH, rows}},
    };
    CHECK_EQ(sidecaml_layout_compute(specs, TENSORS, SLOTS, 77, &layout, NULL), 0);
}

static uint32_t rest_from; /* of all tests but those that set it: no batch needs z copied alone */

static void set_batching(uint32_t most, uint32_t gather_from, uint64_t cost_ns) {
    static const int32_t axes[TENSORS] = {0, SIDECAML_SHARED, 0, 1};
    uint64_t costs_ns[SIDECAML_MOST_BATCH + 1];
    struct sidecaml_failure why;
    for (uint32_t i = 0; i <= most; i++)
        costs_ns[i] = i * cost_ns;
    const struct sidecaml_batching batching = {.most = most,
                                               .gather_from = gather_from,
                                               .rest_from = rest_from,
                                               .tensor_count = TENSORS,
                                               .axes = axes,
                                               .costs_ns = costs_ns,
                                               .bind = bind_batch,
                                               .run = run_batch,
                                               .drop = drop_batch};
    if (sidecaml_worker_set_batching(worker, &batching, &why) < 0) check_failed(__FILE__, __LINE__, "%s", why.text);
}

static bool alone; /* in all tests but those that set it, requests may go into batches */

/* A runner for requests of so many rows, as a first request of its kind leaves it. */
static void bind_slot(int place, uint32_t slot, uint64_t rows) {
    const uint64_t dims[3][SIDECAML_MAX_RANK] = {{rows, WIDTH}, {rows, WIDTH}, {WIDTH, rows}};
    void *addresses[TENSORS];
    struct sidecaml_failure why;
    for (uint32_t t = 0; t < TENSORS; t++)
        addresses[t] = sidecaml_worker_tensor(worker, (uint32_t)place, slot, t);
    const struct sidecaml_bound bound = {
        .run = run_single, .context = new_run(addresses, rows), .drop = free, .dims = dims, .alone = alone};
    CHECK_EQ(sidecaml_worker_bind(worker, (uint32_t)place, slot, &bound, &why), 0);
}

static void bind_slots(int place, uint64_t rows) {
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        bind_slot(place, slot, rows);
}

static void open_channel_as(int i, uint32_t how, uint64_t rows) {
    make_layout(rows);
    channels[i] = pair_add_channel_as(worker, how, &layout, status_fd, SIDECAML_BLOCK, &places[i], &daemons[i]);
    bind_slots(places[i], rows);
}

static void open_channel(int i, uint64_t rows) {
    open_channel_as(i, 0, rows);
}

static void open_all(int count, uint32_t most, uint32_t gather_from, uint64_t cost_ns) {
    memset(&model, 0, sizeof model);
    worker = make_worker(SIDECAML_BLOCK, &status_fd, &control, &supervisor);
    set_batching(most, gather_from, cost_ns);
    for (int i = 0; i < count; i++)
        open_channel(i, 1);
}

static void close_all(int count) {
    sidecaml_worker_destroy(worker);
    for (int i = 0; i < count; i++) {
        sidecaml_channel_close(channels[i]);
        close(daemons[i]);
    }
    CHECK_EQ(model.binds, model.drops);
    close(control), close(supervisor), close(status_fd);
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

static void submit_by(int channel, float first, float rate, uint64_t deadline_ns) {
    int slot = sidecaml_channel_claim(channels[channel]);
    CHECK(slot >= 0);
    float *x = sidecaml_channel_tensor(channels[channel], (uint32_t)slot, X);
    for (int i = 0; i < WIDTH; i++)
        x[i] = first + (float)i;
    *(float *)sidecaml_channel_tensor(channels[channel], (uint32_t)slot, RATE) = rate;
    CHECK_EQ(sidecaml_channel_submit(channels[channel], deadline_ns), slot);
}

static void submit(int channel, float first) {
    submit_by(channel, first, 0.5f, 0);
}

static void check_outputs(int channel, uint32_t slot, float first, float rate) {
    const float *y = sidecaml_channel_tensor(channels[channel], slot, Y);
    const float *z = sidecaml_channel_tensor(channels[channel], slot, Z);
    for (int i = 0; i < WIDTH; i++) {
        CHECK(y[i] == first + (float)i + rate);
        CHECK(z[i] == 2 * (first + (float)i));
    }
}

static void check_answer(int channel, uint32_t slot, float first) {
    CHECK_EQ(sidecaml_channel_poll(channels[channel], slot), 0);
    check_outputs(channel, slot, first, 0.5f);
    CHECK_EQ(sidecaml_channel_release(channels[channel], slot), 0);
}

static int serve(struct sidecaml_request *request, struct sidecaml_failure *why) {
    return pair_serve(worker, 0, request, why);
}

static void serve_all(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    CHECK_EQ(serve(&request, &why), -SIDECAML_E_PENDING);
}

static const struct sidecaml_status_page *map_page(struct mapping *mapping) {
    CHECK_EQ(mapping_open(mapping, status_fd, false, false, "the page", NULL), 0);
    return (const void *)mapping->base;
}

/* --- Tests ------------------------------------------------------------------------------------------------------- */

static void a_single_request_runs_alone(void) {
    open_all(1, 4, 2, 0);
    submit(0, 10);
    serve_all();
    check_answer(0, 0, 10);
    CHECK_EQ(model.batches, 0);
    CHECK_EQ(model.singles, 1);
    close_all(1);
}

static void requests_of_a_channel_that_is_kept_apart_run_alone_until_its_time_is_over(void) {
    open_all(1, 8, 2, 0);
    open_channel_as(1, SIDECAML_ATTACH_ALONE, 1);
    struct served_channel *apart = worker->channels[places[1]];
    CHECK(apart->alone_until_ns > sidecaml_now_ns() + SIDECAML_ALONE_NS / 2);
    for (int time = 0; time < 2; time++) {
        for (int i = 0; i < 2; i++)
            submit(0, (float)(10 * i)), submit(1, (float)(100 * i));
        serve_all();
        for (uint32_t i = 0; i < 2; i++)
            check_answer(0, 2 * (uint32_t)time + i, (float)(10 * i)),
                check_answer(1, 2 * (uint32_t)time + i, (float)(100 * i));
        CHECK_EQ(model.singles, 2);
        CHECK_EQ(model.batches, 1 + time);
        CHECK_EQ(model.last_rows, time ? 4 : model.last_rows);
        apart->alone_until_ns = 1;
    }
    close_all(2);
}

static void neighbours_run_as_one_and_each_has_its_answer(void) {
    struct mapping mapping;
    open_all(1, 4, 2, 0);
    for (int i = 0; i < 6; i++)
        submit(0, (float)(10 * i));
    serve_all();
    for (uint32_t slot = 0; slot < 6; slot++)
        check_answer(0, slot, (float)(10 * slot));
    CHECK_EQ(model.batches, 2);
    CHECK_EQ(model.singles, 0);
    CHECK_EQ(model.last_rows, 2);
    const struct sidecaml_status_page *page = map_page(&mapping);
    CHECK_EQ(page->batches, 2);
    CHECK_EQ(page->batched, 6);
    CHECK_EQ(page->served, 6);
    mapping_close(&mapping);
    close_all(1);
}

/* x and y are packed, z's batch is not its first axis: it is copied. */
static void what_lies_as_one_is_bound_in_place_the_second_time(void) {
    open_all(1, 4, 2, 0);
    for (int round = 0; round < 2 * SLOTS / 4; round++) {
        for (int i = 0; i < 4; i++)
            submit(0, (float)i);
        serve_all();
        uint32_t first = (uint32_t)round * 4 % SLOTS;
        bool is_in_place = model.last[X] == sidecaml_worker_tensor(worker, (uint32_t)places[0], first, X) &&
                           model.last[Y] == sidecaml_worker_tensor(worker, (uint32_t)places[0], first, Y) &&
                           model.last[RATE] == sidecaml_worker_tensor(worker, (uint32_t)places[0], first, RATE);
        CHECK_EQ(is_in_place, round >= 2);
        CHECK(model.last[Z] != sidecaml_worker_tensor(worker, (uint32_t)places[0], first, Z));
        for (uint32_t i = 0; i < 4; i++)
            check_answer(0, first + i, (float)i);
    }
    CHECK_EQ(model.batches, 4);
    CHECK_EQ(model.binds, 3); /* one for copies, and one for each of the two places */
    close_all(1);
}

static void the_ends_of_the_ring_are_no_neighbours(void) {
    open_all(1, SLOTS, 2, 0);
    for (int i = 0; i < SLOTS - 2; i++)
        submit(0, 1);
    serve_all();
    for (uint32_t slot = 0; slot < SLOTS - 2; slot++)
        check_answer(0, slot, 1);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++)
            submit(0, (float)(100 * i)); /* slots 6, 7, 0, 1 the first time */
        serve_all();
        for (uint32_t i = 0; i < 4; i++)
            check_answer(0, (SLOTS - 2 + (uint32_t)round * 4 + i) % SLOTS, (float)(100 * i));
    }
    close_all(1);
}

static void without_copies_only_what_lies_as_one_is_batched(void) {
    open_all(2, 4, 0, 0); /* z would have to be copied */
    submit(0, 1), submit(0, 2), submit(1, 3);
    serve_all();
    check_answer(0, 0, 1), check_answer(0, 1, 2), check_answer(1, 0, 3);
    CHECK_EQ(model.batches, 0);
    CHECK_EQ(model.singles, 3);
    close_all(2);
}

static void check_run(int batches, int singles) {
    CHECK_EQ(model.batches, batches);
    CHECK_EQ(model.singles, singles);
    model.batches = model.singles = 0;
}

static void without_copies_the_rings_end_parts_a_run(void) {
    rest_from = 2;
    open_all(1, SLOTS, 0, 0);
    for (int i = 0; i < SLOTS - 3; i++)
        submit(0, 1);
    serve_all();
    for (uint32_t slot = 0; slot < SLOTS - 3; slot++)
        check_answer(0, slot, 1);
    check_run(1, 0);
    for (int i = 0; i < 6; i++)
        submit(0, (float)(100 * i)); /* slots 5, 6, 7, 0, 1, 2 */
    serve_all();
    for (uint32_t i = 0; i < 6; i++)
        check_answer(0, (SLOTS - 3 + i) % SLOTS, (float)(100 * i));
    check_run(2, 0);
    close_all(1);
    rest_from = 0;
}

static void too_few_for_copies_run_where_neighbours_lie(void) {
    struct mapping mapping;
    rest_from = 2;
    open_all(3, SLOTS, SLOTS, 0);
    const struct sidecaml_status_page *page = map_page(&mapping);
    for (int i = 0; i < 3; i++)
        submit(0, (float)(10 * i)), submit(2, (float)(20 * i));
    submit(1, 5);
    serve_all();
    for (uint32_t slot = 0; slot < 3; slot++)
        check_answer(0, slot, (float)(10 * slot)), check_answer(2, slot, (float)(20 * slot));
    check_answer(1, 0, 5);
    check_run(2, 1);
    CHECK_EQ(page->batched, 6);
    CHECK_EQ(page->served, 7);
    /* What is cancelled in the middle parts them. */
    for (int i = 0; i < 5; i++)
        submit(0, (float)i);
    CHECK_EQ(sidecaml_channel_abandon(channels[0], 5), 0);
    serve_all();
    for (uint32_t i = 0; i < 5; i++)
        if (i != 2) check_answer(0, (3 + i) % SLOTS, (float)i);
    check_run(2, 0);
    mapping_close(&mapping);
    close_all(3);
    rest_from = 0;
}

static void too_few_for_the_rest_run_one_by_one(void) {
    rest_from = 3;
    open_all(1, 4, 0, 0);
    submit(0, 1), submit(0, 2);
    serve_all();
    check_answer(0, 0, 1), check_answer(0, 1, 2);
    check_run(0, 2);
    submit(0, 1), submit(0, 2), submit(0, 3);
    serve_all();
    check_answer(0, 2, 1), check_answer(0, 3, 2), check_answer(0, 4, 3);
    check_run(1, 0);
    close_all(1);
    rest_from = 0;
}

static void too_few_for_copies_run_one_by_one(void) {
    open_all(1, 4, 3, 0);
    submit(0, 1), submit(0, 2);
    serve_all();
    check_answer(0, 0, 1), check_answer(0, 1, 2);
    CHECK_EQ(model.singles, 2);
    submit(0, 1), submit(0, 2), submit(0, 3);
    serve_all();
    CHECK_EQ(model.batches, 1);
    close_all(1);
}

static void channels_give_one_request_each_in_turn(void) {
    open_all(3, 4, 2, 0);
    for (int i = 0; i < 6; i++)
        submit(0, (float)i); /* the one that floods */
    submit(1, 50), submit(2, 60);
    struct sidecaml_request request;
    struct sidecaml_failure why;
    model.poison = 8; /* in the second batch: the others have been answered by then */
    CHECK_EQ(serve(&request, &why), 1);
    check_answer(1, 0, 50), check_answer(2, 0, 60);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, -SIDECAML_E_ENGINE, why.text), 0);
    serve_all();
    close_all(3);
}

static void an_item_that_fails_leaves_the_others_their_answers(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    open_all(2, 8, 2, 0);
    submit(0, 1), submit(1, 20), submit(0, 30), submit(1, 40);
    model.poison = 22; /* the third of the first of channel 1 */
    CHECK_EQ(serve(&request, &why), 1);
    CHECK_EQ(request.channel, places[1]);
    CHECK_EQ(request.slot, 0);
    CHECK_SAYS(why.text, "it is poison");
    /* Of channel 0 both are answered, of this one both failed together and the first is being run again. */
    CHECK_EQ(worker->channels[places[1]]->journal->failed, 2);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, -SIDECAML_E_ENGINE, why.text), 0);
    serve_all();
    check_answer(0, 0, 1), check_answer(0, 1, 30), check_answer(1, 1, 40);
    CHECK_EQ(sidecaml_channel_poll(channels[1], 0), -SIDECAML_E_ENGINE);
    CHECK_EQ(model.batches, 1);
    CHECK_EQ(model.singles, 4);
    close_all(2);
}

static void neighbours_of_which_one_fails_are_run_one_by_one(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    rest_from = 2;
    open_all(2, SLOTS, SLOTS, 0);
    submit(0, 1), submit(1, 20), submit(0, 30), submit(1, 40);
    model.poison = 32; /* the third of the second of channel 0 */
    CHECK_EQ(serve(&request, &why), 1);
    CHECK_EQ(request.channel, places[0]);
    CHECK_EQ(request.slot, 1);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, -SIDECAML_E_ENGINE, why.text), 0);
    serve_all();
    check_answer(0, 0, 1), check_answer(1, 0, 20), check_answer(1, 1, 40);
    CHECK_EQ(sidecaml_channel_poll(channels[0], 1), -SIDECAML_E_ENGINE);
    check_run(1, 4);
    close_all(2);
    rest_from = 0;
}

/* It comes again and again, and fails alone; the others go together. When so many have succeeded, its requests are in
 * batches again. */
static void who_failed_spoils_no_further_batches(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    open_all(2, 8, 2, 0);
    model.poison = 22;
    for (uint32_t round = 0; round < 3; round++) {
        submit(0, 1), submit(1, 20), submit(0, 30);
        CHECK_EQ(serve(&request, &why), 1);
        CHECK_EQ(request.channel, places[1]);
        CHECK_EQ(sidecaml_worker_complete(worker, &request, -SIDECAML_E_ENGINE, why.text), 0);
        serve_all();
        check_answer(0, 2 * round, 1), check_answer(0, 2 * round + 1, 30);
        CHECK_EQ(sidecaml_channel_release(channels[1], round), 0);
        CHECK_EQ(model.batches, 1 + (int)round);
        CHECK_EQ(model.singles, 3 + (int)round);
        CHECK_EQ(model.last_rows, round ? 2 : 3);
    }
    for (uint32_t i = 3; i < 3 + 64; i++) {
        submit(1, 1);
        serve_all();
        CHECK_EQ(sidecaml_channel_release(channels[1], i % SLOTS), 0);
    }
    submit(0, 1), submit(1, 1), submit(0, 1);
    serve_all();
    CHECK_EQ(model.last_rows, 3);
    close_all(2);
}

/* Channel 0 has two requests and channel 1 one; whether the latter had a part in the batch. */
static bool has_a_part(void) {
    int batches = model.batches;
    submit(0, 1), submit(1, 1), submit(0, 1);
    serve_all();
    CHECK_EQ(model.batches, batches + 1);
    return model.last_rows == 3;
}

static uint64_t until_ns;

static void wait_until(void) {
    while (sidecaml_now_ns() < until_ns)
        ;
}

/* The batch takes all the time that it has. */
static void nor_does_who_is_too_late_by_then(void) {
    open_all(2, 8, 2, 0);
    model.poison = 22;
    model.during = wait_until;
    until_ns = sidecaml_now_ns() + 40 * LONG_NS;
    submit(0, 1), submit(0, 30), submit_by(1, 20, 0.5f, until_ns - 1);
    serve_all();
    CHECK_EQ(sidecaml_channel_poll(channels[1], 0), -SIDECAML_E_DEADLINE);
    check_answer(0, 0, 1), check_answer(0, 1, 30);
    CHECK_EQ(model.batches, 1);
    CHECK(!has_a_part());
    close_all(2);
}

static void take_the_poison_back(void) {
    float *x = sidecaml_channel_tensor(channels[1], 0, X);
    x[2] = 1;
}

static void nor_does_who_changes_its_inputs_then(void) {
    open_all(2, 8, 2, 0);
    model.poison = 22;
    model.during = take_the_poison_back;
    submit(0, 1), submit(0, 30), submit(1, 20);
    serve_all();
    model.during = NULL;
    CHECK_EQ(model.batches, 1);
    CHECK_EQ(model.singles, 3);
    CHECK(!has_a_part());
    close_all(2);
}

/* Each of the requests succeeds: it is tried again after as many as for which anybody is kept out. */
static void batches_that_fail_for_nothing_are_not_tried_over_and_over(void) {
    open_all(2, 8, 2, 0);
    model.fails_batches = true;
    for (uint32_t i = 0; i < 65; i++) {
        CHECK_EQ(model.batches, i > 0);
        submit(0, 1), submit(1, 1);
        serve_all();
        check_answer(0, i % SLOTS, 1), check_answer(1, i % SLOTS, 1);
    }
    model.fails_batches = false;
    submit(0, 1), submit(1, 1);
    serve_all();
    CHECK_EQ(model.batches, 2);
    close_all(2);
}

/* What it takes is there again some time. */
static void after_binding_a_batch_has_failed_it_is_tried_again(void) {
    open_all(1, 8, 2, 0);
    model.bind_fails = 1;
    submit(0, 1), submit(0, 2);
    serve_all();
    check_answer(0, 0, 1), check_answer(0, 1, 2);
    for (uint32_t i = 2; i < 2 + 1024; i += 2) {
        submit(0, 1), submit(0, 2);
        serve_all();
        check_answer(0, i % SLOTS, 1), check_answer(0, (i + 1) % SLOTS, 2);
    }
    CHECK_EQ(model.batches, 0);
    submit(0, 1), submit(0, 2);
    serve_all();
    CHECK_EQ(model.batches, 1);
    close_all(1);
}

static void inputs_that_are_shared_must_be_equal(void) {
    open_all(1, 8, 2, 0);
    submit_by(0, 1, 0.5f, 0), submit_by(0, 2, 0.5f, 0), submit_by(0, 3, 0.25f, 0), submit_by(0, 4, 0.25f, 0);
    serve_all();
    CHECK_EQ(model.batches, 2);
    CHECK_EQ(model.singles, 0);
    check_answer(0, 0, 1), check_answer(0, 1, 2);
    check_outputs(0, 2, 3, 0.25f), check_outputs(0, 3, 4, 0.25f);
    close_all(1);
}

static void who_changes_a_shared_input_meanwhile_changes_no_other_answer(void) {
    open_all(2, 8, 2, 0);
    submit(0, 1), submit(1, 20);
    model.changes = sidecaml_channel_tensor(channels[0], 0, RATE);
    serve_all();
    CHECK_EQ(model.binds, 1);
    CHECK_EQ(model.batches, 0);
    CHECK_EQ(model.singles, 2);
    check_answer(1, 0, 20);
    check_outputs(0, 0, 1, 7);
    close_all(2);
}

static bool has_post(int channel) {
    struct pollfd answer = {.fd = sidecaml_channel_answer_fd(channels[channel]), .events = POLLIN};
    return poll(&answer, 1, 0) == 1;
}

static void what_is_taken_has_no_runner_any_more_when_its_slot_is_bound_anew(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    open_all(1, 8, 2, 0);
    submit(0, 1), submit(0, 20);
    model.poison = 2;
    CHECK_EQ(serve(&request, &why), 1);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, -SIDECAML_E_ENGINE, why.text), 0);
    CHECK_EQ(sidecaml_worker_bind(worker, (uint32_t)places[0], 1, NULL, &why), 0);
    CHECK_EQ(serve(&request, &why), 1);
    CHECK_EQ(request.slot, 1);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, 0, NULL), 0);
    close_all(1);
}

static void a_channel_that_ends_leaves_the_others_their_part_in_batches(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    open_all(3, 8, 2, 0);
    submit(0, 1), submit(1, 20), submit(2, 30);
    model.poison = 2; /* of channel 0, which ends before the others of its batch have run */
    CHECK_EQ(serve(&request, &why), 1);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, -SIDECAML_E_ENGINE, why.text), 0);
    CHECK_EQ(sidecaml_worker_detach(worker, (uint32_t)places[0]), 0);
    serve_all();
    check_answer(1, 0, 20), check_answer(2, 0, 30);
    submit(1, 40), submit(2, 50);
    CHECK_EQ(sidecaml_channel_arm(channels[1], 1), 0);
    CHECK_EQ(sidecaml_channel_arm(channels[2], 1), 0);
    serve_all();
    CHECK_EQ(model.batches, 2);
    for (int i = 1; i < 3; i++) {
        CHECK(has_post(i));
        sidecaml_channel_disarm(channels[i]);
    }
    check_answer(1, 1, 40), check_answer(2, 1, 50);
    close_all(3);
}

/* Channels 0 and 2 have more than enough for every batch, and channel 1 something that does not go with it. */
static void who_is_passed_over_comes_first_in_the_next_run(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    open_all(3, 4, 2, 0);
    CHECK_EQ(sidecaml_worker_bind(worker, (uint32_t)places[1], 0, NULL, &why), 0);
    for (int i = 0; i < SLOTS; i++)
        submit(0, (float)i), submit(2, (float)i);
    submit(1, 1);
    CHECK_EQ(serve(&request, &why), 1);
    CHECK_EQ(request.channel, places[1]);
    CHECK_EQ(model.batches, 1);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, 0, NULL), 0);
    serve_all();
    close_all(3);
}

/* While the first channel's batch is formed, more other kinds are looked at than are remembered. */
static void kinds_that_are_pushed_out_are_forgotten_but_for_the_one_that_is_formed(void) {
    open_all(1, 2 * CHANNELS, 2, 0);
    for (int i = 1; i < CHANNELS; i++)
        open_channel(i, (uint64_t)i + 1);
    for (int round = 0; round < 3; round++) {
        int batches = model.batches;
        submit(0, 1), submit(0, 2);
        for (int i = 1; i < CHANNELS; i++)
            submit(i, (float)i);
        serve_all();
        CHECK_EQ(model.batches, batches + 1);
        for (uint32_t k = 0; k < 2; k++)
            check_answer(0, 2 * (uint32_t)round + k, (float)k + 1);
        for (int i = 1; i < CHANNELS; i++) {
            const float *y = sidecaml_channel_tensor(channels[i], (uint32_t)round, Y);
            CHECK_EQ(sidecaml_channel_poll(channels[i], (uint32_t)round), 0);
            CHECK(y[1] == (float)i + 1.5f);
            CHECK_EQ(sidecaml_channel_release(channels[i], (uint32_t)round), 0);
        }
    }
    close_all(CHANNELS);
}

static void ask_for(int channel, uint64_t rows) {
    int slot = sidecaml_channel_claim(channels[channel]);
    const uint64_t dims[] = {rows, WIDTH};
    CHECK_EQ(sidecaml_channel_set_dims(channels[channel], (uint32_t)slot, X, dims, 2), 0);
    bind_slot(places[channel], (uint32_t)slot, rows);
    CHECK_EQ(sidecaml_channel_submit(channels[channel], 0), slot);
    serve_all();
    CHECK_EQ(sidecaml_channel_poll(channels[channel], (uint32_t)slot), 0);
    CHECK_EQ(sidecaml_channel_release(channels[channel], (uint32_t)slot), 0);
}

/* For more than are remembered. */
static void who_asks_for_ever_new_dims_pushes_out_its_own(void) {
    open_all(1, 4, 2, 0);
    open_channel(1, 2 * BATCH_KINDS);
    for (uint32_t round = 0; round < 2; round++) {
        submit(0, 1), submit(0, 2);
        serve_all();
        check_answer(0, 2 * round, 1), check_answer(0, 2 * round + 1, 2);
        CHECK_EQ(model.batches, 1 + (int)round);
        CHECK_EQ(model.drops, 0);
        for (uint64_t rows = 2; rows <= 2 * BATCH_KINDS; rows++)
            ask_for(1, rows);
    }
    close_all(2);
}

static void ask_together(uint64_t rows) {
    for (int i = 0; i < 2; i++) {
        int slot = sidecaml_channel_claim(channels[i]);
        const uint64_t dims[] = {rows, WIDTH};
        CHECK_EQ(sidecaml_channel_set_dims(channels[i], (uint32_t)slot, X, dims, 2), 0);
        bind_slot(places[i], (uint32_t)slot, rows);
        CHECK_EQ(sidecaml_channel_submit(channels[i], 0), slot);
    }
    serve_all();
    for (int i = 0; i < 2; i++)
        for (uint32_t slot = 0; slot < SLOTS; slot++)
            sidecaml_channel_release(channels[i], slot);
}

static void and_none_of_those_that_several_use(void) {
    open_all(0, 64, 2, 0);
    for (int i = 0; i < 3; i++)
        open_channel(i, 2 * BATCH_KINDS);
    for (int round = 1; round < 3; round++) {
        for (uint64_t rows = BATCH_KINDS - 4; rows > 0; rows--) /* the largest first: memory does not move */
            ask_together(rows);
        CHECK_EQ(model.batches, round * (BATCH_KINDS - 4));
        CHECK_EQ(model.drops, 0);
        for (uint64_t rows = BATCH_KINDS; rows <= 2 * BATCH_KINDS; rows++)
            ask_for(2, rows);
    }
    close_all(3);
}

/* Others that are alive for longer than that push them out at last. */
static void what_has_not_run_for_long_makes_way(void) {
    open_all(0, 64, 2, 0);
    for (int i = 0; i < 3; i++)
        open_channel(i, 2 * BATCH_KINDS);
    for (uint64_t rows = BATCH_KINDS - 1; rows > 0; rows--)
        ask_together(rows);
    for (int i = 0; i < 1100; i++)
        ask_for(2, BATCH_KINDS + (uint64_t)i % 3);
    CHECK(model.drops >= 2);
    int drops = model.drops;
    for (int i = 0; i < 100; i++)
        ask_for(2, BATCH_KINDS + (uint64_t)i % 3);
    CHECK_EQ(model.drops, drops);
    close_all(3);
}

/* Channels 0 and 2 always have more than goes into a run; what comes meanwhile is a short run of its own, but not twice
 * in a row. */
static void who_asks_for_little_does_not_wait_for_those_who_flood(void) {
    open_all(3, 8, 2, 1000000000);
    for (int i = 0; i < 8; i++)
        submit(0, (float)i), submit(2, (float)i);
    model.late = 2;
    serve_all();
    static const uint64_t wanted[] = {8, 1, 8, 1};
    CHECK_EQ(model.runs, 4);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(model.rows[i], wanted[i]);
    check_answer(1, 0, 1), check_answer(1, 1, 0);
    for (uint32_t i = 0; i < 8; i++)
        check_answer(0, i, (float)i), check_answer(2, i, (float)i);
    close_all(3);
}

#define GENTLE 8
static int heavy_runs, heavy_answered_in;

/* Eight clients that always have three requests under way, more than go into a run; and the eighth request of channel
 * 0, which comes in the run of its first seven. */
static void keep_gentle_ones_busy(void) {
    heavy_runs++;
    if (heavy_runs == 1) submit(0, 7);
    if (heavy_answered_in == 0 && sidecaml_channel_poll(channels[0], 7) == 0) heavy_answered_in = heavy_runs;
    for (int c = 1; c <= GENTLE && heavy_runs < 50; c++) {
        int under_way = 0;
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            int result = sidecaml_channel_poll(channels[c], slot);
            if (result == 0) sidecaml_channel_release(channels[c], slot);
            under_way += result == -SIDECAML_E_PENDING;
        }
        for (; under_way < 3; under_way++)
            submit(c, 1);
    }
}

static void check_who_asked_for_much(uint64_t cost_ns) {
    open_all(GENTLE + 1, 8, 2, cost_ns);
    heavy_runs = heavy_answered_in = 0;
    model.during = keep_gentle_ones_busy;
    for (int i = 0; i < 7; i++)
        submit(0, (float)i);
    serve_all();
    CHECK(heavy_answered_in > 0 && heavy_answered_in <= 6);
    close_all(GENTLE + 1);
}

static void who_asked_for_much_has_its_turn_however_many_ask_for_little(void) {
    check_who_asked_for_much(0);
    check_who_asked_for_much(1000000000);
}

/* Channels that flood with requests that do not go together. Runs of the last channel's, of two rows each, take 50
 * times as long; it has one at a time, and the next only in the second run after its answer. The others have `window`
 * new ones in each run that is theirs, and their x says whose. */
#define LIGHT_NS 20000
#define HEAVY 1000
static struct {
    int channels, window, idle, heavy_runs;
    bool copies;
    uint64_t light_ns, heavy_ns, longest_ns;
} unlike;

static int release_answers(int channel) {
    int under_way = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        int result = sidecaml_channel_poll(channels[channel], slot);
        if (result == 0) sidecaml_channel_release(channels[channel], slot);
        under_way += result == -SIDECAML_E_PENDING;
    }
    return under_way;
}

static void submit_unlike(bool is_heavy, int whose) {
    int heavy = unlike.channels - 1;
    for (int c = 0; c < heavy && !is_heavy; c++) {
        release_answers(c);
        for (int i = 0; i < unlike.window && (unlike.copies || c == whose); i++)
            submit(c, (float)c);
    }
    if (!is_heavy && release_answers(heavy) == 0 && unlike.idle-- <= 0) submit(heavy, HEAVY);
}

static void flood_unlike(void) {
    bool is_heavy = model.x[0] == HEAVY;
    uint64_t began = sidecaml_now_ns();
    if (unlike.heavy_runs < 20) submit_unlike(is_heavy, (int)model.x[0]);
    while (sidecaml_now_ns() - began < (is_heavy ? 50 * LIGHT_NS : LIGHT_NS))
        ;
    uint64_t took_ns = sidecaml_now_ns() - began;
    if (is_heavy) unlike.idle = 1;
    unlike.heavy_runs += is_heavy;
    *(is_heavy ? &unlike.heavy_ns : &unlike.light_ns) += took_ns;
    if (took_ns > unlike.longest_ns) unlike.longest_ns = took_ns;
}

/* `parts`: of the engine's time that the light ones are due, beside one part of the heavy one. */
static bool is_fair(int count, int window, uint32_t gather_from, int parts) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    memset(&unlike, 0, sizeof unlike);
    unlike.channels = count;
    unlike.window = window;
    unlike.copies = gather_from && !alone;
    open_all(count - 1, 8, gather_from, 0);
    open_channel(count - 1, 2);
    model.during = flood_unlike;
    for (int i = 0; i < count; i++)
        submit(i, i == count - 1 ? HEAVY : (float)i);
    CHECK_EQ(serve(&request, &why), -SIDECAML_E_PENDING);
    CHECK(unlike.heavy_runs >= 20);
    uint64_t total_ns = unlike.light_ns + unlike.heavy_ns, spare_ns = 2 * unlike.longest_ns + total_ns / 10;
    close_all(count);
    return unlike.light_ns + spare_ns >= total_ns * (uint64_t)parts / (uint64_t)(parts + 1) &&
           unlike.heavy_ns + spare_ns >= total_ns / (uint64_t)(parts + 1);
}

/* What is measured here is not all that the worker measures, where this thread is not run in between. */
static void check_unlike(int count, int window, uint32_t gather_from, int parts) {
    for (int tries = 0; !is_fair(count, window, gather_from, parts); tries++)
        CHECK(tries < 5);
}

static void channels_whose_requests_do_not_go_together_have_equal_time(void) {
    check_unlike(2, 1, 2, 1);
    check_unlike(2, 4, 2, 1);
}

/* Those that run together have as much as each would have by itself. */
static void so_have_several_beside_one(void) {
    check_unlike(3, 3, 2, 2);
}

static void and_those_whose_requests_all_run_alone(void) {
    alone = true;
    check_unlike(2, 1, 2, 1);
    check_unlike(3, 1, 2, 2);
    alone = false;
}

static void hold_two_rows_up(void) {
    uint64_t until = sidecaml_now_ns() + 20 * LONG_NS; /* longer than anything else, should the machine stand still */
    while (model.rows[model.runs - 1] == 2 && sidecaml_now_ns() < until)
        ;
}

static void check_rows(const uint64_t *wanted, int count) {
    CHECK_EQ(model.runs, count);
    for (int i = 0; i < count; i++)
        CHECK_EQ(model.rows[i], wanted[i]);
}

/* Channel 0 has nothing but requests that come too late. Its turn goes to channel 2, and not to 1, which owes. */
static void the_turn_of_who_is_refused_goes_to_who_is_in_credit(void) {
    static const uint64_t wanted[] = {2, 1, 1, 2};
    open_all(1, 8, 2, 0);
    open_channel(1, 2), open_channel(2, 1);
    model.during = hold_two_rows_up;
    submit(1, 1), submit(2, 1);
    serve_all();
    submit_by(0, 1, 0.5f, 1), submit(1, 1), submit(2, 1);
    serve_all();
    check_rows(wanted, 4);
    CHECK_EQ(sidecaml_channel_poll(channels[0], 0), -SIDECAML_E_DEADLINE);
    close_all(3);
}

static void nobody_is_forgiven_for_the_looks_of_an_idle_worker(void) {
    static const uint64_t wanted[] = {2, 1, 2, 1, 2};
    open_all(1, 8, 2, 0);
    open_channel(1, 2);
    model.during = hold_two_rows_up;
    submit(1, 1);
    serve_all();
    for (int round = 0; round < 2; round++) {
        submit(0, 1), submit(1, 1);
        for (int look = 0; look < 200; look++)
            serve_all();
    }
    check_rows(wanted, 5);
    close_all(2);
}

static void and_where_nothing_is_copied(void) {
    check_unlike(2, 1, 0, 1);
    check_unlike(3, 1, 0, 2);
}

/* Where a full run takes hardly longer than a short one, nothing is gained. */
static void where_that_saves_no_time_they_run_with_the_others(void) {
    open_all(3, 8, 2, 0);
    for (int i = 0; i < 8; i++)
        submit(0, (float)i), submit(2, (float)i);
    model.late = 1;
    serve_all();
    CHECK_EQ(model.runs, 3);
    CHECK_EQ(model.rows[0], 8);
    CHECK_EQ(model.rows[1], 8);
    CHECK_EQ(model.rows[2], 1);
    close_all(3);
}

static void what_is_run_one_by_one_is_busy_no_longer_than_that(void) {
    struct mapping mapping;
    uint64_t before = sidecaml_now_ns();
    open_all(2, 8, 4, 0); /* three are too few to be copied; with two channels runs are timed */
    submit(0, 1), submit(0, 2), submit(0, 3);
    serve_all();
    const struct sidecaml_status_page *page = map_page(&mapping);
    CHECK_EQ(model.singles, 3);
    CHECK(page->busy_ns <= sidecaml_now_ns() - before);
    mapping_close(&mapping);
    close_all(2);
}

static void take_time(void);

/* So is binding them, which this one does for long. */
static void copies_are_time_on_the_engine(void) {
    struct mapping mapping;
    open_all(2, 8, 2, 0);
    const struct sidecaml_status_page *page = map_page(&mapping);
    model.binding = take_time;
    submit(0, 1), submit(1, 2);
    serve_all();
    CHECK_EQ(model.batches, 1);
    CHECK(page->busy_ns >= LONG_NS);
    mapping_close(&mapping);
    close_all(2);
}

static void a_slot_without_a_runner_joins_those_that_have_one(void) {
    struct sidecaml_failure why;
    open_all(1, 8, 2, 0);
    CHECK_EQ(sidecaml_worker_bind(worker, 0, 2, NULL, &why), 0);
    for (int i = 0; i < 5; i++)
        submit(0, (float)i);
    serve_all();
    for (int i = 0; i < 5; i++)
        check_answer(0, (uint32_t)i, (float)i);
    CHECK_EQ(model.batches, 1);
    close_all(1);
}

static void without_a_runner_a_request_that_runs_alone_is_the_callers_and_in_its_turn(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    open_all(1, 8, 2, 0);
    CHECK_EQ(sidecaml_worker_bind(worker, 0, 2, NULL, &why), 0);
    model.poison = 40;
    for (int i = 0; i < 5; i++)
        submit(0, 10.0f * (float)i);
    CHECK_EQ(serve(&request, &why), 1);
    CHECK_EQ(request.slot, 2);
    CHECK_EQ(why.code, 0);
    check_answer(0, 0, 0), check_answer(0, 1, 10);
    CHECK_EQ(sidecaml_channel_poll(channels[0], 3), -SIDECAML_E_PENDING);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, 0, NULL), 0);
    CHECK_EQ(serve(&request, &why), 1);
    check_answer(0, 3, 30);
    CHECK_EQ(request.slot, 4);
    CHECK_EQ(why.code, SIDECAML_E_ENGINE);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, -SIDECAML_E_ENGINE, why.text), 0);
    CHECK_EQ(model.batches, 1);
    close_all(1);
}

static void what_is_cancelled_or_given_up_in_a_batch_is_free_again(void) {
    open_all(1, 8, 2, 0);
    for (int i = 0; i < 4; i++)
        submit(0, (float)i);
    CHECK_EQ(sidecaml_channel_abandon(channels[0], 1), 0);
    serve_all();
    CHECK_EQ(model.last_rows, 3);
    check_answer(0, 0, 0), check_answer(0, 2, 2), check_answer(0, 3, 3);
    CHECK_EQ(sidecaml_channel_claim(channels[0]), 4);
    close_all(1);
}

/* --- Deadlines --- */

static void what_cannot_make_its_deadline_is_refused_and_not_run(void) {
    struct mapping mapping;
    char text[SIDECAML_MESSAGE_BYTES + 1];
    open_all(1, 4, 2, FAR_NS);
    submit_by(0, 1, 0.5f, sidecaml_now_ns() + FAR_NS / 2);
    submit_by(0, 2, 0.5f, 1); /* long past */
    submit(0, 3);
    serve_all();
    CHECK_EQ(sidecaml_channel_poll(channels[0], 0), -SIDECAML_E_DEADLINE);
    sidecaml_channel_message(channels[0], 0, text, sizeof text);
    CHECK_SAYS(text, "deadline");
    CHECK_EQ(sidecaml_channel_poll(channels[0], 1), -SIDECAML_E_DEADLINE);
    check_answer(0, 2, 3);
    CHECK_EQ(model.batches, 0);
    CHECK_EQ(model.singles, 1);
    const struct sidecaml_status_page *page = map_page(&mapping);
    CHECK_EQ(page->refused, 2);
    CHECK_EQ(page->failed, 2);
    mapping_close(&mapping);
    close_all(1);
}

static void a_batch_is_closed_in_time_for_its_earliest_deadline(void) {
    open_all(1, 8, 2, FAR_NS);
    submit(0, 1);
    submit_by(0, 2, 0.5f, sidecaml_now_ns() + 5 * FAR_NS / 2); /* two fit, a third does not */
    submit(0, 3);
    serve_all();
    CHECK_EQ(model.batches, 1);
    CHECK_EQ(model.last_rows, 2);
    CHECK_EQ(model.singles, 1);
    check_answer(0, 0, 1), check_answer(0, 1, 2), check_answer(0, 2, 3);
    close_all(1);
}

/* The first is refused, so those that wait behind it need the time of a full run, which is four. */
static void when_too_much_waits_who_has_no_time_for_a_full_run_is_refused(void) {
    open_all(1, 4, 2, FAR_NS);
    uint64_t now = sidecaml_now_ns();
    submit_by(0, 1, 0.5f, now + FAR_NS / 2);
    submit_by(0, 2, 0.5f, now + 3 * FAR_NS);
    submit_by(0, 3, 0.5f, now + 6 * FAR_NS);
    submit_by(0, 4, 0.5f, now + 7 * FAR_NS);
    serve_all();
    CHECK_EQ(sidecaml_channel_poll(channels[0], 0), -SIDECAML_E_DEADLINE);
    CHECK_EQ(sidecaml_channel_poll(channels[0], 1), -SIDECAML_E_DEADLINE);
    check_answer(0, 2, 3), check_answer(0, 3, 4);
    CHECK_EQ(model.last_rows, 2);
    /* Nothing waits any more: the time for one run is enough. */
    submit_by(0, 5, 0.5f, sidecaml_now_ns() + 2 * FAR_NS);
    serve_all();
    check_answer(0, 4, 5);
    close_all(1);
}

static void that_is_a_channels_own_affair(void) {
    open_all(3, 4, 2, FAR_NS);
    submit_by(0, 1, 0.5f, 1);
    submit_by(1, 1, 0.5f, sidecaml_now_ns() + FAR_NS / 2);
    submit_by(2, 2, 0.5f, sidecaml_now_ns() + 3 * FAR_NS);
    serve_all();
    CHECK_EQ(sidecaml_channel_poll(channels[0], 0), -SIDECAML_E_DEADLINE);
    CHECK_EQ(sidecaml_channel_poll(channels[1], 0), -SIDECAML_E_DEADLINE);
    check_answer(2, 0, 2);
    close_all(3);
}

/* The estimate of four is four times FAR_NS. Of as many requests at most as there are slots the time for that is
 * wanted.
 */
static void a_wrong_estimate_of_a_full_run_does_not_refuse_for_ever(void) {
    open_all(1, 4, 2, FAR_NS);
    uint64_t now = sidecaml_now_ns();
    submit_by(0, 0, 0.5f, now + FAR_NS / 2);
    for (int i = 1; i < SLOTS; i++)
        submit_by(0, (float)i, 0.5f, now + 7 * FAR_NS / 2);
    serve_all();
    for (uint32_t i = 1; i < SLOTS; i++)
        CHECK_EQ(sidecaml_channel_poll(channels[0], i), -SIDECAML_E_DEADLINE);
    CHECK_EQ(sidecaml_channel_release(channels[0], 0), 0);
    submit_by(0, 7, 0.5f, sidecaml_now_ns() + 7 * FAR_NS / 2);
    serve_all();
    check_answer(0, 0, 7);
    close_all(1);
}

static void take_time(void) {
    uint64_t until = sidecaml_now_ns() + LONG_NS;
    while (sidecaml_now_ns() < until)
        ;
}

/* The batch fails, and takes all the time that its last request has: those before it have enough. */
static void after_a_batch_that_failed_deadlines_are_looked_at_again(void) {
    struct sidecaml_stamps stamps;
    struct sidecaml_request request;
    struct sidecaml_failure why;
    struct mapping mapping;
    open_all(1, 4, 2, 1);
    sidecaml_channel_set_stamps(channels[0], true);
    model.during = wait_until;
    until_ns = sidecaml_now_ns() + 40 * LONG_NS;
    submit_by(0, 40, 0.5f, 0);
    submit_by(0, 1, 0.5f, sidecaml_now_ns() + FAR_NS);
    submit_by(0, 2, 0.5f, until_ns - 1);
    model.poison = 40;
    CHECK_EQ(serve(&request, &why), 1);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, -SIDECAML_E_ENGINE, why.text), 0);
    int singles = model.singles;
    serve_all();
    CHECK_EQ(model.batches, 1);
    CHECK_EQ(model.singles, singles + 1);
    CHECK_EQ(sidecaml_channel_poll(channels[0], 2), -SIDECAML_E_DEADLINE);
    CHECK_EQ(sidecaml_channel_stamps(channels[0], 2, &stamps), 0);
    CHECK(stamps.seen_ns > 0);
    CHECK_EQ(stamps.started_ns, 0);
    check_answer(0, 1, 1);
    CHECK_EQ(((const struct sidecaml_status_page *)map_page(&mapping))->refused, 1);
    mapping_close(&mapping);
    close_all(1);
}

static uint64_t running_ns[4];
static const struct sidecaml_status_page *watched;

static void note_running(void) {
    running_ns[model.runs - 1] = watched->running_ns;
    take_time();
}

/* Else both would be one that takes too long. */
static void after_a_batch_that_failed_another_run_begins(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    struct mapping mapping;
    open_all(1, 4, 2, 1);
    watched = map_page(&mapping);
    model.during = note_running;
    model.poison = 40;
    submit(0, 40), submit(0, 1);
    CHECK_EQ(serve(&request, &why), 1);
    CHECK_EQ(model.runs, 2);
    CHECK(running_ns[0] && running_ns[0] < running_ns[1]);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, -SIDECAML_E_ENGINE, why.text), 0);
    serve_all();
    CHECK(watched->busy_ns >= 3 * LONG_NS - LONG_NS / 2); /* to ticks */
    CHECK_EQ(watched->running_ns, 0);
    mapping_close(&mapping);
    close_all(1);
}

static void *submit_too_late_for_ever(void *stop) {
    while (!atomic_load((atomic_bool *)stop)) {
        int slot = sidecaml_channel_claim(channels[0]);
        if (slot >= 0)
            sidecaml_channel_submit(channels[0], 1);
        else
            sched_yield();
        for (uint32_t i = 0; i < SLOTS; i++)
            sidecaml_channel_release(channels[0], i);
    }
    return NULL;
}

static void requests_that_come_too_late_without_end_hold_nobody_up(void) {
    pthread_t flood;
    atomic_bool stop = false;
    struct sidecaml_request request;
    struct sidecaml_failure why;
    struct mapping mapping;
    open_all(1, 4, 2, 0);
    const struct sidecaml_status_page *page = map_page(&mapping);
    CHECK_EQ(pthread_create(&flood, NULL, submit_too_late_for_ever, &stop), 0);
    while (page->refused < 500) {
        uint64_t before = page->refused;
        int status = sidecaml_worker_serve(worker, 0, &request, &why);
        CHECK(status == -SIDECAML_E_PENDING || status == -SIDECAML_E_AGAIN); /* this thread was not run for its turn */
        CHECK(page->refused - before <= SIDECAML_MAX_SLOTS + 32);
    }
    atomic_store(&stop, true);
    pthread_join(flood, NULL);
    mapping_close(&mapping);
    close_all(1);
}

/* The estimate is doubted by those that it refused, not by those that came too late. */
static void a_request_that_came_too_late_says_nothing_of_how_long_runs_take(void) {
    open_all(1, 4, 2, FAR_NS);
    for (uint32_t i = 0; i < 100; i++) {
        submit_by(0, 1, 0.5f, 1);
        serve_all();
        CHECK_EQ(sidecaml_channel_release(channels[0], i % SLOTS), 0);
    }
    submit_by(0, 1, 0.5f, sidecaml_now_ns() + FAR_NS / 2);
    serve_all();
    CHECK_EQ(model.singles, 0);
    close_all(1);
}

static int outcome_of(uint32_t i, uint64_t time_ns) {
    submit_by(0, 1, 0.5f, sidecaml_now_ns() + time_ns);
    serve_all();
    int outcome = sidecaml_channel_poll(channels[0], i % SLOTS);
    CHECK_EQ(sidecaml_channel_release(channels[0], i % SLOTS), 0);
    return outcome;
}

static void a_wrong_estimate_does_not_refuse_for_ever(void) {
    open_all(1, 4, 2, LONG_NS);
    uint64_t end = sidecaml_now_ns() + 100 * (uint64_t)LONG_NS;
    uint32_t refused = 0;
    int outcome;
    while ((outcome = outcome_of(refused, LONG_NS / 4)) != 0) {
        CHECK_EQ(outcome, -SIDECAML_E_DEADLINE);
        CHECK(sidecaml_now_ns() < end);
        refused++;
    }
    CHECK(refused > 0);
    close_all(1);
}

static void an_estimate_of_one_is_put_right_by_batches(void) {
    open_all(1, 4, 2, FAR_NS);
    CHECK_EQ(outcome_of(0, FAR_NS / 2), -SIDECAML_E_DEADLINE);
    for (int i = 0; i < 3; i++)
        submit_by(0, 1, 0.5f, sidecaml_now_ns() + 6 * FAR_NS);
    serve_all();
    CHECK_EQ(model.batches, 1);
    for (uint32_t i = 1; i < 4; i++)
        CHECK_EQ(sidecaml_channel_release(channels[0], i), 0);
    CHECK_EQ(outcome_of(4, FAR_NS / 2), 0);
    close_all(1);
}

/* Two refusals of each of eight channels, with half of the estimate's time between them: how many were refused. It is
 * a guess, and a doubt halves it. */
static int count_refused(uint64_t estimate_ns, uint64_t *took_ns) {
    int refused = 0;
    open_all(8, 4, 2, estimate_ns);
    uint64_t began = sidecaml_now_ns();
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 8; i++)
            submit_by(i, 1, 0.5f, sidecaml_now_ns() + estimate_ns / 4);
        serve_all();
        *took_ns = sidecaml_now_ns() - began;
        while (!round && sidecaml_now_ns() - began < estimate_ns + estimate_ns / 20)
            ;
    }
    for (int i = 0; i < 8; i++)
        for (uint32_t slot = 0; slot < 2; slot++)
            refused += sidecaml_channel_poll(channels[i], slot) == -SIDECAML_E_DEADLINE;
    close_all(8);
    return refused;
}

/* One doubt at most, and so nothing is run. */
static void an_estimate_is_doubted_once_however_many_channels_share_it(void) {
    uint64_t estimate_ns = 4 * (uint64_t)LONG_NS, took_ns;
    int refused = count_refused(estimate_ns, &took_ns);
    for (int tries = 0; tries < 5 && took_ns > estimate_ns + estimate_ns / 4; tries++) /* the machine stood still */
        refused = count_refused(estimate_ns, &took_ns);
    CHECK_EQ(refused, 16);
}

/* The first run is the caller's, and takes long. What has the time for one of the runner's is not refused for that. */
static void a_slow_first_run_says_nothing_of_those_that_are_bound(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    open_all(1, 4, 2, 1000);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        CHECK_EQ(sidecaml_worker_bind(worker, 0, slot, NULL, &why), 0);
    submit_by(0, 1, 0.5f, sidecaml_now_ns() + 600 * (uint64_t)LONG_NS);
    CHECK_EQ(serve(&request, &why), 1);
    sidecaml_worker_started(worker, &request);
    take_time();
    bind_slot(0, 0, 1);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, 0, NULL), 0);
    uint32_t refused = 0;
    do {
        CHECK(refused < 5); /* before the machine stood still for half of that */
        submit_by(0, 1, 0.5f, sidecaml_now_ns() + LONG_NS / 2);
    } while (serve(&request, &why) == -SIDECAML_E_PENDING && ++refused);
    CHECK_EQ(request.slot, 1 + refused);
    CHECK_EQ(sidecaml_worker_complete(worker, &request, 0, NULL), 0);
    close_all(1);
}

/* Those of another channel that come with the same dims and fail, so that nothing is learned of them. */
static void an_estimate_is_doubted_whoever_else_has_requests_run(void) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    open_all(2, 4, 2, LONG_NS);
    model.poison = 22;
    uint64_t end = sidecaml_now_ns() + 200 * (uint64_t)LONG_NS;
    for (uint32_t i = 0; outcome_of(i, LONG_NS / 4) != 0; i++) {
        CHECK(sidecaml_now_ns() < end);
        submit(1, 20);
        CHECK_EQ(serve(&request, &why), 1);
        CHECK_EQ(sidecaml_worker_complete(worker, &request, -SIDECAML_E_ENGINE, why.text), 0);
        CHECK_EQ(sidecaml_channel_release(channels[1], i % SLOTS), 0);
    }
    close_all(2);
}

/* As when_too_much_waits, where channels have turns of their own: two are a full run, and then nothing waits. */
static void nobody_is_strict_where_nothing_waits(void) {
    open_all(1, 2, 0, FAR_NS);
    uint64_t now = sidecaml_now_ns();
    submit_by(0, 1, 0.5f, now + FAR_NS / 2);
    submit(0, 2), submit(0, 3);
    serve_all();
    CHECK_EQ(sidecaml_channel_poll(channels[0], 0), -SIDECAML_E_DEADLINE);
    submit_by(0, 4, 0.5f, sidecaml_now_ns() + 3 * FAR_NS / 2);
    serve_all();
    check_answer(0, 3, 4);
    close_all(1);
}

/* False where the machine stood still between two runs for long enough that it would be. */
static bool an_estimate_is_not_doubted_between_runs(void) {
    int refused = 0, in_time = 0;
    open_all(1, 4, 2, LONG_NS);
    model.during = take_time;
    uint32_t i = 0;
    for (int run = 0; run < 4; run++) {
        uint64_t begun = sidecaml_now_ns();
        for (int request = 0; request < 40; request++)
            refused += outcome_of(i++, LONG_NS - LONG_NS / 32) == -SIDECAML_E_DEADLINE;
        in_time += sidecaml_now_ns() - begun < LONG_NS / 2;
        CHECK_EQ(outcome_of(i++, 600 * (uint64_t)LONG_NS), 0);
    }
    CHECK(in_time < 4 || (refused == 160 && model.singles == 4));
    close_all(1);
    return in_time == 4;
}

/* Or where more comes than can be run, those that are refused between two runs would undo it. */
static void an_estimate_is_not_doubted_as_long_as_requests_are_run(void) {
    for (int tries = 0; !an_estimate_is_not_doubted_between_runs(); tries++)
        CHECK(tries < 5);
}

/* --- Death --- */

static void die_and_succeed(const int fds[3], int journal, struct sidecaml_layout *its) {
    struct sidecaml_failure why;
    sidecaml_worker_destroy(worker);
    CHECK_EQ(sidecaml_worker_create(must_dup(status_fd), 0, control, SIDECAML_BLOCK, &worker, &why), 0);
    set_batching(8, 2, 0);
    const struct sidecaml_worker_fds mine = {must_dup(fds[0]), must_dup(fds[1]), must_dup(fds[2]), must_dup(journal)};
    places[0] = sidecaml_worker_attach(worker, &mine, its, SIDECAML_ATTACH_RESUME, &why);
    CHECK(places[0] >= 0);
}

/* A batch of four whose worker dies, as its journal says, before any or after some of it was published. */
static void check_death(bool committed, uint32_t published) {
    struct sidecaml_failure why;
    memset(&model, 0, sizeof model);
    make_layout(1);
    worker = make_worker(SIDECAML_BLOCK, &status_fd, &control, &supervisor);
    set_batching(8, 2, 0);
    int fds[3] = {make_memfd(layout.segment_bytes), make_doorbell(), make_doorbell()}, ends[2];
    int journal = make_memfd(SIDECAML_PAGE_BYTES);
    make_sockets(ends);
    const struct sidecaml_worker_fds mine = {must_dup(fds[0]), must_dup(fds[1]), must_dup(fds[2]), must_dup(journal)};
    places[0] = sidecaml_worker_attach(worker, &mine, &layout, 0, &why);
    const struct sidecaml_channel_fds theirs = {must_dup(fds[0]), must_dup(fds[1]), must_dup(fds[2]),
                                                must_dup(status_fd), ends[0]};
    CHECK_EQ(sidecaml_channel_attach(&theirs, 77, SIDECAML_BLOCK, &channels[0], &why), 0);
    daemons[0] = ends[1];
    bind_slots(places[0], 1);
    for (int i = 0; i < 5; i++)
        submit(0, (float)(10 * i));

    struct sidecaml_request request[4];
    for (int i = 0; i < 4; i++)
        CHECK_EQ(sidecaml_worker_next(worker, 0, &request[i]), 1);
    struct mapping page;
    CHECK_EQ(mapping_open(&page, journal, true, false, "the journal", NULL), 0);
    struct sidecaml_journal *noted = (void *)page.base;
    journal_start(noted, (struct ticket_range){0, 4}, 0);
    if (committed) journal_commit(noted, 3, 0);
    struct mapping segment;
    CHECK_EQ(mapping_open(&segment, fds[0], true, false, "the segment", NULL), 0);
    for (uint32_t i = 0; i < published; i++)
        slots_of(segment.base, &layout)[i].word = (uint64_t)i << SIDECAML_STATE_BITS | SIDECAML_STATE_DONE;
    mapping_close(&segment);

    die_and_succeed(fds, journal, &layout);
    CHECK_EQ(sidecaml_worker_interrupted(worker, (uint32_t)places[0]), committed ? 0 : 1);
    bind_slots(places[0], 1);
    int runs = 0;
    struct sidecaml_request again;
    while (sidecaml_worker_serve(worker, 0, &again, &why) == 1) {
        CHECK_EQ(again.attempts, 1);
        CHECK_EQ(again.ticket, published + (uint32_t)runs);
        runs++;
        sidecaml_worker_started(worker, &again);
        CHECK_EQ(sidecaml_worker_complete(worker, &again, 0, NULL), 0);
    }
    CHECK_EQ(runs, committed ? 0 : 4 - (int)published);
    CHECK_EQ(model.singles, 1); /* the fifth, which had not started */
    for (uint32_t slot = 0; slot < 5; slot++)
        CHECK_EQ(sidecaml_channel_poll(channels[0], slot), 0);
    mapping_close(&page);
    close(fds[0]), close(fds[1]), close(fds[2]), close(journal);
    close_all(1);
}

static void after_a_death_each_of_a_batch_runs_again_alone_and_counts_as_started(void) {
    check_death(false, 0);
}

static void after_a_death_what_was_published_is_not_run_again(void) {
    for (uint32_t published = 1; published < 4; published++)
        check_death(false, published);
}

static void after_a_death_a_batch_that_was_committed_is_only_published(void) {
    for (uint32_t published = 0; published <= 4; published++)
        check_death(true, published);
}

static void misuse_is_invalid(void) {
    struct sidecaml_failure why;
    const int32_t axes[1] = {SIDECAML_MAX_RANK};
    const uint64_t costs_ns[SIDECAML_MOST_BATCH + 2] = {0};
    struct sidecaml_batching batching = {.most = 4, .tensor_count = 1, .axes = axes, .costs_ns = costs_ns};
    worker = make_worker(SIDECAML_BLOCK, &status_fd, &control, &supervisor);
    CHECK_EQ(sidecaml_worker_set_batching(worker, &batching, &why), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "axis");
    batching.tensor_count = 0;
    batching.most = SIDECAML_MOST_BATCH + 1;
    CHECK_EQ(sidecaml_worker_set_batching(worker, &batching, &why), -SIDECAML_E_INVALID);
    memset(&model, 0, sizeof model);
    set_batching(4, 2, 0);
    batching.most = 4;
    CHECK_EQ(sidecaml_worker_set_batching(worker, &batching, &why), -SIDECAML_E_INVALID);
    CHECK_SAYS(why.text, "once");
    close_all(0);
}

int main(void) {
    static const struct test tests[] = {
        {TEST(a_single_request_runs_alone)},
        {TEST(requests_of_a_channel_that_is_kept_apart_run_alone_until_its_time_is_over)},
        {TEST(neighbours_run_as_one_and_each_has_its_answer)},
        {TEST(what_lies_as_one_is_bound_in_place_the_second_time)},
        {TEST(the_ends_of_the_ring_are_no_neighbours)},
        {TEST(without_copies_only_what_lies_as_one_is_batched)},
        {TEST(too_few_for_copies_run_one_by_one)},
        {TEST(without_copies_the_rings_end_parts_a_run)},
        {TEST(too_few_for_copies_run_where_neighbours_lie)},
        {TEST(too_few_for_the_rest_run_one_by_one)},
        {TEST(channels_give_one_request_each_in_turn)},
        {TEST(an_item_that_fails_leaves_the_others_their_answers)},
        {TEST(who_failed_spoils_no_further_batches)},
        {TEST(nor_does_who_is_too_late_by_then)},
        {TEST(nor_does_who_changes_its_inputs_then)},
        {TEST(batches_that_fail_for_nothing_are_not_tried_over_and_over)},
        {TEST(after_binding_a_batch_has_failed_it_is_tried_again)},
        {TEST(neighbours_of_which_one_fails_are_run_one_by_one)},
        {TEST(inputs_that_are_shared_must_be_equal)},
        {TEST(who_changes_a_shared_input_meanwhile_changes_no_other_answer)},
        {TEST(what_is_taken_has_no_runner_any_more_when_its_slot_is_bound_anew)},
        {TEST(a_channel_that_ends_leaves_the_others_their_part_in_batches)},
        {TEST(who_is_passed_over_comes_first_in_the_next_run)},
        {TEST(kinds_that_are_pushed_out_are_forgotten_but_for_the_one_that_is_formed)},
        {TEST(who_asks_for_ever_new_dims_pushes_out_its_own)},
        {TEST(and_none_of_those_that_several_use)},
        {TEST(what_has_not_run_for_long_makes_way)},
        {TEST(who_asks_for_little_does_not_wait_for_those_who_flood)},
        {TEST(who_asked_for_much_has_its_turn_however_many_ask_for_little)},
        {TEST(channels_whose_requests_do_not_go_together_have_equal_time)},
        {TEST(so_have_several_beside_one)},
        {TEST(and_those_whose_requests_all_run_alone)},
        {TEST(and_where_nothing_is_copied)},
        {TEST(the_turn_of_who_is_refused_goes_to_who_is_in_credit)},
        {TEST(nobody_is_forgiven_for_the_looks_of_an_idle_worker)},
        {TEST(where_that_saves_no_time_they_run_with_the_others)},
        {TEST(what_is_run_one_by_one_is_busy_no_longer_than_that)},
        {TEST(copies_are_time_on_the_engine)},
        {TEST(a_slot_without_a_runner_joins_those_that_have_one)},
        {TEST(without_a_runner_a_request_that_runs_alone_is_the_callers_and_in_its_turn)},
        {TEST(what_is_cancelled_or_given_up_in_a_batch_is_free_again)},
        {TEST(what_cannot_make_its_deadline_is_refused_and_not_run)},
        {TEST(a_batch_is_closed_in_time_for_its_earliest_deadline)},
        {TEST(when_too_much_waits_who_has_no_time_for_a_full_run_is_refused)},
        {TEST(that_is_a_channels_own_affair)},
        {TEST(a_wrong_estimate_of_a_full_run_does_not_refuse_for_ever)},
        {TEST(after_a_batch_that_failed_deadlines_are_looked_at_again)},
        {TEST(after_a_batch_that_failed_another_run_begins)},
        {TEST(requests_that_come_too_late_without_end_hold_nobody_up)},
        {TEST(a_request_that_came_too_late_says_nothing_of_how_long_runs_take)},
        {TEST(a_wrong_estimate_does_not_refuse_for_ever)},
        {TEST(an_estimate_of_one_is_put_right_by_batches)},
        {TEST(an_estimate_is_not_doubted_as_long_as_requests_are_run)},
        {TEST(an_estimate_is_doubted_once_however_many_channels_share_it)},
        {TEST(an_estimate_is_doubted_whoever_else_has_requests_run)},
        {TEST(a_slow_first_run_says_nothing_of_those_that_are_bound)},
        {TEST(nobody_is_strict_where_nothing_waits)},
        {TEST(after_a_death_each_of_a_batch_runs_again_alone_and_counts_as_started)},
        {TEST(after_a_death_what_was_published_is_not_run_again)},
        {TEST(after_a_death_a_batch_that_was_committed_is_only_published)},
        {TEST(misuse_is_invalid)},
    };
    return RUN_TESTS(tests, 20);
}
