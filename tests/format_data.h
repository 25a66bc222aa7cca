// What the tests of weight formats share: weights shaped like a layer's, there and back.
#ifndef NIBBLE_TESTS_FORMAT_DATA_H
#define NIBBLE_TESTS_FORMAT_DATA_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/random.h"
#include "quant/format_shared.h"

// k, or as many weights more as a row of whole blocks needs.
static inline size_t whole_blocks(const struct quant_format *f, size_t k) {
    size_t block = f->block_weights ? f->block_weights : 1;
    return (k + block - 1) / block * block;
}

// Weights like a trained layer's: normal, a few columns 8 times as large, a rare lone outlier.
static inline float *weights_new(size_t n, size_t k, uint64_t seed) {
    float *w = memory_alloc(n * k, sizeof *w, "weights", NULL);
    cr_assert_not_null(w);
    struct random r = {seed};
    for (size_t i = 0; i < n * k; i++) {
        double x = 0.02 * random_normal(&r);
        x *= i % k % 251 == 13 ? 8 : 1;
        x *= random_below(&r, 5000) == 0 ? 15 : 1;
        w[i] = (float)x;
    }
    return w;
}

static inline void *quantize_new(const struct quant_format *f, const float *w, size_t n, size_t k) {
    size_t bytes;
    struct error err = {0};
    cr_assert(f->bytes(f, n, k, &bytes));
    void *data = memory_alloc(bytes, 1, f->name, &err);
    cr_assert_not_null(data, "%s", err.message);
    cr_assert(f->quantize(f, w, 0, n, n, k, &(struct quant_hints){.absmax = quant_absmax(w, n * k)},
                          data, &err),
              "%s: %s", f->name, err.message);
    return data;
}

static inline float *dequantize_new(const struct quant_format *f, const void *data, size_t n,
                                    size_t k) {
    float *out = memory_alloc(n * k, sizeof *out, f->name, NULL);
    for (size_t row = 0; row < n; row++)
        f->dequantize_ref(f, data, n, k, row, 0, k, out + row * k);
    return out;
}

// Σ (w - ŵ)² / Σ w²; NaN if anything is not finite, which no `<=` accepts.
static inline double nmse(const float *w, const float *out, size_t n) {
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)w[i] - out[i]) * ((double)w[i] - out[i]);
        power += (double)w[i] * w[i];
    }
    return error / power;
}

static inline bool same_bits(const float *a, const float *b, size_t n) {
    return memcmp(a, b, n * sizeof *a) == 0;
}

#endif
