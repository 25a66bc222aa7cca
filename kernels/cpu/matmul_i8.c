#include "kernels/cpu/matmul_i8.h"

#include <math.h>

#define SIMD_VNNI
#define SIMD_BODY "matmul_i8_simd.h"
#include "simd.h"

#define I8_PARALLEL_MIN ((size_t)1 << 18)

void quantize_rows_i8_ref(const float *x, size_t x_stride, size_t m, size_t k, int8_t *q,
                          float *scale) {
    for (size_t i = 0; i < m; i++, x += x_stride, q += k) {
        float largest = 0;
        for (size_t c = 0; c < k && !isnan(largest); c++)
            largest = fabsf(x[c]) <= largest ? largest : fabsf(x[c]);
        scale[i] = largest / 127;
        for (size_t c = 0; c < k; c++) {
            if (scale[i] > 0 && isfinite(scale[i]))
                q[c] = (int8_t)fmaxf(-127, fminf(127, rintf(x[c] / scale[i])));
            else
                q[c] = 0;
        }
    }
}

void quantize_rows_i8(const float *x, size_t x_stride, size_t m, size_t k, int8_t *q,
                      float *scale) {
#pragma omp parallel for schedule(static) if (m * k >= I8_PARALLEL_MIN)
    for (size_t i = 0; i < m; i++)
        scale[i] = SIMD_CALL(quantize_row_i8, x + i * x_stride, k, q + i * k);
}

// One place for both versions, so that they round alike.
static float scaled(int32_t sum, float x_scale, float w_scale, const float *bias) {
    return x_scale * w_scale * (float)sum + (bias ? *bias : 0.0f);
}

void matmul_i8_ref(float *y, size_t y_stride, const int8_t *q, const float *x_scale, size_t m,
                   const int8_t *w, const float *w_scale, size_t w_scale_step, size_t n, size_t k,
                   const float *bias) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            int32_t sum = 0;
            for (size_t c = 0; c < k; c++)
                sum += q[i * k + c] * w[j * k + c];
            y[i * y_stride + j] =
                scaled(sum, x_scale[i], w_scale[j * w_scale_step], bias ? bias + j : NULL);
        }
}

static void scale_row(float *y, const uint32_t *sums, size_t n, float x_scale, const float *w_scale,
                      size_t w_scale_step, const float *bias) {
    for (size_t j = 0; j < n; j++)
        y[j] = scaled((int32_t)sums[j], x_scale, w_scale[j * w_scale_step], bias ? bias + j : NULL);
}

void matmul_i8(float *y, size_t y_stride, const int8_t *q, const float *x_scale, size_t m,
               const int8_t *w, const float *w_scale, size_t w_scale_step, size_t n, size_t k,
               const float *bias) {
#pragma omp parallel for schedule(static) if (m * n * k >= I8_PARALLEL_MIN)
    for (size_t row = 0; row < n; row += I8_PANEL) {
        uint32_t sums[I8_TILE][I8_PANEL];
        size_t rows = min_size(I8_PANEL, n - row);
        for (size_t i = 0; i < m; i++) {
            if (i % I8_TILE == 0)
                SIMD_CALL(dot_panel_i8, sums, q + i * k, min_size(I8_TILE, m - i), w + row * k,
                          rows, k);
            scale_row(y + i * y_stride + row, sums[i % I8_TILE], rows, x_scale[i],
                      w_scale + row * w_scale_step, w_scale_step, bias ? bias + row : NULL);
        }
    }
}
