#include "kernels/cpu/matmul.h"

#include <assert.h>

#define SIMD_BODY "matmul_simd.h"
#include "simd.h"
#include "threads.h"

// Below this many multiply-adds, waking the threads costs more than they save.
#define MATMUL_PARALLEL_MIN ((size_t)1 << 17)

void matmul_ref(float *y, size_t y_stride, const float *x, size_t x_stride, size_t m,
                const struct weight_source *w, const float *bias) {
    float part[256];
    for (size_t j = 0; j < w->n; j++)
        for (size_t i = 0; i < m; i++) {
            double sum = bias ? bias[j] : 0.0;
            for (size_t col = 0; col < w->k; col += 256) {
                size_t count = w->k - col < 256 ? w->k - col : 256;
                w->read(w->context, j, col, count, part);
                for (size_t c = 0; c < count; c++)
                    sum += (double)x[i * x_stride + col + c] * part[c];
            }
            y[i * y_stride + j] = (float)sum;
        }
}

// With one or two tiles of x the weights are read once per tile anyway: unpack just the four rows
// that are about to be used. Else as many as the panel holds, as long as every thread gets some.
static size_t panel_rows(size_t m, size_t n) {
    if (m <= 12)
        return 4;
    size_t share = round_up((n + threads_max() - 1) / threads_max(), 4);
    return min_size(share, MATMUL_PANEL_ROWS);
}

void matmul(float *y, size_t y_stride, const float *x, size_t x_stride, size_t m,
            const struct weight_source *w, const float *bias) {
    const struct matmul_job job = {y, x, y_stride, x_stride, m, w, bias};
    size_t n = w->n, rows = panel_rows(m, n);
#pragma omp parallel for schedule(static) if (m * n * w->k >= MATMUL_PARALLEL_MIN)
    for (size_t row = 0; row < n; row += rows) {
        float panel[MATMUL_PANEL_ROWS * MATMUL_PANEL_STRIDE] __attribute__((aligned(64)));
        SIMD_CALL(multiply_panel, &job, row, min_size(rows, n - row), panel);
    }
}
