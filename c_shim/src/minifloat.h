/* Numbers of 4, 8 and 16 bits from and to float32, by integer arithmetic alone, so that neither the processor's
 * rounding mode nor flushing of subnormals has a say.
 *
 * The rules are those of ONNX's operator Cast (https://onnx.ai/onnx/operators/onnx__Cast.html) where it has any, else
 * those of the Python package ml_dtypes (https://github.com/jax-ml/ml_dtypes), which is what both sides of a model's
 * life in Python use:
 *
 * - rounding: to nearest, ties to even (Cast: "RNE"; IEEE 754 for float16 and bfloat16);
 * - saturating float8 (Cast, `saturate` = 1): what is beyond the largest finite number, infinity too, becomes it;
 * - not saturating (Cast, `saturate` = 0, and ml_dtypes): infinity where the type has one, otherwise NaN;
 * - float16, bfloat16: infinity (Cast: "+/- infinity if OOR"), whatever `saturate` says;
 * - float4e2m1: the largest number, as it has neither infinity nor NaN (Open Compute MX 1.0, 5.3.3); NaN becomes zero
 * of the other sign (ml_dtypes, and Cast by ONNX's reference, which is ml_dtypes);
 * - NaN: the sign is kept; float16 and bfloat16 keep the payload's high bits as processors do (VCVTPS2PH), or take the
 *   type's own quiet NaN (ml_dtypes), see `nan` below; the "fnuz" types have one NaN, 0x80, and one zero;
 * - float8e8m0, powers of two: the table of Cast; of what it leaves unspecified, negative numbers become the smallest
 *   when saturating and NaN otherwise (ONNX Runtime).
 */
#ifndef SIDECAML_MINIFLOAT_H
#define SIDECAML_MINIFLOAT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    FLOAT32_MANTISSA = 23,
    FLOAT32_BIAS = 127,
};
#define FLOAT32_INFINITY UINT32_C(0x7f800000)
#define FLOAT32_QUIET_NAN UINT32_C(0x7fc00000)
#define FLOAT32_IMPLICIT UINT32_C(0x00800000)

struct minifloat {
    unsigned bits, mantissa;
    int bias;
    uint32_t largest;  /* the finite number's code, without sign */
    uint32_t infinity; /* its code; 0: has none */
    uint32_t nan;      /* its code; 0: has none */
    bool one_zero;     /* the code of -0 is the only NaN */
    bool saturates;    /* `saturate` applies; a type with neither infinity nor NaN always does */
    bool payload;      /* a NaN keeps its payload's high bits */
};

/* clang-format off */
static const struct minifloat minifloat_float16        = {16, 10, 15,  0x7bff, 0x7c00, 0x7e00, false, false, true};
static const struct minifloat minifloat_bfloat16       = {16, 7,  127, 0x7f7f, 0x7f80, 0x7fc0, false, false, false};
static const struct minifloat minifloat_float8e4m3fn   = {8,  3,  7,   0x7e,   0,      0x7f,   false, true,  false};
static const struct minifloat minifloat_float8e4m3fnuz = {8,  3,  8,   0x7f,   0,      0x80,   true,  true,  false};
static const struct minifloat minifloat_float8e5m2     = {8,  2,  15,  0x7b,   0x7c,   0x7e,   false, true,  false};
static const struct minifloat minifloat_float8e5m2fnuz = {8,  2,  16,  0x7f,   0,      0x80,   true,  true,  false};
static const struct minifloat minifloat_float4e2m1     = {4,  1,  1,   0x7,    0,      0,      false, false, false};
/* clang-format on */

/* How float8e8m0 rounds (Cast's `round_mode`). */
enum minifloat_round { MINIFLOAT_UP, MINIFLOAT_DOWN, MINIFLOAT_NEAREST };

static inline uint32_t float32_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float32_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* --- To float32: exact ------------------------------------------------------------------------------------------- */

/* Of a code without sign, finite: a subnormal one is shifted up until its first bit is where the implicit one is. */
static inline uint32_t minifloat_widen(const struct minifloat *f, uint32_t code) {
    int exponent = (int)(code >> f->mantissa) + FLOAT32_BIAS - f->bias;
    uint32_t fraction = (code & ((UINT32_C(1) << f->mantissa) - 1)) << (FLOAT32_MANTISSA - f->mantissa);
    if (code >> f->mantissa || f->bias == FLOAT32_BIAS) return ((uint32_t)exponent << FLOAT32_MANTISSA) | fraction;
    if (!fraction) return 0;
    int shift = __builtin_clz(fraction) - (31 - FLOAT32_MANTISSA);
    fraction = (fraction << shift) & (FLOAT32_IMPLICIT - 1);
    return ((uint32_t)(exponent + 1 - shift) << FLOAT32_MANTISSA) | fraction;
}

static inline float minifloat_to_float32(const struct minifloat *f, uint32_t code) {
    uint32_t sign_bit = UINT32_C(1) << (f->bits - 1);
    uint32_t sign = code & sign_bit ? UINT32_C(1) << 31 : 0, magnitude = code & (sign_bit - 1);
    if (f->one_zero && code == f->nan) return float32_of_bits(FLOAT32_QUIET_NAN);
    if (magnitude <= f->largest) return float32_of_bits(sign | minifloat_widen(f, magnitude));
    if (f->infinity && magnitude == f->infinity) return float32_of_bits(sign | FLOAT32_INFINITY);
    uint32_t payload = magnitude << (FLOAT32_MANTISSA - f->mantissa) & (FLOAT32_IMPLICIT - 1);
    return float32_of_bits(sign | FLOAT32_QUIET_NAN | payload);
}

/* --- From float32 ------------------------------------------------------------------------------------------------ */

static inline uint32_t minifloat_nan(const struct minifloat *f, uint32_t sign, uint32_t magnitude) {
    if (f->one_zero) return f->nan;
    uint32_t payload = f->payload ? (magnitude & (FLOAT32_IMPLICIT - 1)) >> (FLOAT32_MANTISSA - f->mantissa) : 0;
    if (!f->nan) return sign ^ (UINT32_C(1) << (f->bits - 1)); /* zero of the other sign */
    return sign | f->nan | payload;
}

static inline uint32_t minifloat_overflow(const struct minifloat *f, uint32_t sign, bool saturate) {
    if ((f->saturates && saturate) || !f->nan) return sign | f->largest;
    if (f->infinity) return sign | f->infinity;
    return f->one_zero ? f->nan : sign | f->nan;
}

/* A finite magnitude's code, rounded; it may lie beyond the largest. */
static inline uint32_t minifloat_round(const struct minifloat *f, uint32_t magnitude) {
    uint32_t exponent = magnitude >> FLOAT32_MANTISSA, fraction = magnitude & (FLOAT32_IMPLICIT - 1);
    if (exponent)
        fraction |= FLOAT32_IMPLICIT;
    else
        exponent = 1;
    int target = (int)exponent - FLOAT32_BIAS + f->bias;
    int shift = (int)(FLOAT32_MANTISSA - f->mantissa) + (target < 1 ? 1 - target : 0);
    if (shift > FLOAT32_MANTISSA + 2) shift = FLOAT32_MANTISSA + 2; /* nothing is left of it either way */
    uint32_t kept = fraction >> shift, lost = fraction & ((UINT32_C(1) << shift) - 1),
             half = UINT32_C(1) << (shift - 1);
    kept += lost > half || (lost == half && kept & 1);
    /* The implicit bit, and a carry out of the fraction, add to the exponent. */
    return kept + (target < 1 ? 0 : (uint32_t)(target - 1) << f->mantissa);
}

static inline uint32_t minifloat_of_float32(const struct minifloat *f, float x, bool saturate) {
    uint32_t bits = float32_bits(x), magnitude = bits & ~(UINT32_C(1) << 31);
    uint32_t sign = bits >> 31 << (f->bits - 1);
    if (magnitude > FLOAT32_INFINITY) return minifloat_nan(f, sign, magnitude);
    uint32_t code = magnitude == FLOAT32_INFINITY ? f->largest + 1 : minifloat_round(f, magnitude);
    if (code > f->largest) return minifloat_overflow(f, sign, saturate);
    return f->one_zero && code == 0 ? 0 : sign | code;
}

/* --- float8e8m0: 2^(code - 127), and NaN ------------------------------------------------------------------------- */

#define E8M0_NAN UINT32_C(0xff)
#define E8M0_LARGEST UINT32_C(0xfe)
#define E8M0_SMALLEST_BITS UINT32_C(0x00400000) /* 2^-127, which is subnormal as a float32 */
#define E8M0_LARGEST_BITS UINT32_C(0x7f000000)  /* 2^127 */

static inline float e8m0_to_float32(uint32_t code) {
    if (code == E8M0_NAN) return float32_of_bits(FLOAT32_QUIET_NAN);
    return float32_of_bits(code ? code << FLOAT32_MANTISSA : E8M0_SMALLEST_BITS);
}

/* Of what lies from the smallest number to the largest. Below 2^-126 the fraction's high bit is the number's first. */
static inline uint32_t e8m0_round(uint32_t bits, enum minifloat_round round) {
    uint32_t code = bits >> FLOAT32_MANTISSA, half = code ? FLOAT32_IMPLICIT / 2 : FLOAT32_IMPLICIT / 4;
    uint32_t lost = bits & (2 * half - 1);
    return code + (round == MINIFLOAT_UP ? lost != 0 : round == MINIFLOAT_NEAREST && lost >= half);
}

static inline uint32_t e8m0_of_float32(float x, bool saturate, enum minifloat_round round) {
    uint32_t bits = float32_bits(x);
    if ((bits & ~(UINT32_C(1) << 31)) > FLOAT32_INFINITY) return E8M0_NAN;
    bool low = bits >> 31 || bits < E8M0_SMALLEST_BITS;
    if (low) return saturate ? 0 : E8M0_NAN;
    if (bits > E8M0_LARGEST_BITS) return saturate ? E8M0_LARGEST : E8M0_NAN;
    return e8m0_round(bits, round);
}

#endif
