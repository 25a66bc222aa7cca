// One text, three instruction sets.
//
// A file foo_simd.h is written over `vec`: LANES floats, one register. foo.c says
//
//     #define SIMD_BODY "foo_simd.h"
//     #include "simd.h"
//
// and gets every SIMD(function) of it three times: function_avx512 (LANES 16), function_avx2 (8)
// and function_scalar (4: SSE2 or NEON, which every 64-bit x86 or ARM has). SIMD_CALL(function,
// ...) calls the one that kernels_isa() names. Vectors are GCC's vector extensions, which add and
// multiply like numbers; `acc += a * b` becomes one fused multiply-add where the instruction set
// has it. With SIMD_VNNI defined before, function_avx512 may use VNNI's dot products, and SIMD_CALL
// calls function_avx2 on a CPU that has AVX-512 without them.
#ifndef NIBBLE_SIMD_H
#define NIBBLE_SIMD_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cpu/kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define SIMD(name) SIMD_PASTE(name, SIMD_SUFFIX)
#define SIMD_PASTE(name, suffix) SIMD_PASTE_EXPANDED(name, suffix)
#define SIMD_PASTE_EXPANDED(name, suffix) name##_##suffix

#if defined(__x86_64__)
#include <immintrin.h>
#ifdef SIMD_VNNI
#define SIMD_TARGET_AVX512 "avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,avx512vnni"
#define SIMD_AVX512_FROM LEVEL_VNNI
#else
#define SIMD_TARGET_AVX512 "avx512f,avx512bw,avx512dq,avx512vl,fma,f16c"
#define SIMD_AVX512_FROM LEVEL_AVX512
#endif
#define SIMD_CALL(name, ...)                                                                       \
    (kernels_level() >= SIMD_AVX512_FROM ? name##_avx512(__VA_ARGS__)                              \
     : kernels_level() >= LEVEL_AVX2     ? name##_avx2(__VA_ARGS__)                                \
                                         : name##_scalar(__VA_ARGS__))
#else
#define SIMD_CALL(name, ...) name##_scalar(__VA_ARGS__)
#endif

INLINE size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}

INLINE size_t round_up(size_t a, size_t multiple) {
    return (a + multiple - 1) / multiple * multiple;
}

typedef float v4 __attribute__((vector_size(16)));

#endif

#ifdef SIMD_BODY

#if defined(__x86_64__)

#define SIMD_SUFFIX avx512
#define LANES 16
#ifdef __clang__
#pragma clang attribute push(__attribute__((target(SIMD_TARGET_AVX512))), apply_to = function)
#else
#pragma GCC push_options
#ifdef SIMD_VNNI // the pragma takes no macro
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,avx512vnni")
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c")
#endif
#endif
#include "simd_vec.h"
#include SIMD_BODY
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef LANES
#undef SIMD_SUFFIX

#define SIMD_SUFFIX avx2
#define LANES 8
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#include "simd_vec.h"
#include SIMD_BODY
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef LANES
#undef SIMD_SUFFIX

#endif

#define SIMD_SUFFIX scalar
#define LANES 4
#include "simd_vec.h"
#include SIMD_BODY
#undef LANES
#undef SIMD_SUFFIX

#undef SIMD_BODY
#endif
