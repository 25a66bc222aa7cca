// eval/sensitivity's parts: rank correlation, statistics, and estimates between anchors.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "eval/activations.h"
#include "eval/sensitivity_part.h"

static bool near(double a, double b, double tolerance) {
    return isfinite(a) && isfinite(b) && fabs(a - b) <= tolerance * fabs(b);
}

Test(sensitivity_parts, rank_correlation_by_hand) {
    struct error err = {0};
    double rho;
    // Ranks 1 2 3 4 5 against 2 1 4 3 5: 1 - 6·(1+1+1+1+0) / (5·24) = 0.8
    cr_assert(
        spearman((double[]){1, 2, 3, 4, 5}, (double[]){20, 10, 4000, 30, 1e9}, 5, &rho, &err));
    cr_expect_float_eq(rho, 0.8, 1e-15);
    // Ties share ranks: 1.5 1.5 3 against 1 2 3 is 1.5 / √(1.5 · 2).
    cr_assert(spearman((double[]){7, 7, 9}, (double[]){1, 2, 3}, 3, &rho, &err));
    cr_expect_float_eq(rho, 1.5 / sqrt(3), 1e-15);
    cr_assert(spearman((double[]){1, 2}, (double[]){5, 4}, 2, &rho, &err));
    cr_expect_float_eq(rho, -1, 1e-15);
    cr_assert(spearman((double[]){1}, (double[]){5}, 1, &rho, &err) && isnan(rho));
    cr_assert(spearman((double[]){3, 3}, (double[]){5, 6}, 2, &rho, &err) && isnan(rho));
}

Test(sensitivity_parts, kurtosis_by_hand) {
    struct moments m = {0};
    moments_add(&m, (float[]){1, -1, 1}, 3); // in two parts
    moments_add(&m, (float[]){-1}, 1);
    cr_expect_float_eq(moments_kurtosis(&m), 1, 1e-15);
    struct moments outlier = {0}; // 0 × 9, 10: mean 1, variance 9, fourth (9 + 6561) / 10
    moments_add(&outlier, (float[]){0, 0, 0, 0, 10, 0, 0, 0, 0, 0}, 10);
    cr_expect_float_eq(moments_kurtosis(&outlier), 657.0 / 81, 1e-12);
    struct moments same = {0};
    moments_add(&same, (float[]){3, 3, 3}, 3);
    cr_expect(isnan(moments_kurtosis(&same)));
    struct random r = {3};
    struct moments normal = {0};
    for (size_t i = 0; i < 100000; i++)
        moments_add(&normal, &(float){5 + (float)random_normal(&r)}, 1);
    cr_expect_float_eq(moments_kurtosis(&normal), 3, 0.06);
}

Test(sensitivity_parts, outlier_channels_by_hand) {
    // Largest of the columns: 1 2 3 30 18.
    float x[2 * 5] = {1, -2, 0, 30, 2, -1, 0, 3, 0, -18};
    struct activation_stats stats;
    struct error err = {0};
    cr_assert(activation_stats(x, 2, 5, &stats, &err));
    cr_expect_float_eq(stats.outlier_ratio, 10, 1e-12);
    cr_expect_eq(stats.outliers, 2); // 30 / 3 and 18 / 3
    cr_expect_eq(stats.worst, 3);
    float dead[4] = {0};
    cr_assert(activation_stats(dead, 1, 4, &stats, &err));
    cr_expect(isnan(stats.outlier_ratio) && stats.outliers == 0);
}

static struct sensitivity_cell cell(double nmse, double kld) {
    return (struct sensitivity_cell){.bytes = 1, .output_nmse = nmse, .kld_measured = kld};
}

Test(sensitivity_parts, anchors_span_the_errors) {
    struct sensitivity_cell c[] = {cell(1e-2, 0), cell(1e-5, 0), cell(2e-3, 0),
                                   cell(1e-5, 0), cell(1, 0),    cell(NAN, 0)};
    c[4].bytes = 0; // cannot hold the tensor
    bool chosen[6];
    sensitivity_choose_anchors(c, 6, 3, chosen);
    cr_expect(chosen[0] && chosen[1] && chosen[2], "both ends and what lies between");
    cr_expect_not(chosen[3] || chosen[4] || chosen[5], "equal to another, unusable, no number");
    sensitivity_choose_anchors(c, 6, 2, chosen);
    cr_expect(chosen[0] && chosen[1] && !chosen[2]);
    sensitivity_choose_anchors(c, 6, 1, chosen); // of four, the third
    cr_expect(!chosen[0] && !chosen[1] && chosen[2] && !chosen[3]);
    sensitivity_choose_anchors(c + 4, 2, 3, chosen);
    cr_expect_not(chosen[0] || chosen[1]);
}

Test(sensitivity_parts, estimates_lie_on_lines_of_logarithms) {
    // From (1e-4, 1e-6) to (1e-2, 1e-2): slope 2, so (1e-3, 1e-4) lies between.
    struct sensitivity_cell c[] = {cell(1e-4, 1e-6), cell(1e-3, NAN), cell(1e-2, 1e-2),
                                   cell(4e-2, NAN),  cell(5e-5, NAN), cell(0, NAN)};
    bool anchors[6] = {true, false, true};
    sensitivity_estimate(c, 6, anchors);
    cr_expect(isnan(c[0].kld_estimated) && isnan(c[2].kld_estimated));
    cr_expect(near(c[1].kld_estimated, 1e-4, 1e-12), "%g", c[1].kld_estimated);
    cr_expect(near(c[3].kld_estimated, 4e-2, 1e-12), "beyond: slope 1");
    cr_expect(near(c[4].kld_estimated, 5e-7, 1e-12), "below: slope 1");
    cr_expect_eq(c[5].kld_estimated, 0, "no error, no damage");
    c[2].kld_measured = INFINITY; // a ruined model says nothing about others
    sensitivity_estimate(c, 6, anchors);
    cr_expect(near(c[1].kld_estimated, 1e-5, 1e-12));
}
