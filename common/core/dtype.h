// Element types of stored tensors, and the 16-bit floats.
//
//     f32   s eeeeeeee mmmmmmmmmmmmmmmmmmmmmmm   1 + 8 + 23 bits
//     f16   s eeeee mmmmmmmmmm                   1 + 5 + 10: finer, but ends at 65504
//     bf16  s eeeeeeee mmmmmmm                   1 + 8 +  7: the top half of an f32
#ifndef NIBBLE_CORE_DTYPE_H
#define NIBBLE_CORE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_I32,
    DTYPE_I16,
    DTYPE_I8,
    DTYPE_U8,
    DTYPE_BOOL,
    DTYPE_BLOCK, // a row of quant/format.h says how the bytes are read
    DTYPE_COUNT
};

// "F32", "BF16", … as safetensors spells them; "?" for values outside the enum.
const char *dtype_name(enum dtype t);
// Bytes of one element; 0 for DTYPE_BLOCK.
size_t dtype_size(enum dtype t);
// The dtype of that safetensors name, or DTYPE_COUNT if it is none of these.
enum dtype dtype_from_name(const char *name);

static inline float f32_from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t f32_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float bf16_to_f32(uint16_t h) {
    return f32_from_bits((uint32_t)h << 16);
}

// Round to nearest, ties to even; NaN stays NaN. IEEE 754.
uint16_t f32_to_bf16(float f);
uint16_t f32_to_f16(float f);
float f16_to_f32(uint16_t h);

// Converts n elements of F32, F16 or BF16 to float32. src may be unaligned; other dtypes are a
// caller's bug (assert).
void dtype_to_f32(enum dtype t, const void *src, size_t n, float *dst);
// The other way, rounding to nearest even.
void dtype_from_f32(enum dtype t, const float *src, size_t n, void *dst);

#endif
