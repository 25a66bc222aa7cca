// kernels/cpu/divergence: divergences down to 1e-24 nats, by hand, by definition, and fast.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "core/random.h"
#include "eval/perplexity.h"
#include "kernels/cpu/kernels.h"

// Two outcomes with p = 3/4 and q = 1/2: 3/4 log(3/2) + 1/4 log(1/2).
Test(divergence, divergence_by_hand) {
    float p[2] = {0.75f, 0.25f}, z[2] = {logf(3), 0}, even[2] = {2, 2};
    cr_expect_float_eq(kl_of_change(p, z, even, 2), 0.75 * log(1.5) + 0.25 * log(0.5), 1e-7);
    float shifted[2] = {z[0] + 100, z[1] + 100};
    cr_expect_float_eq(kl_of_change(p, z, shifted, 2), 0,
                       1e-11); // logits are free up to a constant
    float unscaled[2] = {1.5f, 0.5f};
    cr_expect_float_eq(kl_of_change(unscaled, z, even, 2), kl_of_change(p, z, even, 2), 1e-7);
    cr_expect_float_eq(kl_of_change_ref(unscaled, z, even, 2), kl_of_change_ref(p, z, even, 2),
                       1e-12);
    cr_expect(isnan(kl_of_change(p, z, (float[]){NAN, 0}, 2)));
}

// A change by e moves the divergence by p (1 - p) e² / 2, however small e is.
Test(divergence, small_changes_have_small_divergences) {
    float p[2] = {0.5f, 0.5f}, z[2] = {0, 0};
    for (int bits = 1; bits < 40; bits++) {
        double e = ldexp(1, -bits);
        float changed[2] = {(float)e, 0};
        double expected = -0.5 * log1p(-tanh(e / 2) * tanh(e / 2)); // of even odds, exactly
        double ref = kl_of_change_ref(p, z, changed, 2), kld = kl_of_change(p, z, changed, 2);
        cr_expect(fabs(ref / expected - 1) < 1e-9, "e = 2^-%d: %g, %g", bits, ref, expected);
        cr_expect(fabs(kld / expected - 1) < 2e-6, "e = 2^-%d: %g, %g", bits, kld, expected);
    }
}

Test(divergence, agrees_with_the_plain_definition) {
    enum { V = 300 };
    struct random r = {9};
    float z[V], p[V], q[V];
    for (double size = 1e-2; size < 20; size *= 4) {
        for (size_t i = 0; i < V; i++) {
            z[i] = 3 * (float)random_normal(&r);
            q[i] = z[i] + (float)(size * random_normal(&r));
        }
        double norm = 0;
        for (size_t i = 0; i < V; i++)
            norm += exp((double)z[i]);
        for (size_t i = 0; i < V; i++)
            p[i] = (float)(exp((double)z[i]) / norm);
        double kld = kl_of_change_ref(p, z, q, V), expected = kl_divergence(z, q, V);
        // The plain one is a difference of logarithms that were summed in float32.
        cr_expect(fabs(kld - expected) < 3e-7 + 1e-6 * expected, "%g: %g, %g", size, kld, expected);
    }
}

#define FOR_EACH_ISA(isa)                                                                          \
    for (int isa = 0; isa < ISA_COUNT && (int)kernels_isa_force((enum isa)isa) == isa; isa++)

// Logits as a model has them, changed by as much as one tensor does, or as a ruined model.
static void check_fast(size_t v, double size, uint64_t seed) {
    float *z = memory_alloc(v, 3 * sizeof *z, "logits", NULL), *q = z + v, *p = q + v;
    struct random r = {seed};
    for (size_t i = 0; i < v; i++) {
        z[i] = 8 + 4 * (float)random_normal(&r);
        q[i] = z[i] + 0.3f + (float)(size * random_normal(&r));
    }
    probabilities_ref(z, v, p);
    double expected = kl_of_change_ref(p, z, q, v);
    FOR_EACH_ISA(isa) {
        double kld = kl_of_change(p, z, q, v);
        cr_expect(fabs(kld - expected) <= 2e-6 * expected + 1e-24, "%zu, %g, %s: %.9g, %.9g", v,
                  size, kernels_isa_name((enum isa)isa), kld, expected);
    }
    free(z);
}

Test(divergence, the_fast_one_agrees_with_the_reference) {
    static const size_t sizes[] = {1, 2, 3, 15, 17, 100, 1023, 1025, 5000, 151936};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (double size = 1e-4; size < 30; size *= 7)
            check_fast(sizes[i], size, i + 1);
}

// Beyond e^88 a float32 is infinite; a logit that is not a number is no distribution's.
Test(divergence, ruined_logits_are_told_apart_from_large_changes) {
    enum { V = 40 };
    float z[V] = {0}, q[V] = {[20] = 200}, p[V];
    probabilities(z, V, p);
    FOR_EACH_ISA(isa) {
        double kld = kl_of_change(p, z, q, V);
        cr_expect(fabs(kld - (195 - log(40))) < 1e-3, "%g", kld); // 200 - log Σ p … - 200 / 40
        q[33] = NAN;
        cr_expect(isnan(kl_of_change(p, z, q, V)));
        q[33] = INFINITY;
        cr_expect_not(isfinite(kl_of_change(p, z, q, V)));
        q[33] = 0;
    }
}

Test(divergence, probabilities_sum_to_one) {
    enum { V = 4099 };
    float z[V], p[V], expected[V];
    struct random r = {4};
    for (size_t i = 0; i < V; i++)
        z[i] = 20 + 6 * (float)random_normal(&r);
    probabilities_ref(z, V, expected);
    FOR_EACH_ISA(isa) {
        double sum = 0;
        probabilities(z, V, p);
        for (size_t i = 0; i < V; i++) {
            cr_assert(fabsf(p[i] - expected[i]) <= 5e-6f * expected[i] + 1e-37f, "%zu: %g, %g", i,
                      (double)p[i], (double)expected[i]);
            sum += (double)p[i];
        }
        cr_expect(fabs(sum - 1) < 5e-6, "%.9g", sum);
    }
}

// Down to the smallest normal float, and 0 below; at the far end of what softmax meets.
Test(divergence, probabilities_far_below_the_largest) {
    enum { V = 40 };
    float z[V], p[V];
    for (size_t i = 0; i < V; i++)
        z[i] = i == 3 ? 0 : -86.9f - 0.05f * (float)i; // to -88.85
    z[7] = -INFINITY;
    FOR_EACH_ISA(isa) {
        memset(p, 0xff, sizeof p);
        probabilities(z, V, p);
        cr_expect_eq(p[3], 1.0f);
        for (size_t i = 0; i < V; i++) {
            double want = exp((double)z[i]);
            if (i == 7 || z[i] < -87.34f)
                cr_expect_eq(p[i], 0.0f, "%zu: %g", i, (double)p[i]);
            else
                cr_expect(fabs((double)p[i] - want) <= 5e-6 * want, "%zu: %g, %g", i, (double)p[i],
                          want);
        }
    }
}
