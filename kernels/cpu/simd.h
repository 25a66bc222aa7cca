// One text, several instruction sets.
//
// A file foo_simd.h is written over `vec`: LANES floats, one register. foo.c says
//
//     #define SIMD_BODY "foo_simd.h"
//     #include "simd.h"
//
// and gets every SIMD(function) of it once per instruction set: function_avx512 (LANES 16),
// function_avx2 (8) and function_scalar (4: SSE2 or NEON, which every 64-bit x86 or ARM has, without
// intrinsics). SIMD_CALL(function, ...) calls the best that kernels_level() allows. Vectors are
// GCC's vector extensions, which add and multiply like numbers; `acc += a * b` becomes one fused
// multiply-add where the instruction set has it. With SIMD_VNNI defined before, the text has integer
// dot products: function_avx512 may use VNNI's, and SIMD_CALL calls function_avx2 on a CPU that has
// AVX-512 without them.
//
// On ARM, SIMD_NEON counts what the text may use: 1 NEON's intrinsics (function_neon) and, with
// SIMD_VNNI, 2 sdot (function_dotprod) and 3 smmla (function_i8mm) too.
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
#elif defined(__aarch64__)
#include <arm_neon.h>
#ifdef SIMD_VNNI
#define SIMD_CALL(name, ...)                                                                       \
    (kernels_level() >= LEVEL_I8MM      ? name##_i8mm(__VA_ARGS__)                                 \
     : kernels_level() >= LEVEL_DOTPROD ? name##_dotprod(__VA_ARGS__)                              \
     : kernels_level() >= LEVEL_NEON    ? name##_neon(__VA_ARGS__)                                 \
                                        : name##_scalar(__VA_ARGS__))
#else
#define SIMD_CALL(name, ...)                                                                       \
    (kernels_level() >= LEVEL_NEON ? name##_neon(__VA_ARGS__) : name##_scalar(__VA_ARGS__))
#endif
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
typedef uint64_t sixteen_bytes __attribute__((vector_size(16)));

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

#elif defined(__aarch64__)

// Everything else is compiled with -ffp-contract=off on ARM (Makefile): what must equal a reference
// bit for bit may not be fused in one place and not in the other.
#ifdef __clang__
#pragma STDC FP_CONTRACT ON
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")
#endif

#ifdef SIMD_VNNI
#define SIMD_SUFFIX i8mm
#define SIMD_NEON 3
#define LANES 4
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("arch=armv8.2-a+dotprod+i8mm"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod+i8mm")
#endif
#include "simd_vec.h"
#include SIMD_BODY
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef LANES
#undef SIMD_NEON
#undef SIMD_SUFFIX

#define SIMD_SUFFIX dotprod
#define SIMD_NEON 2
#define LANES 4
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("arch=armv8.2-a+dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#include "simd_vec.h"
#include SIMD_BODY
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef LANES
#undef SIMD_NEON
#undef SIMD_SUFFIX
#endif

#define SIMD_SUFFIX neon
#define SIMD_NEON 1
#define LANES 4
#include "simd_vec.h"
#include SIMD_BODY
#undef LANES
#undef SIMD_NEON
#undef SIMD_SUFFIX

#endif

#define SIMD_SUFFIX scalar
#define LANES 4
#include "simd_vec.h"
#include SIMD_BODY
#undef LANES
#undef SIMD_SUFFIX

#if defined(__aarch64__)
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC pop_options
#endif
#endif

#undef SIMD_BODY
#endif
