#include "kernels/cpu/kernels.h"

#include <math.h>

#define SIMD_BODY "softmax_simd.h"
#include "simd.h"

double log_sum_exp_ref(const float *x, size_t n) {
    double largest = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    if (!isfinite(largest)) // no shift then: inf - inf would be NaN
        largest = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp(x[i] - largest);
    return largest + log(sum);
}

double log_sum_exp(const float *x, size_t n) {
    float largest = SIMD_CALL(row_largest, x, n);
    if (!isfinite(largest))
        largest = 0;
    return largest + log(SIMD_CALL(row_sum_exp, x, n, largest));
}
