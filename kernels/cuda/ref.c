#include "kernels/cuda/cuda.h"

#include <math.h>
#include <string.h>

// The 16 values of NF4: quantiles of a normal distribution, scaled to -1 … 1 (Dettmers et al.
// 2023).
const float cuda_nf4[16] = {
    -1.0f,
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
    1.0f,
};

static double f16(const void *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double value = exponent == 31 ? (fraction ? NAN : INFINITY)
                   : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                  : ldexp(fraction, -24);
    return h >> 15 ? -value : value;
}

static double bf16(const void *p) {
    uint16_t h;
    float value;
    memcpy(&h, p, 2);
    memcpy(&value, &(uint32_t){(uint32_t)h << 16}, 4);
    return value;
}

static double scale_ref(const struct cuda_matrix *w, unsigned row, unsigned group) {
    size_t i = (size_t)row * w->groups + group;
    return w->wide_scales ? ((const float *)w->scales)[i] : f16((const uint16_t *)w->scales + i);
}

// Column j of a row of nibbles: blocks of 32 weights, weight i below weight i + 16; a last block of
// fewer is cut in half the same way.
static int nibble_ref(const uint8_t *row, unsigned k, unsigned j) {
    unsigned block = j / 32 * 32, length = k - block < 32 ? k - block : 32, half = (length + 1) / 2;
    unsigned i = j - block;
    return i < half ? row[block / 2 + i] & 15 : row[block / 2 + i - half] >> 4;
}

// Q4_K: 8 groups of 32, each with a scale and a minimum of six bits.
//     0  d  2  dmin  4  scales[12]  16  codes[128]: 32 bytes hold group 2i (low), 2i + 1 (high)
static double q4_k_ref(const uint8_t *b, unsigned i) {
    const uint8_t *s = b + 4;
    unsigned g = i / 32;
    int scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
    int minimum = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
    int code = b[16 + g / 2 * 32 + i % 32] >> (g % 2 ? 4 : 0) & 15;
    return f16(b) * scale * code - f16(b + 2) * minimum;
}

// Q6_K: 16 groups of 16 with a signed byte for a scale.
//     0  low four bits [128]  128  high two bits [64]  192  scales[16]  208  d
// 128 weights share 64 bytes of the first and 32 of the second, in quarters of 32.
static double q6_k_ref(const uint8_t *b, unsigned i) {
    unsigned half = i / 128, quarter = i % 128 / 32, j = i % 32;
    int low = b[half * 64 + quarter % 2 * 32 + j] >> (quarter / 2 ? 4 : 0) & 15;
    int high = b[128 + half * 32 + j] >> 2 * quarter & 3;
    return f16(b + 208) * (int8_t)b[192 + i / 16] * ((low | high << 4) - 32);
}

float cuda_weight_ref(const struct cuda_matrix *w, unsigned row, unsigned col) {
    const uint8_t *codes = (const uint8_t *)w->codes + row * w->row_bytes;
    unsigned g = w->group ? col / w->group : 0;
    int zero = w->zeros ? w->zeros[row * w->zero_bytes + g / 2] >> (g % 2 ? 4 : 0) & 15 : 8;
    switch (w->format) {
    case CUDA_F16:
        return (float)f16(codes + 2 * (size_t)col);
    case CUDA_BF16:
        return (float)bf16(codes + 2 * (size_t)col);
    case CUDA_INT8:
        return (float)(scale_ref(w, row, g) * (int8_t)codes[col]);
    case CUDA_INT4:
        return (float)(scale_ref(w, row, g) * (nibble_ref(codes, w->k, col) - zero));
    case CUDA_NF4:
        return (float)(scale_ref(w, row, g) * cuda_nf4[nibble_ref(codes, w->k, col)]);
    case CUDA_Q8_0:
        codes += col / 32 * 34;
        return (float)(f16(codes) * (int8_t)codes[2 + col % 32]);
    case CUDA_Q4_0:
        codes += col / 32 * 18;
        return (float)(f16(codes) * ((codes[2 + col % 16] >> (col % 32 / 16 * 4) & 15) - 8));
    case CUDA_Q4_K:
        return (float)q4_k_ref(codes + col / 256 * 144, col % 256);
    case CUDA_Q6_K:
        return (float)q6_k_ref(codes + col / 256 * 210, col % 256);
    case CUDA_FORMATS:
        break;
    }
    return NAN;
}

void cuda_matmul_ref(const struct cuda_matrix *w, const uint16_t *x, unsigned x_stride, unsigned m,
                     float *y, unsigned y_stride) {
    for (unsigned i = 0; i < m; i++)
        for (unsigned row = 0; row < w->n; row++) {
            double sum = 0;
            for (unsigned col = 0; col < w->k; col++)
                sum += (double)cuda_weight_ref(w, row, col) * f16(x + (size_t)i * x_stride + col);
            y[(size_t)i * y_stride + row] = (float)sum;
        }
}
