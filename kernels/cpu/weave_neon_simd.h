// The integer sums of weave_simd.h for ARM: a vector is four rows, a quad of codes 16 bytes.
#define neon_dot_quads SIMD(neon_dot_quads)
#define i8mm_unit_sums SIMD(i8mm_unit_sums)
#define i8mm_tokens SIMD(i8mm_tokens)

#if SIMD_NEON >= 2
// sdot adds the four products of each row, with four activations that it picks from 16.
INLINE ivec neon_dot_quads(const bool wide, ivec acc, const ivec w[4], const int8_t *q) {
    int8x16_t x = vld1q_s8(q);
    int32x4_t sum = (int32x4_t)acc;
    sum = vdotq_laneq_s32(sum, (int8x16_t)w[0], x, 0);
    sum = vdotq_laneq_s32(sum, (int8x16_t)w[1], x, 1);
    sum = vdotq_laneq_s32(sum, (int8x16_t)w[2], x, 2);
    sum = vdotq_laneq_s32(sum, (int8x16_t)w[3], x, 3);
    (void)wide;
    return (ivec)sum;
}
#else
// Products are added in 16 bits before they are widened: of codes of up to 6 bits four
// (4 * 63 * 127 < 2^15), of signed bytes ("wide") two (2 * 128 * 127 < 2^15).
INLINE ivec neon_dot_quads(const bool wide, ivec acc, const ivec w[4], const int8_t *q) {
    int16x8_t low[2], high[2];
    for (int i = 0; i < 4; i++) {
        int32_t four;
        memcpy(&four, q + 4 * i, sizeof four);
        int8x8_t x = vreinterpret_s8_s32(vdup_n_s32(four));
        int8x8_t below = vget_low_s8((int8x16_t)w[i]), above = vget_high_s8((int8x16_t)w[i]);
        int to = wide ? i / 2 : 0;
        bool first = wide ? i % 2 == 0 : i == 0;
        low[to] = first ? vmull_s8(below, x) : vmlal_s8(low[to], below, x);
        high[to] = first ? vmull_s8(above, x) : vmlal_s8(high[to], above, x);
    }
    int32x4_t a = vpaddlq_s16(low[0]), b = vpaddlq_s16(high[0]);
    if (wide) {
        a = vpadalq_s16(a, low[1]);
        b = vpadalq_s16(b, high[1]);
    }
    return acc + (ivec)vpaddq_s32(a, b);
}
#endif

#if SIMD_NEON == 3
// Eight columns of two tokens, one behind the other.
INLINE int8x16_t i8mm_tokens(const int8_t *q, size_t q_stride) {
    return vcombine_s8(vld1_s8(q), vld1_s8(q + q_stride));
}

// unit_sums for an even number of tokens: smmla multiplies eight columns of two rows with those of
// two tokens. Sums of two rows lie beside each other until the unit ends:
//
//     part[0]   row 0 token 0, row 0 token 1, row 1 token 0, row 1 token 1
//     part[1]   row 2 token 0, row 2 token 1, row 3 token 0, row 3 token 1
INLINE void i8mm_unit_sums(const int bits, const bool table, const int R, const int M,
                           const struct weave *w, const struct row_vector *rows, const int8_t *q,
                           size_t q_stride, size_t from, size_t to, ivec sums[4][8]) {
    int32x4_t part[4][4][2] = {0};
    for (size_t step = from; step < to; step++)
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            ivec quads[4];
            load_quads(bits, table, w, &rows[r], step, quads);
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                int32x4_t a = (int32x4_t)quads[2 * half], b = (int32x4_t)quads[2 * half + 1];
                int8x16_t rows01 = (int8x16_t)vzip1q_s32(a, b);
                int8x16_t rows23 = (int8x16_t)vzip2q_s32(a, b);
                const int8_t *at = q + step * 16 + 8 * half;
#pragma GCC unroll 4
                for (int p = 0; p < M / 2; p++) {
                    int8x16_t x = i8mm_tokens(at + 2 * (size_t)p * q_stride, q_stride);
                    part[r][p][0] = vmmlaq_s32(part[r][p][0], rows01, x);
                    part[r][p][1] = vmmlaq_s32(part[r][p][1], rows23, x);
                }
            }
        }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int p = 0; p < M / 2; p++) {
            sums[r][2 * p] += (ivec)vuzp1q_s32(part[r][p][0], part[r][p][1]);
            sums[r][2 * p + 1] += (ivec)vuzp2q_s32(part[r][p][0], part[r][p][1]);
        }
}
#endif
