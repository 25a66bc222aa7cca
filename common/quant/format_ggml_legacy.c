// Blocks of 32 neighbours in a row that share one scale, a float16 called d; two types have another
// one, m, the value of code 0.
//
//             value             codes         bytes                    bits per weight
//     Q4_0    d * (code - 8)    0 … 15        2 + 16         = 18      4.5
//     Q4_1    d * code + m      0 … 15        2 + 2 + 16     = 20      5
//     Q5_0    d * (code - 16)   0 … 31        2 + 4 + 16     = 22      5.5
//     Q5_1    d * code + m      0 … 31        2 + 2 + 4 + 16 = 24      6
//     Q8_0    d * code          -127 … 127    2 + 32         = 34      8.5
//
// By default these round as the reference does, bit for bit. Q4_0 and Q5_0 give code 0 to the
// largest magnitude, so d has the sign that this weight has not, and the other end is one code
// short; codes are made with d as it was before it became a float16. A search does better: see
// format_ggml_search.h.
#include "quant/format_ggml_search.h"

// Q4_0: byte j holds weight j below weight j + 16, so that 16 bytes give 16 neighbours twice, with
// a mask and a shift.
//
//     byte          0   1     2     3     4           17
//     bits 7 … 4  |   d     | w16 | w17 | w18 |  …  | w31 |
//     bits 3 … 0  | float16 | w0  | w1  | w2  |  …  | w15 |
static inline int nibble(const uint8_t *qs, size_t i) {
    return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}

static float value_q4_0(const uint8_t *block, size_t i) {
    return ggml_load_f16(block) * (float)(nibble(block + 2, i) - 8);
}

// Q4_1: d, m, nibbles.
//
//     byte          0   1     2   3     4     5           19
//     bits 7 … 4  |   d     |   m     | w16 | w17 |  …  | w31 |
//     bits 3 … 0  | float16 | float16 | w0  | w1  |  …  | w15 |
static float value_q4_1(const uint8_t *block, size_t i) {
    return ggml_load_f16(block) * (float)nibble(block + 4, i) + ggml_load_f16(block + 2);
}

// Q5_0: d, the fifth bits, nibbles. Bit b of byte 2 + j is the fifth bit of weight 8 * j + b.
//
//     byte          0   1     2          …  5              6           21
//     bits 7 … 4  |   d     | w7  w6  w5  w4  …  w31 … | w16 |  …  | w31 |
//     bits 3 … 0  | float16 | w3  w2  w1  w0  …  … w24 | w0  |  …  | w15 |
static inline int fifth_bit(const uint8_t *qh, size_t i) {
    return (qh[i / 8] >> i % 8 & 1) << 4;
}

static float value_q5_0(const uint8_t *block, size_t i) {
    int code = nibble(block + 6, i) | fifth_bit(block + 2, i);
    return ggml_load_f16(block) * (float)(code - 16);
}

// Q5_1: d, m, the fifth bits, nibbles.
//
//     byte  0   1     2   3     4        …  7      8           23
//         |   d     |   m     | fifth bits w0 … w31 | nibbles 16 |
static float value_q5_1(const uint8_t *block, size_t i) {
    int code = nibble(block + 8, i) | fifth_bit(block + 4, i);
    return ggml_load_f16(block) * (float)code + ggml_load_f16(block + 2);
}

// Q8_0: d, then a signed byte per weight.
//
//     byte  0   1     2    3    4          33
//         |   d     | w0 | w1 | w2 |  …  | w31 |
static float value_q8_0(const uint8_t *block, size_t i) {
    return ggml_load_f16(block) * (float)(int8_t)block[2 + i];
}

// What the types differ in, for the search.
struct legacy_type {
    int bits;
    bool offset; // there is an m
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
        size_t here = size_min((k - col) / 32, TILE);
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

#define LEGACY_FORMAT(id, label, bits, bytes, type)                                                \
    static bool encode_##id(const float *w, size_t k, const struct quant_hints *hints,             \
                            uint8_t *out, struct ggml_failure *why) {                              \
        if (!SIMD_CALL(encode_##id, w, k, out, why))                                               \
            return false;                                                                          \
        if (hints->search)                                                                         \
            search_row(&search_##id, w, k, hints->importance, out);                                \
        return true;                                                                               \
    }                                                                                              \
    GGML_FORMAT(id, #id, label, bits, 32, 32, bytes, type)

static const struct legacy_type search_q8_0 = {
    8, false, 34, {.lo = -127, .hi = 127}, {24, 0.8f, 1.05f, .refits = 2}};
static const struct legacy_type search_q4_0 = {
    4, false, 18, {.lo = -8, .hi = 7}, {16, 0.75f, 1.1f, true, .refits = 2}};
static const struct legacy_type search_q4_1 = {
    4, true, 20, {.lo = 0, .hi = 15}, {16, 0.85f, 1.3f, .refits = 4}};
static const struct legacy_type search_q5_0 = {
    5, false, 22, {.lo = -16, .hi = 15}, {16, 0.75f, 1.1f, true, .refits = 2}};
static const struct legacy_type search_q5_1 = {
    5, true, 24, {.lo = 0, .hi = 31}, {16, 0.92f, 1.2f, .refits = 4}};
LEGACY_FORMAT(q8_0, "Q8_0", 8, 34, 8);
LEGACY_FORMAT(q4_0, "Q4_0", 4, 18, 2);
LEGACY_FORMAT(q4_1, "Q4_1", 4, 20, 3);
LEGACY_FORMAT(q5_0, "Q5_0", 5, 22, 6);
LEGACY_FORMAT(q5_1, "Q5_1", 5, 24, 7);
