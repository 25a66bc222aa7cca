#include "kernels/cpu/kernels.h"

#define SIMD_BODY "convert_simd.h"
#include "simd.h"

void convert_f16_f32(const uint16_t *src, size_t n, float *dst) {
    SIMD_CALL(convert_f16, src, n, dst);
}

void convert_bf16_f32(const uint16_t *src, size_t n, float *dst) {
    SIMD_CALL(convert_bf16, src, n, dst);
}
