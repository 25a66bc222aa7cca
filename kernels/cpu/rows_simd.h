// Four rows at a time, each a stream that is asked for 1 KB ahead: one row's few kilobytes end
// before the prefetchers have learnt where they go.
#include "half_simd.h"
#define rows_step SIMD(rows_step)
#define rows_tile SIMD(rows_tile)

enum { SIMD(ROWS_AHEAD) = 512 }; // elements

// The next `left` (at most LANES) columns.
INLINE void rows_step(const bool bf16, const int M, vec acc[4][4], const uint16_t *const w[4],
                      const float *x, size_t x_stride, size_t c, size_t left) {
    vec xs[4];
#pragma GCC unroll 4
    for (int m = 0; m < M; m++)
        xs[m] = vec_load_part(x + (size_t)m * x_stride + c, left);
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        halves h = halves_load(w[r] + c, left);
        vec v = bf16 ? bf16_vec(h) : f16_vec(h);
#pragma GCC unroll 4
        for (int m = 0; m < M; m++)
            acc[r][m] += v * xs[m];
    }
}

// Rows [row, row + 4), those below `to`, times M tokens.
INLINE void rows_tile(const bool bf16, const int M, const struct rows_job *job, const float *x,
                      size_t x_stride, size_t k, size_t row, size_t to, float *y) {
    const uint16_t *w[4]; // past the last row: that row again, and the sum is not stored
    vec acc[4][4] = {0};
    for (size_t r = 0; r < 4; r++)
        w[r] = job->w + min_size(row + r, to - 1) * k;
    size_t c = 0;
    for (; c + 32 <= k; c += 32) {
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) // behind a row's end lies the row that its stream goes on with
            __builtin_prefetch(w[r] + c + SIMD(ROWS_AHEAD) +
                               (c + SIMD(ROWS_AHEAD) < k ? 0 : 3 * k));
#pragma GCC unroll 8
        for (size_t i = 0; i < 32; i += LANES)
            rows_step(bf16, M, acc, w, x, x_stride, c + i, LANES);
    }
    for (; c < k; c += LANES)
        rows_step(bf16, M, acc, w, x, x_stride, c, k - c);
    for (int m = 0; m < M; m++) {
        v4 sums = vec_sum4(acc[0][m], acc[1][m], acc[2][m], acc[3][m]);
        for (size_t r = 0; r < 4 && row + r < to; r++)
            y[(size_t)m * job->y_stride + row + r] =
                sums[r] + (job->bias ? job->bias[row + r] : 0.0f);
    }
}

#define ROWS(name, bf16)                                                                           \
    static void SIMD(name)(const struct rows_job *job, const float *x, size_t x_stride, size_t m,  \
                           size_t k, size_t from, size_t to) {                                     \
        for (size_t t = 0, step; t < m; t += step) {                                               \
            const float *xt = x + t * x_stride;                                                    \
            float *y = job->y + t * job->y_stride;                                                 \
            step = m - t >= 4 ? 4 : m - t >= 2 ? 2 : 1;                                            \
            for (size_t row = from; row < to; row += 4) {                                          \
                if (step == 4)                                                                     \
                    rows_tile(bf16, 4, job, xt, x_stride, k, row, to, y);                          \
                else if (step == 2)                                                                \
                    rows_tile(bf16, 2, job, xt, x_stride, k, row, to, y);                          \
                else                                                                               \
                    rows_tile(bf16, 1, job, xt, x_stride, k, row, to, y);                          \
            }                                                                                      \
        }                                                                                          \
    }
ROWS(rows_f16, false)
ROWS(rows_bf16, true)
#undef ROWS
