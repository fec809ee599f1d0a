#include <string.h>

#include "sidecaml/sidecaml.h"

size_t sidecaml_dtype_bytes(uint32_t dtype) {
    switch (dtype) {
#define SIDECAML_DTYPE_BYTES(NAME, name, code, bytes)                                                                  \
    case (code):                                                                                                       \
        return (bytes);
        SIDECAML_DTYPES(SIDECAML_DTYPE_BYTES)
#undef SIDECAML_DTYPE_BYTES
    default:
        return 0;
    }
}

const char *sidecaml_dtype_name(uint32_t dtype) {
    switch (dtype) {
#define SIDECAML_DTYPE_NAME(NAME, name, code, bytes)                                                                   \
    case (code):                                                                                                       \
        return #name;
        SIDECAML_DTYPES(SIDECAML_DTYPE_NAME)
#undef SIDECAML_DTYPE_NAME
    default:
        return NULL;
    }
}

uint32_t sidecaml_dtype_of_name(const char *name, size_t length) {
#define SIDECAML_DTYPE_MATCH(NAME, text, code, bytes)                                                                  \
    if (length == sizeof #text - 1 && memcmp(name, #text, length) == 0) return (code);
    SIDECAML_DTYPES(SIDECAML_DTYPE_MATCH)
#undef SIDECAML_DTYPE_MATCH
    return 0;
}
