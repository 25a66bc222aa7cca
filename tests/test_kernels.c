// The smaller operations of kernels/cpu against their references.
//
//     operation      what is compared                       tolerance   measured
//     rmsnorm        rel_l2 of a row                        1e-6        2.7e-7
//     layernorm      rel_l2 of a row, its mean 0 or 100     2e-6        2.2e-7
//     rope           rel_l2 of a row                        2e-7        9.9e-8
//     silu_mul       largest relative error, -20 … 20       1e-6        2.2e-7
//     gelu_tanh      largest relative error, -5 … 20        4e-6        2.3e-6
//     log_sum_exp    absolute                               2e-7        7.8e-8
#include <criterion/criterion.h>
#include <stdio.h>

#include "tests/kernel_data.h"

// Every level that is in force was asked for, or is the best.
Test(isa, another_kind_of_cpus_level_means_the_best) {
    enum cpu_level best = kernels_level_force(LEVEL_COUNT);
    int present = 0;
    for (enum cpu_level level = LEVEL_SCALAR; level < LEVEL_COUNT; level++) {
        enum cpu_level got = kernels_level_force(level);
        cr_assert(got == level || got == best, "%s gives %s", kernels_level_name(level),
                  kernels_level_name(got));
        cr_assert_eq(kernels_level_find(kernels_level_name(level)), level);
        present += got == level;
    }
#if defined(__x86_64__)
    cr_assert(kernels_level_force(LEVEL_NEON) == best && best != LEVEL_NEON);
#elif defined(__aarch64__)
    cr_assert(kernels_level_force(LEVEL_AVX2) == best && best >= LEVEL_NEON);
    cr_assert_eq(present, (int)best + 1);
#endif
    cr_assert_geq(present, 1);
}

Test(isa, forcing_never_exceeds_the_cpu) {
    enum isa best = kernels_isa_force(ISA_COUNT - 1);
    cr_assert_eq(kernels_isa(), best);
    cr_assert_eq(kernels_isa_force(ISA_SCALAR), ISA_SCALAR);
    cr_assert_eq(kernels_isa(), ISA_SCALAR);
    cr_assert_str_eq(kernels_isa_name(ISA_AVX2), "avx2");
    cr_assert_str_eq(kernels_isa_name((enum isa)9), "?");
}

Test(norm, rmsnorm_equals_the_reference) {
    struct random r = {1};
    const size_t ns[] = {1, 2, 3, 7, 15, 16, 17, 33, 896, 2048, 2051};
    for (size_t a = 0; a < 11; a++) {
        size_t n = ns[a], m = 19;
        float *x = outliers(&r, m, n), *gain = outliers(&r, 1, n);
        float *want = poisoned(m * n), *got = poisoned(m * n);
        rmsnorm_ref(want, x, m, n, gain, 1e-6f);
        FOR_EACH_LEVEL(level) {
            memset(got, 0xff, m * n * sizeof *got);
            rmsnorm(got, x, m, n, gain, 1e-6f);
            for (size_t i = 0; i < m; i++)
                cr_assert(rel_l2(got + i * n, want + i * n, n) <= 1e-6);
            memcpy(got, x, m * n * sizeof *got);
            rmsnorm(got, got, m, n, gain, 1e-6f);
            cr_assert(rel_l2(got, want, m * n) <= 1e-6, "in place");
        }
        release(x), release(gain), release(want), release(got);
    }
}

// A mean of 100 makes E[x²] - mean² useless in float32.
Test(norm, layernorm_equals_the_reference) {
    struct random r = {2};
    const size_t ns[] = {2, 3, 7, 15, 16, 17, 33, 768, 2051};
    for (size_t a = 0; a < 9; a++) {
        size_t n = ns[a], m = 17;
        float *x = outliers(&r, m, n), *gain = outliers(&r, 1, n), *bias = outliers(&r, 1, n);
        float *want = poisoned(m * n), *got = poisoned(m * n);
        for (size_t i = 0; i < m * n; i++)
            x[i] += i / n % 2 ? 100 : 0;
        for (int with_bias = 0; with_bias < 2; with_bias++) {
            layernorm_ref(want, x, m, n, gain, with_bias ? bias : NULL, 1e-5f);
            FOR_EACH_LEVEL(level) {
                memset(got, 0xff, m * n * sizeof *got);
                layernorm(got, x, m, n, gain, with_bias ? bias : NULL, 1e-5f);
                for (size_t i = 0; i < m; i++) {
                    double error = rel_l2(got + i * n, want + i * n, n);
                    cr_assert(error <= (2e-6), "n %zu row %zu: %g", n, i, error);
                }
            }
        }
        release(x), release(gain), release(bias), release(want), release(got);
    }
}

Test(norm, a_row_of_zeros_stays_zero) {
    const float zeros[5] = {0}, gain[5] = {1, 1, 1, 1, 1};
    FOR_EACH_LEVEL(level) {
        float y[5] = {NAN};
        rmsnorm(y, zeros, 1, 5, gain, 1e-6f);
        cr_assert_eq(max_abs(y, zeros, 5), 0);
        layernorm(y, zeros, 1, 5, gain, NULL, 1e-5f);
        cr_assert_eq(max_abs(y, zeros, 5), 0);
    }
}

Test(rope, equals_the_reference_up_to_position_100000) {
    struct random r = {3};
    const size_t ds[] = {2, 6, 32, 64, 80, 128, 256, 1024};
    const int32_t position[6] = {0, 1, 2, 777, 32768, 100000};
    for (size_t a = 0; a < 8; a++) {
        size_t d = ds[a], heads = 3, stride = heads * d + 5;
        float inv_freq[512], *want = outliers(&r, 6, stride), *got = poisoned(6 * stride);
        float *start = poisoned(6 * stride);
        memcpy(start, want, 6 * stride * sizeof *want);
        for (size_t i = 0; i < d / 2; i++)
            inv_freq[i] = (float)pow(1e4, -2.0 * (double)i / (double)d);
        rope_ref(want, stride, 6, heads, d, position, inv_freq);
        FOR_EACH_LEVEL(level) {
            memcpy(got, start, 6 * stride * sizeof *got);
            rope(got, stride, 6, heads, d, position, inv_freq);
            for (size_t t = 0; t < 6; t++)
                cr_assert(rel_l2(got + t * stride, want + t * stride, stride) <= 2e-7);
        }
        release(start), release(want), release(got);
    }
}

Test(rope, hand_computed) {
    const float inv_freq[2] = {(float)M_PI_2, 0};
    const int32_t position[1] = {1};
    FOR_EACH_LEVEL(level) {
        float x[4] = {1, 2, 3, 4}; // pairs (1, 3), turned by 90 degrees, and (2, 4), not at all
        rope(x, 4, 1, 1, 4, position, inv_freq);
        cr_assert(max_abs(x, (float[4]){-3, 2, 1, 4}, 4) <= 1e-6);
    }
}

static double worst_relative(const float *got, const float *want, size_t n) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(got[i]) || !isfinite(want[i]))
            return INFINITY;
        double scale = fmax(fabs((double)want[i]), 1e-30);
        worst = fmax(worst, fabs((double)got[i] - want[i]) / scale);
    }
    return worst;
}

Test(activation, silu_and_gelu_equal_the_references) {
    enum { N = 40013 };
    float *x = poisoned(N), *ones = poisoned(N), *want = poisoned(N), *got = poisoned(N);
    for (size_t i = 0; i < N; i++) {
        x[i] = ((float)i - N / 2) * 1e-3f; // -20 … 20
        ones[i] = 1;
    }
    FOR_EACH_LEVEL(level) {
        silu_mul_ref(want, x, ones, N);
        silu_mul(got, x, ones, N);
        double error = worst_relative(got, want, N);
        cr_assert(error <= 1e-6, "silu %g", error);
        gelu_tanh_ref(want, x, N);
        gelu_tanh(got, x, N);
        // Below -5 the result is under 1e-7 and its argument, a cube, carries the error.
        error = worst_relative(got + 15000, want + 15000, N - 15000);
        cr_assert(error <= 4e-6, "gelu %g", error);
        cr_assert(max_abs(got, want, N) <= 1e-6);
    }
    release(x), release(ones), release(want), release(got);
}

Test(activation, every_length_and_in_place) {
    struct random r = {4};
    for (size_t n = 0; n < 40; n++) {
        float *a = outliers(&r, 1, n), *b = outliers(&r, 1, n), *want = poisoned(n);
        float *y = poisoned(n + 1);
        silu_mul_ref(want, a, b, n);
        FOR_EACH_LEVEL(level) {
            memcpy(y, a, n * sizeof *y);
            silu_mul(y, y, b, n);
            cr_assert(worst_relative(y, want, n) <= 1e-6);
            memcpy(y, b, n * sizeof *y);
            silu_mul(y, a, y, n);
            cr_assert(worst_relative(y, want, n) <= 1e-6);
            memcpy(y, a, n * sizeof *y);
            add_to(y, b, n);
            for (size_t i = 0; i < n; i++)
                cr_assert_eq(y[i], a[i] + b[i]);
            cr_assert(isnan(y[n]));
        }
        release(a), release(b), release(want), release(y);
    }
}

Test(activation, far_ends) {
    const float x[6] = {-1000, -90, 90, 1000, INFINITY, NAN}, ones[6] = {1, 1, 1, 1, 1, 1};
    FOR_EACH_LEVEL(level) {
        float y[6];
        silu_mul(y, x, ones, 6);
        cr_assert(y[0] == 0 && fabsf(y[1]) < 1e-36f && y[2] == 90 && y[3] == 1000);
        cr_assert(y[4] == INFINITY && isnan(y[5]));
        gelu_tanh(y, x, 6);
        cr_assert(y[0] == 0 && y[1] == 0 && y[2] == 90 && y[3] == 1000);
        cr_assert(y[4] == INFINITY && isnan(y[5]));
    }
}

Test(softmax, log_sum_exp_equals_the_reference) {
    struct random r = {5};
    const size_t ns[] = {1, 2, 3, 15, 16, 17, 1023, 1024, 1025, 151936};
    for (size_t a = 0; a < 10; a++) {
        float *x = outliers(&r, 1, ns[a]);
        double want = log_sum_exp_ref(x, ns[a]);
        FOR_EACH_LEVEL(level) {
            double got = log_sum_exp(x, ns[a]);
            cr_assert(fabs(got - want) <= 2e-7, "%zu: %.9g %.9g", ns[a], got, want);
        }
        release(x);
    }
}

Test(softmax, log_sum_exp_at_the_ends) {
    const float low[2] = {-INFINITY, -INFINITY}, high[3] = {1, INFINITY, 2}, nan[3] = {1, NAN, 2};
    const float far[3] = {-1e38f, 3e38f, 0}, half[2] = {-INFINITY, 5};
    FOR_EACH_LEVEL(level) {
        cr_assert_eq(log_sum_exp(low, 2), -INFINITY);
        cr_assert_eq(log_sum_exp(low, 0), -INFINITY);
        cr_assert_eq(log_sum_exp(high, 3), INFINITY);
        cr_assert(isnan(log_sum_exp(nan, 3)));
        cr_assert(isnan(log_sum_exp(nan + 1, 1)));
        cr_assert_eq(log_sum_exp(far, 3), (double)3e38f);
        cr_assert_eq(log_sum_exp(half, 2), 5);
    }
    cr_assert(isnan(log_sum_exp_ref(nan, 3)));
    cr_assert_eq(log_sum_exp_ref(low, 2), -INFINITY);
}

// Takes about two seconds and a gigabyte or two.
Test(limits, are_measured) {
    struct machine_limits limits;
    machine_limits_measure(&limits);
    cr_assert(isfinite(limits.read_gb_s) && limits.read_gb_s > 0.1);
    cr_assert(isfinite(limits.copy_gb_s) && limits.copy_gb_s > 0.1);
    cr_assert(isfinite(limits.f32_gflop_s) && limits.f32_gflop_s > 0.1);
    cr_assert(isfinite(limits.i8_gop_s) && limits.i8_gop_s >= 0);
    if (kernels_level() >= LEVEL_AMX) // an int8 tile has twice the products of a bfloat16 one
        cr_assert(limits.i8_tiles_gop_s > limits.bf16_gflop_s && limits.bf16_gflop_s > 0 &&
                  limits.i8_fed_gop_s > 0 && limits.i8_fed_gop_s < 1.5 * limits.i8_tiles_gop_s);
    else
        cr_assert(limits.i8_tiles_gop_s == 0 && limits.bf16_gflop_s == 0);
}
