#define _GNU_SOURCE
#include "protocol.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"
#include "memory.h"
#include "report.h"

#define MOST_CALLS ((uint64_t)1 << 30)

/* --- call -------------------------------------------------------------------------------------------------------- */

static int time_into(const struct driver *driver, const struct timing *timing, uint64_t *samples, const char *file,
                     struct sidecaml_failure *why) {
    uint64_t made;
    int status = calls_time(driver, timing, samples, &made, why);
    if (status == 0) status = report_samples(file, samples, made, why);
    return status < 0 ? status : report_done(made);
}

static int do_call(const struct driver *driver, const struct timing *timing, const char *file,
                   struct sidecaml_failure *why) {
    void *samples;
    if (timing->count > MOST_CALLS)
        return fail(why, SIDECAML_E_INVALID, "call: at most %" PRIu64 " calls at a time, not %" PRIu64, MOST_CALLS,
                    timing->count);
    uint64_t bytes = timing->count * sizeof(uint64_t);
    int status = memory_map(bytes, PRIVATE, &samples, why);
    if (status < 0) return status;
    status = time_into(driver, timing, samples, file, why);
    memory_unmap(samples, bytes);
    return status;
}

/* --- outputs ----------------------------------------------------------------------------------------------------- */

static void write_outputs(const struct opened *opened, FILE *stream) {
    for (uint32_t i = opened->tensors->inputs; i < opened->tensors->count; i++) {
        const struct tensor *output = &opened->tensors->tensor[i];
        fwrite(opened->block + output->offset, 1, output->bytes, stream);
    }
}

static int do_outputs(const struct driver *driver, uint64_t seeds, const char *file, struct sidecaml_failure *why) {
    FILE *stream;
    int status = report_open(file, &stream, why);
    if (status < 0) return status;
    for (uint64_t seed = 0; status == 0 && seed < seeds; seed++) {
        status = calls_run(driver, seed, why);
        if (status == 0) write_outputs(&driver->opened, stream);
    }
    /* The first failure is the one to tell. */
    int closed = report_close(stream, file, status < 0 ? NULL : why);
    if (status == 0) status = closed;
    return status < 0 ? status : report_done(seeds);
}

/* --- Lines ------------------------------------------------------------------------------------------------------- */

/* The rest of a line is the file's name. */
static int obey(const struct driver *driver, const char *line, struct sidecaml_failure *why) {
    struct timing timing;
    uint64_t seeds;
    int file = 0;
    sscanf(line, "call %" SCNu64 " %" SCNu64 " %" SCNu64 " %n", &timing.touch_bytes, &timing.count, &timing.budget_ns,
           &file);
    if (file && line[file]) return do_call(driver, &timing, line + file, why);
    sscanf(line, "outputs %" SCNu64 " %n", &seeds, &file);
    if (file && line[file]) return do_outputs(driver, seeds, line + file, why);
    return fail(why, SIDECAML_E_INVALID,
                "unknown command \"%s\": expected `call TOUCH COUNT BUDGET_NS FILE` or `outputs SEEDS FILE`", line);
}

static int obey_all(const struct driver *driver, struct sidecaml_failure *why) {
    char *line = NULL;
    size_t room = 0;
    int status = 0;
    while (status == 0 && getline(&line, &room, stdin) >= 0) {
        line[strcspn(line, "\n")] = '\0';
        status = obey(driver, line, why);
    }
    free(line);
    return status;
}

int protocol_serve(const struct driver *driver, struct sidecaml_failure *why) {
    int status = calls_run(driver, 0, why);
    if (status < 0) return status;
    if (driver->opened.server)
        printf("ready %d\n", (int)driver->opened.server);
    else
        puts("ready");
    fflush(stdout);
    return obey_all(driver, why);
}
