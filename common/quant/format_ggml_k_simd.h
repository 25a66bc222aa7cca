// Super-blocks of 256 weights, LANES weights at a time.
#include "quant/format_ggml_simd.h"

// n neighbours of one group: scale * code - min, their codes in `code(l)` for l = 0, LANES …
#define UNPACK_RUN(out, n, scale, min, code)                                                       \
    for (int l = 0; l < (n); l += LANES)                                                           \
    vec_store((out) + l, vec_of_ints(code) * (scale) - (min))

INLINE void SIMD(unpack_q2_k)(const uint8_t *block, float *out) {
    float d = ggml_load_f16(block + 80), dmin = ggml_load_f16(block + 82);
    for (int g = 0; g < 16; g++) {
        const uint8_t *qs = block + 16 + g / 8 * 32 + g % 2 * 16;
        int shift = g / 2 % 4 * 2;
        float scale = d * (float)(block[g] & 15), min = dmin * (float)(block[g] >> 4);
        UNPACK_RUN(out + 16 * g, 16, scale, min, ints_of_bytes(qs + l) >> shift & 3);
    }
}

INLINE void SIMD(unpack_q3_k)(const uint8_t *block, float *out) {
    float d = ggml_load_f16(block + 108);
    for (int g = 0; g < 16; g++) {
        const uint8_t *high = block + g % 2 * 16, *qs = block + 32 + g / 8 * 32 + g % 2 * 16;
        int bit = g / 2, shift = g / 2 % 4 * 2;
        float scale = d * (float)scale_q3_k(block, g);
        for (int l = 0; l < 16; l += LANES) {
            ivec code = (ints_of_bytes(qs + l) >> shift & 3) | (ints_of_bytes(high + l) >> bit & 1)
                                                                   << 2;
            vec_store(out + 16 * g + l, vec_of_ints(code - 4) * scale);
        }
    }
}

INLINE void SIMD(unpack_q4_k)(const uint8_t *block, float *out) {
    float d = ggml_load_f16(block), dmin = ggml_load_f16(block + 2);
    for (int g = 0; g < 8; g++) {
        const uint8_t *qs = block + 16 + g / 2 * 32;
        int shift = g % 2 * 4;
        float scale = d * (float)scale_k4(block + 4, g), min = dmin * (float)min_k4(block + 4, g);
        UNPACK_RUN(out + 32 * g, 32, scale, min, ints_of_bytes(qs + l) >> shift & 15);
    }
}

INLINE void SIMD(unpack_q5_k)(const uint8_t *block, float *out) {
    float d = ggml_load_f16(block), dmin = ggml_load_f16(block + 2);
    for (int g = 0; g < 8; g++) {
        const uint8_t *high = block + 16, *qs = block + 48 + g / 2 * 32;
        int shift = g % 2 * 4;
        float scale = d * (float)scale_k4(block + 4, g), min = dmin * (float)min_k4(block + 4, g);
        UNPACK_RUN(out + 32 * g, 32, scale, min,
                   (ints_of_bytes(qs + l) >> shift & 15) | (ints_of_bytes(high + l) >> g & 1) << 4);
    }
}

INLINE void SIMD(unpack_q6_k)(const uint8_t *block, float *out) {
    float d = ggml_load_f16(block + 208);
    for (int g = 0; g < 16; g++) {
        const uint8_t *low = block + g / 8 * 64 + g % 4 * 16;
        const uint8_t *high = block + 128 + g / 8 * 32 + g % 2 * 16;
        int shift = g / 4 % 2 * 4, high_shift = g / 2 % 4 * 2;
        float scale = d * (float)(int8_t)block[192 + g];
        for (int l = 0; l < 16; l += LANES) {
            ivec code = (ints_of_bytes(low + l) >> shift & 15) |
                        (ints_of_bytes(high + l) >> high_shift & 3) << 4;
            vec_store(out + 16 * g + l, vec_of_ints(code - 32) * scale);
        }
    }
}

GGML_DEQUANTIZE(q2_k)
GGML_DEQUANTIZE(q3_k)
GGML_DEQUANTIZE(q4_k)
GGML_DEQUANTIZE(q5_k)
GGML_DEQUANTIZE(q6_k)

// The nearest codes of a super-block whose scales are chosen.
static void SIMD(round_super)(const struct ggml_kind *kind, const float *w, struct ggml_super *s) {
    int len = SUPER / kind->groups;
    for (int i = 0; i < SUPER; i += LANES) {
        int g = i / len;
        float scale = s->d * (float)s->scale[g], min = s->dmin * (float)s->min[g];
        vec x = (vec_load(w + i) + min) * ggml_inverse(scale);
        vec q = vec_round(vec_clamp(x, kind->grid.lo, kind->grid.hi)) - kind->grid.lo;
        bytes_of_ints(__builtin_convertvector(q, ivec), s->codes + i);
    }
}
