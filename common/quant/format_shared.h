// What the format families share; for common/quant/format*.c, woven_rows.c and their tests only.
//
// Fast dequantizers are always-inline bodies, compiled once per instruction set (FORMAT_VERSIONS)
// and chosen at each call from what the CPU has. The compiler vectorises the loops; no ifunc is
// needed, which sanitizers and musl do not bear.
#ifndef NIBBLE_QUANT_FORMAT_SHARED_H
#define NIBBLE_QUANT_FORMAT_SHARED_H

#include <float.h>
#include <math.h>

#include "quant/format.h"
#include "kernels/cpu/kernels.h"

extern const struct quant_format quant_f32, quant_f16, quant_bf16;
extern const struct quant_format quant_int8_tensor, quant_int8;
extern const struct quant_format quant_int8_g32, quant_int8_g64, quant_int8_g128;
extern const struct quant_format quant_int8_g32_zp, quant_int8_g64_zp, quant_int8_g128_zp;

// The packed integers of format_packed.c: X(width, group) for each size of group that a width has.
#define QUANT_GROUPS(X, width) X(width, 16) X(width, 32) X(width, 64) X(width, 128) X(width, 256)
#define QUANT_DECLARE_GROUP(width, group)                                                          \
    extern const struct quant_format quant_int##width##_g##group, quant_int##width##_g##group##_zp;
#define QUANT_DECLARE_WIDTH(width)                                                                 \
    extern const struct quant_format quant_int##width, quant_int##width##_zp;                      \
    QUANT_GROUPS(QUANT_DECLARE_GROUP, width)
QUANT_DECLARE_WIDTH(2)
QUANT_DECLARE_WIDTH(3)
QUANT_DECLARE_WIDTH(4)
QUANT_DECLARE_WIDTH(5)
QUANT_DECLARE_WIDTH(6)

// The `bytes` of every format that is made of planes.
bool quant_planes_bytes(const struct quant_format *f, size_t n, size_t k, size_t *out);

// The blocks of GGUF files, format_ggml_*.c.
#define QUANT_GGML_FORMATS(X)                                                                      \
    X(q8_0)                                                                                        \
    X(q4_0)                                                                                        \
    X(q4_1) X(q5_0) X(q5_1) X(q2_k) X(q3_k) X(q4_k) X(q5_k) X(q6_k) X(iq4_nl) X(iq4_xs) X(mxfp4)
#define QUANT_DECLARE(id) extern const struct quant_format quant_##id;
QUANT_GGML_FORMATS(QUANT_DECLARE)

extern const struct quant_format quant_nf4;
extern const float quant_nf4_values[16];  // what its codes stand for, times the block's absmax
extern const int8_t quant_iq4_values[16]; // what codes of IQ4_NL and IQ4_XS stand for, times scales

// The interval of n weights, widened to include 0: lo <= 0 <= hi. NaN or infinite if a weight is.
struct quant_range {
    float lo, hi;
};
struct quant_range quant_range(const float *w, size_t n);

// Messages of a quantizer that cannot go on; all return false.
// The first of n weights, columns [col, col + n) of that row, that is NaN or infinite.
bool quant_fail_not_finite(const float *w, size_t row, size_t col, size_t n, struct error *err);
// The scale of those columns, too large to be stored in scale_bytes.
bool quant_fail_scale(float scale, size_t scale_bytes, size_t row, size_t col, size_t n,
                      struct error *err);
// An [n, k] matrix whose bytes overflow.
bool quant_fail_size(size_t n, size_t k, struct error *err);

static inline size_t size_min(size_t a, size_t b) {
    return a < b ? a : b;
}

// Nearest integer, ties to even, of |x| < 2^22: in [2^23, 2^24) floats are the integers, so adding
// 1.5 * 2^23 rounds, and leaves the integer in the low mantissa bits. It vectorises everywhere;
// roundf and lrintf are calls without SSE4.1.
static inline int32_t round_even(float x) {
    return (int32_t)(f32_bits(x + 0x1.8p23f) - f32_bits(0x1.8p23f));
}

static inline float clamp(float x, float lo, float hi) {
    x = x < lo ? lo : x;
    return x > hi ? hi : x;
}

// The float16 at p[i], of a plane of scales: what f16_to_f32 gives for one that is finite, without
// a branch.
static inline float scale_from_f16(const void *p, size_t i) {
    uint16_t h;
    memcpy(&h, (const char *)p + 2 * i, sizeof h);
    uint32_t magnitude = h & 0x7fff, sign = (uint32_t)(h & 0x8000) << 16;
    float subnormal = f32_from_bits(magnitude + f32_bits(0.5f)) - 0.5f; // magnitude * 2^-24
    float normal = f32_from_bits((magnitude << 13) + ((127u - 15u) << 23));
    return f32_from_bits(f32_bits(magnitude < 0x400 ? subnormal : normal) | sign);
}

// Scale `i` of a plane of scales that are scale_bytes each.
static inline float scale_load(const void *p, size_t scale_bytes, size_t i) {
    if (scale_bytes == sizeof(uint16_t))
        return scale_from_f16(p, i);
    float scale;
    memcpy(&scale, (const char *)p + sizeof scale * i, sizeof scale);
    return scale;
}

// The largest scale: of a float16, or one whose 127th multiple is still a float32.
static inline float scale_limit(size_t scale_bytes) {
    return scale_bytes == sizeof(uint16_t) ? 65504.0f : FLT_MAX / 128;
}

// The scale as it will be read: codes are computed with this one, so that they make up for what its
// rounding lost. Infinite if it is too large. Float16s below 2^-14 are 2^-24 apart, up to half of
// the scale itself: those round up, so that the last code still reaches the largest weight.
static inline float scale_round(size_t scale_bytes, float scale) {
    float stored = scale_bytes == sizeof(uint16_t) ? f16_to_f32(f32_to_f16(scale)) : scale;
    if (stored < scale && stored < 0x1p-14f)
        stored += 0x1p-24f;
    return stored <= scale_limit(scale_bytes) ? stored : INFINITY;
}

static inline void scale_store(void *p, size_t scale_bytes, size_t i, float scale) {
    uint16_t h = f32_to_f16(scale);
    if (scale_bytes == sizeof h)
        memcpy((char *)p + sizeof h * i, &h, sizeof h);
    else
        memcpy((char *)p + sizeof scale * i, &scale, sizeof scale);
}

typedef void format_dequantize(const struct quant_format *f, const void *data, size_t n, size_t k,
                               size_t row, size_t col, size_t count, float *out);

#if defined(__x86_64__)
#define FORMAT_TARGET_AVX2 __attribute__((target("avx2")))
#define FORMAT_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#else
#define FORMAT_TARGET_AVX2
#define FORMAT_TARGET_AVX512
#endif

// Defines the dequantizer `name`, which chooses from these always-inline functions (or macros) by
// what the CPU has. FORMAT_VERSIONS_OF: their first argument is `parameter`, a constant.
#define FORMAT_VERSIONS(name, scalar, avx2, avx512)                                                \
    FORMAT_VERSION(name##_scalar, scalar)                                                          \
    FORMAT_TARGET_AVX2 FORMAT_VERSION(name##_avx2, avx2)                                           \
    FORMAT_TARGET_AVX512 FORMAT_VERSION(name##_avx512, avx512) FORMAT_CHOOSE(name)
#define FORMAT_VERSIONS_OF(parameter, name, scalar, avx2, avx512)                                  \
    FORMAT_VERSION(name##_scalar, scalar, parameter)                                               \
    FORMAT_TARGET_AVX2 FORMAT_VERSION(name##_avx2, avx2, parameter)                                \
    FORMAT_TARGET_AVX512 FORMAT_VERSION(name##_avx512, avx512, parameter) FORMAT_CHOOSE(name)

#define FORMAT_VERSION(name, ...)                                                                  \
    static void name(const struct quant_format *f, const void *data, size_t n, size_t k,           \
                     size_t row, size_t col, size_t count, float *out) {                           \
        FORMAT_CALL(__VA_ARGS__, f, data, n, k, row, col, count, out);                             \
    }
#define FORMAT_CALL(body, ...) body(__VA_ARGS__)
#define FORMAT_CHOOSE(name)                                                                        \
    static format_dequantize *const name##_versions[ISA_COUNT] = {name##_scalar, name##_avx2,      \
                                                                  name##_avx512};                  \
    FORMAT_VERSION(name, name##_versions[kernels_isa()])

#endif
