/* Arithmetic and reads for numbers that nobody vouches for. */
#ifndef SIDECAML_CHECKED_H
#define SIDECAML_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_add_overflow(a, b, out);
}

/* `align` is a power of two. */
static inline bool checked_align(uint64_t value, uint64_t align, uint64_t *out) {
    if (!checked_add(value, align - 1, out)) return false;
    *out &= ~(align - 1);
    return true;
}

/* Whether [offset, offset + length) lies in [0, size): written so that nothing can overflow. */
static inline bool range_inside(uint64_t offset, uint64_t length, uint64_t size) {
    return length <= size && offset <= size - length;
}

/* A field that the peer may rewrite at any time is read once, into a local: the compiler must not read it again after
 * the check. */
#define read_once(lvalue) (*(const volatile __typeof__(lvalue) *)&(lvalue))

#endif
