// Four-bit codes that stand for unevenly spaced values.
//
// Weights are bunched around 0, so steps that are narrow there and wide at the ends lose less than
// even ones. IQ4_NL and IQ4_XS share 16 values, MXFP4 has those of a four-bit float.
//
//     code    0    1   2   3   4   5   6   7  8  9 10 11 12 13 14  15
//     IQ4  -127 -104 -83 -65 -49 -35 -22 -10  1 13 25 38 53 69 89 113
//     FP4     0  0.5   1 1.5   2   3   4   6  codes 8 … 15: the same, negative
//
//             value                  bytes                       bits per weight
//     IQ4_NL  d * value              2 + 16            =  18     4.5
//     IQ4_XS  d * scale[g] * value   2 + 2 + 4 + 128   = 136     4.25
//     MXFP4   2^(e - 127) * value    1 + 16            =  17     4.25
#include "quant/format_ggml_search.h"

const int8_t quant_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
// Twice the values, so that they are whole; the scale makes up for it.
static const int8_t fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// IQ4_NL: a float16 and 32 nibbles, byte j with the codes of weights j and j + 16.
//
//     byte          0   1     2     3           17
//     bits 7 … 4  |   d     | w16 | w17 |  …  | w31 |
//     bits 3 … 0  | float16 | w0  | w1  |  …  | w15 |
static inline int code_of(const uint8_t *qs, size_t i) {
    return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}

static float value_iq4_nl(const uint8_t *block, size_t i) {
    return ggml_load_f16(block) * (float)quant_iq4_values[code_of(block + 2, i)];
}

// IQ4_XS: a super-block of eight groups of 32. Scales have six bits and stand for scale[g] + 32,
// -32 … 31: the two high bits of group g from bit 2 g of a number of two bytes on, the four low
// bits in half a byte. Then 16 bytes of nibbles per group, as above.
//
//     byte          0   1     2       3       4    5    6    7    8         24        …   120
//     bits 7 … 4  |   d     | s3 s2 | s7 s6 | s1 | s3 | s5 | s7 | group 0 | group 1 | … | group 7 |
//     bits 3 … 0  | float16 | s1 s0 | s5 s4 | s0 | s2 | s4 | s6 | nibbles | nibbles | … | nibbles |
static inline float scale_iq4_xs(const uint8_t *block, size_t g) {
    int low = block[4 + g / 2] >> g % 2 * 4 & 15, high = ggml_load16(block + 2) >> 2 * g & 3;
    return ggml_load_f16(block) * (float)((low | high << 4) - 32);
}

static float value_iq4_xs(const uint8_t *block, size_t i) {
    size_t g = i / 32;
    return scale_iq4_xs(block, g) * (float)quant_iq4_values[code_of(block + 8 + 16 * g, i % 32)];
}

// MXFP4, Open Compute's microscaling: one byte of exponent, which is all there is of the scale.
//
//     byte          0   1     2           16
//     bits 7 … 4  |   | w16 | w17 |  …  | w31 |     a code: sign | exponent | mantissa
//     bits 3 … 0  | e | w0  | w1  |  …  | w15 |       bits  3      2 1        0
//
// 2^(e - 128), half of what e stands for; the two smallest are subnormal.
static inline float fp4_scale(uint8_t e) {
    return f32_from_bits(e < 2 ? 0x00200000u << e : (e - 1u) << 23);
}

static float value_mxfp4(const uint8_t *block, size_t i) {
    return fp4_scale(block[0]) * (float)fp4_values[code_of(block + 1, i)];
}

// The e with which the largest weight has the exponent of the largest value, 6 = 1.5 * 2^2; a
// weight may be up to a third larger than that. Just below a power of two log2f may round up to it;
// the reference has the same.
static inline uint8_t fp4_exponent(float largest) {
    float e = largest > 0 ? floorf(log2f(largest)) - 2 + 127 : 0;
    return (uint8_t)(e > 0 ? e : 0);
}

// e + step, within 0 … 254; 255 would be NaN.
static inline uint8_t fp4_near(int e, int step) {
    return (uint8_t)(e + step < 0 ? 0 : e + step > 254 ? 254 : e + step);
}

#define SIMD_BODY "quant/format_ggml_iq4_simd.h"
#include "kernels/cpu/simd.h"

// Values in rising order, and their middles.
static const struct ggml_grid fp4_grid = {
    .lo = -12,
    .hi = 12,
    .n = 15,
    .values = {-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12},
    .middles = {-10, -7, -5, -3.5f, -2.5f, -1.5f, -0.5f, 0.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10}};
static const struct ggml_kind iq4_kind = {
    .groups = 8,
    .grid = {.lo = -127,
             .hi = 113,
             .n = 16,
             .values = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113},
             .middles = {-115.5f, -93.5f, -74, -57, -42, -28.5f, -16, -4.5f, 7, 19, 31.5f, 45.5f,
                         61, 79, 101}},
    .level_max = 31};
static const struct ggml_effort quick = {8,           0.8f,        1.15f,     true,
                                         .refits = 1, .rounds = 1, .reach = 1};
static const struct ggml_effort thorough = {16,          0.7f,        1.2f,      true,
                                            .refits = 4, .rounds = 4, .reach = 2};

static bool encode_iq4_nl(const float *w, size_t k, const struct quant_hints *hints, uint8_t *out,
                          struct ggml_failure *why) {
    const float *importance = hints->importance;
    float largest = ggml_importance_largest(importance, k), scale[TILE];
    struct ggml_tile tile;
    if (!ggml_within_reach(w, k, 32, 127, why))
        return false;
    for (size_t col = 0; col < k; col += 32 * TILE) {
        size_t here = size_min((k - col) / 32, TILE);
        ggml_tile_load(&tile, w + col, importance ? importance + col : NULL, largest, 32,
                       (int)here);
        ggml_search_scale(&tile, &iq4_kind.grid, hints->search ? &thorough : &quick, scale);
        for (size_t b = 0; b < here; b++, out += 18) {
            float d = ggml_store_f16(out, ggml_round_f16(scale[b]));
            SIMD_CALL(round_values, w + col + 32 * b, d, out + 2);
        }
    }
    return true;
}

static void pack_iq4_xs(const float *w, const struct ggml_levels *l, int first, uint8_t *block) {
    uint32_t high = 0;
    ggml_store_f16(block, l->d[first]);
    memset(block + 4, 0, 4);
    for (int g = 0; g < 8; g++) {
        int stored = (int)l->level[first + g] + 32;
        block[4 + g / 2] |= (uint8_t)((stored & 15) << g % 2 * 4);
        high |= (uint32_t)(stored >> 4) << 2 * g;
    }
    ggml_store16(block + 2, (uint16_t)high);
    for (size_t g = 0; g < 8; g++)
        SIMD_CALL(round_values, w + 32 * g, scale_iq4_xs(block, g), block + 8 + 16 * g);
}

static bool encode_iq4_xs(const float *w, size_t k, const struct quant_hints *hints, uint8_t *out,
                          struct ggml_failure *why) {
    const float *importance = hints->importance;
    float largest = ggml_importance_largest(importance, k);
    struct ggml_tile tile;
    struct ggml_levels levels;
    if (!ggml_within_reach(w, k, 256, 127 * 32, why))
        return false;
    for (size_t col = 0; col < k; col += 32 * TILE) {
        size_t here = size_min((k - col) / 256, 2);
        ggml_tile_load(&tile, w + col, importance ? importance + col : NULL, largest, 32,
                       (int)here * 8);
        ggml_search_super(&tile, &iq4_kind, hints->search ? &thorough : &quick, &levels);
        for (size_t s = 0; s < here; s++, out += 136)
            pack_iq4_xs(w + col + 256 * s, &levels, (int)s * 8, out);
    }
    return true;
}

// The exponent of each block, its two neighbours tried too.
static void search_mxfp4(const float *w, size_t k, const float *importance, uint8_t *out) {
    float largest = ggml_importance_largest(importance, k);
    struct ggml_tile tile;
    for (size_t col = 0; col < k; col += 32 * TILE, out += 17 * TILE) {
        size_t here = size_min((k - col) / 32, TILE);
        float scale[TILE] = {0}, error[TILE], best[TILE];
        uint8_t start[TILE];
        ggml_tile_load(&tile, w + col, importance ? importance + col : NULL, largest, 32,
                       (int)here);
        for (size_t b = 0; b < here; b++) {
            start[b] = out[17 * b];
            best[b] = INFINITY;
        }
        for (int step = -1; step <= 1; step++) {
            for (size_t b = 0; b < here; b++)
                scale[b] = fp4_scale(fp4_near(start[b], step));
            ggml_search_error(&tile, &fp4_grid, scale, error);
            for (size_t b = 0; b < here; b++) {
                if (!(error[b] < best[b]))
                    continue;
                best[b] = error[b];
                out[17 * b] = fp4_near(start[b], step);
            }
        }
        for (size_t b = 0; b < here; b++)
            SIMD_CALL(round_fp4, w + col + 32 * b, out + 17 * b);
    }
}

static bool encode_mxfp4(const float *w, size_t k, const struct quant_hints *hints, uint8_t *out,
                         struct ggml_failure *why) {
    if (!SIMD_CALL(encode_mxfp4, w, k, out, why))
        return false;
    if (hints->search)
        search_mxfp4(w, k, hints->importance, out);
    return true;
}

GGML_FORMAT(iq4_nl, "iq4_nl", "IQ4_NL", 4, 32, 32, 18, 20);
GGML_FORMAT(iq4_xs, "iq4_xs", "IQ4_XS", 4, 32, 256, 136, 23);
GGML_FORMAT(mxfp4, "mxfp4", "MXFP4", 4, 32, 32, 17, 39);
