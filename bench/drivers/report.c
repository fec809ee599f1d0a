#include "report.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "failure.h"

int report_done(uint64_t number) {
    printf("done %" PRIu64 "\n", number);
    fflush(stdout);
    return 0;
}

int report_error(const char *text) {
    fputs("error ", stdout);
    for (; *text; text++)
        putchar(*text == '\n' ? ' ' : *text);
    putchar('\n');
    fflush(stdout);
    return 1;
}

static int fail_file(const char *file, struct sidecaml_failure *why) {
    return fail(why, SIDECAML_E_SYSTEM, "%s could not be written: %s", file, strerror(errno));
}

int report_open(const char *file, FILE **out, struct sidecaml_failure *why) {
    *out = fopen(file, "wb");
    return *out ? 0 : fail_file(file, why);
}

int report_close(FILE *stream, const char *file, struct sidecaml_failure *why) {
    int failed = ferror(stream); /* of any write; errno is still that of the last call that failed */
    if (fclose(stream) != 0 || failed) return fail_file(file, why);
    return 0;
}

int report_samples(const char *file, const uint64_t *samples, uint64_t count, struct sidecaml_failure *why) {
    FILE *stream;
    int status = report_open(file, &stream, why);
    if (status < 0) return status;
    /* Little-endian, as every machine is that abi.h allows. */
    fwrite(samples, sizeof samples[0], count, stream);
    return report_close(stream, file, why);
}
