// 16-bit weights as they lie in the file, times a few tokens in float32: decoding.
#ifndef NIBBLE_MATMUL_ROWS_H
#define NIBBLE_MATMUL_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ROWS_MAX_TOKENS = 8 };

struct rows_job {
    const uint16_t *w; // [n, k]; may lie at any address
    bool bf16;         // else float16
    size_t n;
    float *y; // [m, n]
    size_t y_stride;
    const float *bias; // [n] or NULL
};

// y = x wᵀ + bias for several matrices that share x [m, k], m <= ROWS_MAX_TOKENS. Sums are float32
// in an order that depends on k alone.
void matmul_rows(const struct rows_job *jobs, size_t n_jobs, const float *x, size_t x_stride,
                 size_t m, size_t k);
void matmul_rows_ref(const struct rows_job *job, const float *x, size_t x_stride, size_t m,
                     size_t k);

#endif
