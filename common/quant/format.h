// The one seam for weight formats: a row in a table.
//
// A matrix [N, K] in some format is `format->bytes(N, K)` bytes: planes of codes and scales, rows in
// order, so that a row can be read alone. Whoever has a weight asks the row; nothing else in the
// project knows what the bytes mean. To add a format: one file with its row, one line in format.c.
#ifndef NIBBLE_QUANT_FORMAT_H
#define NIBBLE_QUANT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"
#include "core/tensor.h"

// What a scale is shared by.
enum scale_span {
    SPAN_NONE,   // F32, F16, BF16
    SPAN_TENSOR, // one scale for the whole matrix
    SPAN_ROW,    // one per output channel
    SPAN_GROUP   // one per `group` neighbours in a row; the last group of a row may be shorter
};

struct quant_format {
    const char *name;  // "int4-g128": JSON `format`, recipes, flags
    const char *label; // "int4 group 128": JSON `config`, tables
    enum dtype dtype;  // DTYPE_BLOCK, or the plain type this is
    int bits;          // per code
    enum scale_span span;
    size_t group;    // weights per scale for SPAN_GROUP, else 0
    bool zero_point; // codes are unsigned and shifted: w = scale * (code - zero)

    // Bytes of an [n, k] matrix, everything included; false on overflow.
    bool (*bytes)(const struct quant_format *f, size_t n, size_t k, size_t *out);
    // Quantizes rows [row, row + count) of an [n, k] matrix into out (the whole matrix's bytes).
    // w: [count, k]. absmax: the largest magnitude of the whole matrix, for SPAN_TENSOR.
    // Fails on NaN or infinity, naming row and column. Rows may be quantized in any order and by
    // several threads.
    bool (*quantize)(const struct quant_format *f, const float *w, size_t row, size_t count, size_t n,
                     size_t k, float absmax, void *out, struct error *err);
    // Reads columns [col, col + count) of one row; col is a multiple of 256 or of the group.
    // dequantize_ref is the definition; dequantize the fast version, equal bit for bit.
    void (*dequantize_ref)(const struct quant_format *f, const void *data, size_t n, size_t k,
                           size_t row, size_t col, size_t count, float *out);
    void (*dequantize)(const struct quant_format *f, const void *data, size_t n, size_t k, size_t row,
                       size_t col, size_t count, float *out);
};

// The table, NULL-terminated.
extern const struct quant_format *const quant_formats[];

// The format of that name ("int4-g128") or label ("int4 group 128"); NULL if unknown.
const struct quant_format *quant_format_find(const char *name);
// The format that is just this dtype (F32, F16, BF16).
const struct quant_format *quant_format_of_dtype(enum dtype t);

#endif
