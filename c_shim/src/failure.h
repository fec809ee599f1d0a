/* Filling in a struct sidecaml_failure. */
#ifndef SIDECAML_FAILURE_H
#define SIDECAML_FAILURE_H

#include "sidecaml/sidecaml.h"

/* Writes code and text where `why` is not NULL; returns -code, so that callers can `return fail(...)`. */
int fail(struct sidecaml_failure *why, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same for SYSTEM with errno's text added. */
int fail_errno(struct sidecaml_failure *why, const char *what);

#endif
