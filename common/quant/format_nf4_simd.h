// NF4's codes, LANES weights at a time.
#include "quant/format_ggml_simd.h"

INLINE void SIMD(unpack_nf4)(const uint8_t *block, float *out) {
    float absmax = nf4_absmax(block);
    const uint8_t *pairs = block + sizeof absmax;
#if LANES == 16
    const __m512 values = _mm512_loadu_ps(quant_nf4_values), scale = _mm512_set1_ps(absmax);
    for (int i = 0; i < NF4_WEIGHTS; i += 16, pairs += 8) {
        __m128i both = _mm_loadl_epi64((const void *)pairs), mask = _mm_set1_epi8(15);
        __m128i high = _mm_and_si128(_mm_srli_epi16(both, 4), mask);
        __m128i codes = _mm_unpacklo_epi8(high, _mm_and_si128(both, mask));
        __m512 value = _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(codes), values);
        _mm512_storeu_ps(out + i, _mm512_mul_ps(scale, value));
    }
#else
    for (int i = 0; i < NF4_WEIGHTS; i += 2, pairs++) {
        out[i] = absmax * quant_nf4_values[*pairs >> 4];
        out[i + 1] = absmax * quant_nf4_values[*pairs & 15];
    }
#endif
}

GGML_DEQUANTIZE(nf4)

// The codes of the values nearest to 64 weights * inverse; the smaller one in the middle of two.
static void SIMD(round_nf4)(const float *w, float inverse, uint8_t *pairs) {
    int32_t codes[NF4_WEIGHTS];
    for (int i = 0; i < NF4_WEIGHTS; i += LANES) {
        vec x = vec_load(w + i) * inverse;
        ivec code = {0};
        for (int m = 0; m < 15; m++)
            code -= x > (quant_nf4_values[m] + quant_nf4_values[m + 1]) * 0.5f;
        memcpy(codes + i, &code, sizeof code);
    }
    for (int i = 0; i < NF4_WEIGHTS; i += 2)
        *pairs++ = (uint8_t)(codes[i] << 4 | codes[i + 1]);
}
