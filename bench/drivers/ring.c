/* What the ring costs by itself: requests whose model copies its input to its output, or does nothing at all.
 *
 * ring --bytes N --count SAMPLES --calls N --client-core A [--server-core B] [--staged] FILE
 * ring --bytes N --count SAMPLES --calls N --client-core A --window W [--batches] [--output-bytes N] FILE
 *
 * Each sample is the time of so many calls. Without a server's core both sides are one thread, which submits, serves
 * and takes the answer. With a window each call is W requests at once of a model that does nothing, and only the
 * serving is timed: what a worker does for a request that is not the engine's, one by one or in batches. Outputs of a
 * batch lie in place, unless they have another size than a multiple of 16: those are copied to their slots. Built
 * twice, as `ring` and, without the checks that cost time on every call (the journal, the guard, staging), as
 * `ring_unchecked`.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "arguments.h"
#include "caller.h"
#include "child.h"
#include "failure.h"
#include "memory.h"
#include "report.h"

#define SLOTS 2
#define WARM_SAMPLES 3
#define TURN_NS 100000000u

static struct {
    const char *file;
    int client_core, server_core;
    uint64_t bytes, output_bytes, count, calls, window;
    uint32_t how;
    bool batches;
} options = {.client_core = ANY_CORE, .server_core = ANY_CORE, .bytes = UINT64_MAX};

/* What a supervisor makes; closed by the end of the process. */
static struct {
    struct sidecaml_layout layout;
    int segment, request, answer, status, ready;
    int worker_control, supervisor, channel_control, daemon;
} made;

static sidecaml_worker *worker; /* of this process, where both sides are one thread */
static sidecaml_channel *channel;

/* --- Making it --------------------------------------------------------------------------------------------------- */

/* Rows that a worker may run together. */
static int lay_out_rows(struct sidecaml_failure *why) {
    struct sidecaml_tensor_spec specs[] = {
        {.name = "x", .dtype = SIDECAML_FLOAT32, .rank = 2, .dynamic = true, .packed = true},
        {.name = "y", .dtype = SIDECAML_FLOAT32, .rank = 2, .dynamic = true, .packed = true, .output = true},
    };
    const uint64_t bytes[] = {options.bytes, options.output_bytes};
    for (int i = 0; i < 2; i++)
        specs[i].max_dims[0] = 1, specs[i].max_dims[1] = bytes[i] / sizeof(float);
    return sidecaml_layout_compute(specs, 2, (uint32_t)options.window, 1, &made.layout, why);
}

static int lay_out(struct sidecaml_failure *why) {
    const uint64_t elements = options.bytes / sizeof(float);
    if (options.window) return lay_out_rows(why);
    const struct sidecaml_tensor_spec specs[] = {
        {.name = "x", .dtype = SIDECAML_FLOAT32, .rank = 1, .max_dims = {elements}},
        {.name = "y", .dtype = SIDECAML_FLOAT32, .rank = 1, .output = true, .max_dims = {elements}},
    };
    return sidecaml_layout_compute(specs, 2, SLOTS, 1, &made.layout, why);
}

static int make_file(uint64_t bytes, int *out, struct sidecaml_failure *why) {
    *out = memfd_create("sidecaml-bench", MFD_CLOEXEC);
    return *out < 0 || ftruncate(*out, (off_t)bytes) < 0 ? fail_errno(why, "memfd_create") : 0;
}

static int make_bells(struct sidecaml_failure *why) {
    made.request = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
    made.answer = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
    made.ready = eventfd(0, EFD_CLOEXEC);
    return made.request < 0 || made.answer < 0 || made.ready < 0 ? fail_errno(why, "eventfd") : 0;
}

static int make_sockets(struct sidecaml_failure *why) {
    int ends[4];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends + 2) < 0)
        return fail_errno(why, "socketpair");
    made.worker_control = ends[0], made.supervisor = ends[1];
    made.channel_control = ends[2], made.daemon = ends[3];
    return 0;
}

static int make_all(struct sidecaml_failure *why) {
    int status = lay_out(why);
    if (status == 0) status = make_file(made.layout.segment_bytes, &made.segment, why);
    if (status == 0) status = make_file(SIDECAML_PAGE_BYTES, &made.status, why);
    if (status == 0) status = make_bells(why);
    return status == 0 ? make_sockets(why) : status;
}

/* --- Serving ----------------------------------------------------------------------------------------------------- */

struct copy {
    void *to;
    const void *from;
};

static int copy_tensor(void *context, struct sidecaml_failure *unused) {
    const struct copy *copy = context;
    (void)unused;
    memcpy(copy->to, copy->from, options.bytes);
    return 0;
}

static int do_nothing(void *unused, struct sidecaml_failure *why) {
    (void)unused, (void)why;
    return 0;
}

static int bind_nothing(void *unused, void *const *addresses, const uint64_t (*dims)[SIDECAML_MAX_RANK], void **runner,
                        struct sidecaml_failure *why) {
    static int nothing;
    (void)unused, (void)addresses, (void)dims, (void)why;
    *runner = &nothing;
    return 0;
}

static void drop_nothing(void *unused) {
    (void)unused;
}

static int batch(struct sidecaml_failure *why) {
    static const int32_t axes[] = {0, 0};
    static const uint64_t costs_ns[SIDECAML_MOST_BATCH + 1];
    const struct sidecaml_batching batching = {.most = (uint32_t)options.window,
                                               .gather_from = options.output_bytes == options.bytes ? 0 : 2,
                                               .tensor_count = 2,
                                               .axes = axes,
                                               .costs_ns = costs_ns,
                                               .bind = bind_nothing,
                                               .run = do_nothing,
                                               .drop = drop_nothing};
    return sidecaml_worker_set_batching(worker, &batching, why);
}

static int bind_rows(struct sidecaml_failure *why) {
    const uint64_t dims[][SIDECAML_MAX_RANK] = {{1, options.bytes / sizeof(float)},
                                                {1, options.output_bytes / sizeof(float)}};
    const struct sidecaml_bound bound = {.run = do_nothing, .dims = dims};
    int status = 0;
    for (uint32_t slot = 0; status == 0 && slot < options.window; slot++)
        status = sidecaml_worker_bind(worker, 0, slot, &bound, why);
    return status;
}

static int bind_all(struct sidecaml_failure *why) {
    static struct copy copies[SLOTS];
    if (options.window) return bind_rows(why);
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        copies[slot] = (struct copy){.from = sidecaml_worker_tensor(worker, 0, slot, 0),
                                     .to = sidecaml_worker_tensor(worker, 0, slot, 1)};
        const struct sidecaml_bound bound = {.run = copy_tensor, .context = &copies[slot]};
        int status = sidecaml_worker_bind(worker, 0, slot, &bound, why);
        if (status < 0) return status;
    }
    return 0;
}

static int begin(struct sidecaml_failure *why) {
    const struct sidecaml_worker_fds fds = {dup(made.segment), dup(made.request), dup(made.answer), -1};
    int status = sidecaml_worker_create(dup(made.status), 0, made.worker_control, SIDECAML_SPIN, &worker, why);
    if (status == 0 && options.batches) status = batch(why);
    if (status == 0) status = sidecaml_worker_attach(worker, &fds, &made.layout, options.how, why);
    if (status >= 0) status = sidecaml_guard(why);
    return status < 0 ? status : bind_all(why);
}

static int serve(void *unused) {
    struct sidecaml_failure why = {0};
    struct sidecaml_request request;
    const uint64_t one = 1;
    (void)unused;
    int status = begin(&why);
    if (status == 0 && write(made.ready, &one, sizeof one) < 0) status = fail_errno(&why, "write");
    if (status < 0) {
        fprintf(stderr, "%s\n", why.text);
        return 1;
    }
    while (sidecaml_worker_serve(worker, TURN_NS, &request, &why) != 1) {
    }
    fprintf(stderr, "a request could not be run: %s\n", why.text);
    return 1;
}

/* --- Calling ----------------------------------------------------------------------------------------------------- */

static int open_channel(struct sidecaml_failure *why) {
    const struct sidecaml_channel_fds fds = {made.segment, made.request, made.answer, made.status,
                                             made.channel_control};
    return sidecaml_channel_attach(&fds, 1, SIDECAML_SPIN, &channel, why);
}

static int await_answer(uint32_t slot) {
    struct sidecaml_failure why;
    struct sidecaml_request request;
    if (worker) {
        sidecaml_worker_serve(worker, 0, &request, &why);
        return sidecaml_channel_poll(channel, slot);
    }
    int status;
    while ((status = sidecaml_channel_wait(channel, slot, 0)) == -SIDECAML_E_AGAIN) {
    }
    return status;
}

static int call(uint64_t seed) {
    int slot = sidecaml_channel_claim(channel);
    if (slot < 0) return slot;
    if (options.bytes)
        caller_fill(sidecaml_channel_tensor(channel, (uint32_t)slot, 0), SIDECAML_FLOAT32,
                    options.bytes / sizeof(float), seed);
    slot = sidecaml_channel_submit(channel, 0);
    if (slot < 0) return slot;
    int status = await_answer((uint32_t)slot);
    if (status < 0) return status;
    if (options.bytes) caller_read(sidecaml_channel_tensor(channel, (uint32_t)slot, 1), options.bytes);
    return sidecaml_channel_release(channel, (uint32_t)slot);
}

/* A window of requests: the time that serving them took. */
static int call_window(uint64_t *spent_ns) {
    struct sidecaml_failure why;
    struct sidecaml_request request;
    const uint32_t window = (uint32_t)options.window;
    int status = sidecaml_channel_claim_run(channel, window);
    int slot = status < 0 ? status : sidecaml_channel_submit_run(channel, window, 0);
    if (slot < 0) return slot;
    uint64_t start = caller_now_ns();
    sidecaml_worker_serve(worker, 0, &request, &why);
    *spent_ns += caller_now_ns() - start;
    if (sidecaml_channel_answered(channel, (uint32_t)slot, window) != (int)window) return -SIDECAML_E_PENDING;
    return sidecaml_channel_release_run(channel, (uint32_t)slot, window);
}

static int take_sample(uint64_t seed, uint64_t *sample) {
    int status = 0;
    uint64_t start = caller_now_ns(), spent_ns = 0;
    for (uint64_t k = 0; status >= 0 && k < options.calls; k++)
        status = options.window ? call_window(&spent_ns) : call(seed + k);
    *sample = options.window ? spent_ns : caller_now_ns() - start;
    return status;
}

static int take_samples(uint64_t count, uint64_t *samples, struct sidecaml_failure *why) {
    for (uint64_t i = 0; i < count; i++) {
        int status = take_sample(i, &samples[i]);
        if (status < 0) return fail(why, -status, "a call failed: %s", sidecaml_error_text(-status));
    }
    return 0;
}

static int time_calls(struct sidecaml_failure *why) {
    uint64_t warm[WARM_SAMPLES];
    void *samples;
    int status = memory_map(options.count * sizeof(uint64_t), PRIVATE, &samples, why);
    if (status == 0) status = take_samples(WARM_SAMPLES, warm, why);
    if (status == 0) status = take_samples(options.count, samples, why);
    return status < 0 ? status : report_samples(options.file, samples, options.count, why);
}

static int play_alone(struct sidecaml_failure *why) {
    int status = begin(why);
    if (status == 0) status = open_channel(why);
    return status == 0 ? time_calls(why) : status;
}

static int play_with(struct child *child, struct sidecaml_failure *why) {
    uint64_t ready;
    int status = child_guard(child, NULL, why);
    if (status == 0 && read(made.ready, &ready, sizeof ready) < 0) status = fail_errno(why, "read");
    if (status == 0) status = open_channel(why);
    return status == 0 ? time_calls(why) : status;
}

static int play(struct sidecaml_failure *why) {
    struct child child;
    int status = make_all(why);
    if (status == 0) status = pin(options.client_core, why);
    if (status < 0 || options.server_core == ANY_CORE) return status < 0 ? status : play_alone(why);
    status = child_start("the worker", options.server_core, serve, NULL, &child, why);
    if (status < 0) return status;
    status = play_with(&child, why);
    child_stop(&child);
    return status;
}

/* --- Options ----------------------------------------------------------------------------------------------------- */

static int read_bytes(const char *text, struct sidecaml_failure *why) {
    if (strcmp(text, "0") == 0) {
        options.bytes = 0;
        return 0;
    }
    return argument_count("--bytes", text, &options.bytes, why);
}

static int read_option(int option, char **words, struct sidecaml_failure *why) {
    switch (option) {
    case 'x':
        return read_bytes(optarg, why);
    case 'y':
        return argument_count("--output-bytes", optarg, &options.output_bytes, why);
    case 'n':
        return argument_count("--count", optarg, &options.count, why);
    case 'k':
        return argument_count("--calls", optarg, &options.calls, why);
    case 'a':
        return argument_core("--client-core", optarg, &options.client_core, why);
    case 'b':
        return argument_core("--server-core", optarg, &options.server_core, why);
    case 'w':
        return argument_count("--window", optarg, &options.window, why);
    case 'm':
        options.batches = true;
        return 0;
    case 's':
        options.how = SIDECAML_ATTACH_STAGED;
        return 0;
    default:
        return argument_unknown(words[optind - 1], why);
    }
}

static int read_options(int count, char **words, struct sidecaml_failure *why) {
    static const struct option known[] = {{"bytes", required_argument, NULL, 'x'},
                                          {"output-bytes", required_argument, NULL, 'y'},
                                          {"count", required_argument, NULL, 'n'},
                                          {"calls", required_argument, NULL, 'k'},
                                          {"client-core", required_argument, NULL, 'a'},
                                          {"server-core", required_argument, NULL, 'b'},
                                          {"staged", no_argument, NULL, 's'},
                                          {"window", required_argument, NULL, 'w'},
                                          {"batches", no_argument, NULL, 'm'},
                                          {0}};
    int status = 0, option;
    opterr = 0;
    while (status == 0 && (option = getopt_long(count, words, "", known, NULL)) != -1)
        status = read_option(option, words, why);
    if (status < 0) return status;
    if (options.bytes == UINT64_MAX || !options.count || !options.calls || options.client_core == ANY_CORE ||
        optind != count - 1 || (options.window && options.server_core != ANY_CORE) ||
        (options.batches && !options.window) || (options.output_bytes && !options.batches))
        return fail(why, SIDECAML_E_INVALID,
                    "usage: ring --bytes N --count SAMPLES --calls N --client-core A "
                    "[--server-core B | --window W [--batches [--output-bytes N]]] [--staged] FILE");
    if (!options.output_bytes) options.output_bytes = options.bytes;
    options.file = words[optind];
    return 0;
}

int main(int count, char **words) {
    struct sidecaml_failure why = {0};
    int status = read_options(count, words, &why);
    if (status == 0) status = play(&why);
    return status < 0 ? report_error(why.text) : report_done(options.count);
}
