/* A sentence put together in a buffer; what does not fit is cut. */
#ifndef SIDECAML_TEXT_H
#define SIDECAML_TEXT_H

#include <stddef.h>
#include <stdint.h>

struct text {
    char *start; /* always ends with a NUL */
    size_t room; /* 1 or more */
    size_t used;
};

/* An empty one. */
struct text text_in(char *buffer, size_t room);

void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_add_bytes(struct text *text, const char *bytes, size_t length);
/* A name in quotes, what would not be seen as it is escaped as Python does: 'tab\there'. */
void text_add_quoted(struct text *text, const char *bytes, size_t length);
/* The same for bytes that are no text: everything beyond ASCII is escaped, too. */
void text_add_quoted_bytes(struct text *text, const char *bytes, size_t length);
void text_add_dim(struct text *text, uint64_t dim);
/* "[2, 64]" */
void text_add_dims(struct text *text, const uint64_t *dims, uint32_t rank);

#endif
