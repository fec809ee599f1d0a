/* A worker, and its successors when it dies, between a client that scribbles over its segment and takes pages of it
 * away, and one that is honest: the first can cost itself its channel, the second is served whatever happens, and no
 * worker crashes or stays. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "guard.h"
#include "mapping.h"
#include "ring.h"
#include "sidecaml/strings.h"

#define STEPS_MOST 64
/* How many requests of the hostile channel may come before the honest one's: the worker takes turns. */
#define TURNS_MOST 6
#define DEATHS_MOST 5
#define BATCH_MOST 6
#define LEFT_MOST 65536

struct side {
    struct sidecaml_layout layout;
    uint8_t *base;                         /* as its client has it */
    int segment, request, answer, journal; /* as the daemon holds them, for every worker that comes */
    int post, hear;                        /* the client's ends: the same ones where they are eventfds */
    bool sockets;                          /* doorbells, instead of eventfds */
    bool cut;                              /* the segment is shorter than it was */
    uint32_t staged;
    struct ring_client ring;
    uint64_t held[4];
    struct guarded *guarded; /* the client's own mapping: it takes pages from itself, too */
    int index;
};

struct both {
    sidecaml_worker *worker;
    struct sidecaml_status_page *page;
    int status, control, supervisor;
    struct side hostile, honest;
    enum sidecaml_policy policy;
    /* Of the honest client's request: how often it was started, answered; and how many workers may still die, for
     * what kills worker after worker is the supervisor's to send away. */
    uint32_t runs, published, deaths_left;
    bool many;      /* the honest client has several requests */
    bool miscounts; /* the status page has been written to */
    /* How requests are run as one, both sides' tensors being the same then; `most` is 1 where they are not. */
    uint32_t most, gather_from;
    int32_t axes[SIDECAML_MAX_TENSORS];
    bool runs_fail;
    /* Whether the worker dies in the next batch, has died there, and what it left. */
    bool will_die, has_died;
    struct left {
        uint8_t segment[LEFT_MOST];
        struct sidecaml_journal journal;
    } left[2];
};

static void attach(struct both *both, struct side *side, uint32_t how) {
    struct sidecaml_worker_fds fds = {copy_of(side->segment), copy_of(side->request), copy_of(side->answer),
                                      copy_of(side->journal)};
    struct sidecaml_failure why;
    side->index = sidecaml_worker_attach(both->worker, &fds, &side->layout, how | side->staged, &why);
    HOLDS(side->index >= 0);
}

static void open_doorbell(bool socket, int *ours, int *theirs) {
    int ends[2];
    if (!socket) {
        *ours = fresh_doorbell();
        *theirs = copy_of(*ours);
        return;
    }
    fresh_sockets(ends);
    *ours = ends[0];
    *theirs = ends[1];
}

static void open_side(struct both *both, struct side *side, uint8_t what) {
    side->sockets = what & 1;
    side->staged = what & 2 ? SIDECAML_ATTACH_STAGED : 0;
    side->cut = false;
    side->segment = fresh_memory(side->layout.segment_bytes);
    side->journal = fresh_memory(SIDECAML_PAGE_BYTES);
    open_doorbell(side->sockets, &side->request, &side->post);
    open_doorbell(side->sockets, &side->answer, &side->hear);
    side->base = map(side->segment, side->layout.segment_bytes);
    side->guarded = guard_add(side->base, side->layout.segment_bytes);
    HOLDS(side->guarded);
    memset(side->held, 0, sizeof side->held);
    side->ring = (struct ring_client){slots_of(side->base, &side->layout), side->layout.slot_count, 0, 0, side->held};
    attach(both, side, 0);
}

static void close_side(struct side *side) {
    guard_remove(side->guarded);
    munmap(side->base, side->layout.segment_bytes);
    close(side->segment);
    close(side->request);
    close(side->answer);
    close(side->journal);
    close(side->post);
    close(side->hear);
}

/* --- The model of the native lane -------------------------------------------------------------------------------- */

/* An output that is as long as the first input is a copy of it; others are of one byte. So with the first axis as the
 * batch's, the outputs of a batch are its requests' outputs, one after the other. */
#define OTHERS 0x5a

struct run {
    struct both *both;
    uint8_t *tensors[SIDECAML_MAX_TENSORS];
    uint64_t bytes[SIDECAML_MAX_TENSORS];
    bool is_batch;
};

static bool copies_input(const struct run *run, uint32_t output) {
    return run->both->honest.layout.input_count && run->bytes[0] == run->bytes[output];
}

static void compute(const struct run *run) {
    const struct sidecaml_layout *layout = &run->both->honest.layout;
    for (uint32_t t = layout->input_count; t < tensor_count_of(layout); t++) {
        if (copies_input(run, t) && run->bytes[t])
            memcpy(run->tensors[t], run->tensors[0], run->bytes[t]);
        else if (run->bytes[t])
            memset(run->tensors[t], OTHERS, run->bytes[t]);
    }
}

static void read_left(struct left *left, const struct side *side) {
    if (side->layout.segment_bytes <= LEFT_MOST) memcpy(left->segment, side->base, side->layout.segment_bytes);
    HOLDS(pread(side->journal, &left->journal, sizeof left->journal, 0) == sizeof left->journal);
}

static void write_left(const struct left *left, const struct side *side) {
    if (side->layout.segment_bytes <= LEFT_MOST) memcpy(side->base, left->segment, side->layout.segment_bytes);
    HOLDS(pwrite(side->journal, &left->journal, sizeof left->journal, 0) == sizeof left->journal);
}

static int run_model(void *context, struct sidecaml_failure *why) {
    struct run *run = context;
    struct both *both = run->both;
    if (run->is_batch && both->will_die && !both->has_died && both->honest.layout.segment_bytes <= LEFT_MOST) {
        read_left(&both->left[0], &both->hostile);
        read_left(&both->left[1], &both->honest);
        both->has_died = true;
    }
    if (run->is_batch && both->runs_fail) {
        *why = (struct sidecaml_failure){.code = SIDECAML_E_ENGINE, .text = "a batch too many"};
        return -SIDECAML_E_ENGINE;
    }
    compute(run);
    return 0;
}

/* 0 for strings, of which there are no joined ones. */
static uint64_t bytes_of(const struct sidecaml_layout *layout, uint32_t tensor, const uint64_t *dims) {
    uint64_t bytes;
    uint32_t dtype = layout->tensor[tensor].dtype;
    if (dtype == SIDECAML_STRING) return 0;
    HOLDS(sidecaml_tensor_bytes(dtype, dims, layout->tensor[tensor].rank, &bytes));
    return bytes;
}

static int bind_batch(void *context, void *const *addresses, const uint64_t (*dims)[SIDECAML_MAX_RANK], void **runner,
                      struct sidecaml_failure *why) {
    struct both *both = context;
    const struct sidecaml_layout *layout = &both->honest.layout;
    (void)why;
    struct run *run = calloc(1, sizeof *run);
    run->both = both;
    run->is_batch = true;
    for (uint32_t t = 0; t < tensor_count_of(layout); t++) {
        run->tensors[t] = addresses[t];
        run->bytes[t] = bytes_of(layout, t, dims[t]);
    }
    *runner = run;
    return 0;
}

static void set_batching(struct both *both) {
    static const uint64_t costs_ns[BATCH_MOST + 1];
    const struct sidecaml_batching batching = {.most = both->most,
                                               .gather_from = both->gather_from,
                                               .tensor_count = tensor_count_of(&both->honest.layout),
                                               .axes = both->axes,
                                               .costs_ns = costs_ns,
                                               .bind = bind_batch,
                                               .run = run_model,
                                               .drop = free,
                                               .context = both};
    struct sidecaml_failure why;
    HOLDS(sidecaml_worker_set_batching(both->worker, &batching, &why) == 0);
}

static bool fill_run(struct both *both, struct side *side, uint32_t slot, struct run *run,
                     uint64_t dims[][SIDECAML_MAX_RANK]) {
    *run = (struct run){.both = both};
    uint32_t rows = 0;
    for (uint32_t t = 0; t < tensor_count_of(&side->layout); t++) {
        uint64_t row[SIDECAML_MAX_RANK] = {0};
        if (dims_read(side->base, &side->layout, slot, t, row) < 0) return false;
        run->tensors[t] = sidecaml_worker_tensor(both->worker, (uint32_t)side->index, slot, t);
        run->bytes[t] = bytes_of(&side->layout, t, row);
        if (side->layout.tensor[t].flags & SIDECAML_TENSOR_DYNAMIC) memcpy(dims[rows++], row, sizeof row);
    }
    return true;
}

/* As a first request of its kind would have left it. */
static void bind_slots(struct both *both, struct side *side) {
    uint64_t dims[SIDECAML_MAX_TENSORS][SIDECAML_MAX_RANK];
    for (uint32_t slot = 0; slot < side->layout.slot_count; slot++) {
        struct run *run = calloc(1, sizeof *run);
        struct sidecaml_bound bound = {
            .run = run_model, .context = run, .drop = free, .dims = (const uint64_t(*)[SIDECAML_MAX_RANK])dims};
        struct sidecaml_failure why;
        if (!fill_run(both, side, slot, run, dims) ||
            sidecaml_worker_bind(both->worker, (uint32_t)side->index, slot, &bound, &why) < 0)
            free(run);
    }
}

static void begin_worker(struct both *both) {
    struct sidecaml_failure why;
    HOLDS(sidecaml_worker_create(copy_of(both->status), 0, both->control, both->policy, &both->worker, &why) == 0);
    if (both->most > 1) set_batching(both);
}

/* What a death leaves is what has been stored, and everything is stored as soon as it happens: so this is one. */
static void die(struct both *both) {
    both->deaths_left--;
    sidecaml_worker_destroy(both->worker);
    begin_worker(both);
    if (both->hostile.cut) {
        /* No worker takes it over: the daemon ends it, and the client opens another. */
        close_side(&both->hostile);
        open_side(both, &both->hostile, 0);
    } else {
        attach(both, &both->hostile, SIDECAML_ATTACH_RESUME);
    }
    attach(both, &both->honest, SIDECAML_ATTACH_RESUME);
}

static void take_batching(struct both *both, struct input *input) {
    both->most = take_number(input, BATCH_MOST);
    if (both->most < 2) {
        both->most = 1;
        return;
    }
    both->honest.layout = both->hostile.layout;
    both->gather_from = take_number(input, 3);
    for (uint32_t t = 0; t < tensor_count_of(&both->honest.layout); t++)
        both->axes[t] = take_byte(input) & 1 && t < both->honest.layout.input_count ? SIDECAML_SHARED : 0;
}

static void open_both(struct both *both, struct input *input) {
    memset(both, 0, sizeof *both);
    int ends[2];
    fresh_sockets(ends);
    both->control = ends[0];
    both->supervisor = ends[1];
    both->status = fresh_memory(SIDECAML_PAGE_BYTES);
    both->page = (void *)map(both->status, SIDECAML_PAGE_BYTES);
    both->policy = (enum sidecaml_policy)take_number(input, SIDECAML_BLOCK);
    both->deaths_left = DEATHS_MOST;
    take_layout(input, &both->hostile.layout);
    const struct sidecaml_tensor_spec specs[] = {
        {.name = "x", .dtype = SIDECAML_UINT8, .rank = 1, .max_dims = {8}},
        {.name = "y", .dtype = SIDECAML_UINT8, .rank = 1, .output = true, .max_dims = {8}},
    };
    HOLDS(sidecaml_layout_compute(specs, 2, 2, 77, &both->honest.layout, NULL) == 0);
    take_batching(both, input);
    begin_worker(both);
    open_side(both, &both->hostile, take_byte(input));
    open_side(both, &both->honest, 0);
}

static void close_both(struct both *both) {
    sidecaml_worker_destroy(both->worker);
    close_side(&both->hostile);
    close_side(&both->honest);
    munmap(both->page, SIDECAML_PAGE_BYTES);
    close(both->status);
    close(both->control);
    close(both->supervisor);
}

static void read_request(struct both *both, const struct sidecaml_request *request, struct input *input) {
    const struct sidecaml_layout *layout = &both->hostile.layout;
    uint64_t dims[SIDECAML_MAX_RANK];
    for (uint32_t i = 0; i < tensor_count_of(layout); i++) {
        const struct sidecaml_tensor_descriptor *tensor = &layout->tensor[i];
        int rank = sidecaml_worker_get_dims(both->worker, request, i, dims);
        HOLDS(rank == (int)tensor->rank || rank == -SIDECAML_E_BAD_DIMS);
        for (int axis = 0; axis < rank; axis++)
            HOLDS(dims[axis] <= tensor->max_dims[axis]);
        if (tensor->dtype == SIDECAML_STRING) {
            uint64_t most = (tensor->max_bytes - tensor->text_bytes) / 8 - 1;
            const struct sidecaml_strings_place place = {
                sidecaml_worker_tensor(both->worker, request->channel, request->slot, i), most, tensor->text_bytes};
            struct sidecaml_strings strings;
            sidecaml_strings_read(&place, most, "input", "x", &strings, NULL);
            sidecaml_strings_clear(&strings);
        }
        for (uint32_t axis = 0; axis < 3; axis++)
            dims[axis] = take_dim(input);
        sidecaml_worker_set_dims(both->worker, request, i, dims, take_number(input, 3));
        sidecaml_worker_set_needed(both->worker, request, i, dims, take_number(input, 3));
    }
    sidecaml_worker_set_text_needed(both->worker, request, take_dim(input));
}

static void compute_alone(struct both *both, const struct sidecaml_request *request) {
    uint64_t dims[SIDECAML_MAX_TENSORS][SIDECAML_MAX_RANK];
    struct run run;
    HOLDS(fill_run(both, &both->honest, request->slot, &run, dims));
    compute(&run);
}

static void finish(struct both *both, const struct sidecaml_request *request, struct input *input) {
    static const int statuses[] = {0, -SIDECAML_E_ENGINE, -SIDECAML_E_OUTPUT_TOO_LARGE, -SIDECAML_E_BAD_DIMS};
    HOLDS(request->slot < sidecaml_worker_layout(both->worker, request->channel)->slot_count);
    if ((int)request->channel == both->hostile.index) read_request(both, request, input);
    bool honest = (int)request->channel == both->honest.index;
    HOLDS(request->attempts <= SIDECAML_MOST_ATTEMPTS);
    /* Only what an earlier worker started of it counts. */
    if (honest && !both->many) HOLDS(request->attempts == both->runs);
    uint8_t during = take_byte(input);
    bool dies = both->deaths_left > 0;
    if (during & 2 && dies) {
        die(both); /* before it was started */
        return;
    }
    sidecaml_worker_started(both->worker, request);
    if (honest) both->runs++;
    if (during & 1) scribble(input, both->hostile.base, &both->hostile.layout);
    if (during & 4 && dies) {
        die(both);
        return;
    }
    if (honest) compute_alone(both, request);
    char words[400];
    words[take_bytes(input, words, sizeof words - 1)] = '\0';
    int status = honest ? 0 : statuses[take_number(input, 3)];
    int gave_up = sidecaml_worker_complete(both->worker, request, status, words);
    HOLDS(gave_up == 0 || gave_up == 1);
    if (honest) both->published++;
}

static int run(void *context, struct sidecaml_failure *why) {
    int *left = context;
    if ((*left)-- > 0) return 0;
    *why = (struct sidecaml_failure){.code = SIDECAML_E_ENGINE, .text = "enough"};
    return -SIDECAML_E_ENGINE;
}

static void bind_runner(struct both *both, struct input *input) {
    static int runs;
    static uint64_t dims[8][SIDECAML_MAX_RANK];
    runs = 3;
    for (int i = 0; i < 8; i++)
        for (int axis = 0; axis < 3; axis++)
            dims[i][axis] = take_dim(input);
    struct sidecaml_bound bound = {.run = run,
                                   .context = &runs,
                                   .state = take_number(input, 2),
                                   .next_state = take_number(input, 2),
                                   .dims = (const uint64_t(*)[SIDECAML_MAX_RANK])dims};
    bool drops = take_byte(input) & 1;
    sidecaml_worker_bind(both->worker, (uint32_t)both->hostile.index, take_number(input, 4), drops ? NULL : &bound,
                         NULL);
}

/* A runner without end would be the caller's fault, not the client's: every turn ends here. */
static void serve(struct both *both, struct input *input) {
    struct sidecaml_request request;
    struct sidecaml_failure why;
    uint8_t how = take_byte(input);
    both->will_die = how & 1 && both->deaths_left > 0;
    both->runs_fail = how & 2;
    both->has_died = false;
    int status = sidecaml_worker_serve(both->worker, 0, &request, &why);
    if (both->has_died) {
        write_left(&both->left[0], &both->hostile);
        write_left(&both->left[1], &both->honest);
        die(both);
    } else if (status == 1) {
        finish(both, &request, input);
    }
}

/* Of any number and length, until there is no room; and at last, maybe, never again. */
static void post(struct side *side, struct input *input) {
    uint8_t what = take_byte(input);
    for (int posts = 0; posts <= what >> 2; posts++) {
        uint64_t words[2] = {1, 1};
        size_t bytes = what & 1 ? sizeof words[0] : take_number(input, sizeof words);
        ssize_t written = side->sockets ? send(side->post, words, bytes, MSG_NOSIGNAL | MSG_DONTWAIT)
                                        : write(side->post, words, bytes);
        if (written < 0) break;
    }
    if (what == UINT8_MAX) shutdown(side->post, SHUT_RDWR);
}

static void take_pages(struct side *side, struct input *input) {
    uint32_t pages = (uint32_t)(side->layout.segment_bytes / SIDECAML_PAGE_BYTES), page = take_number(input, pages - 1);
    off_t start = (off_t)page * SIDECAML_PAGE_BYTES;
    if (take_byte(input) & 1) {
        HOLDS(fallocate(side->segment, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, SIDECAML_PAGE_BYTES) == 0);
        return;
    }
    HOLDS(ftruncate(side->segment, start) == 0);
    side->cut = true;
}

/* It may keep to the rules as well. */
static void use_ring(struct side *side, struct input *input) {
    uint8_t what = take_byte(input);
    uint32_t slot = what >> 2 & 3;
    switch (what & 3) {
    case 0:
        ring_give_up(&side->ring, slot);
        break;
    case 1:
        ring_release(&side->ring, slot);
        break;
    case 2:
        ring_submit(&side->ring, sidecaml_now_ns() + ((uint64_t)what << 20), 0, 0);
        break;
    default:
        ring_submit_run(&side->ring, 1 + slot, 0, 0, what >> 4);
        break;
    }
}

/* What no client can write, and a worker must survive all the same: its journal, the status page. */
static void corrupt(struct both *both, struct input *input) {
    uint8_t what = take_byte(input);
    uint64_t value = what & 1 ? take_word(input) : take_slot_word(input);
    if (what & 2) {
        off_t words = offsetof(struct sidecaml_status_page, parked);
        HOLDS(pwrite(both->status, &value, sizeof value, words + take_number(input, 23) * 8) == sizeof value);
        both->miscounts = true;
        return;
    }
    off_t place = what & 4 ? offsetof(struct sidecaml_journal, started) : offsetof(struct sidecaml_journal, committed);
    HOLDS(pwrite(both->hostile.journal, &value, sizeof value, place) == sizeof value);
}

static void step(struct both *both, struct input *input) {
    struct sidecaml_request request;
    switch (take_byte(input) % 16) {
    case 0:
        if (sidecaml_worker_next(both->worker, 0, &request) == 1) finish(both, &request, input);
        break;
    case 1:
        /* Spins and sleeps, in time that goes by itself. */
        if (sidecaml_worker_next(both->worker, 1000, &request) == 1) finish(both, &request, input);
        break;
    case 2:
        serve(both, input);
        break;
    case 3:
        bind_runner(both, input);
        break;
    case 4:
        sidecaml_worker_set_state(both->worker, (uint32_t)both->hostile.index, take_byte(input));
        break;
    case 5:
        post(&both->hostile, input);
        break;
    case 6:
        if (take_byte(input) % 4) break;
        HOLDS(sidecaml_worker_detach(both->worker, (uint32_t)both->hostile.index) == 0);
        close_side(&both->hostile);
        open_side(both, &both->hostile, take_byte(input));
        break;
    case 7:
        die(both);
        break;
    case 8:
        take_pages(&both->hostile, input);
        break;
    case 9:
        use_ring(&both->hostile, input);
        break;
    case 10:
        corrupt(both, input);
        break;
    case 11:
        bind_slots(both, &both->hostile);
        break;
    default:
        scribble(input, both->hostile.base, &both->hostile.layout);
        break;
    }
}

static uint32_t turns_most(const struct both *both) {
    return (TURNS_MOST + DEATHS_MOST) * (both->most > 1 ? 8 : 1);
}

/* The honest client's request is answered, in its turn, and once, whoever dies of it. */
static void check_honest(struct both *both, struct input *input) {
    both->runs = both->published = 0;
    both->deaths_left = DEATHS_MOST;
    int slot = ring_submit(&both->honest.ring, 0, 0, 0);
    uint32_t before = 0; /* requests of the other */
    HOLDS(slot >= 0);
    for (uint32_t turns = 0; turns < turns_most(both); turns++) {
        struct sidecaml_request request;
        uint32_t deaths_left = both->deaths_left;
        int status = sidecaml_worker_next(both->worker, 0, &request);
        if (status == 1) finish(both, &request, input);
        /* Whoever begins anew may begin with anybody. */
        if (both->deaths_left != deaths_left)
            before = 0;
        else if (status == 1 && (int)request.channel == both->hostile.index)
            HOLDS(++before <= 1 || both->most > 1); /* turns are of time, and it may have taken a batch before */
        HOLDS(sidecaml_worker_broken(both->worker) != both->honest.index);
        if (ring_poll(&both->honest.ring, (uint32_t)slot) != -SIDECAML_E_PENDING) break;
    }
    HOLDS(ring_poll(&both->honest.ring, (uint32_t)slot) == 0 && both->published == 1);
    HOLDS(ring_release(&both->honest.ring, (uint32_t)slot) == 0);
}

static uint8_t question(uint32_t slot) {
    return (uint8_t)(17 + 3 * slot);
}

static void submit_all(struct both *both) {
    struct side *honest = &both->honest;
    for (uint32_t slot = 0; slot < honest->layout.slot_count; slot++)
        for (uint32_t t = 0; t < tensor_count_of(&honest->layout); t++) {
            uint8_t value = t == 0 && both->axes[0] != SIDECAML_SHARED ? question(slot) : 1;
            memset(tensor_at(honest->base, &honest->layout, slot, t), value, honest->layout.tensor[t].max_bytes);
        }
    for (uint32_t i = 0; i < honest->layout.slot_count; i++)
        HOLDS(ring_submit(&honest->ring, 0, 0, 0) >= 0);
}

static bool all_have_ended(const struct side *side) {
    for (uint32_t slot = 0; slot < side->layout.slot_count; slot++)
        if (ring_poll(&side->ring, slot) == -SIDECAML_E_PENDING) return false;
    return true;
}

static void check_outputs(struct both *both, uint32_t slot) {
    uint64_t dims[SIDECAML_MAX_TENSORS][SIDECAML_MAX_RANK];
    struct side *honest = &both->honest;
    struct run run;
    HOLDS(fill_run(both, honest, slot, &run, dims));
    uint8_t asked = both->axes[0] == SIDECAML_SHARED ? 1 : question(slot);
    for (uint32_t t = honest->layout.input_count; t < tensor_count_of(&honest->layout); t++) {
        const uint8_t *output = tensor_at(honest->base, &honest->layout, slot, t);
        uint8_t expected = copies_input(&run, t) ? asked : OTHERS;
        /* How long a batch's outputs are beside an input that is shared says nothing. */
        uint8_t or_else = both->axes[0] == SIDECAML_SHARED ? (uint8_t)(asked ^ OTHERS ^ expected) : expected;
        for (uint64_t i = 0; i < run.bytes[t]; i++)
            HOLDS(output[i] == expected || output[i] == or_else);
    }
}

/* All of the honest client's requests are answered, each with its own answer, whoever they run with. */
static void check_many(struct both *both, struct input *input) {
    struct side *honest = &both->honest;
    both->deaths_left = DEATHS_MOST;
    both->many = true;
    submit_all(both);
    for (uint32_t turns = 0; turns < turns_most(both) && !all_have_ended(honest); turns++) {
        bind_slots(both, honest);
        serve(both, input);
    }
    both->many = false;
    for (uint32_t slot = 0; slot < honest->layout.slot_count; slot++) {
        HOLDS(ring_poll(&honest->ring, slot) == 0);
        check_outputs(both, slot);
        HOLDS(ring_release(&honest->ring, slot) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct both both;
    struct input input = {data, size};
    HOLDS(sidecaml_guard(NULL) == 0);
    signal(SIGPIPE, SIG_DFL); /* the worker is to raise none */
    open_both(&both, &input);
    for (int steps = 0; steps < STEPS_MOST && input.left; steps++) {
        step(&both, &input);
        if (steps % 8 == 7) check_honest(&both, &input);
        if (steps % 8 == 3 && both.most > 1) check_many(&both, &input);
    }
    check_honest(&both, &input);
    if (both.most > 1) check_many(&both, &input);
    HOLDS(both.miscounts || atomic_load(&both.page->channels) == 2);
    close_both(&both);
    check_descriptors();
    return 0;
}
