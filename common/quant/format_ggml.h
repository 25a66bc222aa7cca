// What block formats share, most of them those of GGUF files; for the files that define them
// (common/quant/format_ggml*.c, format_nf4.c) and their tests only.
//
// A row is k / block_weights blocks, one after another, and a block has everything its weights
// need. A row whose k is no multiple of block_weights has no bytes: `bytes` says false, `quantize`
// says why.
//
//     row 0: | block | block | … |   row 1: | block | block | … |
//
// Numbers of several bytes are little-endian; scales are float16s of either sign. What a weight is
// worth is defined by one function per format, value_…(block, i). The fast versions are made of
// vectors as wide as a register (format_ggml_*_simd.h; see kernels/cpu/simd.h).
//
// Quantizing gives the same bytes on every CPU: every sum has one order, and a product is rounded
// before it is added, which the pragmas ask of the compiler.
#ifndef NIBBLE_QUANT_FORMAT_GGML_H
#define NIBBLE_QUANT_FORMAT_GGML_H

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#include "quant/format_shared.h"

// The value of weight i of a block: what the format means.
typedef float ggml_value(const uint8_t *block, size_t i);
// All weights of a block.
typedef void ggml_unpack(const uint8_t *block, float *out);

// What an encoder could not store.
struct ggml_failure {
    size_t col;  // the first column of the block
    float scale; // too large for a float16; NaN if a weight is NaN or infinite
};

// One row of k weights into k / block_weights blocks; false with *why filled.
typedef bool ggml_encode(const float *w, size_t k, const struct quant_hints *hints, uint8_t *out,
                         struct ggml_failure *why);

// `return ggml_fail(…)`.
static inline bool ggml_fail(struct ggml_failure *why, size_t col, float scale) {
    *why = (struct ggml_failure){col, scale};
    return false;
}

// Whether every block's largest weight is at most `reach` times the largest float16.
bool ggml_within_reach(const float *w, size_t k, size_t block_weights, float reach,
                       struct ggml_failure *why);

// What the rows of the table are made of; see GGML_FORMAT.
bool ggml_bytes(const struct quant_format *f, size_t n, size_t k, size_t *out);
bool ggml_quantize(const struct quant_format *f, ggml_encode *encode, const float *w, size_t row,
                   size_t count, size_t n, size_t k, const struct quant_hints *hints, void *out,
                   struct error *err);
void ggml_dequantize_ref(const struct quant_format *f, ggml_value *value, const void *data,
                         size_t k, size_t row, size_t col, size_t count, float *out);

// Columns from col on, a multiple of the block. A last part of a block goes through a buffer.
static inline __attribute__((always_inline)) void
ggml_dequantize_with(ggml_unpack *unpack, const struct quant_format *f, const void *data, size_t k,
                     size_t row, size_t col, size_t count, float *out) {
    size_t weights = f->block_weights;
    const uint8_t *block = (const uint8_t *)data + (row * (k / weights) + col / weights) * //
                                                       f->block_bytes;
    for (; count >= weights; count -= weights, block += f->block_bytes, out += weights)
        unpack(block, out);
    if (count > 0) {
        float last[256];
        unpack(block, last);
        memcpy(out, last, count * sizeof *out);
    }
}

static inline uint16_t ggml_load16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline void ggml_store16(uint8_t *p, uint16_t h) {
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

// The float16 at p, of either sign; in a broken file it may be infinite or NaN.
static inline float ggml_load_f16(const uint8_t *p) {
    uint32_t h = ggml_load16(p);
    float magnitude = f32_from_bits((h & 0x7fff) << 13) * 0x1p112f;
    uint32_t special = magnitude >= 65536.0f ? 0x7f800000 : 0;
    return f32_from_bits(f32_bits(magnitude) | special | (h & 0x8000) << 16);
}

// Stores the scale and says what it is once stored; infinite if it is too large.
static inline float ggml_store_f16(uint8_t *p, float scale) {
    ggml_store16(p, f32_to_f16(scale));
    return ggml_load_f16(p);
}

// The nearest float16, as a float; the largest one for what is larger.
static inline float ggml_round_f16(float scale) {
    return f16_to_f32(f32_to_f16(clamp(scale, -65504, 65504)));
}

// 1 / scale; 0 where that is no number: such a scale is far below the smallest float16.
static inline float ggml_inverse(float scale) {
    return fabsf(scale) >= 0x1p-126f ? 1 / scale : 0;
}

// The type of a format that GGUF files do not have.
enum { GGML_NO_TYPE = -1 };

// A row of the table, from value_id, encode_id and, in a file that simd.h compiles, unpack_id
// wrapped by GGML_DEQUANTIZE.
#define GGML_DEQUANTIZE(id)                                                                        \
    static void SIMD(dequantize_##id)(const struct quant_format *f, const void *data, size_t k,    \
                                      size_t row, size_t col, size_t count, float *out) {          \
        ggml_dequantize_with(SIMD(unpack_##id), f, data, k, row, col, count, out);                 \
    }

#define GGML_FORMAT(id, text, description, code_bits, scale_weights, weights, bytes_, type)        \
    _Static_assert(256 % (weights) == 0, "columns are read from multiples of 256 on");             \
    static bool quantize_##id(const struct quant_format *f, const float *w, size_t row,            \
                              size_t count, size_t n, size_t k, const struct quant_hints *hints,   \
                              void *out, struct error *err) {                                      \
        return ggml_quantize(f, encode_##id, w, row, count, n, k, hints, out, err);                \
    }                                                                                              \
    static void dequantize_##id##_ref(const struct quant_format *f, const void *data, size_t n,    \
                                      size_t k, size_t row, size_t col, size_t count,              \
                                      float *out) {                                                \
        (void)n;                                                                                   \
        ggml_dequantize_ref(f, value_##id, data, k, row, col, count, out);                         \
    }                                                                                              \
    static void dequantize_##id(const struct quant_format *f, const void *data, size_t n,          \
                                size_t k, size_t row, size_t col, size_t count, float *out) {      \
        (void)n;                                                                                   \
        SIMD_CALL(dequantize_##id, f, data, k, row, col, count, out);                              \
    }                                                                                              \
    const struct quant_format quant_##id = {.name = text,                                          \
                                            .label = description,                                  \
                                            .dtype = DTYPE_BLOCK,                                  \
                                            .bits = code_bits,                                     \
                                            .span = SPAN_GROUP,                                    \
                                            .group = scale_weights,                                \
                                            .block_weights = weights,                              \
                                            .block_bytes = bytes_,                                 \
                                            .gguf_type = (type) + 1,                               \
                                            .bytes = ggml_bytes,                                   \
                                            .quantize = quantize_##id,                             \
                                            .dequantize_ref = dequantize_##id##_ref,               \
                                            .dequantize = dequantize_##id}

#endif
