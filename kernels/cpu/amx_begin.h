// Opens text written in vectors of 16 floats and AMX tiles; amx_end.h closes it. Only a CPU of
// LEVEL_AMX may run what lies between.
#include "simd.h"

#define SIMD_SUFFIX avx512
#define LANES 16
#ifdef __clang__
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,avx512vnni,avx512bf16,"     \
                          "amx-tile,amx-int8,amx-bf16"))),                                         \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target(                                                                                \
    "avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,avx512vnni,avx512bf16,amx-tile,amx-int8,amx-bf16")
#endif
#include "kernels/cpu/matmul_tiles.h"
#include "simd_vec.h"
#include "amx_simd.h"
