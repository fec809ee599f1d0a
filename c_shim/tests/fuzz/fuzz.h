/* What the fuzz targets share: an input that is read piece by piece, layouts made of it, and a peer who scribbles.
 *
 * A target is one file with LLVMFuzzerTestOneInput; `make fuzz` runs them all, `make -C c_shim fuzz-regressions` only
 * what lies in tests/fuzz/corpus.
 */
#ifndef SIDECAML_FUZZ_H
#define SIDECAML_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "sidecaml/sidecaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must be true whatever the input. */
#define HOLDS(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                             \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* What is not yet read; zeros follow its end. */
struct input {
    const uint8_t *at;
    size_t left;
};
uint8_t take_byte(struct input *input);
uint64_t take_word(struct input *input);
/* 0 to `most`. */
uint32_t take_number(struct input *input, uint32_t most);
/* At most `room` bytes, as many as a byte of the input says and it still has; their number. */
size_t take_bytes(struct input *input, void *out, size_t room);
/* A slot's word as a peer might write it: often of a ticket and state that are near, sometimes anything. */
uint64_t take_slot_word(struct input *input);
/* A dimension: mostly small, sometimes anything. */
uint64_t take_dim(struct input *input);

/* A layout that a daemon could have computed, of a few small tensors and 1 to 4 slots. */
void take_layout(struct input *input, struct sidecaml_layout *layout);

/* Writes something somewhere into a segment, as the other side may at any time. */
void scribble(struct input *input, uint8_t *base, const struct sidecaml_layout *layout);

/* Printable, and NUL-terminated where it says so. */
void check_text(const char *text, size_t length);

/* Descriptors that are the same for every input; dup'd by who gives them away. */
int fresh_memory(uint64_t bytes);
int fresh_doorbell(void);
int copy_of(int fd);
void fresh_sockets(int ends[2]);
uint8_t *map(int fd, uint64_t bytes);
/* Of this process; a target that leaks one stops here. */
void check_descriptors(void);

#endif
