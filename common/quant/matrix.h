// One matrix from any source into any format: by all threads, a few rows at a time.
//
// What quantizing a model and writing one to a file have in common. The result and the error do not
// depend on the number of threads: each row is quantized alone, sums are added up in the order of
// the rows.
#ifndef NIBBLE_QUANT_MATRIX_H
#define NIBBLE_QUANT_MATRIX_H

#include "quant/format.h"

// Where the weights come from: a tensor (matrix_of_tensor), or rows that are put together on the
// way.
struct matrix_source {
    size_t n, k;
    const void *context;
    // out [count, k]: rows [row, row + count). Called by several threads.
    void (*read)(const void *context, size_t row, size_t count, float *out);
};

// Of a tensor whose format is set; `t` must outlive the source.
struct matrix_source matrix_of_tensor(const struct tensor *t);

// Σ (w - ŵ)² and Σ w².
struct matrix_error {
    double error_squared, weight_squared;
};

// Writes the matrix in format `to` to out, which has to->bytes(n, k). hints may be NULL; absmax is
// found here where the format needs it. cost: what it loses is measured on the way; NULL: it is
// not. Messages name row and column, the caller adds the tensor.
bool matrix_quantize(const struct matrix_source *from, const struct quant_format *to,
                     const struct quant_hints *hints, void *out, struct matrix_error *cost,
                     struct error *err);
// Only measures: `data` is the matrix as matrix_quantize left it.
bool matrix_measure(const struct matrix_source *from, const struct quant_format *to,
                    const void *data, struct matrix_error *cost, struct error *err);

#endif
