#include "kernels/cpu/kernels.h"

#include <math.h>

#define SIMD_BODY "norm_simd.h"
#include "simd.h"

#define NORM_PARALLEL_MIN ((size_t)1 << 15)

void rmsnorm_ref(float *y, const float *x, size_t m, size_t n, const float *gain, float eps) {
    for (size_t i = 0; i < m; i++, x += n, y += n) {
        double squares = 0;
        for (size_t j = 0; j < n; j++)
            squares += (double)x[j] * x[j];
        double inverse = 1 / sqrt(squares / (double)n + eps);
        for (size_t j = 0; j < n; j++)
            y[j] = (float)(x[j] * inverse * gain[j]);
    }
}

void rmsnorm(float *y, const float *x, size_t m, size_t n, const float *gain, float eps) {
#pragma omp parallel for schedule(static) if (m * n >= NORM_PARALLEL_MIN)
    for (size_t i = 0; i < m; i++)
        SIMD_CALL(rmsnorm_row, y + i * n, x + i * n, n, gain, eps);
}

void layernorm_ref(float *y, const float *x, size_t m, size_t n, const float *gain,
                   const float *bias, float eps) {
    for (size_t i = 0; i < m; i++, x += n, y += n) {
        double mean = 0, variance = 0;
        for (size_t j = 0; j < n; j++)
            mean += x[j] / (double)n;
        for (size_t j = 0; j < n; j++)
            variance += (x[j] - mean) * (x[j] - mean) / (double)n;
        double inverse = 1 / sqrt(variance + eps);
        for (size_t j = 0; j < n; j++)
            y[j] = (float)((x[j] - mean) * inverse * gain[j] + (bias ? bias[j] : 0));
    }
}

void layernorm(float *y, const float *x, size_t m, size_t n, const float *gain, const float *bias,
               float eps) {
#pragma omp parallel for schedule(static) if (m * n >= NORM_PARALLEL_MIN)
    for (size_t i = 0; i < m; i++)
        SIMD_CALL(layernorm_row, y + i * n, x + i * n, n, gain, bias, eps);
}
