/* Whole Bigarrays from one element type to another; ocaml_lib/src/convert.ml declares and checks them.
 *
 * noalloc: nothing here allocates or raises. The caller hands over a bounded stretch of elements at a time, because
 * other threads and domains wait for it.
 */
#define CAML_NAME_SPACE
#include <stdint.h>

#include <caml/alloc.h>
#include <caml/bigarray.h>
#include <caml/mlvalues.h>

#include "minifloat.h"

/* In the order of `Convert.reduced`. */
enum { FLOAT16, BFLOAT16, FLOAT8E4M3FN, FLOAT8E4M3FNUZ, FLOAT8E5M2, FLOAT8E5M2FNUZ, FLOAT4E2M1, FLOAT8E8M0 };

/* In the order of `Convert.packed`. */
enum { INT4, UINT4, INT2, UINT2 };

struct options {
    bool saturate;
    enum minifloat_round round;
};

/* A number of a packed type: the first of a byte is in its low bits, as ONNX packs them. */
static inline uint32_t packed_get(const uint8_t *bytes, uintnat i, unsigned bits) {
    unsigned shift = (unsigned)(i * bits % 8);
    return bytes[i * bits / 8] >> shift & ((1u << bits) - 1);
}

/* In rising order of i: the first number of a byte clears the rest of it. */
static inline void packed_put(uint8_t *bytes, uintnat i, unsigned bits, uint32_t code) {
    unsigned shift = (unsigned)(i * bits % 8);
    uint8_t kept = shift ? bytes[i * bits / 8] : 0;
    bytes[i * bits / 8] = (uint8_t)(kept | (code & ((1u << bits) - 1)) << shift);
}

/* --- float32 ------------------------------------------------------------------------------------------------------
 */

/* The loops are written with the type as a constant, which the compiler makes a loop for each type of. */
#define WIDEN(FORMAT, GET)                                                                                             \
    for (uintnat i = from; i < end; i++)                                                                               \
        to[i] = minifloat_to_float32(&(FORMAT), GET);                                                                  \
    break

static void to_float32(intnat type, const void *source, float *to, uintnat from, uintnat end) {
    const uint8_t *bytes = source;
    const uint16_t *words = source;
    switch (type) {
    case FLOAT16:
        WIDEN(minifloat_float16, words[i]);
    case BFLOAT16:
        WIDEN(minifloat_bfloat16, words[i]);
    case FLOAT8E4M3FN:
        WIDEN(minifloat_float8e4m3fn, bytes[i]);
    case FLOAT8E4M3FNUZ:
        WIDEN(minifloat_float8e4m3fnuz, bytes[i]);
    case FLOAT8E5M2:
        WIDEN(minifloat_float8e5m2, bytes[i]);
    case FLOAT8E5M2FNUZ:
        WIDEN(minifloat_float8e5m2fnuz, bytes[i]);
    case FLOAT4E2M1:
        WIDEN(minifloat_float4e2m1, packed_get(bytes, i, 4));
    case FLOAT8E8M0:
        for (uintnat i = from; i < end; i++)
            to[i] = e8m0_to_float32(bytes[i]);
    }
}

#define NARROW(FORMAT, PLACE, element)                                                                                 \
    for (uintnat i = from; i < end; i++)                                                                               \
        (PLACE)[i] = (element)minifloat_of_float32(&(FORMAT), source[i], options.saturate);                            \
    break

static void of_float32(intnat type, struct options options, const float *source, void *to, uintnat from, uintnat end) {
    uint8_t *bytes = to;
    uint16_t *words = to;
    switch (type) {
    case FLOAT16:
        NARROW(minifloat_float16, words, uint16_t);
    case BFLOAT16:
        NARROW(minifloat_bfloat16, words, uint16_t);
    case FLOAT8E4M3FN:
        NARROW(minifloat_float8e4m3fn, bytes, uint8_t);
    case FLOAT8E4M3FNUZ:
        NARROW(minifloat_float8e4m3fnuz, bytes, uint8_t);
    case FLOAT8E5M2:
        NARROW(minifloat_float8e5m2, bytes, uint8_t);
    case FLOAT8E5M2FNUZ:
        NARROW(minifloat_float8e5m2fnuz, bytes, uint8_t);
    case FLOAT4E2M1:
        for (uintnat i = from; i < end; i++)
            packed_put(bytes, i, 4, minifloat_of_float32(&minifloat_float4e2m1, source[i], options.saturate));
        break;
    case FLOAT8E8M0:
        for (uintnat i = from; i < end; i++)
            bytes[i] = (uint8_t)e8m0_of_float32(source[i], options.saturate, options.round);
    }
}

/* (type, reduced array, float32 array, first element, how many) */
CAMLprim value sidecaml_ml_to_float32(value v_type, value v_from, value v_to, value v_first,
                                      value v_count) { /* noalloc */
    uintnat first = (uintnat)Long_val(v_first);
    to_float32(Long_val(v_type), Caml_ba_data_val(v_from), Caml_ba_data_val(v_to), first,
               first + (uintnat)Long_val(v_count));
    return Val_unit;
}

/* (type + 16 * rounding + 64 if saturating, float32 array, reduced array, first element, how many) */
CAMLprim value sidecaml_ml_of_float32(value v_mode, value v_from, value v_to, value v_first,
                                      value v_count) { /* noalloc */
    uintnat first = (uintnat)Long_val(v_first);
    intnat mode = Long_val(v_mode);
    struct options options = {.saturate = mode & 64, .round = (enum minifloat_round)(mode / 16 % 4)};
    of_float32(mode % 16, options, Caml_ba_data_val(v_from), Caml_ba_data_val(v_to), first,
               first + (uintnat)Long_val(v_count));
    return Val_unit;
}

/* (type, code): for one number */
CAMLprim double sidecaml_ml_float_of_code_native(intnat type, intnat code) { /* noalloc */
    uint16_t word = (uint16_t)code;
    uint8_t byte = (uint8_t)code;
    float result = 0;
    to_float32(type, type <= BFLOAT16 ? (void *)&word : (void *)&byte, &result, 0, 1);
    return result;
}

CAMLprim value sidecaml_ml_float_of_code_byte(value v_type, value v_code) {
    return caml_copy_double(sidecaml_ml_float_of_code_native(Long_val(v_type), Long_val(v_code)));
}

/* --- Packed integers ---------------------------------------------------------------------------------------------- */

static unsigned bits_of(intnat type) {
    return type == INT4 || type == UINT4 ? 4 : 2;
}

/* (type, packed bytes, int8 or uint8 array, first element, how many) */
CAMLprim value sidecaml_ml_unpack(value v_type, value v_from, value v_to, value v_first, value v_count) { /* noalloc */
    intnat type = Long_val(v_type);
    unsigned bits = bits_of(type);
    uint32_t sign = type == INT4 || type == INT2 ? 1u << (bits - 1) : 0;
    const uint8_t *from = Caml_ba_data_val(v_from);
    uint8_t *to = Caml_ba_data_val(v_to);
    uintnat first = (uintnat)Long_val(v_first), end = first + (uintnat)Long_val(v_count);
    for (uintnat i = first; i < end; i++)
        to[i] = (uint8_t)((packed_get(from, i, bits) ^ sign) - sign);
    return Val_unit;
}

/* (type, int8 or uint8 array, packed bytes, first element, how many). Higher bits are discarded, as ONNX's Cast says:
 * "fixed point: when OOR, discard higher bits and reinterpret". */
CAMLprim value sidecaml_ml_pack(value v_type, value v_from, value v_to, value v_first, value v_count) { /* noalloc */
    unsigned bits = bits_of(Long_val(v_type));
    const uint8_t *from = Caml_ba_data_val(v_from);
    uint8_t *to = Caml_ba_data_val(v_to);
    uintnat first = (uintnat)Long_val(v_first), end = first + (uintnat)Long_val(v_count);
    for (uintnat i = first; i < end; i++)
        packed_put(to, i, bits, from[i]);
    return Val_unit;
}

CAMLprim value sidecaml_ml_elements(value v_array) { /* noalloc */
    return Val_long(caml_ba_num_elts(Caml_ba_array_val(v_array)));
}
