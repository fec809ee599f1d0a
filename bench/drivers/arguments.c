#include "arguments.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "failure.h"

#define MOST_SAMPLES (1 << 30)

static int number(const char *option, const char *text, long least, long most, long *out,
                  struct sidecaml_failure *why) {
    char *end;
    errno = 0;
    *out = strtol(text, &end, 10);
    if (!errno && end != text && !*end && *out >= least && *out <= most) return 0;
    return fail(why, SIDECAML_E_INVALID, "%s: expected a number from %ld to %ld, got \"%s\"", option, least, most,
                text);
}

int argument_core(const char *option, const char *text, int *out, struct sidecaml_failure *why) {
    long core;
    int status = number(option, text, 0, INT_MAX, &core, why);
    if (status == 0) *out = (int)core;
    return status;
}

int argument_count(const char *option, const char *text, uint64_t *out, struct sidecaml_failure *why) {
    long count;
    int status = number(option, text, 1, MOST_SAMPLES, &count, why);
    if (status == 0) *out = (uint64_t)count;
    return status;
}

int argument_unknown(const char *word, struct sidecaml_failure *why) {
    return fail(why, SIDECAML_E_INVALID, "unknown option \"%s\", or one that lacks its value", word);
}
