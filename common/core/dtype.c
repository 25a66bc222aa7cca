#include "core/dtype.h"

#include <assert.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[DTYPE_COUNT] = {
    [DTYPE_F32] = {"F32", 4},   [DTYPE_F16] = {"F16", 2},     [DTYPE_BF16] = {"BF16", 2},
    [DTYPE_F64] = {"F64", 8},   [DTYPE_I64] = {"I64", 8},     [DTYPE_I32] = {"I32", 4},
    [DTYPE_I16] = {"I16", 2},   [DTYPE_I8] = {"I8", 1},       [DTYPE_U8] = {"U8", 1},
    [DTYPE_BOOL] = {"BOOL", 1}, [DTYPE_BLOCK] = {"BLOCK", 0},
};

const char *dtype_name(enum dtype t) {
    return (unsigned)t < DTYPE_COUNT ? dtypes[t].name : "?";
}

size_t dtype_size(enum dtype t) {
    return (unsigned)t < DTYPE_COUNT ? dtypes[t].size : 0;
}

enum dtype dtype_from_name(const char *name) {
    for (int t = 0; t < DTYPE_BLOCK; t++)
        if (strcmp(dtypes[t].name, name) == 0)
            return (enum dtype)t;
    return DTYPE_COUNT;
}

uint16_t f32_to_bf16(float f) {
    uint32_t bits = f32_bits(f);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40); // quiet NaN: truncation alone could leave infinity
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

uint16_t f32_to_f16(float f) {
    uint32_t bits = f32_bits(f);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000) // 65520 and above round to infinity
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) { // below 2^-14: a multiple of 2^-24
        // Adding 0.5 leaves the subnormal's bits at the bottom of the mantissa, rounded to even.
        return (uint16_t)(sign | (f32_bits(f32_from_bits(magnitude) + 0.5f) - f32_bits(0.5f)));
    }
    uint32_t round = 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | ((magnitude + round - ((127u - 15u) << 23)) >> 13));
}

float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = h >> 10 & 0x1f;
    uint32_t mantissa = h & 0x3ff;
    if (exponent == 31)
        return f32_from_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent == 0) {
        float value = (float)mantissa * 0x1p-24f;
        return f32_from_bits(sign | f32_bits(value));
    }
    return f32_from_bits(sign | (exponent + 127 - 15) << 23 | mantissa << 13);
}

void dtype_to_f32(enum dtype t, const void *src, size_t n, float *dst) {
    assert(t == DTYPE_F32 || t == DTYPE_F16 || t == DTYPE_BF16);
    if (t == DTYPE_F32) {
        memcpy(dst, src, n * sizeof *dst);
        return;
    }
    const char *bytes = src;
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, bytes + 2 * i, sizeof h);
        dst[i] = t == DTYPE_F16 ? f16_to_f32(h) : bf16_to_f32(h);
    }
}

void dtype_from_f32(enum dtype t, const float *src, size_t n, void *dst) {
    assert(t == DTYPE_F32 || t == DTYPE_F16 || t == DTYPE_BF16);
    if (t == DTYPE_F32) {
        memcpy(dst, src, n * sizeof *src);
        return;
    }
    char *bytes = dst;
    for (size_t i = 0; i < n; i++) {
        uint16_t h = t == DTYPE_F16 ? f32_to_f16(src[i]) : f32_to_bf16(src[i]);
        memcpy(bytes + 2 * i, &h, sizeof h);
    }
}
