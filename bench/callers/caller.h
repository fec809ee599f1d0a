/* What a caller does around a call, the same for every path: the clock, its own memory, inputs, outputs.
 *
 * Element types are enum sidecaml_dtype of sidecaml/abi.h. Nothing here allocates, fails or keeps anything.
 */
#ifndef SIDECAML_BENCH_CALLER_H
#define SIDECAML_BENCH_CALLER_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* CLOCK_MONOTONIC. */
uint64_t caller_now_ns(void);

/* Reads and writes one word of each 64-byte line of a private buffer that begins on a line. */
void caller_touch(void *buffer, uint64_t bytes);

/* Whether caller_fill knows this element type. */
bool caller_fills(uint32_t dtype);

/* float32: x[i] = ((i + 31 * seed) & 255) / 256; int64: 16000 throughout. */
void caller_fill(void *input, uint32_t dtype, uint64_t elements, uint64_t seed);

/* Reads the first word of each 64-byte line of an output, or what there is of it at the end. */
void caller_read(const void *output, uint64_t bytes);

#ifdef __cplusplus
}
#endif

#endif
