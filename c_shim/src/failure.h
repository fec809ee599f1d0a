/* Filling in a struct sidecaml_failure. */
#ifndef SIDECAML_FAILURE_H
#define SIDECAML_FAILURE_H

#include "sidecaml/sidecaml.h"

/* Makes a text fit to be shown, whoever wrote what is in it: bytes that are not UTF-8 become '?', control characters
 * blanks, and a character that the end cuts goes. Returns the new length; text[length] must be writable. */
size_t clean_text(char *text, size_t length);

/* Writes code and cleaned text where `why` is not NULL; returns -code, so that callers can `return fail(...)`. */
int fail(struct sidecaml_failure *why, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same for SYSTEM with errno's text added. */
int fail_errno(struct sidecaml_failure *why, const char *what);

#endif
