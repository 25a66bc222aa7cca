#include "train/gemm_kernel.h"

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16") // a loop left over would keep the tile in memory
#endif

// One tile function of ROWS rows and VECTORS vectors of type `vector`. Rows are addressed from
// every third one (base + 0, 1, 2 strides are addressing modes), or their pointers would not fit
// the integer registers.
#define GEMM_TILE(NAME, TARGET, vector, ROWS, VECTORS)                                             \
    TARGET static void NAME(size_t K, const float *a, size_t a_row, size_t a_column,               \
                            const float *b, bool add, float *c, size_t c_stride) {                 \
        enum { LANES = sizeof(vector) / sizeof(float) };                                           \
        typedef vector loose __attribute__((aligned(4), may_alias));                               \
        vector sum[ROWS][VECTORS];                                                                 \
        UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int v = 0; v < VECTORS; v++) sum[i][v] = \
            (vector){0};                                                                           \
        for (int i = 0; i < ROWS; i++) /* c is on its way while the loop runs */                   \
            for (int j = 0; j < VECTORS * LANES; j += 16)                                          \
                __builtin_prefetch(c + (size_t)i * c_stride + j, 1);                               \
        const float *third[(ROWS + 2) / 3];                                                        \
        for (int i = 0; i < (ROWS + 2) / 3; i++)                                                   \
            third[i] = a + (size_t)(3 * i) * a_row;                                                \
        for (size_t k = 0; k < K; k++, b += VECTORS * LANES) {                                     \
            vector line[VECTORS];                                                                  \
            for (int v = 0; v < VECTORS; v++)                                                      \
                line[v] = *(const loose *)(b + v * LANES);                                         \
            for (int i = 0; i < ROWS; i++)                                                         \
                for (int v = 0; v < VECTORS; v++)                                                  \
                    sum[i][v] += third[i / 3][(size_t)(i % 3) * a_row] * line[v];                  \
            for (int i = 0; i < (ROWS + 2) / 3; i++)                                               \
                third[i] += a_column;                                                              \
        }                                                                                          \
        UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int v = 0; v < VECTORS; v++) {           \
            loose *out = (loose *)(c + (size_t)i * c_stride + v * LANES);                          \
            *out = add ? (vector)*out + sum[i][v] : sum[i][v];                                     \
        }                                                                                          \
    }

typedef float f32x4 __attribute__((vector_size(16)));

#if defined(__aarch64__)
enum { PORTABLE_ROWS = 6, PORTABLE_VECTORS = 4 }; // 24 of 32 registers
#else
enum { PORTABLE_ROWS = 6, PORTABLE_VECTORS = 2 }; // 12 of 16
#endif
GEMM_TILE(portable_tile, , f32x4, PORTABLE_ROWS, PORTABLE_VECTORS)
GEMM_TILE(portable_2, , f32x4, 2, PORTABLE_VECTORS)
GEMM_TILE(portable_1, , f32x4, 1, PORTABLE_VECTORS)
static const struct gemm_kernel portable = {
    4 * PORTABLE_VECTORS, {{PORTABLE_ROWS, portable_tile}, {2, portable_2}, {1, portable_1}}};

#if defined(__x86_64__)
typedef float f32x8 __attribute__((vector_size(32)));
typedef float f32x16 __attribute__((vector_size(64)));
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f")))

GEMM_TILE(avx2_6, AVX2, f32x8, 6, 2)
GEMM_TILE(avx2_2, AVX2, f32x8, 2, 2)
GEMM_TILE(avx2_1, AVX2, f32x8, 1, 2)
static const struct gemm_kernel avx2 = {16, {{6, avx2_6}, {2, avx2_2}, {1, avx2_1}}};

GEMM_TILE(avx512_12, AVX512, f32x16, 12, 2)
GEMM_TILE(avx512_4, AVX512, f32x16, 4, 2)
GEMM_TILE(avx512_1, AVX512, f32x16, 1, 2)
static const struct gemm_kernel avx512 = {32, {{12, avx512_12}, {4, avx512_4}, {1, avx512_1}}};
#endif

const struct gemm_kernel *gemm_kernel_at(size_t i) {
    const struct gemm_kernel *found[3] = {&portable};
#if defined(__x86_64__)
    size_t n = 1;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        found[n++] = &avx2;
    if (__builtin_cpu_supports("avx512f"))
        found[n++] = &avx512;
#endif
    return i < 3 ? found[i] : NULL;
}

const struct gemm_kernel *gemm_kernel_best(void) {
    const struct gemm_kernel *best = gemm_kernel_at(0);
    for (size_t i = 1; gemm_kernel_at(i); i++)
        best = gemm_kernel_at(i);
    return best;
}
