/* What a program of this folder says of its work: lines on stdout, samples in a file. */
#ifndef SIDECAML_BENCH_REPORT_H
#define SIDECAML_BENCH_REPORT_H

#include <stdio.h>

#include "sidecaml/sidecaml.h"

/* `done NUMBER`; 0. */
int report_done(uint64_t number);
/* `error TEXT`, on one line; 1, the exit code that goes with it. */
int report_error(const char *text);

/* Files are written anew. SYSTEM names the file. */
int report_open(const char *file, FILE **out, struct sidecaml_failure *why);
int report_close(FILE *stream, const char *file, struct sidecaml_failure *why);
int report_samples(const char *file, const uint64_t *samples, uint64_t count, struct sidecaml_failure *why);

#endif
