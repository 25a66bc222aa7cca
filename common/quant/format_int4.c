// Two weights in a byte. A code has four bits, 0 … 15, and a zero point says which code means 0:
//
//     w = scale * (code - zero)
//
// Symmetric: zero is 8 and scale = max |w| / 7, so codes are 1 … 15. With a zero point, the 16
// codes are spread over what the group really has, from min(w, 0) to max(w, 0): scale = (max - min)
// / 15, zero = round(-min / scale), itself a four-bit code.
//
// A row is packed in blocks of 32 weights, 16 bytes; byte j holds weight j below weight j + 16, so
// that unpacking 16 bytes gives 16 neighbours twice, with a mask and a shift:
//
//     byte            0     1     2           15
//     bits 7 … 4     w16   w17   w18    …    w31
//     bits 3 … 0     w0    w1    w2     …    w15
//
// A last block of len < 32 weights takes (len + 1) / 2 bytes; byte j holds weights j and
// (len + 1) / 2 + j. When len is odd, the last byte's upper half is 0 and belongs to nobody.
// Zero points: group g of a row in byte g / 2, even ones below odd ones.
#include "quant/format_shared.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { BLOCK = 32, SYMMETRIC_ZERO = 8, SYMMETRIC_MAX = 7, CODE_MAX = 15 };

// The codes a group may use, and what they mean.
struct grid {
    float scale;
    int zero;
    int lo, hi; // of code - zero
};

// scale: as stored. A scale of 0 (all weights 0, or too small for one) makes every ŵ 0.
static struct grid grid_choose(bool zero_point, float scale, float min) {
    if (!zero_point)
        return (struct grid){scale, SYMMETRIC_ZERO, -SYMMETRIC_MAX, SYMMETRIC_MAX};
    int zero = scale > 0 ? round_even(clamp(-min / scale, 0, CODE_MAX)) : 0;
    return (struct grid){scale, zero, -zero, CODE_MAX - zero};
}

static inline void round_codes(const float *w, size_t n, const struct grid *g, uint8_t *codes) {
    if (g->scale == 0) {
        memset(codes, g->zero, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        codes[i] =
            (uint8_t)(round_even(clamp(w[i] / g->scale, (float)g->lo, (float)g->hi)) + g->zero);
}

static inline void pack_block(const uint8_t *codes, size_t len, uint8_t *bytes) {
    size_t half = (len + 1) / 2;
    for (size_t j = 0; j < half; j++)
        bytes[j] = (uint8_t)(codes[j] | (half + j < len ? codes[half + j] : 0) << 4);
}

// len weights, whose first is the first of a block.
static void quantize_group(const float *w, size_t len, const struct grid *g, uint8_t *bytes) {
    uint8_t codes[BLOCK];
    for (; len >= BLOCK; len -= BLOCK, w += BLOCK, bytes += BLOCK / 2) {
        round_codes(w, BLOCK, g, codes);
        pack_block(codes, BLOCK, bytes);
    }
    round_codes(w, len, g, codes);
    pack_block(codes, len, bytes);
}

static void zero_store(uint8_t *zeros, size_t g, int zero) {
    if (g % 2 == 0)
        zeros[g / 2] = (uint8_t)zero;
    else
        zeros[g / 2] |= (uint8_t)(zero << 4);
}

static inline int zero_load(const uint8_t *zeros, size_t g) {
    return zeros[g / 2] >> (g % 2 ? 4 : 0) & 15;
}

static bool quantize_int4(const struct quant_format *f, const float *w, size_t row, size_t count,
                          size_t n, size_t k, const struct quant_hints *hints, void *out,
                          struct error *err) {
    (void)hints;
    struct quant_planes p;
    if (!quant_planes(f, n, k, &p))
        return quant_fail_size(n, k, err);
    for (size_t r = row; r < row + count; r++, w += k) {
        for (size_t g = 0; g < p.groups; g++) {
            size_t col = g * p.group, len = size_min(p.group, k - col);
            struct quant_range range = quant_range(w + col, len);
            if (!isfinite(range.lo) || !isfinite(range.hi))
                return quant_fail_not_finite(w + col, r, col, len, err);
            float exact = f->zero_point ? (range.hi - range.lo) / CODE_MAX
                                        : fmaxf(range.hi, -range.lo) / SYMMETRIC_MAX;
            float scale = scale_round(p.scale_bytes, exact);
            if (!isfinite(scale))
                return quant_fail_scale(exact, p.scale_bytes, r, col, len, err);
            struct grid grid = grid_choose(f->zero_point, scale, range.lo);
            scale_store((char *)out + p.scales, p.scale_bytes, r * p.groups + g, scale);
            if (f->zero_point)
                zero_store((uint8_t *)out + p.zeros + r * p.zero_stride, g, grid.zero);
            quantize_group(w + col, len, &grid, (uint8_t *)out + r * p.code_stride + col / 2);
        }
    }
    return true;
}

// The code of weight i of a row of k.
static inline int unpack_one(const uint8_t *row, size_t k, size_t i) {
    size_t block = i / BLOCK * BLOCK, half = (size_min(BLOCK, k - block) + 1) / 2;
    size_t j = i - block;
    return j < half ? row[block / 2 + j] & 15 : row[block / 2 + j - half] >> 4;
}

static void dequantize_int4_ref(const struct quant_format *f, const void *data, size_t n, size_t k,
                                size_t row, size_t col, size_t count, float *out) {
    struct quant_planes p;
    if (!quant_planes(f, n, k, &p))
        return;
    const uint8_t *codes = (const uint8_t *)data + row * p.code_stride;
    const uint8_t *zeros = (const uint8_t *)data + p.zeros + row * p.zero_stride;
    for (size_t i = col; i < col + count; i++) {
        size_t g = i / p.group;
        float scale = scale_load((const char *)data + p.scales, p.scale_bytes, row * p.groups + g);
        int zero = f->zero_point ? zero_load(zeros, g) : SYMMETRIC_ZERO;
        out[i - col] = scale * (float)(unpack_one(codes, k, i) - zero);
    }
}

// One whole block. The compilers' own vectors of the plain loops are up to four times slower.
typedef void unpack_block(const uint8_t *bytes, float scale, int zero, float *out);

static inline __attribute__((always_inline)) void
unpack_scalar(const uint8_t *restrict bytes, float scale, int zero, float *restrict out) {
    for (size_t j = 0; j < BLOCK / 2; j++)
        out[j] = scale * (float)((bytes[j] & 15) - zero);
    for (size_t j = 0; j < BLOCK / 2; j++)
        out[BLOCK / 2 + j] = scale * (float)((bytes[j] >> 4) - zero);
}

#if defined(__x86_64__)
FORMAT_TARGET_AVX2 static inline void unpack_avx2(const uint8_t *bytes, float scale, int zero,
                                                  float *out) {
    __m256i mask = _mm256_set1_epi32(15), zeros = _mm256_set1_epi32(zero);
    __m256 scales = _mm256_set1_ps(scale);
    for (size_t j = 0; j < BLOCK / 2; j += 8) {
        __m256i pairs = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(bytes + j)));
        __m256i low = _mm256_sub_epi32(_mm256_and_si256(pairs, mask), zeros);
        __m256i high = _mm256_sub_epi32(_mm256_srli_epi32(pairs, 4), zeros);
        _mm256_storeu_ps(out + j, _mm256_mul_ps(scales, _mm256_cvtepi32_ps(low)));
        _mm256_storeu_ps(out + BLOCK / 2 + j, _mm256_mul_ps(scales, _mm256_cvtepi32_ps(high)));
    }
}

FORMAT_TARGET_AVX512 static inline void unpack_avx512(const uint8_t *bytes, float scale, int zero,
                                                      float *out) {
    __m512i mask = _mm512_set1_epi32(15), zeros = _mm512_set1_epi32(zero);
    __m512 scales = _mm512_set1_ps(scale);
    __m512i pairs = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)bytes));
    __m512i low = _mm512_sub_epi32(_mm512_and_si512(pairs, mask), zeros);
    __m512i high = _mm512_sub_epi32(_mm512_srli_epi32(pairs, 4), zeros);
    _mm512_storeu_ps(out, _mm512_mul_ps(scales, _mm512_cvtepi32_ps(low)));
    _mm512_storeu_ps(out + BLOCK / 2, _mm512_mul_ps(scales, _mm512_cvtepi32_ps(high)));
}
#else
#define unpack_avx2 unpack_scalar
#define unpack_avx512 unpack_scalar
#endif

static inline __attribute__((always_inline)) void
dequantize_int4_with(unpack_block *unpack, const struct quant_format *f, const void *data, size_t n,
                     size_t k, size_t row, size_t col, size_t count, float *out) {
    struct quant_planes p;
    if (!quant_planes(f, n, k, &p))
        return;
    const uint8_t *codes = (const uint8_t *)data + row * p.code_stride;
    const uint8_t *zeros = (const uint8_t *)data + p.zeros + row * p.zero_stride;
    size_t end = col + count;
    for (size_t g = col / p.group; col < end; g++) {
        float scale = scale_load((const char *)data + p.scales, p.scale_bytes, row * p.groups + g);
        int zero = f->zero_point ? zero_load(zeros, g) : SYMMETRIC_ZERO;
        size_t group_end = size_min((g + 1) * p.group, end);
        for (; col + BLOCK <= group_end; col += BLOCK, out += BLOCK)
            unpack(codes + col / 2, scale, zero, out);
        for (; col < group_end; col++)
            *out++ = scale * (float)(unpack_one(codes, k, col) - zero);
    }
}

#define dequantize_int4_body_scalar(...) dequantize_int4_with(unpack_scalar, __VA_ARGS__)
#define dequantize_int4_body_avx2(...) dequantize_int4_with(unpack_avx2, __VA_ARGS__)
#define dequantize_int4_body_avx512(...) dequantize_int4_with(unpack_avx512, __VA_ARGS__)
FORMAT_VERSIONS(dequantize_int4, dequantize_int4_body_scalar, dequantize_int4_body_avx2,
                dequantize_int4_body_avx512)

#define INT4_FORMAT(id, text, description, scale_span, group_size, zero)                           \
    _Static_assert((group_size) == 0 || 256 % (group_size) == 0, "columns are read from 256 on");  \
    _Static_assert((group_size) % BLOCK == 0, "a group is whole blocks");                          \
    const struct quant_format quant_##id = {.name = text,                                          \
                                            .label = "int4 " description,                          \
                                            .dtype = DTYPE_BLOCK,                                  \
                                            .bits = 4,                                             \
                                            .span = scale_span,                                    \
                                            .group = group_size,                                   \
                                            .zero_point = zero,                                    \
                                            .bytes = quant_planes_bytes,                           \
                                            .quantize = quantize_int4,                             \
                                            .dequantize_ref = dequantize_int4_ref,                 \
                                            .dequantize = dequantize_int4}

INT4_FORMAT(int4, "int4", "per-channel", SPAN_ROW, 0, false);
INT4_FORMAT(int4_g32, "int4-g32", "group 32", SPAN_GROUP, 32, false);
INT4_FORMAT(int4_g64, "int4-g64", "group 64", SPAN_GROUP, 64, false);
INT4_FORMAT(int4_g128, "int4-g128", "group 128", SPAN_GROUP, 128, false);
INT4_FORMAT(int4_g256, "int4-g256", "group 256", SPAN_GROUP, 256, false);
INT4_FORMAT(int4_zp, "int4-zp", "per-channel zero-point", SPAN_ROW, 0, true);
INT4_FORMAT(int4_g32_zp, "int4-g32-zp", "group 32 zero-point", SPAN_GROUP, 32, true);
INT4_FORMAT(int4_g64_zp, "int4-g64-zp", "group 64 zero-point", SPAN_GROUP, 64, true);
INT4_FORMAT(int4_g128_zp, "int4-g128-zp", "group 128 zero-point", SPAN_GROUP, 128, true);
INT4_FORMAT(int4_g256_zp, "int4-g256-zp", "group 256 zero-point", SPAN_GROUP, 256, true);
