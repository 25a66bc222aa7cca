// Blocks of 32 neighbours in a row that share one scale, a float16. Byte by byte:
//
//     byte   0    2             6            18/20/22/24               34
//     Q4_0   | d  | nibbles 16                |                             4.5 bits per weight
//     Q4_1   | d  | m  | nibbles 16              |                          5
//     Q5_0   | d  | fifths 4    | nibbles 16        |                       5.5
//     Q5_1   | d  | m  | fifths 4  | nibbles 16       |                     6
//     Q8_0   | d  | 32 signed bytes                                   |     8.5
//
//     Q4_0  w = d * (code - 8)       codes 0 … 15
//     Q4_1  w = d * code + m         codes 0 … 15, m a float16 too
//     Q5_0  w = d * (code - 16)      codes 0 … 31
//     Q5_1  w = d * code + m         codes 0 … 31
//     Q8_0  w = d * code             codes -127 … 127
//
// Nibbles: weight j below weight j + 16, as in our own INT4. The fifth bit of a code is bit j of
// four bytes, read as one little-endian number:
//
//     nibbles    byte            0     1           15        fifths     byte 0        … byte 3
//                bits 7 … 4     w16   w17    …    w31                   w7 … w1 w0      w31 … w24
//                bits 3 … 0     w0    w1     …    w15
//
// By default these round as the reference does, bit for bit: a symmetric format gives the largest
// magnitude the code 0, so d has the opposite sign of that weight, and the other sign's end is one
// code short; codes are made with d as it was before it became a float16.
#include "quant/format_ggml.h"

static bool ggml_fail(struct ggml_failure *why, size_t col, float scale) {
    *why = (struct ggml_failure){col, scale};
    return false;
}

static inline int nibble(const uint8_t *qs, size_t i) {
    return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}

static inline int fifth_bit(const uint8_t *qh, size_t i) {
    return (qh[i / 8] >> i % 8 & 1) << 4;
}

static float value_q4_0(const uint8_t *block, size_t i) {
    return ggml_load_f16(block) * (float)(nibble(block + 2, i) - 8);
}

static float value_q4_1(const uint8_t *block, size_t i) {
    return ggml_load_f16(block) * (float)nibble(block + 4, i) + ggml_load_f16(block + 2);
}

static float value_q5_0(const uint8_t *block, size_t i) {
    int code = nibble(block + 6, i) | fifth_bit(block + 2, i);
    return ggml_load_f16(block) * (float)(code - 16);
}

static float value_q5_1(const uint8_t *block, size_t i) {
    int code = nibble(block + 8, i) | fifth_bit(block + 4, i);
    return ggml_load_f16(block) * (float)code + ggml_load_f16(block + 2);
}

static float value_q8_0(const uint8_t *block, size_t i) {
    return ggml_load_f16(block) * (float)(int8_t)block[2 + i];
}

#define SIMD_BODY "quant/format_ggml_legacy_simd.h"
#include "kernels/cpu/simd.h"

static bool encode_q4_0(const float *w, size_t k, const struct quant_hints *hints, uint8_t *out,
                        struct ggml_failure *why) {
    (void)hints;
    return SIMD_CALL(encode_symmetric, w, k, 8, out, why);
}

static bool encode_q5_0(const float *w, size_t k, const struct quant_hints *hints, uint8_t *out,
                        struct ggml_failure *why) {
    (void)hints;
    return SIMD_CALL(encode_symmetric, w, k, 16, out, why);
}

static bool encode_q4_1(const float *w, size_t k, const struct quant_hints *hints, uint8_t *out,
                        struct ggml_failure *why) {
    (void)hints;
    return SIMD_CALL(encode_range, w, k, 15, out, why);
}

static bool encode_q5_1(const float *w, size_t k, const struct quant_hints *hints, uint8_t *out,
                        struct ggml_failure *why) {
    (void)hints;
    return SIMD_CALL(encode_range, w, k, 31, out, why);
}

static bool encode_q8_0(const float *w, size_t k, const struct quant_hints *hints, uint8_t *out,
                        struct ggml_failure *why) {
    (void)hints;
    return SIMD_CALL(encode_q8_0, w, k, out, why);
}

GGML_FORMAT(q8_0, "q8_0", "Q8_0", 8, 32, 32, 34, 8);
GGML_FORMAT(q4_0, "q4_0", "Q4_0", 4, 32, 32, 18, 2);
GGML_FORMAT(q4_1, "q4_1", "Q4_1", 4, 32, 32, 20, 3);
GGML_FORMAT(q5_0, "q5_0", "Q5_0", 5, 32, 32, 22, 6);
GGML_FORMAT(q5_1, "q5_1", "Q5_1", 5, 32, 32, 24, 7);
