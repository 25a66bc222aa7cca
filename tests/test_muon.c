// train/muon.h: every singular value becomes about 1, whatever the shape.
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "tests/compare.h"
#include "train/muon.h"

// Singular values spread over three decades, as gradients have them.
static void fill(float *x, size_t rows, size_t columns) {
    struct random r = {rows * 100 + columns};
    for (size_t i = 0; i < rows * columns; i++)
        x[i] =
            (float)(random_normal(&r) * pow(10.0, -3.0 * (double)(i % columns) / (double)columns));
}

static void check(size_t rows, size_t columns, bool bf16) {
    size_t n = rows * columns, space = muon_space(rows, columns);
    float *x = malloc(n * sizeof *x), *scratch = malloc(space * sizeof *scratch);
    double *want = malloc(n * sizeof *want);
    double *wide = malloc((2 * rows * rows + n) * sizeof *wide);
    float *expected = malloc(n * sizeof *expected);
    fill(x, rows, columns);
    for (size_t i = 0; i < n; i++)
        want[i] = x[i];
    muon_orthogonalize(x, rows, columns, bf16, scratch);
    muon_orthogonalize_ref(want, rows, columns, wide);
    for (size_t i = 0; i < n; i++)
        expected[i] = (float)want[i];
    double error = rel_l2(x, expected, n);
    cr_assert(error <= (bf16 ? 5e-2 : 1e-3), "%zu x %zu: %g", rows, columns, error);
    free(x), free(scratch), free(want), free(wide), free(expected);
}

Test(muon, equals_the_reference_in_every_shape) {
    for (int bf16 = 0; bf16 < 2; bf16++) {
        check(24, 40, bf16);
        check(40, 24, bf16);
        check(7, 7, bf16);
        check(1, 33, bf16);
        check(65, 16, bf16);
    }
}

// Rows of an orthogonal matrix have length 1 and right angles; five steps come this near.
Test(muon, small_directions_count_as_much_as_large_ones) {
    enum { ROWS = 16, COLUMNS = 48 };
    float x[ROWS * COLUMNS] = {0}, *space = malloc(muon_space(ROWS, COLUMNS) * sizeof *space);
    for (size_t i = 0; i < ROWS; i++) // 1 to 1/16
        x[i * COLUMNS + i] = 1.0f / (float)(i + 1);
    muon_orthogonalize(x, ROWS, COLUMNS, false, space);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < COLUMNS; j++) {
            double v = x[i * COLUMNS + j];
            cr_assert(i == j ? v > 0.6 && v < 1.3 : fabs(v) < 1e-6, "row %zu: %g", i, v);
        }
    free(space);
}

Test(muon, first_step_by_hand) {
    // One row: its direction is g / |g|, times about 1; the step is 0.2 sqrt(2) of the rate.
    float w[2] = {1.0f, -2.0f}, g[2] = {0.3f, -0.4f}, m[2] = {0};
    float *space = malloc(muon_space(1, 2) * sizeof *space);
    const struct muon muon = {.lr = 0.1, .momentum = 0.9, .decay = 0.5, .gradient_scale = 2};
    muon_update(w, g, m, 1, 2, &muon, space);
    cr_assert_float_eq(m[0], 0.6f, 1e-6);
    cr_assert_float_eq(m[1], -0.8f, 1e-6);
    double step = 0.95 - w[0], other = w[1] + 1.9, unit = 0.1 * 0.2 * sqrt(2);
    cr_assert(step > 0.6 * 0.6 * unit && step < 0.6 * 1.3 * unit, "%g", step);
    cr_assert_float_eq(other / step, 4.0 / 3.0, 1e-4);
    free(space);
}

Test(muon, nothing_to_follow_is_no_step) {
    float w[6] = {1, 2, 3, 4, 5, 6}, g[6] = {0}, m[6] = {0};
    float *space = malloc(muon_space(2, 3) * sizeof *space);
    const struct muon muon = {.lr = 0.1, .momentum = 0.9, .decay = 0, .gradient_scale = 1};
    muon_update(w, g, m, 2, 3, &muon, space);
    for (int i = 0; i < 6; i++)
        cr_assert_eq(w[i], (float)(i + 1));
    free(space);
}
