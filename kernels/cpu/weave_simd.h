// A few vectors of rows times a few tokens, a unit of columns at a time:
//
//     sums[r][m] = Σ codes * q[m], exactly, in int32, four columns per instruction and lane
//     y[r][m] += scale of the unit's activations * scale[r] * sums[r][m] (+ what zeros add)
//
// A vector is LANES of a block's sixteen rows; R vectors, of one block or of neighbouring ones, are
// R streams of memory. Every y is summed in the order of the units, whatever R and M are.
#include "weave_unpack_simd.h"

#define dot_quads SIMD(dot_quads)
#define unit_sums SIMD(unit_sums)
#define weave_tile SIMD(weave_tile)
#define weave_tile_of SIMD(weave_tile_of)
#if SIMD_NEON
#include "weave_neon_simd.h"
#endif

// acc += the products of four quads of codes with four quads of activations, each the same in every
// lane. AVX2 adds pairs in 16 bits: unsigned codes of 4 or 5 bits let four such sums be added there
// before they are widened (4 * 2 * 31 * 127 < 2^15), 6 bits two; signed bytes none.
// AVX-512 repeats the activations as it reads them; GCC 12 would do that beforehand, for a whole
// step, run out of registers and wait for its stack: 63 instead of 81 % of the peak.
INLINE ivec dot_quads(const int bits, const bool table, ivec acc, const ivec w[4],
                      const int8_t *q) {
#if LANES == 16
    for (int i = 0; i < 4; i++)
        __asm__("vpdpbusd %2%{1to16%}, %1, %0"
                : "+v"(acc)
                : "v"(w[i]), "m"(*(const int8_t(*)[4])(q + 4 * i)));
    (void)bits, (void)table;
#elif LANES == 8
    __m256i pairs[4], ones = _mm256_set1_epi16(1), sum = (__m256i)acc;
    for (int i = 0; i < 4; i++) {
        int32_t x;
        memcpy(&x, q + 4 * i, sizeof x);
        __m256i a = (__m256i)w[i], b = _mm256_set1_epi32(x);
        pairs[i] = bits == 8 || table
                       ? _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a))
                       : _mm256_maddubs_epi16(a, b);
    }
    if (bits == 8 || table) {
        for (int i = 0; i < 4; i++)
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs[i], ones));
    } else {
        __m256i a = _mm256_add_epi16(pairs[0], pairs[1]);
        __m256i b = _mm256_add_epi16(pairs[2], pairs[3]);
        sum = bits == 6 ? _mm256_add_epi32(_mm256_add_epi32(sum, _mm256_madd_epi16(a, ones)),
                                           _mm256_madd_epi16(b, ones))
                        : _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(a, b), ones));
    }
    acc = (ivec)sum;
#elif SIMD_NEON
    acc = neon_dot_quads(bits == 8 || table, acc, w, q);
#else
    for (int i = 0; i < 4; i++) {
        int8_t bytes[4 * LANES];
        memcpy(bytes, &w[i], sizeof bytes);
        for (int lane = 0; lane < LANES; lane++) {
            int32_t sum = 0;
            for (int b = 0; b < 4; b++)
                sum += bytes[4 * lane + b] * q[4 * i + b];
            acc[lane] += sum;
        }
    }
    (void)bits, (void)table;
#endif
    return acc;
}

// R vectors of rows times M tokens, the columns of one unit: steps of 16 from … to. Memory is asked
// for WEAVE_AHEAD bytes before it is needed, by the first tokens that come.
INLINE void unit_sums(const int bits, const bool table, const int R, const int M,
                      const struct weave *w, const struct row_vector *rows, const int8_t *q,
                      size_t q_stride, size_t from, size_t to, bool ask, ivec sums[4][8]) {
    const size_t lines = bits == 8 ? 4 : 2;
    for (size_t step = from; step < to; step++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            ivec quads[4];
            if (ask) {
                size_t ahead = step * lines * 64 + WEAVE_AHEAD;
                const unsigned char *p =
                    rows[r].block + ahead + (ahead < w->block_bytes ? 0 : rows[r].jump);
#pragma GCC unroll 4
                for (size_t i = 0; i < lines; i++)
                    __builtin_prefetch(p + i * 64);
            }
            load_quads(bits, table, w, &rows[r], step, quads);
#pragma GCC unroll 8
            for (int m = 0; m < M; m++)
                sums[r][m] =
                    dot_quads(bits, table, sums[r][m], quads, q + (size_t)m * q_stride + step * 16);
        }
    }
}

// R vectors of rows times M tokens, over all columns.
INLINE void weave_tile_of(const int bits, const bool table, const enum weave_scale scales,
                          const enum weave_zero zeros, const int R, const int M,
                          const struct weave *w, const struct row_vector *rows,
                          const struct weave_x *x, size_t token, vec y[4][8]) {
    const int8_t *q = x->q + token * x->q_stride;
    const float *x_scale = x->scale + token * x->units, *x_sum = x->scaled_sum + token * x->units;
    const int32_t *sum = x->sum + token * x->units;
    const int zero = zero_of(&w->kind, bits, table);
    const bool offsets = zeros == WEAVE_ZERO_OFFSET || zeros == WEAVE_ZERO_K4;
    const size_t scale_step = (w->block_bytes - w->scales) / w->units;
    struct k4_scales k4[4];
    for (int r = 0; r < R; r++)
        k4[r].scale = k4[r].offset = (vec){0};
    for (size_t u = 0; u < w->units; u++) {
        ivec sums[4][8];
        size_t from = u * w->unit, to = min_size(from + w->unit, w->k_padded);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
                sums[r][m] = (ivec){0} - zero * sum[(size_t)m * x->units + u];
#if SIMD_NEON == 3
        if (M % 2 == 0)
            i8mm_unit_sums(bits, table, R, M, w, rows, q, x->q_stride, from / 16, to / 16, sums);
        else
#endif
            unit_sums(bits, table, R, M, w, rows, q, x->q_stride, from / 16, to / 16, token == 0,
                      sums);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            if (token == 0) // the scales of the stream's next block: too few to be foreseen
                __builtin_prefetch(rows[r].block + w->block_bytes + rows[r].jump + w->scales +
                                   u * scale_step);
            k4_step(&k4[r], scales, w, &rows[r], u);
            vec scale = unit_scales(scales, w, &rows[r], u, &k4[r]);
            vec code_of_0 = zeros == WEAVE_ZERO_GROUP ? unit_zeros(bits, w, &rows[r], u) : (vec){0};
            vec offset = offsets ? unit_offsets(zeros, w, &rows[r], u, &k4[r]) : (vec){0};
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) {
                size_t at = (size_t)m * x->units + u;
                vec f = __builtin_convertvector(sums[r][m], vec);
                if (zeros == WEAVE_ZERO_GROUP)
                    f -= code_of_0 * (float)sum[at]; // exact: both are below 2^24
                y[r][m] += scale * x_scale[at] * f;
                if (offsets)
                    y[r][m] += offset * x_sum[at];
            }
        }
    }
}

// With AVX-512 the formats that are met most have code of their own; else units ask what they are.
INLINE void weave_tile(const int R, const int M, const struct weave *w,
                       const struct row_vector *rows, const struct weave_x *x, size_t token,
                       vec y[4][8]) {
    const enum weave_scale scale = w->kind.scale;
    const enum weave_zero zero = w->kind.zero;
#define TILE_OF(bits, table, scale, zero)                                                          \
    weave_tile_of(bits, table, scale, zero, R, M, w, rows, x, token, y)
#define TILE_IF(b, s, z)                                                                           \
    else if (LANES == 16 && w->kind.bits == b && scale == s && zero == z) TILE_OF(b, false, s, z)
    if (w->kind.table)
        TILE_OF(4, true, scale, zero);
    TILE_IF(4, WEAVE_SCALE_F16, WEAVE_ZERO_ALL);
    TILE_IF(4, WEAVE_SCALE_F16, WEAVE_ZERO_GROUP);
    TILE_IF(4, WEAVE_SCALE_K4, WEAVE_ZERO_K4);
    TILE_IF(6, WEAVE_SCALE_K6, WEAVE_ZERO_ALL);
    TILE_IF(8, WEAVE_SCALE_F16, WEAVE_ZERO_ALL);
    TILE_IF(8, WEAVE_SCALE_ROW, WEAVE_ZERO_ALL);
    else if (w->kind.bits == 4) TILE_OF(4, false, scale, zero);
    else if (w->kind.bits == 5) TILE_OF(5, false, scale, zero);
    else if (w->kind.bits == 6) TILE_OF(6, false, scale, zero);
    else TILE_OF(8, false, scale, zero);
#undef TILE_IF
#undef TILE_OF
}

#define WEAVE_TILE(R, M)                                                                           \
    static __attribute__((noinline)) void SIMD(weave_tile_##R##_##M)(                              \
        const struct weave *w, const struct weave_x *x, size_t token, size_t row, float *y,        \
        size_t y_stride, const float *bias) {                                                      \
        struct row_vector rows[R];                                                                 \
        vec sums[4][8] = {0};                                                                      \
        for (size_t r = 0; r < R; r++) {                                                           \
            size_t at = row + r * LANES;                                                           \
            rows[r] =                                                                              \
                (struct row_vector){w->data + at / WEAVE_ROWS * w->block_bytes, at % WEAVE_ROWS,   \
                                    (R * LANES / WEAVE_ROWS - 1) * w->block_bytes};                \
        }                                                                                          \
        weave_tile(R, M, w, rows, x, token, sums);                                                 \
        const int count = x->m - token < M ? (int)(x->m - token) : M;                              \
        for (size_t r = 0; r < R; r++)                                                             \
            store_rows(w, &rows[r], row + r * LANES, count, sums[r], y + row + r * LANES,          \
                       y_stride, bias);                                                            \
    }

WEAVE_TILE(4, 1)
WEAVE_TILE(2, 2)
WEAVE_TILE(2, 4)
#if LANES == 16
WEAVE_TILE(1, 1)
WEAVE_TILE(1, 2)
WEAVE_TILE(1, 4)
WEAVE_TILE(1, 8)
#else
WEAVE_TILE(2, 1)
#endif
#if SIMD_NEON // 32 registers
WEAVE_TILE(2, 8)
#endif

// `rows` rows from `row` on (a multiple of 16), all tokens. Few tokens: four vectors at a time, so
// that memory has four streams to fetch from; more: two, each unpacked for up to eight tokens.
static void SIMD(weave_rows)(const struct weave *w, const struct weave_x *x, size_t row,
                             size_t rows, float *y, size_t y_stride, const float *bias) {
    const size_t padded = round_up(rows, WEAVE_ROWS);
#define WEAVE_CALL(R, M)                                                                           \
    for (; at + R * LANES <= padded; at += R * LANES)                                              \
    SIMD(weave_tile_##R##_##M)(w, x, token, row + at, y + token * y_stride, y_stride, bias)
    const size_t tokens = weave_x_tokens(x->m);
    for (size_t token = 0, step; token < tokens; token += step) {
        size_t at = 0, left = tokens - token;
#if LANES == 16
        step = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (step == 8) {
            WEAVE_CALL(1, 8);
        } else if (step == 4) {
            WEAVE_CALL(2, 4);
            WEAVE_CALL(1, 4);
        } else if (step == 2) {
            WEAVE_CALL(2, 2);
            WEAVE_CALL(1, 2);
        } else {
            WEAVE_CALL(4, 1);
            WEAVE_CALL(1, 1);
        }
#else
        step = left >= 4 ? 4 : left >= 2 ? 2 : 1;
#if SIMD_NEON
        if (left >= 8) {
            step = 8;
            WEAVE_CALL(2, 8);
        }
#endif
        if (step == 4) {
            WEAVE_CALL(2, 4);
        } else if (step == 2) {
            WEAVE_CALL(2, 2);
        } else if (step == 1) {
            WEAVE_CALL(4, 1);
            WEAVE_CALL(2, 1);
        }
#endif
    }
#undef WEAVE_CALL
}
#undef WEAVE_TILE
