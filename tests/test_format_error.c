// quant/format: what every weight format promises on data shaped like a layer with outliers.
#include "format_data.h"

// |w - ŵ| <= scale / 2: the definition of rounding. For zero points the float16 scale may be
// smaller than (max - min) / (2^bits - 1) by 2^-11, which moves the ends of the range out by up to
// (2^bits - 1) * 2^-11 scales.
static void check_error_bound(const struct quant_format *f, const float *w, const void *data,
                              size_t n, size_t k) {
    struct quant_planes p;
    cr_assert(quant_planes(f, n, k, &p));
    float *out = dequantize_new(f, data, n, k);
    for (size_t i = 0; i < n * k; i++) {
        size_t g = f->span == SPAN_TENSOR ? 0 : i / k * p.groups + i % k / p.group;
        float scale = scale_load((const char *)data + p.scales, p.scale_bytes, g);
        double bound = scale * (0.5 + (f->zero_point ? ldexp(1, f->bits - 11) : 0) + 1e-5);
        cr_assert(fabs((double)w[i] - out[i]) <= bound, "%s [%zu, %zu]: weight %zu: %g became %g",
                  f->name, n, k, i, (double)w[i], (double)out[i]);
    }
    free(out);
}

// Blocks have scales of scales: how far they may be off is tested with them.
static bool has_planes(const struct quant_format *f) {
    return f->span != SPAN_NONE && f->block_weights == 0;
}

Test(format_error, every_weight_is_within_half_a_step) {
    const size_t shapes[][2] = {{1, 1},   {5, 2},   {3, 31},  {3, 33},   {2, 64},
                                {4, 127}, {3, 300}, {2, 513}, {16, 1024}};
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        for (size_t s = 0; has_planes(f) && s < sizeof shapes / sizeof *shapes; s++) {
            size_t n = shapes[s][0], k = shapes[s][1];
            float *w = weights_new(n, k, s + 1);
            void *data = quantize_new(f, w, n, k);
            check_error_bound(f, w, data, n, k);
            free(data);
            free(w);
        }
    }
}

// Reads the last row in the pieces a matrix product would, and in odd ones.
static void check_against_ref(const struct quant_format *f, format_dequantize *fast,
                              const void *data, size_t n, size_t k) {
    float expected[2048], out[2048 + 1];
    for (size_t col = 0; col < k; col += 256) {
        size_t counts[] = {k - col, size_min(k - col, 512), (k - col + 1) / 2, 1, 0};
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            size_t count = counts[c];
            out[count] = 12345;
            f->dequantize_ref(f, data, n, k, n - 1, col, count, expected);
            fast(f, data, n, k, n - 1, col, count, out);
            cr_assert(same_bits(out, expected, count), "%s [%zu, %zu]: columns %zu + %zu", f->name,
                      n, k, col, count);
            cr_assert_eq(out[count], 12345);
        }
    }
}

// The instruction sets of this CPU, one after the other; the last one stays in force.
#define FOR_EACH_ISA(isa)                                                                          \
    for (int isa = 0; isa < ISA_COUNT && (int)kernels_isa_force((enum isa)isa) == isa; isa++)

Test(format_error, dequantize_equals_the_reference_bit_for_bit) {
    const size_t widths[] = {1, 2, 3, 31, 32, 33, 63, 255, 256, 257, 300, 512, 1000, 1024, 1999};
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        for (size_t s = 0; s < sizeof widths / sizeof *widths; s++) {
            size_t k = whole_blocks(f, widths[s]);
            float *w = weights_new(3, k, s + 1);
            void *data = quantize_new(f, w, 3, k);
            FOR_EACH_ISA(isa)
            check_against_ref(f, f->dequantize, data, 3, k);
            free(data);
            free(w);
        }
    }
}

Test(format_error, every_float16_is_widened_like_the_reference) {
    uint16_t h[65536];
    float *expected = memory_alloc(65536, sizeof *expected, "floats", NULL);
    float *out = memory_alloc(65536, sizeof *out, "floats", NULL);
    for (uint32_t i = 0; i < 65536; i++)
        h[i] = (uint16_t)i;
    quant_f16.dequantize_ref(&quant_f16, h, 1, 65536, 0, 0, 65536, expected);
    FOR_EACH_ISA(isa) {
        quant_f16.dequantize(&quant_f16, h, 1, 65536, 0, 0, 65536, out);
        for (size_t i = 0; i < 65536; i++) // the CPU makes signalling NaNs quiet
            cr_assert(isnan(expected[i]) ? isnan(out[i]) : same_bits(&out[i], &expected[i], 1),
                      "%04zx", i);
    }
    free(expected);
    free(out);
}

Test(format_error, rows_may_be_quantized_in_any_order) {
    enum { N = 37, MOST = 512 };
    float *w = weights_new(N, MOST, 5);
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        size_t bytes, k = whole_blocks(f, 300);
        void *whole = quantize_new(f, w, N, k);
        cr_assert(f->bytes(f, N, k, &bytes));
        void *parts = memory_alloc(bytes, 1, f->name, NULL);
        float absmax = quant_absmax(w, N * k);
        for (size_t end = N; end > 0; end -= size_min(end, 5)) {
            size_t row = end - size_min(end, 5);
            cr_assert(f->quantize(f, w + row * k, row, end - row, N, k,
                                  &(struct quant_hints){.absmax = absmax}, parts, NULL));
        }
        cr_assert_arr_eq(whole, parts, bytes, "%s", f->name);
        free(whole);
        free(parts);
    }
    free(w);
}

// The most a format may lose on weights with outliers; measured on the same data.
Test(format_error, nmse_stays_below_its_threshold) {
    enum { N = 256, K = 1024 };
    static const struct {
        const char *name;
        double threshold, measured;
    } table[] = {
        {"f32", 0, 0},
        {"f16", 5e-8, 4.29e-8},
        {"bf16", 3e-6, 2.75e-6},
        {"int8-tensor", 5.4e-3, 4.95e-3},
        {"int8", 8.2e-4, 7.46e-4},
        {"int8-g32", 6.6e-5, 6.01e-5},
        {"int8-g64", 1.14e-4, 1.04e-4},
        {"int8-g128", 2.05e-4, 1.86e-4},
        {"int4", 0.25, 0.224}, // the collapse that groups are there for
        {"int4-g32", 0.021, 0.0191},
        {"int4-g64", 0.036, 0.0329},
        {"int4-g128", 0.064, 0.0583},
        {"int4-g256", 0.11, 0.0999},
        {"int4-zp", 0.14, 0.125},
        {"int4-g32-zp", 0.0096, 0.00868},
        {"int4-g64-zp", 0.0153, 0.0139},
        {"int4-g128-zp", 0.0253, 0.023},
        {"int4-g256-zp", 0.0443, 0.0403},
    };
    float *w = weights_new(N, K, 2024);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct quant_format *f = quant_format_find(table[i].name);
        void *data = quantize_new(f, w, N, K);
        float *out = dequantize_new(f, data, N, K);
        double found = nmse(w, out, N * K);
        cr_assert(found <= table[i].threshold, "%s: %.3g", f->name, found);
        cr_assert(found >= 0.9 * table[i].measured, "%s: %.3g, too good to be true", f->name,
                  found);
        free(out);
        free(data);
    }
    free(w);
}

// Qwen2.5-0.5B's down_proj: 4.4 million weights.
Test(format_error, a_real_layer_fits_and_comes_back) {
    enum { N = 896, K = 4864 };
    float *w = weights_new(N, K, 3), out[512];
    const struct quant_format *f = quant_format_find("int4-g128");
    void *data = quantize_new(f, w, N, K);
    double worst = 0;
    for (size_t row = 0; row < N; row += 127) {
        f->dequantize(f, data, N, K, row, 4352, 512, out);
        worst = fmax(worst, nmse(w + row * K + 4352, out, 512));
    }
    cr_assert(worst > 0 && worst <= 0.1, "%g", worst);
    free(data);
    free(w);
}
