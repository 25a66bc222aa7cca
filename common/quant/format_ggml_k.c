// K-quants: super-blocks of 256 weights.
//
// A float16 per 32 weights costs half a bit per weight. A super-block makes that affordable twice:
// 8 or 16 groups each have a small integer for a scale, most also one for a minimum, and one pair
// of float16s, d and dmin, says what the integers are multiples of:
//
//     w = (d * scale[g]) * code - (dmin * min[g])              Q2_K, Q4_K, Q5_K
//     w = (d * scale[g]) * (code - zero)                       Q3_K (zero 4), Q6_K (zero 32)
//
//            groups    scales      codes   bytes                                 bits per weight
//     Q2_K   16 of 16  4 + 4 bits   2      16 + 64 + 2 + 2            =  84      2.625
//     Q3_K   16 of 16  6            3      32 + 64 + 12 + 2           = 110      3.4375
//     Q4_K    8 of 32  6 + 6        4      2 + 2 + 12 + 128           = 144      4.5
//     Q5_K    8 of 32  6 + 6        5      2 + 2 + 12 + 32 + 128      = 176      5.5
//     Q6_K   16 of 16  8            6      128 + 64 + 16 + 2          = 210      6.5625
//
// Each block is drawn above the code that packs it. Weight i is weight l of group g.
#include "quant/format_ggml_search.h"

enum { SUPER = 256 };

// A block, taken apart.
struct ggml_super {
    float d, dmin;              // as read back from their float16s
    int scale[TILE], min[TILE]; // of group g: d * scale[g], dmin * min[g]
    uint8_t codes[SUPER];       // from 0 on
};

// ---- Q2_K --------------------------------------------------------------------------------------
//
//     byte  0               16                            80   82   84
//           | scale, min 16 | codes 64                    | d  | dmin |
//
// Byte g of the first 16: scale[g] in bits 0 … 3, min[g] in bits 4 … 7. The codes of weights
// 0 … 127 are in the first 32 bytes, those of 128 … 255 in the next: byte l has four of them, 32
// weights apart, so that 32 bytes give 32 neighbours four times:
//
//     bits 7 6      5 4      3 2      1 0
//     w[l + 96]   w[l + 64]  w[l + 32]  w[l]

static float value_q2_k(const uint8_t *block, size_t i) {
    size_t half = i / 128, l = i % 32;
    int code = block[16 + 32 * half + l] >> i % 128 / 32 * 2 & 3;
    float scale = ggml_load_f16(block + 80) * (float)(block[i / 16] & 15);
    return scale * (float)code - ggml_load_f16(block + 82) * (float)(block[i / 16] >> 4);
}

static void pack_two_bits(const uint8_t *codes, uint8_t *out) {
    for (int half = 0; half < 2; half++, codes += 128, out += 32)
        for (int l = 0; l < 32; l++)
            out[l] = (uint8_t)((codes[l] & 3) | (codes[l + 32] & 3) << 2 |
                               (codes[l + 64] & 3) << 4 | (codes[l + 96] & 3) << 6);
}

static void pack_q2_k(const struct ggml_super *s, uint8_t *block) {
    for (int g = 0; g < 16; g++)
        block[g] = (uint8_t)(s->scale[g] | s->min[g] << 4);
    pack_two_bits(s->codes, block + 16);
    ggml_store_f16(block + 80, s->d);
    ggml_store_f16(block + 82, s->dmin);
}

// ---- Q3_K --------------------------------------------------------------------------------------
//
//     byte  0               32                            96          108  110
//           | third bits 32 | low bits 64                 | scales 12 | d  |
//
// The two low bits of the codes lie as in Q2_K. The third bit of weight 32 * b + l is bit b of byte
// l of the first 32. Scales have six bits and stand for scale[g] + 32, -32 … 31: the four low bits
// of scales g and g + 8 share byte g, the two high bits of scales j, j + 4, j + 8 and j + 12 share
// byte 8 + j:
//
//     byte       0      …    7        8                 …    11
//     bits 7 … 4  s8         s15      s12 s8 s4 s0 (2 bits each, high to low)
//     bits 3 … 0  s0         s7

static inline int scale_q3_k(const uint8_t *block, size_t g) {
    const uint8_t *scales = block + 96;
    int low = scales[g % 8] >> g / 8 * 4 & 15, high = scales[8 + g % 4] >> g / 4 * 2 & 3;
    return (low | high << 4) - 32;
}

static float value_q3_k(const uint8_t *block, size_t i) {
    size_t half = i / 128, l = i % 32;
    int low = block[32 + 32 * half + l] >> i % 128 / 32 * 2 & 3, high = block[l] >> i / 32 & 1;
    float scale = ggml_load_f16(block + 108) * (float)scale_q3_k(block, i / 16);
    return scale * (float)((low | high << 2) - 4);
}

static void pack_q3_k(const struct ggml_super *s, uint8_t *block) {
    uint8_t *scales = block + 96;
    for (int l = 0; l < 32; l++) {
        block[l] = 0;
        for (int b = 0; b < 8; b++)
            block[l] |= (uint8_t)(s->codes[32 * b + l] >> 2 << b);
    }
    pack_two_bits(s->codes, block + 32);
    memset(scales, 0, 12);
    for (int g = 0; g < 16; g++) {
        int stored = s->scale[g] + 32;
        scales[g % 8] |= (uint8_t)((stored & 15) << g / 8 * 4);
        scales[8 + g % 4] |= (uint8_t)(stored >> 4 << g / 4 * 2);
    }
    ggml_store_f16(block + 108, s->d);
}

// ---- Q4_K --------------------------------------------------------------------------------------
//
//     byte  0    2      4               16                                             144
//           | d  | dmin | scales, mins  | codes 128                                    |
//
// Codes: 32 bytes for two groups, the even one in bits 0 … 3, the odd one in bits 4 … 7. Eight
// scales and eight minima of six bits fill 12 bytes; those of groups 4 … 7 are split:
//
//     byte       0 … 3              4 … 7            8 … 11
//     bits 7 6   s4 … s7, high 2    m4 … m7, high 2  m4 … m7, low 4
//     bits 5 … 0 s0 … s3            m0 … m3          (bits 7 … 4), s4 … s7, low 4 (bits 3 … 0)

static inline int scale_k4(const uint8_t *scales, size_t g) {
    return g < 4 ? scales[g] & 63 : (scales[g + 4] & 15) | scales[g - 4] >> 6 << 4;
}

static inline int min_k4(const uint8_t *scales, size_t g) {
    return g < 4 ? scales[g + 4] & 63 : scales[g + 4] >> 4 | scales[g] >> 6 << 4;
}

static float value_q4_k(const uint8_t *block, size_t i) {
    size_t g = i / 32;
    int code = block[16 + i / 64 * 32 + i % 32] >> g % 2 * 4 & 15;
    float scale = ggml_load_f16(block) * (float)scale_k4(block + 4, g);
    return scale * (float)code - ggml_load_f16(block + 2) * (float)min_k4(block + 4, g);
}

static void pack_scales_k4(const struct ggml_super *s, uint8_t *block) {
    uint8_t *scales = block + 4;
    ggml_store_f16(block, s->d);
    ggml_store_f16(block + 2, s->dmin);
    for (int g = 0; g < 4; g++) {
        scales[g] = (uint8_t)(s->scale[g] | s->scale[g + 4] >> 4 << 6);
        scales[g + 4] = (uint8_t)(s->min[g] | s->min[g + 4] >> 4 << 6);
        scales[g + 8] = (uint8_t)((s->scale[g + 4] & 15) | (s->min[g + 4] & 15) << 4);
    }
}

static void pack_nibbles_k(const uint8_t *codes, uint8_t *out) {
    for (int pair = 0; pair < 4; pair++, codes += 64, out += 32)
        for (int l = 0; l < 32; l++)
            out[l] = (uint8_t)((codes[l] & 15) | (codes[l + 32] & 15) << 4);
}

static void pack_q4_k(const struct ggml_super *s, uint8_t *block) {
    pack_scales_k4(s, block);
    pack_nibbles_k(s->codes, block + 16);
}

// ---- Q5_K --------------------------------------------------------------------------------------
//
//     byte  0    2      4               16              48                             176
//           | d  | dmin | scales, mins  | fifth bits 32 | low bits 128                 |
//
// Q4_K and one more bit: that of weight 32 * g + l is bit g of byte l of the fifth bits.

static float value_q5_k(const uint8_t *block, size_t i) {
    size_t g = i / 32;
    int low = block[48 + i / 64 * 32 + i % 32] >> g % 2 * 4 & 15,
        high = block[16 + i % 32] >> g & 1;
    float scale = ggml_load_f16(block) * (float)scale_k4(block + 4, g);
    return scale * (float)(low | high << 4) -
           ggml_load_f16(block + 2) * (float)min_k4(block + 4, g);
}

static void pack_q5_k(const struct ggml_super *s, uint8_t *block) {
    pack_scales_k4(s, block);
    for (int l = 0; l < 32; l++) {
        block[16 + l] = 0;
        for (int g = 0; g < 8; g++)
            block[16 + l] |= (uint8_t)(s->codes[32 * g + l] >> 4 << g);
    }
    pack_nibbles_k(s->codes, block + 48);
}

// ---- Q6_K --------------------------------------------------------------------------------------
//
//     byte  0                             128            192         208  210
//           | low bits 128                | high bits 64 | scales 16 | d  |
//
// Scales are signed bytes. Weights 0 … 127 have the first 64 bytes of low bits and the first 32 of
// high bits, weights 128 … 255 the rest. In each half:
//
//     low bits    byte l, 0 … 31        byte 32 + l        high bits   byte l
//     bits 7 … 4  w[l + 64]             w[l + 96]          bits 7 6  5 4  3 2  1 0
//     bits 3 … 0  w[l]                  w[l + 32]               w[l + 96]  … 64  … 32  w[l]

static float value_q6_k(const uint8_t *block, size_t i) {
    size_t half = i / 128, j = i % 128 / 32, l = i % 32;
    int low = block[64 * half + j % 2 * 32 + l] >> j / 2 * 4 & 15;
    int high = block[128 + 32 * half + l] >> j * 2 & 3;
    float scale = ggml_load_f16(block + 208) * (float)(int8_t)block[192 + i / 16];
    return scale * (float)((low | high << 4) - 32);
}

static void pack_q6_k(const struct ggml_super *s, uint8_t *block) {
    for (int half = 0; half < 2; half++) {
        const uint8_t *q = s->codes + 128 * half;
        uint8_t *low = block + 64 * half, *high = block + 128 + 32 * half;
        for (int l = 0; l < 32; l++) {
            low[l] = (uint8_t)((q[l] & 15) | (q[l + 64] & 15) << 4);
            low[l + 32] = (uint8_t)((q[l + 32] & 15) | (q[l + 96] & 15) << 4);
            high[l] = (uint8_t)(q[l] >> 4 | q[l + 32] >> 4 << 2 | q[l + 64] >> 4 << 4 |
                                q[l + 96] >> 4 << 6);
        }
    }
    for (int g = 0; g < 16; g++)
        block[192 + g] = (uint8_t)(int8_t)s->scale[g];
    ggml_store_f16(block + 208, s->d);
}

#define SIMD_BODY "quant/format_ggml_k_simd.h"
#include "kernels/cpu/simd.h"

// ---- quantizing --------------------------------------------------------------------------------

// What the five types differ in.
struct k_type {
    struct ggml_kind kind;
    size_t bytes;
    void (*pack)(const struct ggml_super *s, uint8_t *block);
    struct ggml_effort quick, search;
};

// The quick ones are where more tries stop paying; the others take three to four times as long to
// lower the error by another 1 to 4 %.
static const struct k_type k_types[] = {
    {{.groups = 16, .grid = {.lo = 0, .hi = 3}, .mins = true, .level_max = 15},
     84,
     pack_q2_k,
     {8, 0.88f, 1.17f, .refits = 2, .rounds = 1, .reach = 1},
     {16, 0.8f, 1.5f, .refits = 4, .shrinks = 1, .rounds = 4, .reach = 2}},
    {{.groups = 16, .grid = {.lo = -4, .hi = 3}, .level_max = 31},
     110,
     pack_q3_k,
     {8, 0.8f, 1.15f, .refits = 2, .rounds = 1, .reach = 1},
     {16, 0.8f, 1.2f, .refits = 4, .rounds = 4, .reach = 2}},
    {{.groups = 8, .grid = {.lo = 0, .hi = 15}, .mins = true, .level_max = 63},
     144,
     pack_q4_k,
     {8, 0.9f, 1.17f, .refits = 2, .rounds = 1, .reach = 1},
     {16, 0.85f, 1.3f, .refits = 4, .shrinks = 1, .rounds = 4, .reach = 2}},
    {{.groups = 8, .grid = {.lo = 0, .hi = 31}, .mins = true, .level_max = 63},
     176,
     pack_q5_k,
     {8, 0.95f, 1.1f, .refits = 2, .rounds = 1, .reach = 1},
     {16, 0.92f, 1.2f, .refits = 4, .shrinks = 1, .rounds = 4, .reach = 2}},
    {{.groups = 16, .grid = {.lo = -32, .hi = 31}, .level_max = 127},
     210,
     pack_q6_k,
     {8, 0.9f, 1.1f, .refits = 2, .rounds = 1, .reach = 1},
     {16, 0.85f, 1.1f, true, .refits = 4, .rounds = 4, .reach = 2}},
};

// The largest weight that any d reaches with every level.
static float reach_of(const struct ggml_kind *kind) {
    return kind->mins ? (float)kind->level_max : -kind->grid.lo * (float)(kind->level_max + 1);
}

static void take_levels(const struct ggml_levels *l, int first, int groups, struct ggml_super *s) {
    s->d = l->d[first];
    s->dmin = l->dmin[first];
    for (int g = 0; g < groups; g++) {
        s->scale[g] = (int)l->level[first + g];
        s->min[g] = (int)l->min_level[first + g];
    }
}

static bool encode_k(const struct k_type *type, const float *w, size_t k,
                     const struct quant_hints *hints, uint8_t *out, struct ggml_failure *why) {
    const float *importance = hints->importance;
    float largest = ggml_importance_largest(importance, k);
    int groups = type->kind.groups, supers = TILE / groups, len = SUPER / groups;
    if (!ggml_within_reach(w, k, SUPER, reach_of(&type->kind), why))
        return false;
    for (size_t col = 0; col < k; col += (size_t)supers * SUPER) {
        struct ggml_tile tile;
        struct ggml_levels levels;
        size_t left = (k - col) / SUPER;
        int here = left < (size_t)supers ? (int)left : supers;
        ggml_tile_load(&tile, w + col, importance ? importance + col : NULL, largest, len,
                       here * groups);
        ggml_search_super(&tile, &type->kind, hints->search ? &type->search : &type->quick,
                          &levels);
        for (int s = 0; s < here; s++, out += type->bytes) {
            struct ggml_super super;
            take_levels(&levels, s * groups, groups, &super);
            SIMD_CALL(round_super, &type->kind, w + col + s * SUPER, &super);
            type->pack(&super, out);
        }
    }
    return true;
}

#define K_FORMAT(id, label, bits, groups, bytes, type)                                             \
    static bool encode_##id(const float *w, size_t k, const struct quant_hints *hints,             \
                            uint8_t *out, struct ggml_failure *why) {                              \
        return encode_k(&k_types[(bits)-2], w, k, hints, out, why);                                \
    }                                                                                              \
    GGML_FORMAT(id, #id, label, bits, SUPER / (groups), SUPER, bytes, type)

K_FORMAT(q2_k, "Q2_K", 2, 16, 84, 10);
K_FORMAT(q3_k, "Q3_K", 3, 16, 110, 11);
K_FORMAT(q4_k, "Q4_K", 4, 8, 144, 12);
K_FORMAT(q5_k, "Q5_K", 5, 8, 176, 13);
K_FORMAT(q6_k, "Q6_K", 6, 16, 210, 14);
