// For the loops between matrix products: compiled once per instruction set, chosen by the loader.
#ifndef NIBBLE_TRAIN_VECTOR_H
#define NIBBLE_TRAIN_VECTOR_H

#include "core/dtype.h"

// Before a function that works on one row. (Not on one with an OpenMP parallel region: the region's
// body becomes a function of its own, which is not cloned.)
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TRAIN_ROW __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define TRAIN_ROW
#endif

// A loop over fewer elements than this is over before a second thread has woken: a few
// microseconds, or whole time slices on a busy machine. `#pragma omp … if (n >= TRAIN_SHARED)`.
enum { TRAIN_SHARED = 1 << 14 };

// e^x as 2^n * 2^f with f in [-1/2, 1/2] and a polynomial for 2^f; relative error below 2e-7. Plain
// arithmetic, so that a loop of it becomes vector code. Below -87 (where floats end) it gives
// e^-87 = 1.6e-38, above 88 e^88.
static inline float exp_fast(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float y = x * 1.44269504f;
    float shifted = y + 0x1.8p23f; // rounds to a whole number, which then sits in the low bits
    float n = shifted - 0x1.8p23f;
    float f = (x - n * 0.693145752f) - n * 1.42860677e-6f; // x - n ln 2, in two parts
    float p = 1.9875691e-4f;
    p = p * f + 1.3981999e-3f;
    p = p * f + 8.3334519e-3f;
    p = p * f + 4.1665795e-2f;
    p = p * f + 1.6666665e-1f;
    p = p * f + 0.5f;
    p = p * f * f + f + 1.0f;
    return p * f32_from_bits((f32_bits(shifted) << 23) + 0x3f800000u);
}

// The largest of n > 0 floats. Sixteen maxima side by side: comparisons of floats may not be
// reordered by the compiler, and these need not be.
static inline float max_fast(const float *x, size_t n) {
    float lanes[16], max;
    for (size_t l = 0; l < 16; l++)
        lanes[l] = x[0];
    size_t whole = n / 16 * 16;
    for (size_t i = 0; i < whole; i += 16)
        for (size_t l = 0; l < 16; l++)
            lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
    max = x[n - 1];
    for (size_t i = whole; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (size_t l = 0; l < 16; l++)
        max = lanes[l] > max ? lanes[l] : max;
    return max;
}

#endif
