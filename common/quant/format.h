// The one seam for weight formats: a row in a table.
//
// A matrix [N, K] in some format is `format->bytes(N, K)` bytes: planes of codes, scales and zero
// points (struct quant_planes) or blocks (quant/format_ggml.h), rows in order, so that a row can be
// read alone. Whoever has a
// weight asks the row; nothing else in the project knows what the bytes mean. To add a format: one
// file with its row, one line in format_shared.h, one in format.c.
//
// The same codes and scales may also lie in the order that the CPU's kernels read (quant/woven.h):
// struct tensor says which. quant_read reads both.
#ifndef NIBBLE_QUANT_FORMAT_H
#define NIBBLE_QUANT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/tensor.h"

// What a scale is shared by.
enum scale_span {
    SPAN_NONE,   // F32, F16, BF16
    SPAN_TENSOR, // one scale for the whole matrix
    SPAN_ROW,    // one per output channel
    SPAN_GROUP   // one per `group` neighbours in a row; the last group of a row may be shorter
};

// What a quantizer may use beyond the weights it is given.
struct quant_hints {
    float absmax;            // quant_absmax of the whole matrix, for SPAN_TENSOR
    bool search;             // look for scales of least error, where the format knows how; slower
    const float *importance; // [k] how much an error in each column matters (>= 0), for the search
                             // and for formats that always search; NULL: all alike
};

struct quant_format {
    const char *name;  // "int4-g128": JSON `format`, recipes, flags
    const char *label; // "int4 group 128": JSON `config`, tables
    enum dtype dtype;  // DTYPE_BLOCK, or the plain type this is
    int bits;          // per code
    enum scale_span span;
    size_t group;    // weights per scale for SPAN_GROUP, a divisor of 256; else 0
    bool zero_point; // each scale comes with a code that stands for 0: w = scale * (code - zero)

    // Formats of blocks, as GGUF files have them: a row is k / block_weights blocks, one after
    // another, with everything inside. 0 for formats of planes (struct quant_planes).
    size_t block_weights, block_bytes;
    int gguf_type; // the type's number in a GGUF file plus 1; 0: it has none

    // Bytes of an [n, k] matrix, everything included; false on overflow, and if k weights are not
    // whole blocks.
    bool (*bytes)(const struct quant_format *f, size_t n, size_t k, size_t *out);
    // Quantizes rows [row, row + count) of an [n, k] matrix into out (the whole matrix's bytes).
    // w: [count, k], its first row is the matrix's row `row`. Fails on NaN or infinity, and on a
    // weight or scale too large for its float16, naming row and column; what `out` then holds is
    // unspecified. Rows may be quantized in any order and by several threads.
    bool (*quantize)(const struct quant_format *f, const float *w, size_t row, size_t count,
                     size_t n, size_t k, const struct quant_hints *hints, void *out,
                     struct error *err);
    // Reads columns [col, col + count) of one row; col is a multiple of 256, count is free.
    // dequantize_ref is the definition; dequantize the fast version, equal bit for bit.
    void (*dequantize_ref)(const struct quant_format *f, const void *data, size_t n, size_t k,
                           size_t row, size_t col, size_t count, float *out);
    void (*dequantize)(const struct quant_format *f, const void *data, size_t n, size_t k,
                       size_t row, size_t col, size_t count, float *out);
};

// The table, NULL-terminated.
extern const struct quant_format *const quant_formats[];

// The format of that name ("int4-g128") or label ("int4 group 128"); NULL if unknown.
const struct quant_format *quant_format_find(const char *name);
// The format that is just this dtype (F32, F16, BF16); NULL for any other.
const struct quant_format *quant_format_of_dtype(enum dtype t);
// The format with this type number in a GGUF file; NULL if unknown.
const struct quant_format *quant_format_of_gguf(uint32_t type);

// Where things lie in the bytes of a matrix. A plane starts at a multiple of 64 bytes (a cache
// line):
//
//     0                  scales                  zeros                bytes
//     | codes          |.| scales              |.| zero points       |
//     | n * code_stride| | n * groups of them  | | n * zero_stride   |
//
// Float formats have only codes: the floats themselves. For SPAN_TENSOR there is one scale.
struct quant_planes {
    size_t code_stride; // bytes of a row's codes: k * bits / 8, rounded up
    size_t group;       // weights that share a scale within a row; k for SPAN_TENSOR and SPAN_ROW
    size_t groups;      // scales of a row: k / group, rounded up
    size_t scale_bytes; // of one scale: 2 (float16) for groups, else 4 (float32)
    size_t zero_stride; // bytes of a row's zero points, `bits` bits each; 0 without
    size_t scales, zeros, bytes; // offsets of these planes, and the end
};

// Every size of every format of this table comes from here; false on overflow.
bool quant_planes(const struct quant_format *f, size_t n, size_t k, struct quant_planes *p);
// Bits per weight of an [n, k] matrix, scales and zero points included; false on overflow or if it
// has no weights.
bool quant_bits_per_weight(const struct quant_format *f, size_t n, size_t k, double *out);

// Columns [col, col + count) of one row of a matrix as float32, in whatever format and order it is:
// the bits of its format's dequantize. col is a multiple of 256, count is free.
void quant_read(const struct tensor *w, size_t row, size_t col, size_t count, float *out);

// The largest magnitude of n weights; NaN or infinite if any of them is, 0 if n is.
float quant_absmax(const float *w, size_t n);

// Whether matrices in f can be multiplied by activations that become int8 too: int8 per tensor and
// per channel.
bool quant_takes_int8_activations(const struct quant_format *f);
// The planes that such a product reads directly: codes [N, K], and the scale of row i at
// scales[i * step], step 0 per tensor and 1 per channel. False for other formats, and woven ones.
bool quant_int8_planes(const struct tensor *w, const int8_t **codes, const float **scales,
                       size_t *scale_step);

#endif
