/* What waking costs: two processes pass a token back and forth, and whoever waits for it sleeps.
 *
 * wake --mechanism posix|futex|eventfd --client-core A --server-core B --count N [--semaphores NAME1 NAME2] FILE
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "arguments.h"
#include "bell.h"
#include "caller.h"
#include "child.h"
#include "failure.h"
#include "memory.h"
#include "report.h"

#define WARM_ROUNDS 64

static struct {
    const struct mechanism *mechanism;
    const char *semaphores[2];
    const char *file;
    int client_core;
    int server_core;
    uint64_t count;
} options = {.client_core = ANY_CORE, .server_core = ANY_CORE};

static struct bell there, back;

/* --- Back and forth ---------------------------------------------------------------------------------------------- */

static int answer(void *argument) {
    struct sidecaml_failure why = {0};
    int status = 0;
    (void)argument;
    while (status == 0) {
        status = options.mechanism->wait(&there, &why);
        if (status == 0) status = options.mechanism->post(&back, &why);
    }
    fprintf(stderr, "%s\n", why.text);
    return 1;
}

static int rounds(uint64_t count, uint64_t *samples, struct sidecaml_failure *why) {
    for (uint64_t i = 0; i < count; i++) {
        uint64_t start = caller_now_ns();
        int status = options.mechanism->post(&there, why);
        if (status == 0) status = options.mechanism->wait(&back, why);
        if (status < 0) return status;
        samples[i] = caller_now_ns() - start;
    }
    return 0;
}

static int time_rounds(struct sidecaml_failure *why) {
    uint64_t warm[WARM_ROUNDS];
    void *samples;
    int status = memory_map(options.count * sizeof(uint64_t), PRIVATE, &samples, why);
    if (status == 0) status = rounds(WARM_ROUNDS, warm, why);
    if (status == 0) status = rounds(options.count, samples, why);
    return status < 0 ? status : report_samples(options.file, samples, options.count, why);
}

static int play(struct sidecaml_failure *why) {
    struct child child;
    int status = options.mechanism->make(&there, options.semaphores[0], why);
    if (status == 0) status = options.mechanism->make(&back, options.semaphores[1], why);
    if (status == 0) status = pin(options.client_core, why);
    if (status == 0) status = child_start("the other side", options.server_core, answer, NULL, &child, why);
    if (status < 0) return status;
    status = child_guard(&child, NULL, why);
    if (status == 0) status = time_rounds(why);
    child_stop(&child);
    return status;
}

/* --- Options ----------------------------------------------------------------------------------------------------- */

/* The second name is a word of its own, behind the first. */
static int read_semaphores(int count, char **words, struct sidecaml_failure *why) {
    if (optind >= count) return fail(why, SIDECAML_E_INVALID, "--semaphores: expected two names");
    options.semaphores[0] = optarg;
    options.semaphores[1] = words[optind++];
    return 0;
}

static int read_option(int option, int count, char **words, struct sidecaml_failure *why) {
    switch (option) {
    case 'm':
        return find_mechanism(optarg, &options.mechanism, why);
    case 'a':
        return argument_core("--client-core", optarg, &options.client_core, why);
    case 'b':
        return argument_core("--server-core", optarg, &options.server_core, why);
    case 'n':
        return argument_count("--count", optarg, &options.count, why);
    case 's':
        return read_semaphores(count, words, why);
    default:
        return argument_unknown(words[optind - 1], why);
    }
}

static int read_options(int count, char **words, struct sidecaml_failure *why) {
    static const struct option known[] = {
        {"mechanism", required_argument, NULL, 'm'},   {"client-core", required_argument, NULL, 'a'},
        {"server-core", required_argument, NULL, 'b'}, {"count", required_argument, NULL, 'n'},
        {"semaphores", required_argument, NULL, 's'},  {0}};
    int status = 0, option;
    opterr = 0;
    while (status == 0 && (option = getopt_long(count, words, "", known, NULL)) != -1)
        status = read_option(option, count, words, why);
    if (status < 0) return status;
    if (!options.mechanism || options.client_core == ANY_CORE || options.server_core == ANY_CORE || !options.count ||
        optind != count - 1)
        return fail(why, SIDECAML_E_INVALID,
                    "usage: wake --mechanism posix|futex|eventfd --client-core A --server-core B --count N "
                    "[--semaphores NAME1 NAME2] FILE");
    options.file = words[optind];
    return 0;
}

int main(int count, char **words) {
    struct sidecaml_failure why = {0};
    int status = read_options(count, words, &why);
    if (status == 0) status = play(&why);
    return status < 0 ? report_error(why.text) : report_done(options.count);
}
