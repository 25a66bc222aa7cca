#include "kernels/cpu/kernels.h"

#include <math.h>

#define SIMD_BODY "activation_simd.h"
#include "simd.h"

enum {
    ACTIVATION_PART = 16384
}; // elements a thread takes at a time; one part is not worth a thread

void silu_mul_ref(float *y, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++)
        y[i] = (float)(gate[i] / (1 + exp(-(double)gate[i])) * up[i]);
}

void silu_mul(float *y, const float *gate, const float *up, size_t n) {
#pragma omp parallel for schedule(static) if (n > ACTIVATION_PART)
    for (size_t i = 0; i < n; i += ACTIVATION_PART)
        SIMD_CALL(silu_mul_part, y + i, gate + i, up + i, min_size(ACTIVATION_PART, n - i));
}

void gelu_tanh_ref(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double v = x[i];
        y[i] = (float)(0.5 * v * (1 + tanh(sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))));
    }
}

void gelu_tanh(float *y, const float *x, size_t n) {
#pragma omp parallel for schedule(static) if (n > ACTIVATION_PART)
    for (size_t i = 0; i < n; i += ACTIVATION_PART)
        SIMD_CALL(gelu_tanh_part, y + i, x + i, min_size(ACTIVATION_PART, n - i));
}

void add_to(float *y, const float *x, size_t n) {
#pragma omp parallel for schedule(static) if (n > ACTIVATION_PART)
    for (size_t i = 0; i < n; i += ACTIVATION_PART)
        SIMD_CALL(add_to_part, y + i, x + i, min_size(ACTIVATION_PART, n - i));
}
