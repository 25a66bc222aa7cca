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
                           size_t n, size_t k, float absmax, void *out, struct error *err) {
    (void)absmax;
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

// Mapped files may put floats at any address: load by memcpy.
static inline uint16_t load_u16(const char *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

// f16_to_f32 without branches, so that it vectorises; a mask chooses, because `?:` over a float
// subtraction is a branch again (it could trap). Signed, because SSE2 compares only those.
static inline __attribute__((always_inline)) float f16_widen(uint16_t h) {
    int32_t magnitude = h & 0x7fff, rebias = (127 - 15) << 23;
    int32_t half = (int32_t)f32_bits(0.5f);
    int32_t subnormal = (int32_t)f32_bits(f32_from_bits((uint32_t)(magnitude + half)) - 0.5f);
    int32_t normal = (magnitude << 13) + rebias;
    normal += -(magnitude >= 0x7c00) & rebias; // infinity and NaN: exponent 255
    int32_t is_subnormal = -(magnitude < 0x400);
    uint32_t bits = (uint32_t)((subnormal & is_subnormal) | (normal & ~is_subnormal));
    return f32_from_bits((uint32_t)(h & 0x8000) << 16 | bits);
}

static inline __attribute__((always_inline)) void
dequantize_f16_body(const struct quant_format *f, const void *data, size_t n, size_t k, size_t row,
                    size_t col, size_t count, float *out) {
    (void)f, (void)n;
    const char *h = (const char *)data + 2 * (row * k + col);
    for (size_t i = 0; i < count; i++)
        out[i] = f16_widen(load_u16(h + 2 * i));
}

static inline __attribute__((always_inline)) void
dequantize_bf16_body(const struct quant_format *f, const void *data, size_t n, size_t k, size_t row,
                     size_t col, size_t count, float *out) {
    (void)f, (void)n;
    const char *h = (const char *)data + 2 * (row * k + col);
    for (size_t i = 0; i < count; i++)
        out[i] = bf16_to_f32(load_u16(h + 2 * i));
}

FORMAT_VERSIONS(dequantize_f16, dequantize_f16_body, dequantize_f16_body, dequantize_f16_body)
FORMAT_VERSIONS(dequantize_bf16, dequantize_bf16_body, dequantize_bf16_body, dequantize_bf16_body)

#define FLOAT_FORMAT(id, text, type, width, fast)                                                  \
    const struct quant_format quant_##id = {.name = #id,                                           \
                                            .label = text,                                         \
                                            .dtype = type,                                         \
                                            .bits = width,                                         \
                                            .span = SPAN_NONE,                                     \
                                            .bytes = quant_planes_bytes,                           \
                                            .quantize = quantize_float,                            \
                                            .dequantize_ref = dequantize_float_ref,                \
                                            .dequantize = fast}

FLOAT_FORMAT(f32, "fp32", DTYPE_F32, 32, dequantize_float_ref);
FLOAT_FORMAT(f16, "fp16", DTYPE_F16, 16, dequantize_f16);
FLOAT_FORMAT(bf16, "bf16", DTYPE_BF16, 16, dequantize_bf16);
