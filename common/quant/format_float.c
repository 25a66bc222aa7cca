// Floats as they are: a row is k of them. Quantizing is rounding to nearest, ties to even.
#include "quant/format_shared.h"

// Why these rows cannot be stored: some weight is not finite, or `largest` becomes infinite.
static bool fail_float(const struct quant_format *f, const float *w, size_t row, size_t k,
                       float largest, struct error *err) {
    size_t i = 0;
    while (isfinite(w[i]) && fabsf(w[i]) < largest)
        i++;
    if (!isfinite(w[i]))
        return quant_fail_not_finite(w + i, row + i / k, i % k, 1, err);
    return error_set(err, "row %zu, column %zu: weight %.9g is too large for %s", row + i / k,
                     i % k, (double)w[i], f->label);
}

static bool quantize_float(const struct quant_format *f, const float *w, size_t row, size_t count,
                           size_t n, size_t k, const struct quant_hints *hints, void *out,
                           struct error *err) {
    (void)hints;
    size_t bytes;
    if (!f->bytes(f, n, k, &bytes))
        return quant_fail_size(n, k, err);
    float largest = quant_absmax(w, count * k), widened;
    char stored[sizeof widened];
    dtype_from_f32(f->dtype, &largest, 1, stored);
    dtype_to_f32(f->dtype, stored, 1, &widened);
    if (!isfinite(widened))
        return fail_float(f, w, row, k, isfinite(largest) ? largest : INFINITY, err);
    dtype_from_f32(f->dtype, w, count * k, (char *)out + row * k * dtype_size(f->dtype));
    return true;
}

static void dequantize_float_ref(const struct quant_format *f, const void *data, size_t n, size_t k,
                                 size_t row, size_t col, size_t count, float *out) {
    (void)n;
    dtype_to_f32(f->dtype, (const char *)data + (row * k + col) * dtype_size(f->dtype), count, out);
}

static void dequantize_f16(const struct quant_format *f, const void *data, size_t n, size_t k,
                           size_t row, size_t col, size_t count, float *out) {
    (void)f, (void)n;
    convert_f16_f32((const uint16_t *)data + row * k + col, count, out);
}

static void dequantize_bf16(const struct quant_format *f, const void *data, size_t n, size_t k,
                            size_t row, size_t col, size_t count, float *out) {
    (void)f, (void)n;
    convert_bf16_f32((const uint16_t *)data + row * k + col, count, out);
}

#define FLOAT_FORMAT(id, text, type, width, gguf, fast)                                            \
    const struct quant_format quant_##id = {.name = #id,                                           \
                                            .label = text,                                         \
                                            .dtype = type,                                         \
                                            .bits = width,                                         \
                                            .span = SPAN_NONE,                                     \
                                            .gguf_type = gguf + 1,                                 \
                                            .bytes = quant_planes_bytes,                           \
                                            .quantize = quantize_float,                            \
                                            .dequantize_ref = dequantize_float_ref,                \
                                            .dequantize = fast}

FLOAT_FORMAT(f32, "fp32", DTYPE_F32, 32, 0, dequantize_float_ref);
FLOAT_FORMAT(f16, "fp16", DTYPE_F16, 16, 1, dequantize_f16);
FLOAT_FORMAT(bf16, "bf16", DTYPE_BF16, 16, 30, dequantize_bf16);
