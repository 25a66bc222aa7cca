// Matrix products: every kernel this CPU can run, against plain sums in double.
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/random.h"
#include "train/gemm.h"
#include "train/gemm_kernel.h"
#include "train/gemm_tiles.h"
#include "train/vector.h"

static float *random_floats(size_t n, uint64_t seed) {
    struct random r = {seed};
    float *x = memory_alloc(n, sizeof *x, "x", NULL);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)random_normal(&r);
    return x;
}

// Whether all of [M, N] agree within `near` √K (rows `stride` apart) and nothing beyond column N of
// a row has changed from `before`.
static bool agree(const float *c, const float *ref, const float *before, size_t M, size_t N,
                  size_t K, size_t stride, float near) {
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < stride; j++) {
            float x = c[i * stride + j];
            bool ok = j < N ? fabsf(x - ref[i * stride + j]) <= near * sqrtf((float)K) + 1e-6f
                            : x == before[i * stride + j];
            if (!ok)
                return false;
        }
    return true;
}

static void check(size_t M, size_t N, size_t K, bool a_columns, bool b_columns, bool add,
                  bool bf16) {
    size_t stride = N + 3;
    float *a = random_floats(M * K, 1), *b = random_floats(K * N, 2);
    float *c = random_floats(M * stride, 3), *ref = random_floats(M * stride, 3);
    float *before = random_floats(M * stride, 3);
    float *space = memory_alloc(GEMM_SPACE, sizeof *space, "space", NULL);
    struct gemm_view av = a_columns ? gemm_by_columns(a, M) : gemm_by_rows(a, K);
    struct gemm_view bv = b_columns ? gemm_by_columns(b, K) : gemm_by_rows(b, N);
    gemm(M, N, K, av, bv, add, c, stride, (struct gemm_work){space, bf16});
    gemm_ref(M, N, K, av, bv, add, ref, stride);
    cr_assert(agree(c, ref, before, M, N, K, stride, bf16 ? 2e-2f : 1e-5f), "M %zu N %zu K %zu", M,
              N, K);
    free(a), free(b), free(c), free(ref), free(before), free(space);
}

static void check_all(const size_t (*sizes)[3], size_t n, bool bf16) {
    for (size_t s = 0; s < n; s++)
        for (int layout = 0; layout < 8; layout++)
            check(sizes[s][0], sizes[s][1], sizes[s][2], layout & 1, layout & 2, layout & 4, bf16);
}

Test(train_gemm, every_layout_and_edge) {
    static const size_t sizes[][3] = {{1, 1, 1},     {12, 32, 8},   {13, 33, 9},   {5, 31, 257},
                                      {97, 65, 300}, {24, 2100, 5}, {200, 70, 513}};
    check_all(sizes, sizeof sizes / sizeof *sizes, false);
}

// Rounded to bfloat16 (8 bits), products of normals are off by 1/300 each; several blocks of each
// size. Where the CPU has no such tiles gemm ignores the wish.
Test(train_gemm, every_layout_and_edge_in_bfloat16) {
    static const size_t sizes[][3] = {{1, 1, 1},     {16, 16, 32},   {33, 31, 9},     {5, 47, 257},
                                      {97, 65, 513}, {24, 1100, 34}, {1060, 70, 1030}};
    check_all(sizes, sizeof sizes / sizeof *sizes, true);
}

// Small whole numbers are exact in bfloat16: every element is where it belongs.
Test(train_gemm, whole_numbers_are_exact_in_bfloat16) {
    enum { M = 70, N = 45, K = 600 };
    float *a = random_floats(M * K, 1), *b = random_floats(K * N, 2), c[M * N], ref[M * N];
    float *space = memory_alloc(GEMM_SPACE, sizeof *space, "space", NULL);
    for (size_t i = 0; i < M * K; i++)
        a[i] = (float)((int)(i * 7919 % 201) - 100);
    for (size_t i = 0; i < K * N; i++)
        b[i] = (float)((int)(i * 104729 % 201) - 100);
    for (int layout = 0; layout < 4; layout++) {
        struct gemm_view av = layout & 1 ? gemm_by_columns(a, M) : gemm_by_rows(a, K);
        struct gemm_view bv = layout & 2 ? gemm_by_columns(b, K) : gemm_by_rows(b, N);
        gemm(M, N, K, av, bv, false, c, N, (struct gemm_work){space, true});
        gemm_ref(M, N, K, av, bv, false, ref, N);
        cr_assert(memcmp(c, ref, sizeof c) == 0, "layout %d", layout);
    }
    free(a), free(b), free(space);
}

Test(train_gemm, by_hand) {
    float a[6] = {1, 2, 3, 4, 5, 6}, b[6] = {1, 0, -1, 2, 1, 1}, c[4] = {0, 0, 0, 100};
    float *space = memory_alloc(GEMM_SPACE, sizeof *space, "space", NULL);
    gemm(2, 2, 3, gemm_by_rows(a, 3), gemm_by_columns(b, 3), true, c, 2,
         (struct gemm_work){space, false});
    cr_assert(c[0] == -2 && c[1] == 7 && c[2] == -2 && c[3] == 119);
    free(space);
}

Test(train_gemm, packed_equals_whole) {
    enum { M = 61, N = 77, K = 130 };
    float *a = random_floats(M * K, 4), *b = random_floats(N * K, 5);
    float *whole = random_floats(M * N, 6), *packed = random_floats(gemm_packed_size(N, K), 7);
    float *parts = random_floats(M * N, 8), *space = random_floats(GEMM_SPACE, 9);
    gemm(M, N, K, gemm_by_rows(a, K), gemm_by_columns(b, K), false, whole, N,
         (struct gemm_work){space, false});
    gemm_pack(N, K, gemm_by_columns(b, K), packed);
    gemm_packed(M, N, K, gemm_by_rows(a, K), packed, false, parts, N);
    cr_assert(memcmp(whole, parts, M * N * sizeof(float)) == 0);
    free(a), free(b), free(whole), free(packed), free(parts), free(space);
}

Test(train_gemm, threads_do_not_change_a_bit) {
    enum { M = 300, N = 290, K = 520 };
    float *a = random_floats(M * K, 4), *b = random_floats(N * K, 5);
    float *one = random_floats(M * N, 6), *three = random_floats(M * N, 6);
    float *space = random_floats(GEMM_SPACE, 9);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        struct gemm_work work = {space, bf16};
        omp_set_num_threads(1);
        gemm(M, N, K, gemm_by_columns(a, M), gemm_by_rows(b, N), true, one, N, work);
        omp_set_num_threads(3);
        gemm(M, N, K, gemm_by_columns(a, M), gemm_by_rows(b, N), true, three, N, work);
        cr_assert(memcmp(one, three, M * N * sizeof(float)) == 0);
    }
    free(a), free(b), free(one), free(three), free(space);
}

// The tile functions of instruction sets that are not the best here would otherwise never run.
Test(train_gemm, every_tile_of_every_instruction_set) {
    enum { K = 37 };
    float *a = random_floats(GEMM_MAX_ROWS * K, 1), *b = random_floats(GEMM_MAX_WIDTH * K, 2);
    for (size_t k = 0; gemm_kernel_at(k); k++) {
        const struct gemm_kernel *kernel = gemm_kernel_at(k);
        for (int t = 0; t < 3; t++) {
            size_t rows = kernel->tiles[t].rows, width = kernel->width;
            float *c = random_floats(rows * width, 3), *ref = random_floats(rows * width, 3);
            for (int add = 0; add < 2; add++) {
                kernel->tiles[t].tile(K, a, 1, rows, b, add, c, width);
                gemm_ref(rows, width, K, gemm_by_columns(a, rows), gemm_by_rows(b, width), add, ref,
                         width);
                cr_assert(agree(c, ref, NULL, rows, width, K, width, 1e-5f), "kernel %zu tile %d",
                          k, t);
            }
            free(c), free(ref);
        }
        cr_assert_eq(kernel->tiles[2].rows, 1);
    }
    free(a), free(b);
}

Test(train_gemm, exponential_is_exact_to_float) {
    for (double x = -86.9; x < 88; x += 0.0137) {
        double e = exp((double)(float)x), error = fabs(exp_fast((float)x) / e - 1);
        cr_assert(error <= 3e-7, "e^%g is off by %g", x, error);
    }
    cr_assert_eq(exp_fast(0.0f), 1.0f);
    cr_assert(exp_fast(-1e30f) < 2e-38f && exp_fast(-INFINITY) >= 0);
    float x[37] = {[36] = -3};
    for (size_t n = 1; n <= 37; n++) {
        x[n - 1] = 2;
        cr_assert_eq(max_fast(x, n), 2.0f);
        x[n - 1] = -1;
    }
}
