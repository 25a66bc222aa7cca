// quant/format_ggml_search: scales of less error than the reference's, the same on every CPU.
#include "format_data.h"

#define FOR_EACH_ISA(isa)                                                                          \
    for (int isa = 0; isa < ISA_COUNT && (int)kernels_isa_force((enum isa)isa) == isa; isa++)

static void *quantize_hinted(const struct quant_format *f, const float *w, size_t n, size_t k,
                             bool search, const float *importance) {
    size_t bytes;
    struct error err;
    struct quant_hints hints = {.search = search, .importance = importance};
    cr_assert(f->bytes(f, n, k, &bytes));
    void *data = memory_alloc(bytes, 1, f->name, NULL);
    cr_assert(f->quantize(f, w, 0, n, n, k, &hints, data, &err), "%s", err.message);
    return data;
}

static double nmse_of(const struct quant_format *f, const float *w, size_t n, size_t k,
                      bool search) {
    void *data = quantize_hinted(f, w, n, k, search, NULL);
    float *out = dequantize_new(f, data, n, k);
    double found = nmse(w, out, n * k);
    free(out);
    free(data);
    return found;
}

// What llama.cpp's quantizer (commit 0c1e57098, without importance) loses on the same weights, and
// what is lost here.
Test(format_ggml_search, weight_error_is_below_that_of_the_standard_tool) {
    enum { N = 256, K = 1024 };
    static const struct {
        const char *name;
        double reference, measured, searched;
    } table[] = {
        {"q8_0", 6.012e-05, 6.012e-05, 5.107e-05}, {"q4_0", 0.01494, 0.01494, 0.01392},
        {"q4_1", 0.008199, 0.008199, 0.006569},    {"q5_0", 0.003822, 0.003822, 0.003603},
        {"q5_1", 0.001905, 0.001905, 0.001529},    {"q2_k", 0.104, 0.07341, 0.0725},
        {"q3_k", 0.03165, 0.0294, 0.02938},        {"q4_k", 0.007037, 0.006733, 0.006613},
        {"q5_k", 0.001783, 0.001632, 0.001593},    {"q6_k", 0.0005495, 0.0005061, 0.0004958},
        {"iq4_nl", 0.009508, 0.008917, 0.008912},  {"iq4_xs", 0.009835, 0.009252, 0.009233},
        {"mxfp4", 0.01855, 0.01855, 0.01742},
    };
    float *w = weights_new(N, K, 2024);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct quant_format *f = quant_format_find(table[i].name);
        double quick = nmse_of(f, w, N, K, false), searched = nmse_of(f, w, N, K, true);
        cr_assert(quick <= 1.0005 * table[i].measured, "%s: %.4g", f->name, quick);
        cr_assert(quick <= 1.0005 * table[i].reference, "%s: %.4g", f->name, quick);
        cr_assert(searched <= 1.0005 * table[i].searched, "%s: %.4g", f->name, searched);
        cr_assert(searched < quick && searched < 0.96 * table[i].reference, "%s: %.4g", f->name,
                  searched);
        cr_assert(searched >= 0.98 * table[i].searched, "%s: %.4g is too good to be true", f->name,
                  searched);
    }
    free(w);
}

Test(format_ggml_search, every_cpu_writes_the_same_bytes) {
    enum { N = 2, K = 1792 }; // seven super-blocks: the last tile is half empty
    float *w = weights_new(N, K, 3), *importance = memory_alloc(K, sizeof *w, "importance", NULL);
    for (int i = 0; i < K; i++)
        importance[i] = (float)(i % 13);
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        size_t bytes;
        if (!f->block_weights)
            continue;
        cr_assert(f->bytes(f, N, K, &bytes));
        for (int how = 0; how < 4; how++) {
            const float *hint = how & 2 ? importance : NULL;
            kernels_isa_force(ISA_SCALAR);
            void *expected = quantize_hinted(f, w, N, K, how & 1, hint);
            FOR_EACH_ISA(isa) {
                void *data = quantize_hinted(f, w, N, K, how & 1, hint);
                cr_assert_arr_eq(data, expected, bytes, "%s, %s, hints %d", f->name,
                                 kernels_isa_name((enum isa)isa), how);
                free(data);
            }
            free(expected);
        }
    }
    free(importance);
    free(w);
}

// Without importance a block knows nothing of its neighbours, though 16 are searched side by side.
Test(format_ggml_search, a_block_is_the_same_wherever_it_stands) {
    enum { K = 256 * 5 };
    float *w = weights_new(1, K, 8);
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        if (!f->block_weights)
            continue;
        size_t blocks = K / f->block_weights;
        for (int search = 0; search < 2; search++) {
            uint8_t *row = quantize_hinted(f, w, 1, K, search, NULL);
            uint8_t *one_each = quantize_hinted(f, w, blocks, f->block_weights, search, NULL);
            cr_assert_arr_eq(row, one_each, blocks * f->block_bytes, "%s", f->name);
            free(row);
            free(one_each);
        }
    }
    free(w);
}

// Σ importance (w - ŵ)²
static double weighted_error(const struct quant_format *f, const float *w, size_t n, size_t k,
                             const float *hint, const float *importance) {
    void *data = quantize_hinted(f, w, n, k, true, hint);
    float *out = dequantize_new(f, data, n, k);
    double sum = 0;
    for (size_t i = 0; i < n * k; i++)
        sum += importance[i % k] * ((double)w[i] - out[i]) * ((double)w[i] - out[i]);
    free(out);
    free(data);
    return sum;
}

Test(format_ggml_search, importance_moves_the_error_to_where_it_matters_less) {
    enum { N = 32, K = 512 };
    float *w = weights_new(N, K, 21), importance[K];
    struct random r = {5};
    for (int i = 0; i < K; i++)
        importance[i] = 1000 * (float)exp(2 * random_normal(&r));
    importance[7] = 0;
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        if (!f->block_weights || f == &quant_nf4) // has no choice of scales
            continue;
        double with = weighted_error(f, w, N, K, importance, importance);
        double without = weighted_error(f, w, N, K, NULL, importance);
        cr_assert(with < 0.98 * without, "%s: %g with, %g without", f->name, with, without);
    }
    free(w);
}

// What calibration never saw is still fitted, among itself.
Test(format_ggml_search, columns_without_importance_are_not_given_up) {
    enum { N = 16, K = 512 };
    float *w = weights_new(N, K, 23), importance[K] = {0};
    for (int i = 256; i < K; i++)
        importance[i] = 1;
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        if (!f->block_weights)
            continue;
        void *plain = quantize_hinted(f, w, N, K, true, NULL);
        void *data = quantize_hinted(f, w, N, K, true, importance);
        float *expected = dequantize_new(f, plain, N, K), *out = dequantize_new(f, data, N, K);
        double bound = 0, found = 0;
        for (size_t row = 0; row < N; row++) {
            bound += nmse(w + row * K, expected + row * K, 256);
            found += nmse(w + row * K, out + row * K, 256);
        }
        cr_assert(found <= 1.01 * bound, "%s: %g, expected %g", f->name, found, bound);
        free(out);
        free(expected);
        free(data);
        free(plain);
    }
    free(w);
}

// Minima cannot be negative: weights of one sign are fitted by the scale alone, measured to lose so
// much.
Test(format_ggml_search, weights_above_zero_need_no_minimum) {
    enum { N = 64, K = 512 };
    static const struct {
        const char *name;
        double measured;
    } table[] = {{"q2_k", 0.01127}, {"q4_k", 0.0005749}, {"q5_k", 0.0001381}};
    float *w = memory_alloc(N * K, sizeof *w, "weights", NULL);
    struct random r = {4};
    for (int i = 0; i < N * K; i++)
        w[i] = 0.02f + 0.004f * (float)random_normal(&r);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        double found = nmse_of(quant_format_find(table[i].name), w, N, K, false);
        cr_assert(found <= 1.0005 * table[i].measured, "%s: %.4g", table[i].name, found);
    }
    free(w);
}

Test(format_ggml_search, importance_that_is_no_number_does_no_harm) {
    enum { K = 512 };
    float *w = weights_new(1, K, 22), importance[K], out[K];
    const float strange[] = {NAN, INFINITY, -1, 0, FLT_MAX, 0x1p-149f};
    for (size_t s = 0; s < sizeof strange / sizeof *strange; s++) {
        for (int all = 0; all < 2; all++) {
            for (int i = 0; i < K; i++)
                importance[i] = all || i % 3 == 0 ? strange[s] : (float)(i % 7);
            for (size_t i = 0; quant_formats[i]; i++) {
                const struct quant_format *f = quant_formats[i];
                if (!f->block_weights)
                    continue;
                void *data = quantize_hinted(f, w, 1, K, true, importance);
                f->dequantize_ref(f, data, 1, K, 0, 0, K, out);
                // Two bits with nearly all of the weight on a few columns lose about half.
                cr_assert(nmse(w, out, K) <= 0.5, "%s: %g", f->name, nmse(w, out, K));
                free(data);
            }
        }
    }
    free(w);
}

Test(format_ggml_search, all_alike_is_kept_exactly_or_nearly) {
    float w[256], out[256];
    const float values[] = {0.25f, -0.25f, 3e-5f, -6e4f};
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        for (int i = 0; i < 256; i++)
            w[i] = values[v];
        for (size_t i = 0; quant_formats[i]; i++) {
            const struct quant_format *f = quant_formats[i];
            if (!f->block_weights)
                continue;
            for (int search = 0; search < 2; search++) {
                void *data = quantize_hinted(f, w, 1, 256, search, NULL);
                f->dequantize_ref(f, data, 1, 256, 0, 0, 256, out);
                double bound = values[v] == 3e-5f ? 0.25 : f == &quant_mxfp4 ? 0.2 : 0.005;
                for (int j = 0; j < 256; j++)
                    cr_assert(fabs((double)out[j] / values[v] - 1) <= bound, "%s: %g for %g",
                              f->name, (double)out[j], (double)values[v]);
                free(data);
            }
        }
    }
}
