// NF4, the 4-bit format of QLoRA and of bitsandbytes, which the original study used.
//
// Weights are nearly normal. So the 16 values are quantiles of a normal distribution, each code
// being as likely as any other, with 0 among them and -1 and 1 at the ends:
//
//     code     0      1      2      3      4      5      6    7    8     9    10    11 …   15
//     value   -1  -0.70  -0.53  -0.39  -0.28  -0.18  -0.09    0  0.08  0.16  0.25  0.34 …   1
//
//     ŵ = absmax * value[code]        absmax = max |w| of 64 neighbours
//
// A block is the float32 absmax, little-endian, and 32 bytes of codes, the even weight in the high
// nibble, as bitsandbytes orders them: 36 bytes for 64 weights, 4.5 bits each. (The same without
// its double quantization, which makes absmax a byte.)
//
//     byte          0  …  3     4     5           35
//     bits 7 … 4  |  absmax  | w0  | w2  |  …  | w62 |
//     bits 3 … 0  |  float32 | w1  | w3  |  …  | w63 |
//
// A search for scales changes nothing: absmax is the largest magnitude by definition.
#include "quant/format_ggml.h"

enum { NF4_WEIGHTS = 64, NF4_BYTES = sizeof(float) + NF4_WEIGHTS / 2 };

// Of each half, the means of the outermost quantiles that are equally likely (Dettmers et al. 2023,
// appendix E), divided by the largest; the library's constants.
const float quant_nf4_values[16] = {-1.0f,
                                    -0.6961928009986877f,
                                    -0.5250730514526367f,
                                    -0.39491748809814453f,
                                    -0.28444138169288635f,
                                    -0.18477343022823334f,
                                    -0.09105003625154495f,
                                    0.0f,
                                    0.07958029955625534f,
                                    0.16093020141124725f,
                                    0.24611230194568634f,
                                    0.33791524171829224f,
                                    0.44070982933044434f,
                                    0.5626170039176941f,
                                    0.7229568362236023f,
                                    1.0f};

static inline float nf4_absmax(const uint8_t *block) {
    float absmax;
    memcpy(&absmax, block, sizeof absmax);
    return absmax;
}

static float value_nf4(const uint8_t *block, size_t i) {
    return nf4_absmax(block) *
           quant_nf4_values[block[sizeof(float) + i / 2] >> (i % 2 ? 0 : 4) & 15];
}

#define SIMD_BODY "quant/format_nf4_simd.h"
#include "kernels/cpu/simd.h"

static bool encode_nf4(const float *w, size_t k, const struct quant_hints *hints, uint8_t *out,
                       struct ggml_failure *why) {
    (void)hints;
    for (size_t col = 0; col < k; col += NF4_WEIGHTS, out += NF4_BYTES) {
        float absmax = quant_absmax(w + col, NF4_WEIGHTS);
        if (!isfinite(absmax))
            return ggml_fail(why, col, NAN);
        memcpy(out, &absmax, sizeof absmax);
        SIMD_CALL(round_nf4, w + col, ggml_inverse(absmax), out + sizeof absmax);
    }
    return true;
}

GGML_FORMAT(nf4, "nf4", "NF4", 4, NF4_WEIGHTS, NF4_WEIGHTS, NF4_BYTES, GGML_NO_TYPE);
