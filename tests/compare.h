// How far an array is from what it should be. A NaN or an infinity anywhere, in either array, makes
// the answer infinite, so that `error <= tolerance` is false: no broken result can pass.
#ifndef NIBBLE_TESTS_COMPARE_H
#define NIBBLE_TESTS_COMPARE_H

#include <math.h>
#include <stddef.h>

// Normalized mean squared error: Σ (got - want)² / Σ want². Both all zero: 0.
static inline double nmse(const float *got, const float *want, size_t n) {
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(got[i]) || !isfinite(want[i]))
            return INFINITY;
        double difference = (double)got[i] - want[i];
        error += difference * difference;
        power += (double)want[i] * want[i];
    }
    return error == 0 ? 0 : error / power;
}

// ‖got - want‖ / ‖want‖, the square root of nmse.
static inline double rel_l2(const float *got, const float *want, size_t n) {
    return sqrt(nmse(got, want, n));
}

// The largest |got - want|.
static inline double max_abs(const float *got, const float *want, size_t n) {
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(got[i]) || !isfinite(want[i]))
            return INFINITY;
        largest = fmax(largest, fabs((double)got[i] - want[i]));
    }
    return largest;
}

// Dot error: the largest |got - want| over the lengths of the two vectors multiplied. Unlike a
// relative error it does not grow where products cancel. got and want are a row x times each of the
// n rows of w, plus bias, which counts like one more product; it may be NULL.
static inline double dot_error(const float *got, const float *want, const float *x, const float *w,
                               const float *bias, size_t n, size_t k) {
    double x2 = 0, largest = 0;
    for (size_t c = 0; c < k; c++)
        x2 += (double)x[c] * x[c];
    for (size_t j = 0; j < n; j++) {
        if (!isfinite(got[j]) || !isfinite(want[j]))
            return INFINITY;
        double w2 = 0, difference = fabs((double)got[j] - want[j]);
        for (size_t c = 0; c < k; c++)
            w2 += (double)w[j * k + c] * w[j * k + c];
        if (difference > 0)
            largest = fmax(largest, difference / (sqrt(x2 * w2) + (bias ? fabs(bias[j]) : 0)));
    }
    return largest;
}

#endif
