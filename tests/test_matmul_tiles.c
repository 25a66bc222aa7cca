// kernels/cpu/matmul_tiles.c against sums in double, in every kind of weights.
#include <criterion/criterion.h>
#include <omp.h>
#include <stdio.h>

#include "core/dtype.h"
#include "kernels/cpu/matmul_tiles.h"
#include "tests/kernel_data.h"
#include "tests/weave_data.h"

// Both sides are rounded, by 2^-8 each at most: 2^-7 where one product outweighs the others, and
// less where errors average out.
static const double tolerance = 1e-3; // dot error of rows of 256 and more; measured 4.2e-4

static void read_f32(const void *context, size_t row, size_t col, size_t count, float *out) {
    const struct weight_source *s = context;
    memcpy(out, (const float *)s->context + row * s->k + col, count * sizeof *out);
}

static void want_of(float *want, const float *x, size_t x_stride, const float *w, size_t m,
                    size_t n, size_t k, const float *bias) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = bias ? bias[j] : 0;
            for (size_t c = 0; c < k; c++)
                sum += (double)x[i * x_stride + c] * w[j * k + c];
            want[i * n + j] = (float)sum;
        }
}

// Runs the job and compares; y has gaps between its rows, which must stay as they are.
static double run(struct tile_job job, const float *w, size_t m, size_t k, bool with_bias) {
    struct random r = {m * 7 + k};
    size_t n = job.n, x_stride = k + 3, y_stride = n + 5;
    float *x = outliers(&r, m, x_stride), *bias = outliers(&r, 1, n);
    float *want = poisoned(m * n), *y = poisoned(m * y_stride);
    job.y = y;
    job.y_stride = y_stride;
    job.bias = with_bias ? bias : NULL;
    want_of(want, x, x_stride, w, m, n, k, job.bias);
    cr_assert(matmul_tiles(&job, 1, x, x_stride, m, k));
    double worst = 0;
    for (size_t i = 0; i < m; i++) {
        worst = fmax(
            worst, dot_error(y + i * y_stride, want + i * n, x + i * x_stride, w, job.bias, n, k));
        for (size_t j = n; j < y_stride; j++)
            cr_assert(isnan(y[i * y_stride + j]), "wrote between rows");
    }
    release(x), release(bias), release(want), release(y);
    return worst;
}

static double check(size_t m, size_t n, size_t k) {
    struct random r = {n + k};
    float *w = outliers(&r, n, k), *back = poisoned(n * k);
    char *halves = malloc(n * k * 2 + 2);
    const struct weight_source inner = {.n = n, .k = k, .context = w, .read = read_f32};
    const struct weight_source source = {.n = n, .k = k, .context = &inner, .read = read_f32};
    double worst = run((struct tile_job){.kind = TILE_READ, .n = n, .source = &source}, w, m, k, 1);
    for (int kind = TILE_BF16; kind <= TILE_F16; kind++) {
        enum dtype type = kind == TILE_BF16 ? DTYPE_BF16 : DTYPE_F16;
        dtype_from_f32(type, w, n * k, halves + 2); // at an odd place
        dtype_to_f32(type, halves + 2, n * k, back);
        const struct tile_job job = {
            .kind = (enum tile_kind)kind, .n = n, .rows16 = (const uint16_t *)(void *)(halves + 2)};
        worst = fmax(worst, run(job, back, m, k, false));
    }
    free(halves);
    release(w), release(back);
    return worst;
}

static bool has_tiles(void) {
    kernels_level_force(LEVEL_COUNT);
    return matmul_tiles_wanted(64);
}

Test(matmul_tiles, equals_the_reference_in_every_remainder) {
    if (!has_tiles())
        cr_skip_test("this CPU has no AMX");
    const size_t ms[] = {1, 15, 16, 17, 33, 70}, ns[] = {1, 16, 31, 32, 33, 130, 300};
    const size_t ks[] = {1, 31, 32, 33, 256, 511, 512, 514, 1100};
    double worst = 0;
    for (size_t a = 0; a < 6; a++)
        for (size_t b = 0; b < 7; b++) {
            size_t k = ks[(a * 4 + b) % 9];
            double error = check(ms[a], ns[b], k);
            cr_assert(error <= 0x1p-7, "m %zu n %zu k %zu: %g", ms[a], ns[b], k, error);
            worst = fmax(worst, error);
        }
    printf("matmul_tiles: dot error at most %.2g\n", worst);
}

// A few tokens times bfloat16 that fills tiles: they have a way of their own.
Test(matmul_tiles, few_tokens_equal_the_reference) {
    if (!has_tiles())
        cr_skip_test("this CPU has no AMX");
    for (size_t m = 1; m <= 16; m += 3) {
        double error = fmax(check(m, 16 * m, 64 * m), check(m, 304, 32));
        cr_assert(error <= 0x1p-7, "m %zu: %g", m, error);
    }
}

Test(matmul_tiles, few_tokens_are_shared_by_matrices) {
    enum { M = 9, N = 48, N2 = 272, K = 160 };
    if (!has_tiles())
        cr_skip_test("this CPU has no AMX");
    struct random r = {8};
    float *w = outliers(&r, N + N2, K), *x = outliers(&r, M, K);
    float *apart = poisoned(M * (N + N2)), *together = poisoned(M * (N + N2));
    uint16_t *rows = malloc((N + N2) * K * sizeof *rows);
    dtype_from_f32(DTYPE_BF16, w, (N + N2) * K, rows);
    struct tile_job jobs[] = {
        {.kind = TILE_BF16, .n = N, .rows16 = rows, .y = together, .y_stride = N},
        {.kind = TILE_BF16,
         .n = N2,
         .rows16 = rows + N * K,
         .y = together + M * N,
         .y_stride = N2}};
    cr_assert(matmul_tiles(jobs, 2, x, K, M, K));
    jobs[0].y = apart;
    jobs[1].y = apart + M * N;
    cr_assert(matmul_tiles(&jobs[0], 1, x, K, M, K) && matmul_tiles(&jobs[1], 1, x, K, M, K));
    cr_assert_arr_eq(together, apart, M * (N + N2) * sizeof *apart);
    free(rows);
    release(w), release(x), release(apart), release(together);
}

Test(matmul_tiles, equals_the_reference_of_every_woven_kind) {
    if (!has_tiles())
        cr_skip_test("this CPU has no AMX");
    const size_t shapes[][2] = {{48, 512}, {130, 1024}, {5, 300}, {33, 1300}};
    for (size_t i = 0; i < WEAVE_KINDS; i++)
        for (size_t s = 0; s < 4; s++) {
            size_t n = shapes[s][0], k = shapes[s][1];
            struct random r = {i};
            struct weave w;
            if (!random_weave(&r, &w, &weave_kinds[i], n, k))
                continue;
            float *rows = poisoned(n * k);
            for (size_t j = 0; j < n; j++)
                weave_read(&w, j, 0, k, rows + j * k);
            const struct tile_job job = {.kind = TILE_WOVEN, .n = n, .weave = &w};
            double error = run(job, rows, 37, k, s % 2);
            cr_assert(error <= tolerance, "kind %zu n %zu k %zu: %g", i, n, k, error);
            free(w.data);
            release(rows);
        }
}

static void check_bits(size_t n, size_t k) {
    enum { M = 50 };
    struct random r = {n};
    float *w = outliers(&r, n, k), *x = outliers(&r, M, k), *bias = outliers(&r, 1, n);
    float *want = poisoned(M * n), *got = poisoned(M * n);
    uint16_t *rows = malloc(n * k * sizeof *rows);
    dtype_from_f32(DTYPE_BF16, w, n * k, rows);
    struct tile_job job = {
        .kind = TILE_BF16, .n = n, .rows16 = rows, .y = want, .y_stride = n, .bias = bias};
    omp_set_num_threads(1);
    cr_assert(matmul_tiles(&job, 1, x, k, M, k));
    job.y = got;
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        memset(got, 0xff, M * n * sizeof *got);
        cr_assert(matmul_tiles(&job, 1, x, k, M, k));
        cr_assert_arr_eq(got, want, M * n * sizeof *got);
        for (size_t m = 1; m <= 16; m += 5) { // fewer come together
            memset(got, 0xff, M * n * sizeof *got);
            cr_assert(matmul_tiles(&job, 1, x, k, m, k));
            cr_assert_arr_eq(got, want, m * n * sizeof *got, "%zu tokens", m);
            cr_assert(isnan(got[m * n]));
        }
    }
    free(rows);
    release(w), release(x), release(bias), release(want), release(got);
}

Test(matmul_tiles, bits_do_not_depend_on_threads_or_batch) {
    if (!has_tiles())
        cr_skip_test("this CPU has no AMX");
    check_bits(300, 700);
    check_bits(304, 704); // weights that are tiles as they lie
    check_bits(1100, 70); // panels of 256 rows with one thread, 128 and 64 with more
}

Test(matmul_tiles, results_around_the_cache_are_the_same) {
    enum { M = 470, LONG = 610, STRIDE = 624, K = 96 };
    _Static_assert(M * LONG > TILES_CACHED_RESULTS, "or they do not go around");
    if (!has_tiles())
        cr_skip_test("this CPU has no AMX");
    struct random r = {5};
    float *w = outliers(&r, LONG, K), *x = outliers(&r, M, K), *bias = outliers(&r, 1, LONG);
    float *all = aligned_alloc(64, M * STRIDE * sizeof *all), *few = poisoned(30 * LONG);
    uint16_t *rows = malloc(LONG * K * sizeof *rows);
    dtype_from_f32(DTYPE_BF16, w, LONG * K, rows);
    memset(all, 0xff, M * STRIDE * sizeof *all);
    struct tile_job job = {
        .kind = TILE_BF16, .n = LONG, .rows16 = rows, .bias = bias, .y = all, .y_stride = STRIDE};
    cr_assert(matmul_tiles(&job, 1, x, K, M, K));
    job.y = few;
    job.y_stride = LONG;
    for (size_t t = 0; t < M; t += 30) {
        size_t m = M - t < 30 ? M - t : 30;
        cr_assert(matmul_tiles(&job, 1, x + t * K, K, m, K));
        for (size_t j = 0; j < m; j++) {
            const float *row = all + (t + j) * STRIDE;
            cr_assert_arr_eq(row, few + j * LONG, LONG * sizeof *row, "token %zu", t + j);
            cr_assert(isnan(row[LONG]), "wrote between rows");
        }
    }
    free(rows), free(all);
    release(w), release(x), release(bias), release(few);
}
