// kernels/cpu/weave.c: what is put in comes out; and products of woven weights against theirs.
#include <criterion/criterion.h>
#include <omp.h>
#include <stdio.h>

#include "core/dtype.h"
#include "kernels/cpu/matmul_tiles.h"
#include "kernels/cpu/matmul_weave_tiles.h"
#include "tests/kernel_data.h"
#include "tests/weave_data.h"

Test(weave, gives_back_what_was_put_in) {
    const size_t shapes[][2] = {{1, 32}, {16, 256}, {17, 512}, {5, 67}, {33, 300}};
    for (size_t i = 0; i < WEAVE_KINDS; i++)
        for (size_t s = 0; s < 5; s++) {
            struct random r = {i * 31 + s}, again = {i * 31 + s};
            struct weave w;
            struct weave_row want, got;
            if (!random_weave(&r, &w, &weave_kinds[i], shapes[s][0], shapes[s][1])) {
                cr_assert(weave_kinds[i].scale >= WEAVE_SCALE_K4 && shapes[s][1] % 256);
                continue;
            }
            cr_assert(weave_row_init(&want, &w) && weave_row_init(&got, &w));
            for (size_t row = 0; row < w.n; row++) {
                random_row(&again, &w, &want);
                weave_get(&w, row, &got);
                cr_assert_arr_eq(got.codes, want.codes, w.k);
                if (w.kind.scale == WEAVE_SCALE_ROW)
                    cr_assert_eq(got.row_scale, want.row_scale);
                else if (w.kind.scale == WEAVE_SCALE_F32)
                    cr_assert_arr_eq(got.wide_scales, want.wide_scales, w.groups * sizeof(float));
                else
                    cr_assert_arr_eq(got.scales, want.scales,
                                     (w.kind.scale == WEAVE_SCALE_F16 ? w.groups : w.k / 256) * 2);
                if (w.kind.zero == WEAVE_ZERO_GROUP)
                    cr_assert_arr_eq(got.zeros, want.zeros, w.groups);
                if (w.kind.scale == WEAVE_SCALE_K6)
                    cr_assert_arr_eq(got.small, want.small, w.k / 16);
                if (w.kind.scale == WEAVE_SCALE_K4)
                    cr_assert_arr_eq(got.small_offsets, want.small_offsets, w.k / 32);
            }
            weave_row_free(&want), weave_row_free(&got);
            free(w.data);
        }
}

Test(weave, takes_no_more_bytes_than_ggufs_blocks) {
    const struct {
        struct weave_kind kind;
        size_t bytes; // of 256 weights in a GGUF file
    } types[] = {{{.bits = 4, .group = 32, .scale = WEAVE_SCALE_F16, .zero_code = 8}, 144},
                 {{.bits = 4, .group = 32, .scale = WEAVE_SCALE_K4, .zero = WEAVE_ZERO_K4}, 144},
                 {{.bits = 5, .group = 32, .scale = WEAVE_SCALE_K4, .zero = WEAVE_ZERO_K4}, 176},
                 {{.bits = 6, .group = 16, .scale = WEAVE_SCALE_K6, .zero_code = 32}, 210},
                 {{.bits = 8, .group = 32, .scale = WEAVE_SCALE_F16}, 272}};
    for (size_t i = 0; i < 5; i++) {
        struct weave w;
        cr_assert(weave_layout(&w, &types[i].kind, 64, 2048));
        cr_assert_eq(weave_bytes(&w), types[i].bytes * 64 * 8);
    }
}

static double check(const struct weave_kind *kind, size_t m, size_t n, size_t k, bool with_bias) {
    struct random r = {m * 1000003 + n * 1009 + k};
    struct weave w;
    struct weave_x q = {0};
    struct error err = {0};
    if (!random_weave(&r, &w, kind, n, k))
        return 0;
    size_t x_stride = k + 3, y_stride = n + 5;
    float *x = outliers(&r, m, x_stride), *bias = outliers(&r, 1, n), *rows = poisoned(n * k);
    float *back = poisoned(m * k), *want = poisoned(m * y_stride), *got = poisoned(m * y_stride);
    cr_assert(weave_x_make(&q, &w, x, x_stride, m, &err));
    struct weave_job job = {&w, want, y_stride, with_bias ? bias : NULL};
    matmul_weave_ref(&job, &q);
    for (size_t j = 0; j < n; j++)
        weave_read(&w, j, 0, k, rows + j * k);
    for (size_t i = 0; i < m * k; i++)
        back[i] = q.scale[i / k * q.units + i % k / q.unit] * q.q[i / k * q.q_stride + i % k];
    job.y = got;
    matmul_weave(&job, 1, &q);
    double worst = 0;
    for (size_t i = 0; i < m; i++) {
        worst = fmax(worst, dot_error(got + i * y_stride, want + i * y_stride, back + i * k, rows,
                                      job.bias, n, k));
        for (size_t j = n; j < y_stride; j++)
            cr_assert(isnan(got[i * y_stride + j]), "wrote between rows");
    }
    weave_x_free(&q);
    free(w.data);
    release(x), release(bias), release(rows), release(back), release(want), release(got);
    return worst;
}

Test(matmul_weave, equals_the_reference_in_every_remainder) {
    const size_t ms[] = {1, 2, 3, 4, 5, 7, 9}, ns[] = {1, 15, 16, 17, 48, 65, 130};
    const size_t ks[] = {1, 31, 32, 33, 130, 256, 300, 1024};
    double worst = 0;
    FOR_EACH_LEVEL(level)
    for (size_t i = 0; i < WEAVE_KINDS; i++)
        for (size_t a = 0; a < 7; a++)
            for (size_t b = 0; b < 7; b++) {
                size_t k = ks[(a * 3 + b + i) % 8];
                double error = check(&weave_kinds[i], ms[a], ns[b], k, (a + b) % 2);
                cr_assert(error <= 1e-6, "%s kind %zu m %zu n %zu k %zu: %g",
                          kernels_level_name(level), i, ms[a], ns[b], k, error);
                worst = fmax(worst, error);
                check(&weave_kinds[i], ms[a], ns[b], 512, false);
            }
    printf("matmul_weave: dot error at most %.2g\n", worst);
}

Test(matmul_weave, bits_do_not_depend_on_threads_or_batch) {
    enum { M = 11, N = 203, K = 1280 };
    for (size_t i = 0; i < WEAVE_KINDS; i++) {
        struct random r = {i};
        struct weave w, w2;
        struct error err = {0};
        struct weave_x q = {0}, one = {0};
        cr_assert(random_weave(&r, &w, &weave_kinds[i], N, K));
        cr_assert(random_weave(&r, &w2, &weave_kinds[i], 31, K));
        float *x = outliers(&r, M, K), *want = poisoned(M * N), *got = poisoned(M * N);
        float y2[M * 31];
        FOR_EACH_LEVEL(level) {
            cr_assert(weave_x_make(&q, &w, x, K, M, &err));
            omp_set_num_threads(1);
            matmul_weave(&(struct weave_job){&w, want, N, NULL}, 1, &q);
            for (int threads = 2; threads <= 3; threads++) {
                omp_set_num_threads(threads);
                memset(got, 0xff, M * N * sizeof *got);
                struct weave_job both[2] = {{&w2, y2, 31, NULL}, {&w, got, N, NULL}};
                matmul_weave(both, 2, &q);
                cr_assert_arr_eq(got, want, M * N * sizeof *got);
            }
            for (size_t t = 0; t < M; t++) {
                cr_assert(weave_x_make(&one, &w, x + t * K, K, 1, &err));
                matmul_weave(&(struct weave_job){&w, got + t * N, N, NULL}, 1, &one);
            }
            cr_assert_arr_eq(got, want, M * N * sizeof *got);
        }
        weave_x_free(&q), weave_x_free(&one);
        free(w.data), free(w2.data);
        release(x), release(want), release(got);
    }
}

// Many tokens go through AMX tiles where there are some: with the bits of AVX-512 VNNI, in every
// remainder of rows, columns and tokens, for any number of threads.
Test(matmul_weave, tiles_give_the_bits_of_vnni) {
    const size_t ms[] = {5, 12, 16, 17, 24, 32, 33, 50}, ns[] = {1, 16, 33, 128, 300};
    const size_t ks[] = {64, 96, 300, 512, 576, 1088, 1280}; // 1088: half a unit behind a block
    int many = 0, few = 0;
    if (kernels_level() < LEVEL_AMX)
        cr_skip_test("skipped: no AMX here");
    for (size_t i = 0; i < WEAVE_KINDS; i++)
        for (size_t s = 0; s < 56; s++) {
            size_t m = ms[s % 8], n = ns[s % 5], k = ks[s % 7];
            struct random r = {i * 100 + s};
            struct weave w;
            struct error err = {0};
            struct weave_x q = {0};
            if (!random_weave(&r, &w, &weave_kinds[i], n, k))
                continue;
            float *x = outliers(&r, m, k), *bias = outliers(&r, 1, n);
            float *want = poisoned(m * n), *got = poisoned(m * n);
            cr_assert(weave_x_make(&q, &w, x, k, m, &err));
            struct weave_job job = {&w, want, n, s % 2 ? bias : NULL};
            kernels_level_force(LEVEL_VNNI);
            matmul_weave(&job, 1, &q);
            kernels_level_force(LEVEL_AMX);
            many += weave_tiles_wanted(&w, m);
            few += weave_few_wanted(&w, m);
            cr_assert(m < 13 || m > (w.unit < 32 ? 16 : 32) || weave_tiles_wanted(&w, m) ||
                      weave_few_wanted(&w, m) || (w.unit >= 64 && w.k_padded % 64));
            job.y = got;
            for (int threads = 1; threads <= 3; threads++) {
                omp_set_num_threads(threads);
                memset(got, 0xff, m * n * sizeof *got);
                matmul_weave(&job, 1, &q);
                cr_assert_arr_eq(got, want, m * n * sizeof *got, "kind %zu m %zu n %zu k %zu", i, m,
                                 n, k);
            }
            weave_x_free(&q);
            free(w.data);
            release(x), release(bias), release(want), release(got);
        }
    cr_assert_gt(many, 200);
    cr_assert_gt(few, 300);
}

// Results that are more than the cache takes go around it: the same bits, with rows and a bias that
// end in the middle of a line, too.
Test(matmul_weave, results_around_the_cache_are_the_same) {
    enum { M = 470, K = 192, LONG = 610, STRIDE = 624 };
    _Static_assert(M * LONG > TILES_CACHED_RESULTS, "or they do not go around");
    if (kernels_level() < LEVEL_AMX)
        cr_skip_test("skipped: no AMX here");
    for (size_t i = 0; i < WEAVE_KINDS; i++) {
        struct random r = {i};
        struct weave w;
        struct error err = {0};
        struct weave_x q = {0};
        if (!random_weave(&r, &w, &weave_kinds[i], LONG, K))
            continue;
        if (!weave_tiles_wanted(&w, M)) {
            free(w.data);
            continue;
        }
        float *x = outliers(&r, M, K), *bias = outliers(&r, 1, LONG);
        float *all = aligned_alloc(64, M * STRIDE * sizeof *all), *few = poisoned(30 * LONG);
        cr_assert(all && weave_x_make(&q, &w, x, K, M, &err));
        memset(all, 0xff, M * STRIDE * sizeof *all);
        matmul_weave(&(struct weave_job){&w, all, STRIDE, bias}, 1, &q);
        for (size_t t = 0; t < M; t += 30) {
            size_t m = M - t < 30 ? M - t : 30;
            cr_assert(weave_x_make(&q, &w, x + t * K, K, m, &err));
            matmul_weave(&(struct weave_job){&w, few, LONG, bias}, 1, &q);
            for (size_t j = 0; j < m; j++) {
                const float *row = all + (t + j) * STRIDE;
                cr_assert_arr_eq(row, few + j * LONG, LONG * sizeof *row, "kind %zu token %zu", i,
                                 t + j);
                cr_assert(isnan(row[LONG]), "wrote between rows");
            }
        }
        weave_x_free(&q);
        free(w.data), free(all);
        release(x), release(bias), release(few);
    }
}

// Rounding the activations to int8 costs less than 1 % of |x| |w|.
Test(matmul_weave, is_near_the_product_with_the_activations_themselves) {
    enum { M = 3, N = 40, K = 2048 };
    for (size_t i = 0; i < WEAVE_KINDS; i++) {
        struct random r = {i};
        struct weave w;
        struct error err = {0};
        struct weave_x q = {0};
        cr_assert(random_weave(&r, &w, &weave_kinds[i], N, K));
        float *x = outliers(&r, M, K), *y = poisoned(M * N), *rows = poisoned(N * K);
        cr_assert(weave_x_make(&q, &w, x, K, M, &err));
        matmul_weave(&(struct weave_job){&w, y, N, NULL}, 1, &q);
        float want[N];
        for (size_t j = 0; j < N; j++)
            weave_read(&w, j, 0, K, rows + j * K);
        for (size_t t = 0; t < M; t++) {
            for (size_t j = 0; j < N; j++) {
                double sum = 0;
                for (size_t c = 0; c < K; c++)
                    sum += (double)x[t * K + c] * rows[j * K + c];
                want[j] = (float)sum;
            }
            double error = dot_error(y + t * N, want, x + t * K, rows, NULL, N, K);
            cr_assert(error < 0.01, "kind %zu: %g", i, error);
        }
        weave_x_free(&q);
        free(w.data);
        release(x), release(y), release(rows);
    }
}

Test(weave_x, equals_the_reference) {
    const size_t ks[] = {1, 15, 32, 33, 100, 256, 1000};
    for (size_t i = 0; i < WEAVE_KINDS; i++)
        for (size_t b = 0; b < 7; b++) {
            struct random r = {b};
            struct weave w;
            struct error err = {0};
            struct weave_x want = {0}, got = {0};
            if (!weave_layout(&w, &weave_kinds[i], 1, ks[b]))
                continue;
            size_t k = ks[b];
            float *x = outliers(&r, 3, k + 1);
            memset(x + k + 1, 0, k * sizeof *x); // a row of zeros
            cr_assert(weave_x_make(&want, &w, x, k + 1, 3, &err));
            weave_x_make_ref(&want, x, k + 1);
            FOR_EACH_LEVEL(level) {
                cr_assert(weave_x_make(&got, &w, x, k + 1, 3, &err));
                cr_assert_arr_eq(got.q, want.q, 3 * want.q_stride);
                cr_assert_arr_eq(got.scale, want.scale, 3 * want.units * sizeof(float));
                cr_assert_arr_eq(got.scaled_sum, want.scaled_sum, 3 * want.units * sizeof(float));
            }
            weave_x_free(&want), weave_x_free(&got);
            release(x);
        }
}

Test(weave_x, of_gates_equals_that_of_their_products) {
    const size_t ks[] = {1, 15, 33, 256, 1000};
    for (size_t i = 0; i < WEAVE_KINDS * 5; i++) {
        struct random r = {i};
        struct weave w;
        struct error err = {0};
        struct weave_x want = {0}, got = {0};
        size_t k = ks[i % 5], stride = k + 1;
        if (!weave_layout(&w, &weave_kinds[i / 5], 1, k))
            continue;
        float *gate = outliers(&r, 3, stride), *up = outliers(&r, 3, stride);
        float *x = poisoned(3 * stride);
        FOR_EACH_LEVEL(level) {
            silu_mul(x, gate, up, 3 * stride);
            cr_assert(weave_x_make(&want, &w, x, stride, 3, &err));
            cr_assert(weave_x_make_gated(&got, &w, gate, up, stride, 3, &err));
            cr_assert_arr_eq(got.q, want.q, 3 * want.q_stride);
            cr_assert_arr_eq(got.sum, want.sum, 3 * want.units * sizeof(int32_t));
            cr_assert_arr_eq(got.scale, want.scale, 3 * want.units * sizeof(float));
        }
        weave_x_free(&want), weave_x_free(&got);
        release(gate), release(up), release(x);
    }
}

Test(matmul_weave, a_nan_or_infinity_stays_visible) {
    enum { N = 20, K = 300 };
    struct random r = {9};
    const float values[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3 * WEAVE_KINDS; i++) {
        struct weave w;
        struct error err = {0};
        struct weave_x q = {0};
        if (!random_weave(&r, &w, &weave_kinds[i % WEAVE_KINDS], N, K))
            continue;
        float *x = outliers(&r, 1, K), y[N];
        x[K - 1] = values[i / WEAVE_KINDS];
        FOR_EACH_LEVEL(level) {
            cr_assert(weave_x_make(&q, &w, x, K, 1, &err));
            matmul_weave(&(struct weave_job){&w, y, N, NULL}, 1, &q);
            for (size_t j = 0; j < N; j++)
                cr_assert_not(isfinite(y[j]));
        }
        weave_x_free(&q);
        free(w.data);
        release(x);
    }
}
