// quant/scale_search: scales that lose less than those the largest weights set.
#include <fenv.h>

#include "format_data.h"
#include "quant/scale_search.h"

static float *gaussian_new(size_t n, uint64_t seed) {
    float *w = memory_alloc(n, sizeof *w, "weights", NULL);
    struct random r = {seed};
    for (size_t i = 0; i < n; i++)
        w[i] = (float)(0.02 * random_normal(&r));
    return w;
}

// ŵ of one row; importance and search as in struct quant_hints.
static void round_trip(const struct quant_format *f, const float *w, size_t n, size_t k,
                       const float *importance, bool search, float *out) {
    struct quant_hints hints = {
        .absmax = quant_absmax(w, n * k), .search = search, .importance = importance};
    struct error err = {0};
    size_t bytes;
    cr_assert(f->bytes(f, n, k, &bytes));
    void *data = memory_alloc(bytes, 1, f->name, NULL);
    cr_assert(f->quantize(f, w, 0, n, n, k, &hints, data, &err), "%s: %s", f->name, err.message);
    for (size_t row = 0; row < n; row++)
        f->dequantize(f, data, n, k, row, 0, k, out + row * k);
    free(data);
}

static double weighted_error(const float *w, const float *out, const float *importance, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (importance ? (double)importance[i] : 1) * pow((double)w[i] - out[i], 2);
    return sum;
}

static bool can_search(const struct quant_format *f) {
    return f->block_weights == 0 && (f->span == SPAN_ROW || f->span == SPAN_GROUP);
}

Test(scale_search, the_lowest_code_is_used_by_a_scale_of_either_sign) {
    const struct quant_format *f = quant_format_find("int4-g16");
    float w[16], out[16];
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int i = 0; i < 16; i++)
            w[i] = (float)(sign * (i - 8));
        round_trip(f, w, 1, 16, NULL, false, out);
        cr_assert(nmse(w, out, 16) > 1e-4);
        round_trip(f, w, 1, 16, NULL, true, out);
        for (int i = 0; i < 16; i++)
            cr_assert_eq(out[i], w[i], "%g for %g", (double)out[i], (double)w[i]);
    }
}

Test(scale_search, a_weight_of_no_importance_sets_nothing) {
    const struct quant_format *f = quant_format_find("int2-g16-zp");
    float w[16], importance[16], out[16];
    for (int i = 0; i < 16; i++) {
        w[i] = 0.25f * (float)(i % 4 - 1);
        importance[i] = i < 15;
    }
    w[15] = 3;
    round_trip(f, w, 1, 16, NULL, true, out);
    cr_assert(weighted_error(w, out, importance, 16) > 0.1);
    round_trip(f, w, 1, 16, importance, true, out);
    cr_assert_arr_eq(out, w, 15 * sizeof *w);
}

Test(scale_search, no_group_loses_more_than_by_plain_rounding) {
    const size_t widths[] = {1, 2, 7, 16, 31, 33, 100, 256, 300, 1000};
    float plain[1000], searched[1000];
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        for (size_t s = 0; can_search(f) && s < sizeof widths / sizeof *widths; s++) {
            size_t k = widths[s], group = f->group ? f->group : k;
            float *w = weights_new(1, k, s + 40);
            round_trip(f, w, 1, k, NULL, false, plain);
            round_trip(f, w, 1, k, NULL, true, searched);
            for (size_t col = 0; col < k; col += group) {
                size_t len = size_min(group, k - col);
                double before = weighted_error(w + col, plain + col, NULL, len);
                double after = weighted_error(w + col, searched + col, NULL, len);
                cr_assert(after <= before * (1 + 1e-5) + 1e-12, "%s, %zu wide, column %zu: %g, %g",
                          f->name, k, col, before, after);
            }
            free(w);
        }
    }
}

// What is left of the mean squared error, on normal weights and on those with outliers.
Test(scale_search, the_error_shrinks_as_measured) {
    enum { N = 32, K = 1024 };
    static const struct {
        const char *name;
        double normal, outliers;
    } table[] = {
        {"int2-g64", 0.238, 0.355},     {"int3-g64", 0.500, 0.559},
        {"int4-g64", 0.698, 0.710},     {"int5-g64", 0.810, 0.827},
        {"int6-g64", 0.862, 0.908},     {"int8-g64", 0.912, 0.942},
        {"int2-g64-zp", 0.585, 0.666},  {"int3-g64-zp", 0.819, 0.839},
        {"int4-g64-zp", 0.915, 0.925},  {"int4-g128", 0.673, 0.660},
        {"int4-g128-zp", 0.890, 0.909}, {"int4", 0.542, 0.383},
    };
    float *normal = gaussian_new(N * K, 3), *outliers = weights_new(N, K, 3);
    float *before = gaussian_new(N * K, 1), *after = gaussian_new(N * K, 1);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct quant_format *f = quant_format_find(table[i].name);
        for (int kind = 0; kind < 2; kind++) {
            const float *w = kind ? outliers : normal;
            double expected = kind ? table[i].outliers : table[i].normal;
            round_trip(f, w, N, K, NULL, false, before);
            round_trip(f, w, N, K, NULL, true, after);
            double ratio = nmse(w, after, N * K) / nmse(w, before, N * K);
            cr_expect(fabs(ratio - expected) <= 0.005, "%s, %s: %.3f", f->name,
                      kind ? "outliers" : "normal", ratio);
        }
    }
    free(normal);
    free(outliers);
    free(before);
    free(after);
}

Test(scale_search, what_matters_more_is_kept_better) {
    enum { K = 128 };
    float w[K], importance[K], even[K], weighted[K];
    struct random r = {9};
    for (size_t i = 0; i < K; i++) {
        w[i] = (float)random_normal(&r);
        importance[i] = i < 16 ? 100 : 1;
    }
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        if (!can_search(f) || f->bits > 4 || (f->group && f->group < K))
            continue;
        round_trip(f, w, 1, K, NULL, true, even);
        round_trip(f, w, 1, K, importance, true, weighted);
        cr_assert(weighted_error(w, weighted, importance, K) <
                      weighted_error(w, even, importance, K),
                  "%s", f->name);
        cr_assert(weighted_error(w, weighted, NULL, 16) < weighted_error(w, even, NULL, 16), "%s",
                  f->name);
    }
}

// Importances that say nothing change nothing; broken ones do no harm.
Test(scale_search, useless_importances_leave_plain_rounding) {
    enum { K = 64 };
    const float useless[] = {0, NAN, INFINITY};
    float *w = weights_new(1, K, 10), importance[K], plain[K], out[K];
    const struct quant_format *f = quant_format_find("int3-g32-zp");
    round_trip(f, w, 1, K, NULL, false, plain);
    for (size_t u = 0; u < 3; u++) {
        for (size_t i = 0; i < K; i++)
            importance[i] = useless[u];
        round_trip(f, w, 1, K, importance, true, out);
        cr_assert(same_bits(out, plain, K), "%g", (double)useless[u]);
    }
    free(w);
}

Test(scale_search, every_instruction_set_finds_the_same) {
    enum { N = 8, K = 523 };
    float *w = weights_new(N, K, 15), *importance = gaussian_new(K, 16);
    float *first = gaussian_new(N * K, 1), *out = gaussian_new(N * K, 1);
    for (size_t i = 0; i < K; i++)
        importance[i] *= importance[i];
    for (size_t i = 0; quant_formats[i]; i++) {
        if (!can_search(quant_formats[i]))
            continue;
        for (int isa = 0; isa < ISA_COUNT && (int)kernels_isa_force((enum isa)isa) == isa; isa++) {
            round_trip(quant_formats[i], w, N, K, importance, true, isa ? out : first);
            cr_assert(!isa || same_bits(out, first, N * K), "%s, %s", quant_formats[i]->name,
                      kernels_isa_name((enum isa)isa));
        }
    }
    free(w);
    free(importance);
    free(first);
    free(out);
}

Test(scale_search, zeros_and_extremes_stay_finite) {
    const float sizes[] = {0,     0x1p-149f, 1e-42f, FLT_MIN, 1e-20f,
                           1e-7f, 3e-7f,     1e-4f,  60000,   1e36f};
    float w[40], out[40];
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        for (size_t s = 0; can_search(f) && s < sizeof sizes / sizeof *sizes; s++) {
            if (f->span == SPAN_GROUP && sizes[s] > 60000)
                continue; // no float16 is that large
            for (int j = 0; j < 40; j++)
                w[j] = sizes[s] * (float)(j - 20) / 20;
            feclearexcept(FE_ALL_EXCEPT);
            round_trip(f, w, 1, 40, NULL, true, out);
            cr_assert_eq(fetestexcept(FE_DIVBYZERO | FE_INVALID), 0, "%s: %g", f->name,
                         (double)sizes[s]);
            for (int j = 0; j < 40; j++)
                cr_assert(fabsf(out[j] - w[j]) <= sizes[s], "%s: %g for %g", f->name,
                          (double)out[j], (double)w[j]);
        }
    }
}
