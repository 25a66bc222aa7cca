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
#include "quant/format_ggml_search.h"

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

// What the types differ in, for the search.
struct legacy_type {
    int bits, zero; // of codes; the code of 0
    bool offset;    // there is an m
    size_t bytes;
    struct ggml_grid grid;
    struct ggml_effort effort;
};

#define SIMD_BODY "quant/format_ggml_legacy_simd.h"
#include "kernels/cpu/simd.h"

// Replaces the blocks of a row by ones of less error, 16 at a time.
static void search_row(const struct legacy_type *type, const float *w, size_t k,
                       const float *importance, uint8_t *out) {
    float largest = ggml_importance_largest(importance, k), scale[TILE], min[TILE];
    struct ggml_tile tile;
    for (size_t col = 0; col < k; col += 32 * TILE) {
        size_t left = (k - col) / 32, here = size_min(left, TILE);
        ggml_tile_load(&tile, w + col, importance ? importance + col : NULL, largest, 32,
                       (int)here);
        if (type->offset)
            ggml_search_min(&tile, type->grid.hi, false, &type->effort, scale, min);
        else
            ggml_search_scale(&tile, &type->grid, &type->effort, scale);
        for (size_t b = 0; b < here; b++, out += type->bytes) {
            ggml_store_f16(out, ggml_round_f16(scale[b]));
            if (type->offset)
                ggml_store_f16(out + 2, ggml_round_f16(-min[b]));
            SIMD_CALL(round_block, type, w + col + 32 * b, out);
        }
    }
}

#define LEGACY_FORMAT(id, name, label, bits_, zero_, offset_, lo_, hi_, bytes_, type, ...)         \
    static const struct legacy_type type_##id = {.bits = bits_,                                    \
                                                 .zero = zero_,                                    \
                                                 .offset = offset_,                                \
                                                 .bytes = bytes_,                                  \
                                                 .grid = {.lo = lo_, .hi = hi_},                   \
                                                 .effort = __VA_ARGS__};                           \
    static bool encode_##id(const float *w, size_t k, const struct quant_hints *hints,             \
                            uint8_t *out, struct ggml_failure *why) {                              \
        if (!SIMD_CALL(encode_##id, w, k, out, why))                                               \
            return false;                                                                          \
        if (hints->search)                                                                         \
            search_row(&type_##id, w, k, hints->importance, out);                                  \
        return true;                                                                               \
    }                                                                                              \
    GGML_FORMAT(id, name, label, bits_, 32, 32, bytes_, type)

#define BOTH_SIGNS                                                                                 \
    { 16, 0.75f, 1.1f, true, .refits = 2 }
#define ONE_SIGN                                                                                   \
    { 24, 0.8f, 1.05f, false, .refits = 2 }
LEGACY_FORMAT(q8_0, "q8_0", "Q8_0", 8, 0, false, -127, 127, 34, 8, ONE_SIGN);
LEGACY_FORMAT(q4_0, "q4_0", "Q4_0", 4, 8, false, -8, 7, 18, 2, BOTH_SIGNS);
LEGACY_FORMAT(q4_1, "q4_1", "Q4_1", 4, 0, true, 0, 15, 20, 3, {16, 0.85f, 1.3f, .refits = 4});
LEGACY_FORMAT(q5_0, "q5_0", "Q5_0", 5, 16, false, -16, 15, 22, 6, BOTH_SIGNS);
LEGACY_FORMAT(q5_1, "q5_1", "Q5_1", 5, 0, true, 0, 31, 24, 7, {16, 0.92f, 1.2f, .refits = 4});
