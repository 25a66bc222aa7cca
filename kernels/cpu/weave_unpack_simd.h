// What the bytes of a woven block mean: codes, scales and zeros of LANES of its rows at a time; and
// the end of their sums.
#include "half_simd.h"

#define row_vector SIMD(row_vector)
#define load_line SIMD(load_line)
#define load_quads SIMD(load_quads)
#define byte_lanes SIMD(byte_lanes)
#define signed_byte_lanes SIMD(signed_byte_lanes)
#define half_lanes SIMD(half_lanes)
#define k4_scales SIMD(k4_scales)
#define k4_open SIMD(k4_open)
#define k4_step SIMD(k4_step)
#define unit_scales SIMD(unit_scales)
#define unit_zeros SIMD(unit_zeros)
#define unit_offsets SIMD(unit_offsets)
#define zero_of SIMD(zero_of)
#define table_of SIMD(table_of)
#define row_results SIMD(row_results)
#define store_rows SIMD(store_rows)

struct row_vector {
    const unsigned char *block; // of its rows
    size_t lane;                // its first row in the block
    size_t jump;                // from the end of this block to the stream's next
};

INLINE ivec load_line(const unsigned char *p) {
    ivec v;
    memcpy(&v, p, sizeof v);
    return v;
}

// What load_quads gives is unsigned, at most 63, except from 8 bits and tables. There VNNI
// wants codes + 128, and sums start at -128 Σ q; others take them signed.
INLINE int zero_of(const struct weave_kind *kind, const int bits, const bool table) {
    return (bits == 8 || table) && LANES == 16 ? 128 : kind->zero_code;
}

INLINE ivec table_of(ivec codes, const int8_t *table) {
#if LANES == 16
    __m512i t = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)table));
    return (ivec)_mm512_xor_si512(_mm512_shuffle_epi8(t, (__m512i)codes),
                                  _mm512_set1_epi8((char)-128));
#elif LANES == 8
    __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)table));
    return (ivec)_mm256_shuffle_epi8(t, (__m256i)codes);
#elif SIMD_NEON
    return (ivec)vqtbl1q_s8(vld1q_s8(table), (uint8x16_t)codes);
#else
    uint8_t bytes[4 * LANES];
    memcpy(bytes, &codes, sizeof bytes);
    for (int i = 0; i < 4 * LANES; i++)
        bytes[i] = (uint8_t)table[bytes[i]];
    memcpy(&codes, bytes, sizeof bytes);
    return codes;
#endif
}

// The codes of quads 4 step … 4 step + 3.
INLINE void load_quads(const int bits, const bool table, const struct weave *w,
                       const struct row_vector *row, size_t step, ivec out[4]) {
    const unsigned char *at = row->block + row->lane * 4;
    if (bits == 8) {
        for (size_t i = 0; i < 4; i++) {
            out[i] = load_line(at + (4 * step + i) * 64);
            if (LANES == 16)
                out[i] ^= (int32_t)0x80808080;
        }
        return;
    }
    ivec a = load_line(at + 2 * step * 64), b = load_line(at + (2 * step + 1) * 64);
    out[0] = a & 0x0f0f0f0f;
    out[1] = a >> 4 & 0x0f0f0f0f;
    out[2] = b & 0x0f0f0f0f;
    out[3] = b >> 4 & 0x0f0f0f0f;
    if (table)
        for (int i = 0; i < 4; i++)
            out[i] = table_of(out[i], w->kind.table);
    if (bits == 5) {
        ivec h = load_line(at + w->high + step / 2 * 64) >> (int)(step % 2 * 4);
        for (int i = 0; i < 4; i++)
            out[i] |= (h >> i & 0x01010101) << 4;
    } else if (bits == 6) {
        ivec h = load_line(at + w->high + step * 64);
        for (int i = 0; i < 4; i++)
            out[i] |= (h >> 2 * i & 0x03030303) << 4;
    }
}

// LANES bytes as floats. GCC 12 takes a converted vector of bytes apart, byte by byte: Q4_K and
// Q6_K would decode at two thirds of the speed.
INLINE vec byte_lanes(const unsigned char *p) {
#if LANES == 16
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i_u *)p)));
#elif LANES == 8
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadu_si64(p)));
#else
    return (vec){p[0], p[1], p[2], p[3]};
#endif
}

INLINE vec signed_byte_lanes(const unsigned char *p) {
#if LANES == 16
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i_u *)p)));
#elif LANES == 8
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadu_si64(p)));
#else
    return (vec){(int8_t)p[0], (int8_t)p[1], (int8_t)p[2], (int8_t)p[3]};
#endif
}

INLINE vec half_lanes(const unsigned char *p) {
    halves h;
    memcpy(&h, p, sizeof h);
    return f16_vec(h);
}

// The integers under the scales of 256 columns of Q4_K's kind, one byte each.
struct k4_scales {
    vec scale, offset;
    unsigned char scales[128], offsets[128]; // [8 sub-blocks][16 rows]
};

// Sixteen bytes at a time, as they are read again: a store that is wider is waited for.
INLINE void k4_open(struct k4_scales *out, const unsigned char *super, size_t lane) {
    const uint64_t four = 0x0f0f0f0f0f0f0f0f, two = 0x0303030303030303;
#pragma GCC unroll 8
    for (size_t j = 0; j < 8; j++) {
        sixteen_bytes low, high;
        memcpy(&low, super + j * 16, sizeof low);
        memcpy(&high, super + 128 + j % 4 * 16, sizeof high);
        high >>= j / 4 * 4;
        sixteen_bytes scales = (low & four) | (high & two) << 4;
        sixteen_bytes offsets = (low >> 4 & four) | (high >> 2 & two) << 4;
        memcpy(out->scales + j * 16, &scales, sizeof scales);
        memcpy(out->offsets + j * 16, &offsets, sizeof offsets);
    }
    out->scale = half_lanes(super + 192 + lane * 2);
    out->offset = -half_lanes(super + 224 + lane * 2);
}

// Opens the super-block that this unit is the first of.
INLINE void k4_step(struct k4_scales *out, const enum weave_scale scales, const struct weave *w,
                    const struct row_vector *row, size_t unit) {
    if (scales == WEAVE_SCALE_K4 && unit % 8 == 0)
        k4_open(out, row->block + w->scales + unit / 8 * 256, row->lane);
}

// What the unit's sums are multiplied by, in each row.
INLINE vec unit_scales(const enum weave_scale scales, const struct weave *w,
                       const struct row_vector *row, size_t unit, const struct k4_scales *k4) {
    const unsigned char *plane = row->block + w->scales;
    size_t column = unit * w->unit;
    if (scales == WEAVE_SCALE_ROW)
        return vec_set(1.0f);
    if (scales == WEAVE_SCALE_F16)
        return half_lanes(plane + (column / w->kind.group * WEAVE_ROWS + row->lane) * 2);
    if (scales == WEAVE_SCALE_F32)
        return vec_load((const float *)(const void *)plane + column / w->kind.group * WEAVE_ROWS +
                        row->lane) *
               w->kind.step;
    if (scales == WEAVE_SCALE_K4)
        return k4->scale * byte_lanes(k4->scales + unit % 8 * WEAVE_ROWS + row->lane);
    const unsigned char *super = plane + column / WEAVE_SUPER * 288;
    return half_lanes(super + 256 + row->lane * 2) *
           signed_byte_lanes(super + column % WEAVE_SUPER / 16 * WEAVE_ROWS + row->lane);
}

// The codes that stand for 0 in each row's unit.
INLINE vec unit_zeros(const int bits, const struct weave *w, const struct row_vector *row,
                      size_t unit) {
    const unsigned char *plane = row->block + w->zeros;
    size_t group = w->kind.group ? unit * w->unit / w->kind.group : 0;
    if (bits != 4)
        return byte_lanes(plane + group * WEAVE_ROWS + row->lane);
    uint64_t both, four = 0x0f0f0f0f0f0f0f0f;
    memcpy(&both, plane + group * 8, sizeof both);
    sixteen_bytes bytes = {both & four, both >> 4 & four};
    return byte_lanes((const unsigned char *)&bytes + row->lane);
}

// What is added in each row, times the sum of the unit's activations.
INLINE vec unit_offsets(const enum weave_zero zeros, const struct weave *w,
                        const struct row_vector *row, size_t unit, const struct k4_scales *k4) {
    size_t group = w->kind.group ? unit * w->unit / w->kind.group : 0;
    if (zeros == WEAVE_ZERO_OFFSET)
        return half_lanes(row->block + w->zeros + (group * WEAVE_ROWS + row->lane) * 2);
    return k4->offset * byte_lanes(k4->offsets + unit % 8 * WEAVE_ROWS + row->lane);
}

// Sums of rows of a vector, from row `at` on: times their scale, if there is one of the whole row,
// + bias.
INLINE vec row_results(const struct weave *w, const struct row_vector *row, size_t at, vec sums,
                       const float *bias) {
    vec scale = vec_set(1.0f);
    if (w->kind.scale == WEAVE_SCALE_ROW)
        memcpy(&scale, row->block + w->scales + row->lane * 4, sizeof scale);
    vec v = sums * scale;
    return bias ? v + vec_load_part(bias + at, w->n - at) : v;
}

// y[m][rows of a vector], those below n, of `count` tokens; y points at the first token's first
// row.
INLINE void store_rows(const struct weave *w, const struct row_vector *row, size_t at, int count,
                       const vec *sums, float *y, size_t y_stride, const float *bias) {
    if (at >= w->n)
        return;
    for (int m = 0; m < count; m++)
        vec_store_part(y + (size_t)m * y_stride, row_results(w, row, at, sums[m], bias), w->n - at);
}
