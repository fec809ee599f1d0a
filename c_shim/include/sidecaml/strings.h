/* Tensors of strings where a slot has them: a table of offsets and, behind it, text (docs/protocol.md, 1.6). Judged
 * here, once, for both lanes and for the in-process path.
 *
 * Conventions are those of sidecaml.h and model.h.
 */
#ifndef SIDECAML_STRINGS_H
#define SIDECAML_STRINGS_H

#include "sidecaml/sidecaml.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A slot's place for a tensor of at most `most` strings: 8 * (most + 1) bytes of table, then room for text. */
struct sidecaml_strings_place {
    void *start; /* aligned to 8 */
    uint64_t most;
    uint64_t text_bytes;
};

/* A private copy, checked: string i is text[offsets[i]] up to text[offsets[i + 1]]. */
struct sidecaml_strings {
    uint64_t count;
    uint64_t *offsets; /* count + 1 */
    char *text;
};

/* Copies `count` strings (at most place->most) out of a place that somebody may write meanwhile: each byte once, then
 * checked. BAD_STRINGS when the table does not start at 0, steps back, leads beyond the text, or a string is not UTF-8:
 * "input 'x': string 3 ...", where `kind` is "input" and `name` 'x'. NO_MEMORY, INVALID for too many. */
int sidecaml_strings_read(const struct sidecaml_strings_place *place, uint64_t count, const char *kind,
                          const char *name, struct sidecaml_strings *out, struct sidecaml_failure *why);
/* Frees the copy. */
void sidecaml_strings_clear(struct sidecaml_strings *strings);

/* Where a place has its text. */
char *sidecaml_strings_text(const struct sidecaml_strings_place *place);

/* OUTPUT_TOO_LARGE for an output whose text has more bytes than its place has room. */
int sidecaml_strings_check_room(const char *output, uint64_t bytes, uint64_t text_bytes, struct sidecaml_failure *why);

#ifdef __cplusplus
}
#endif

#endif
