/* Words of a command line that stand for numbers. INVALID says which word is wrong. */
#ifndef SIDECAML_BENCH_ARGUMENTS_H
#define SIDECAML_BENCH_ARGUMENTS_H

#include "sidecaml/sidecaml.h"

int argument_core(const char *option, const char *text, int *out, struct sidecaml_failure *why);
/* From 1 on, and no more than samples could be kept of. */
int argument_count(const char *option, const char *text, uint64_t *out, struct sidecaml_failure *why);
int argument_unknown(const char *word, struct sidecaml_failure *why);

#endif
