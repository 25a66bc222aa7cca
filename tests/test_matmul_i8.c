// kernels/cpu/matmul_i8.c against its references, bit for bit: integer sums are exact.
#include <criterion/criterion.h>

#include "tests/kernel_data.h"

static int8_t *random_i8(struct random *r, size_t n, int low) {
    int8_t *p = malloc(n);
    for (size_t i = 0; i < n; i++)
        p[i] = (int8_t)(low + (int)random_below(r, (uint32_t)(128 - low)));
    return p;
}

static void check(size_t m, size_t n, size_t k, size_t step, bool with_bias) {
    struct random r = {m * 1000003 + n * 1009 + k};
    size_t y_stride = n + 3;
    int8_t *q = random_i8(&r, m * k, -127), *w = random_i8(&r, n * k, -128);
    float *x_scale = outliers(&r, 1, m), *w_scale = outliers(&r, 1, n), *bias = outliers(&r, 1, n);
    float *want = poisoned(m * y_stride), *got = poisoned(m * y_stride);
    matmul_i8_ref(want, y_stride, q, x_scale, m, w, w_scale, step, n, k, with_bias ? bias : NULL);
    FOR_EACH_LEVEL(level) {
        memset(got, 0xff, m * y_stride * sizeof *got);
        matmul_i8(got, y_stride, q, x_scale, m, w, w_scale, step, n, k, with_bias ? bias : NULL);
        cr_assert_arr_eq(got, want, m * y_stride * sizeof *got, "%s m %zu n %zu k %zu",
                         kernels_level_name(level), m, n, k);
    }
    for (size_t i = 0; i < m; i++)
        cr_assert(isfinite(want[i * y_stride + n - 1]));
    free(q), free(w);
    release(x_scale), release(w_scale), release(bias), release(want), release(got);
}

Test(matmul_i8, equals_the_reference_in_every_remainder) {
    const size_t ms[] = {1, 2, 3, 6, 7, 13}, ns[] = {1, 3, 4, 5, 63, 64, 65, 130};
    const size_t ks[] = {1, 7, 15, 16, 17, 63, 64, 65, 130, 1000, 4097};
    for (size_t a = 0; a < 6; a++)
        for (size_t b = 0; b < 8; b++)
            for (size_t c = 0; c < 11; c++)
                check(ms[a], ns[b], ks[c], (a + c) % 2, (a + b) % 2);
}

Test(matmul_i8, the_longest_sums_do_not_overflow) {
    enum { K = 131072 };
    int8_t *q = malloc(K), *w = malloc(2 * K);
    memset(q, -127, K);
    memset(w, -128, K);
    memset(w + K, 127, K);
    const float one = 1;
    FOR_EACH_LEVEL(level) {
        float y[2] = {NAN, NAN};
        matmul_i8(y, 2, q, &one, 1, w, &one, 0, 2, K, NULL);
        cr_assert_eq(y[0], 127.0f * 128 * K);
        cr_assert_eq(y[1], (float)(-127 * 127 * (int64_t)K));
    }
    free(q), free(w);
}

Test(matmul_i8, bits_do_not_depend_on_threads) {
    enum { M = 9, N = 301, K = 700 };
    struct random r = {5};
    int8_t *q = random_i8(&r, M * K, -127), *w = random_i8(&r, N * K, -128);
    float scale[N], *want = poisoned(M * N), *got = poisoned(M * N);
    for (int j = 0; j < N; j++)
        scale[j] = (float)random_normal(&r);
    matmul_i8_ref(want, N, q, scale, M, w, scale, 1, N, K, NULL);
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        matmul_i8(got, N, q, scale, M, w, scale, 1, N, K, NULL);
        cr_assert_arr_eq(got, want, M * N * sizeof *got);
    }
    free(q), free(w);
    release(want), release(got);
}

Test(quantize_rows_i8, equals_the_reference) {
    struct random r = {6};
    for (size_t k = 1; k < 70; k++) {
        float *x = outliers(&r, 3, k + 2);
        int8_t want[3 * 70], got[3 * 70];
        float want_scale[3], got_scale[3];
        quantize_rows_i8_ref(x, k + 2, 3, k, want, want_scale);
        FOR_EACH_LEVEL(level) {
            quantize_rows_i8(x, k + 2, 3, k, got, got_scale);
            cr_assert_arr_eq(got, want, 3 * k);
            cr_assert_arr_eq(got_scale, want_scale, sizeof want_scale);
        }
        release(x);
    }
}

Test(quantize_rows_i8, edge_cases) {
    const float tiny = 0x1p-149f;
    const float x[6][3] = {{0, 0, -0.0f}, {127, -127, 63.5f}, {190 * tiny, -190 * tiny, 0},
                           {1, NAN, 2},   {1, -INFINITY, 2},  {tiny, 0, 0}};
    const int8_t want[6][3] = {{0, 0, 0}, {127, -127, 64}, {127, -127, 0},
                               {0, 0, 0}, {0, 0, 0},       {0, 0, 0}};
    int8_t q[6][3], reference[6][3];
    float scale[6];
    quantize_rows_i8_ref(&x[0][0], 3, 6, 3, &reference[0][0], scale);
    cr_assert_arr_eq(reference, want, sizeof want);
    FOR_EACH_LEVEL(level) {
        memset(q, 99, sizeof q);
        quantize_rows_i8(&x[0][0], 3, 6, 3, &q[0][0], scale);
        cr_assert_arr_eq(q, want, sizeof want);
        cr_assert(scale[0] == 0 && scale[1] == 1 && isnan(scale[3]) && isinf(scale[4]));
    }
}
