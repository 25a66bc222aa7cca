// Four-bit codes that stand for unevenly spaced values.
//
// Weights are bunched around 0, so steps that are narrow there and wide at the ends lose less than
// even ones. IQ4_NL and IQ4_XS have 16 values found by experiment, MXFP4 (Open Compute's
// microscaling) those that a float of four bits can have: sign, two bits of exponent, one of
// mantissa.
//
//     IQ4  -127 -104 -83 -65 -49 -35 -22 -10   1  13  25  38  53  69  89 113     code 0 … 15
//     FP4  0 0.5 1 1.5 2 3 4 6  (codes 0 … 7), the same below 0 (codes 8 … 15)
//
//     byte    0   1   2                 18
//     IQ4_NL  | d     | nibbles 16      |                          w = d * value, 4.5 bits
//     MXFP4   | e | nibbles 16      |                              w = 2^(e - 127) * value, 4.25
//
//     byte    0   2          4             8                        136
//     IQ4_XS  | d | s high 2 | s low 4     | nibbles, 8 times 16    |     w = d * s * value, 4.25
//
// Nibbles as in Q4_0: byte j of 16 has the codes of weights j (below) and j + 16. IQ4_XS is a
// super-block of eight groups of 32, whose scales -32 … 31 are stored with 32 added: the four low
// bits of group g in half of byte g / 2 (even groups below), the two high bits at bit 2 * g of a
// little-endian number.
#include "quant/format_ggml.h"

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
// Twice the values, so that they are whole; the scale makes up for it.
static const int8_t fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static bool ggml_fail(struct ggml_failure *why, size_t col, float scale) {
    *why = (struct ggml_failure){col, scale};
    return false;
}

// 2^(e - 128), half of what e stands for; the two smallest are subnormal.
static inline float fp4_scale(uint8_t e) {
    return f32_from_bits(e < 2 ? 0x00200000u << e : (e - 1u) << 23);
}

// The e whose largest value, 6 * 2^(e - 127), has the exponent of the largest weight. It may be
// up to a third too small for it; log2f rounds, so the reference and we take the next e already a
// hair below a power of two.
static inline uint8_t fp4_exponent(float largest) {
    float e = largest > 0 ? floorf(log2f(largest)) - 2 + 127 : 0;
    return (uint8_t)(e > 0 ? e : 0);
}

static inline int code_of(const uint8_t *qs, size_t i) {
    return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}

static float value_iq4_nl(const uint8_t *block, size_t i) {
    return ggml_load_f16(block) * (float)iq4_values[code_of(block + 2, i)];
}

static inline float scale_iq4_xs(const uint8_t *block, size_t g) {
    int low = block[4 + g / 2] >> g % 2 * 4 & 15, high = ggml_load16(block + 2) >> 2 * g & 3;
    return ggml_load_f16(block) * (float)((low | high << 4) - 32);
}

static float value_iq4_xs(const uint8_t *block, size_t i) {
    size_t g = i / 32;
    return scale_iq4_xs(block, g) * (float)iq4_values[code_of(block + 8 + 16 * g, i % 32)];
}

static float value_mxfp4(const uint8_t *block, size_t i) {
    return fp4_scale(block[0]) * (float)fp4_values[code_of(block + 1, i)];
}

#define SIMD_BODY "quant/format_ggml_iq4_simd.h"
#include "kernels/cpu/simd.h"

static int nearest_iq4(float x) {
    int code = 0;
    while (code < 15 && 2 * x > (float)(iq4_values[code] + iq4_values[code + 1]))
        code++;
    return code;
}

static void pack_iq4(const float *w, float scale, uint8_t *qs) {
    float inverse = ggml_inverse(scale);
    for (int j = 0; j < 16; j++)
        qs[j] = (uint8_t)(nearest_iq4(w[j] * inverse) | nearest_iq4(w[j + 16] * inverse) << 4);
}

static float scale_of(const float *w) {
    struct quant_range range = quant_range(w, 32);
    return (-range.lo > range.hi ? range.lo : range.hi) / -127;
}

static bool encode_iq4_nl(const float *w, size_t k, const struct quant_hints *hints, uint8_t *out,
                          struct ggml_failure *why) {
    (void)hints;
    for (size_t col = 0; col < k; col += 32, w += 32, out += 18) {
        float d = scale_of(w), stored = ggml_store_f16(out, d);
        if (!isfinite(stored) || !isfinite(quant_absmax(w, 32)))
            return ggml_fail(why, col, d);
        pack_iq4(w, stored, out + 2);
    }
    return true;
}

static bool encode_iq4_xs(const float *w, size_t k, const struct quant_hints *hints, uint8_t *out,
                          struct ggml_failure *why) {
    (void)hints;
    for (size_t col = 0; col < k; col += 256, w += 256, out += 136) {
        float d = 0;
        for (int g = 0; g < 8; g++)
            d = fabsf(scale_of(w + 32 * g)) > fabsf(d) ? scale_of(w + 32 * g) : d;
        float stored = ggml_store_f16(out, d / -32);
        if (!isfinite(stored) || !isfinite(quant_absmax(w, 256)))
            return ggml_fail(why, col, d / -32);
        memset(out + 2, 0, 6);
        uint32_t high = 0;
        for (size_t g = 0; g < 8; g++) {
            int s = round_even(clamp(scale_of(w + 32 * g) * ggml_inverse(stored), -32, 31)) + 32;
            out[4 + g / 2] |= (uint8_t)((s & 15) << g % 2 * 4);
            high |= (uint32_t)(s >> 4) << 2 * g;
            ggml_store16(out + 2, (uint16_t)high);
            pack_iq4(w + 32 * g, scale_iq4_xs(out, g), out + 8 + 16 * g);
        }
    }
    return true;
}

static bool encode_mxfp4(const float *w, size_t k, const struct quant_hints *hints, uint8_t *out,
                         struct ggml_failure *why) {
    (void)hints;
    return SIMD_CALL(encode_mxfp4, w, k, out, why);
}

GGML_FORMAT(iq4_nl, "iq4_nl", "IQ4_NL", 4, 32, 32, 18, 20);
GGML_FORMAT(iq4_xs, "iq4_xs", "IQ4_XS", 4, 32, 256, 136, 23);
GGML_FORMAT(mxfp4, "mxfp4", "MXFP4", 4, 32, 32, 17, 39);
