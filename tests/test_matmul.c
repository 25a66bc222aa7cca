// kernels/cpu/matmul.c and convert.c against their references.
#include <criterion/criterion.h>
#include <stdio.h>

#include "core/dtype.h"
#include "kernels/cpu/matmul_rows.h"
#include "tests/kernel_data.h"

static const double tolerance =
    1e-6; // dot error; the worst measured, over every shape and instruction set: 5.6e-7

struct f32_matrix {
    const float *data;
    size_t k;
};

static void read_f32(const void *context, size_t row, size_t col, size_t count, float *out) {
    const struct f32_matrix *a = context;
    cr_assert_eq(col % 256, 0);
    memcpy(out, a->data + row * a->k + col, count * sizeof *out);
}

// Strides are larger than the rows, and what lies between them must stay as it is.
static void check(size_t m, size_t n, size_t k, bool with_bias) {
    struct random r = {m * 1000003 + n * 1009 + k};
    size_t x_stride = k + 3, y_stride = n + 5;
    float *x = outliers(&r, m, x_stride), *w = outliers(&r, n, k), *bias = outliers(&r, 1, n);
    const struct f32_matrix matrix = {w, k};
    const struct weight_source source = {n, k, &matrix, read_f32};
    float *want = poisoned(m * y_stride), *got = poisoned(m * y_stride);
    matmul_ref(want, y_stride, x, x_stride, m, &source, with_bias ? bias : NULL);
    matmul(got, y_stride, x, x_stride, m, &source, with_bias ? bias : NULL);
    for (size_t i = 0; i < m; i++) {
        double error = dot_error(got + i * y_stride, want + i * y_stride, x + i * x_stride, w,
                                 with_bias ? bias : NULL, n, k);
        cr_assert(error <= tolerance, "m %zu n %zu k %zu row %zu: %g", m, n, k, i, error);
        for (size_t j = n; j < y_stride; j++)
            cr_assert(isnan(got[i * y_stride + j]), "wrote between rows");
    }
    release(x), release(w), release(bias), release(want), release(got);
}

Test(matmul, equals_the_reference_in_every_remainder) {
    const size_t ms[] = {1, 2, 3, 4, 5, 6, 7, 13, 14}, ns[] = {1, 2, 3, 4, 5, 63, 65, 130};
    const size_t ks[] = {1, 3, 15, 16, 17, 31, 256, 1000, 1024, 1025, 2309};
    FOR_EACH_LEVEL(level)
    for (size_t a = 0; a < 9; a++)
        for (size_t b = 0; b < 8; b++)
            for (size_t c = 0; c < 11; c++)
                check(ms[a], ns[b], ks[c], (a + b + c) % 2);
}

Test(matmul, of_no_rows_or_no_columns) {
    const struct f32_matrix matrix = {NULL, 0};
    const struct weight_source no_columns = {3, 0, &matrix, read_f32};
    float y[3] = {NAN, NAN, NAN}, bias[3] = {1, 2, 3};
    matmul(y, 3, NULL, 0, 1, &no_columns, bias);
    cr_assert(y[0] == 1 && y[1] == 2 && y[2] == 3);
    matmul(y, 3, NULL, 0, 0, &no_columns, NULL);
    cr_assert(y[0] == 1);
}

Test(matmul, hand_computed) {
    const float x[3] = {1, 2, 3}, w[6] = {1, 1, 1, -1, 0, 2}, bias[2] = {10, 20};
    const struct f32_matrix matrix = {w, 3};
    const struct weight_source source = {2, 3, &matrix, read_f32};
    FOR_EACH_LEVEL(level) {
        float y[2] = {NAN, NAN};
        matmul(y, 2, x, 3, 1, &source, bias);
        cr_assert(y[0] == 16 && y[1] == 25);
    }
}

// Neither the number of threads nor the rows that come along may change a bit: decoding a token
// gives the logits that prefilling it gave.
Test(matmul, bits_do_not_depend_on_threads_or_batch) {
    enum { M = 67, N = 203, K = 1300 };
    struct random r = {7};
    float *x = outliers(&r, M, K), *w = outliers(&r, N, K);
    const struct f32_matrix matrix = {w, K};
    const struct weight_source source = {N, K, &matrix, read_f32};
    float *want = poisoned(M * N), *got = poisoned(M * N);
    FOR_EACH_LEVEL(level) {
        omp_set_num_threads(1);
        matmul(want, N, x, K, M, &source, NULL);
        for (int threads = 1; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            memset(got, 0xff, M * N * sizeof *got);
            matmul(got, N, x, K, M, &source, NULL);
            cr_assert_arr_eq(got, want, M * N * sizeof *got);
            for (size_t i = 0; i < M; i++)
                matmul(got + i * N, N, x + i * K, K, 1, &source, NULL);
            cr_assert_arr_eq(got, want, M * N * sizeof *got);
        }
    }
    release(x), release(w), release(want), release(got);
}

Test(matmul, works_inside_a_parallel_region) {
    enum { M = 8, N = 200, K = 512 };
    struct random r = {8};
    float *x = outliers(&r, M, K), *w = outliers(&r, N, K);
    const struct f32_matrix matrix = {w, K};
    const struct weight_source source = {N, K, &matrix, read_f32};
    float *want = poisoned(M * N), *got = poisoned(4 * M * N);
    matmul(want, N, x, K, M, &source, NULL);
#pragma omp parallel for num_threads(4)
    for (int i = 0; i < 4; i++)
        matmul(got + i * M * N, N, x, K, M, &source, NULL);
    for (int i = 0; i < 4; i++)
        cr_assert_arr_eq(got + i * M * N, want, M * N * sizeof *got);
    release(x), release(w), release(want), release(got);
}

Test(matmul, a_nan_stays_visible) {
    enum { N = 9, K = 50 };
    struct random r = {9};
    float *x = outliers(&r, 1, K), *w = outliers(&r, N, K);
    const struct f32_matrix matrix = {w, K};
    const struct weight_source source = {N, K, &matrix, read_f32};
    w[4 * K + 49] = NAN;
    FOR_EACH_LEVEL(level) {
        float y[N];
        matmul(y, N, x, K, 1, &source, NULL);
        for (int j = 0; j < N; j++)
            cr_assert_eq(isnan(y[j]) != 0, j == 4);
    }
    release(x), release(w);
}

static bool same_value(float a, float b) {
    return isnan(b) ? isnan(a) : f32_bits(a) == f32_bits(b);
}

Test(convert, every_f16_and_bf16_in_every_lane) {
    enum { N = 65536 };
    uint16_t *all = malloc((N + 1) * sizeof *all);
    float *out = poisoned(N);
    FOR_EACH_LEVEL(level)
    for (size_t shift = 0; shift < 2; shift++) { // also at an odd place
        for (size_t i = 0; i < N; i++)
            all[i + shift] = (uint16_t)i;
        convert_f16_f32(all + shift, N, out);
        for (size_t i = 0; i < N; i++)
            cr_assert(same_value(out[i], f16_to_f32((uint16_t)i)), "f16 %04zx", i);
        convert_bf16_f32(all + shift, N, out);
        for (size_t i = 0; i < N; i++)
            cr_assert(same_value(out[i], bf16_to_f32((uint16_t)i)), "bf16 %04zx", i);
    }
    free(all);
    release(out);
}

Test(convert, writes_n_values_and_no_more) {
    uint16_t src[40];
    float out[41];
    for (size_t i = 0; i < 40; i++)
        src[i] = f32_to_f16((float)i);
    FOR_EACH_LEVEL(level)
    for (size_t n = 0; n <= 40; n++) {
        out[n] = -1;
        convert_f16_f32(src, n, out);
        for (size_t i = 0; i < n; i++)
            cr_assert_eq(out[i], (float)i);
        cr_assert_eq(out[n], -1);
    }
}

// ---- rows of 16-bit weights as they lie ---------------------------------------------------------

static double check_rows(size_t m, size_t n, size_t k, bool bf16, bool with_bias) {
    struct random r = {m * 1000003 + n * 1009 + k};
    size_t x_stride = k + 3, y_stride = n + 5;
    float *x = outliers(&r, m, x_stride), *w = outliers(&r, n, k), *bias = outliers(&r, 1, n);
    float *want = poisoned(m * y_stride), *got = poisoned(m * y_stride);
    char *halves = malloc(n * k * 2 + 2);
    dtype_from_f32(bf16 ? DTYPE_BF16 : DTYPE_F16, w, n * k, halves + 2); // at an odd place
    dtype_to_f32(bf16 ? DTYPE_BF16 : DTYPE_F16, halves + 2, n * k, w);
    struct rows_job job = {
        (const uint16_t *)(void *)(halves + 2), bf16, n, want, y_stride, with_bias ? bias : NULL};
    matmul_rows_ref(&job, x, x_stride, m, k);
    job.y = got;
    matmul_rows(&job, 1, x, x_stride, m, k);
    double worst = 0;
    for (size_t i = 0; i < m; i++) {
        worst = fmax(worst, dot_error(got + i * y_stride, want + i * y_stride, x + i * x_stride, w,
                                      job.bias, n, k));
        for (size_t j = n; j < y_stride; j++)
            cr_assert(isnan(got[i * y_stride + j]), "wrote between rows");
    }
    free(halves);
    release(x), release(w), release(bias), release(want), release(got);
    return worst;
}

Test(matmul_rows, equals_the_reference_in_every_remainder) {
    const size_t ns[] = {1, 3, 4, 5, 65, 130}, ks[] = {1, 15, 16, 31, 32, 33, 100, 1000, 2309};
    FOR_EACH_LEVEL(level)
    for (size_t m = 1; m <= ROWS_MAX_TOKENS; m++)
        for (size_t b = 0; b < 6; b++)
            for (size_t c = 0; c < 9; c++) {
                double error = check_rows(m, ns[b], ks[c], (b + c) % 2, (m + c) % 2);
                cr_assert(error <= tolerance, "m %zu n %zu k %zu: %g", m, ns[b], ks[c], error);
            }
}

Test(matmul_rows, bits_do_not_depend_on_threads_or_batch) {
    enum { M = 7, N = 203, K = 1300 };
    struct random r = {7};
    float *x = outliers(&r, M, K), *want = poisoned(M * N), *got = poisoned(M * N);
    uint16_t *w = malloc(N * K * sizeof *w);
    for (size_t i = 0; i < N * K; i++)
        w[i] = f32_to_f16((float)random_normal(&r));
    FOR_EACH_LEVEL(level) {
        omp_set_num_threads(1);
        matmul_rows(&(struct rows_job){w, false, N, want, N, NULL}, 1, x, K, M, K);
        for (int threads = 2; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            memset(got, 0xff, M * N * sizeof *got);
            for (size_t i = 0; i < M; i++)
                matmul_rows(&(struct rows_job){w, false, N, got + i * N, N, NULL}, 1, x + i * K, K,
                            1, K);
            cr_assert_arr_eq(got, want, M * N * sizeof *got);
        }
    }
    free(w);
    release(x), release(want), release(got);
}
