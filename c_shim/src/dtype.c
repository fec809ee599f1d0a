#include <string.h>

#include "checked.h"
#include "sidecaml/sidecaml.h"

/* Beyond this nothing is a size any more; it keeps every later sum inside 64 bits. */
#define LARGEST SIDECAML_LARGEST_BYTES

uint32_t sidecaml_dtype_bits(uint32_t dtype) {
    switch (dtype) {
#define SIDECAML_DTYPE_BITS(NAME, name, code, bits)                                                                    \
    case (code):                                                                                                       \
        return (bits);
        SIDECAML_DTYPES(SIDECAML_DTYPE_BITS)
#undef SIDECAML_DTYPE_BITS
    default:
        return 0;
    }
}

static bool bytes_of(uint32_t bits, uint64_t elements, uint64_t *out) {
    if (bits >= 8) return checked_mul(elements, bits / 8, out);
    uint32_t in_a_byte = 8 / bits;
    *out = elements / in_a_byte + (elements % in_a_byte != 0);
    return true;
}

bool sidecaml_tensor_bytes(uint32_t dtype, const uint64_t *dims, uint32_t rank, uint64_t *out) {
    uint32_t bits = dtype == SIDECAML_STRING ? 64 : sidecaml_dtype_bits(dtype); /* an offset each */
    uint64_t elements = 1, bytes;
    bool empty = false;
    if (bits == 0) return false;
    for (uint32_t i = 0; i < rank; i++) {
        /* Each alone is bounded too: a 0 elsewhere must not hide an absurd one. */
        if (dims[i] > LARGEST || !checked_mul(elements, dims[i] ? dims[i] : 1, &elements)) return false;
        empty |= dims[i] == 0;
    }
    if (!bytes_of(bits, elements, &bytes) || bytes > LARGEST) return false;
    if (empty) bytes = 0;
    /* A table has one more offset, where the last string ends. */
    *out = dtype == SIDECAML_STRING ? bytes + 8 : bytes;
    return *out <= LARGEST;
}

const char *sidecaml_dtype_name(uint32_t dtype) {
    switch (dtype) {
#define SIDECAML_DTYPE_NAME(NAME, name, code, bits)                                                                    \
    case (code):                                                                                                       \
        return #name;
        SIDECAML_DTYPES(SIDECAML_DTYPE_NAME)
#undef SIDECAML_DTYPE_NAME
    default:
        return NULL;
    }
}

uint32_t sidecaml_dtype_of_name(const char *name, size_t length) {
#define SIDECAML_DTYPE_MATCH(NAME, text, code, bits)                                                                   \
    if (length == sizeof #text - 1 && memcmp(name, #text, length) == 0) return (code);
    SIDECAML_DTYPES(SIDECAML_DTYPE_MATCH)
#undef SIDECAML_DTYPE_MATCH
    return 0;
}
