#include "dot_simd.h"

// y[0 … rows of x][0 … n of w] += x · wᵀ over the columns; rows of w are a panel's.
INLINE void SIMD(multiply_tile)(float *y, size_t y_stride, size_t m, const float *x,
                                size_t x_stride, const float *panel, size_t n, size_t columns) {
    const float *w[4];
    for (size_t j = 0; j < 4; j++) // past the last row: that row again, and the sum is not stored
        w[j] = panel + min_size(j, n - 1) * MATMUL_PANEL_STRIDE;
    v4 sums[DOT_X];
    dot_tile(m, sums, x, x_stride, w, columns);
    for (size_t i = 0; i < m; i++, y += y_stride) {
        if (n >= 4) {
            v4 before;
            memcpy(&before, y, sizeof before);
            before += sums[i];
            memcpy(y, &before, sizeof before);
        } else {
            for (size_t j = 0; j < n; j++)
                y[j] += sums[i][j];
        }
    }
}

// Columns row … row + rows of y. DOT_X rows of x stay in the L1 cache while the panel passes.
static void SIMD(multiply_panel)(const struct matmul_job *job, size_t row, size_t rows,
                                 float *panel) {
    const struct weight_source *w = job->w;
    size_t tiles = (job->m + DOT_X - 1) / DOT_X; // of equal height: 8 rows are 4 + 4, not 6 + 2
    size_t height = tiles ? (job->m + tiles - 1) / tiles : 0;
    for (size_t i = 0; i < job->m; i++)
        for (size_t j = 0; j < rows; j++)
            job->y[i * job->y_stride + row + j] = job->bias ? job->bias[row + j] : 0.0f;
    for (size_t col = 0; col < w->k; col += MATMUL_CHUNK) {
        size_t columns = min_size(MATMUL_CHUNK, w->k - col);
        for (size_t j = 0; j < rows; j++)
            w->read(w->context, row + j, col, columns, panel + j * MATMUL_PANEL_STRIDE);
        for (size_t i = 0; i < job->m; i += height)
            for (size_t j = 0; j < rows; j += 4)
                SIMD(multiply_tile)
        (job->y + i * job->y_stride + row + j, job->y_stride, min_size(height, job->m - i),
         job->x + i * job->x_stride + col, job->x_stride, panel + j * MATMUL_PANEL_STRIDE, rows - j,
         columns);
    }
}
