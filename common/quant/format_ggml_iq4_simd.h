// Codes that stand for one of 16 values, LANES of them at a time.
#include "quant/format_ggml_simd.h"

#define unpack_values SIMD(unpack_values)
#define fp4_code SIMD(fp4_code)

// 16 bytes of nibbles: scale * values[code].
INLINE void unpack_values(const uint8_t *qs, const int8_t *values, float scale, float *out) {
    int8_t v[32];
#if LANES > 4
    __m128i pairs = _mm_loadu_si128((const void *)qs), mask = _mm_set1_epi8(15);
    __m128i table = _mm_loadu_si128((const void *)values);
    _mm_storeu_si128((void *)v, _mm_shuffle_epi8(table, _mm_and_si128(pairs, mask)));
    _mm_storeu_si128((void *)(v + 16),
                     _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(pairs, 4), mask)));
#else
    for (int j = 0; j < 16; j++) {
        v[j] = values[qs[j] & 15];
        v[j + 16] = values[qs[j] >> 4];
    }
#endif
    for (int i = 0; i < 32; i += LANES)
        vec_store(out + i, vec_of_ints(ints_of_bytes((const uint8_t *)v + i) << 24 >> 24) * scale);
}

INLINE void SIMD(unpack_iq4_nl)(const uint8_t *block, float *out) {
    unpack_values(block + 2, quant_iq4_values, ggml_load_f16(block), out);
}

INLINE void SIMD(unpack_iq4_xs)(const uint8_t *block, float *out) {
    for (size_t g = 0; g < 8; g++)
        unpack_values(block + 8 + 16 * g, quant_iq4_values, scale_iq4_xs(block, g), out + 32 * g);
}

INLINE void SIMD(unpack_mxfp4)(const uint8_t *block, float *out) {
    unpack_values(block + 1, fp4_values, fp4_scale(block[0]), out);
}

GGML_DEQUANTIZE(iq4_nl)
GGML_DEQUANTIZE(iq4_xs)
GGML_DEQUANTIZE(mxfp4)

// The nearest of the eight magnitudes, the smaller one in the middle between two, and the sign in
// bit 3; there is no -0.
INLINE ivec fp4_code(vec x, float scale) {
    vec magnitude = (vec)((ivec)x & 0x7fffffff);
    ivec code = {0};
    for (int i = 0; i < 7; i++)
        code -= magnitude > (float)(fp4_values[i] + fp4_values[i + 1]) * 0.5f * scale;
    return code | ((x < 0) & (code != 0) & 8);
}

// Behind the exponent that is already in the block.
static void SIMD(round_fp4)(const float *w, uint8_t *block) {
    struct codes32 q;
    for (int i = 0; i < VECS; i++)
        q.v[i] = fp4_code(vec_load(w + i * LANES), fp4_scale(block[0]));
    store_nibbles(q, block + 1);
}

static bool SIMD(encode_mxfp4)(const float *w, size_t k, uint8_t *out, struct ggml_failure *why) {
    for (size_t col = 0; col < k; col += 32, out += 17) {
        float largest = largest_of(load32(w + col));
        if (!isfinite(largest))
            return ggml_fail(why, col, NAN);
        out[0] = fp4_exponent(largest);
        SIMD(round_fp4)(w + col, out);
    }
    return true;
}

// The codes of the values nearest to 32 weights / scale.
static void SIMD(round_values)(const float *w, float scale, uint8_t *qs) {
    float inverse = ggml_inverse(scale);
    struct codes32 q;
    for (int i = 0; i < VECS; i++) {
        vec x = vec_load(w + i * LANES) * inverse;
        q.v[i] = (ivec){0};
        for (int m = 0; m < 15; m++)
            q.v[i] -= x > (float)(quant_iq4_values[m] + quant_iq4_values[m + 1]) * 0.5f;
    }
    store_nibbles(q, qs);
}
