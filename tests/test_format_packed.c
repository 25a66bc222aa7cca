// quant/format_packed: where the bits of two- to six-bit codes lie, and that everyone can read
// them.
#include "format_data.h"
#include "model/model.h"

// Code i of consecutive codes, bit by bit.
static int code_at(const uint8_t *bytes, size_t i, int bits) {
    int code = 0;
    for (int b = 0; b < bits; b++) {
        size_t at = i * (size_t)bits + (size_t)b;
        code |= (bytes[at / 8] >> at % 8 & 1) << b;
    }
    return code;
}

Test(format_packed, every_width_has_every_group_with_and_without_zero_points) {
    static const size_t groups[] = {0, 16, 32, 64, 128, 256};
    char name[64], label[64], of[32], rest[32];
    for (int bits = 2; bits <= 6; bits++)
        for (size_t i = 0; i < 12; i++) {
            size_t group = groups[i % 6];
            bool zero = i >= 6;
            snprintf(rest, sizeof rest, group ? "-g%zu" : "", group);
            snprintf(of, sizeof of, group ? "group %zu" : "per-channel", group);
            snprintf(name, sizeof name, "int%d%s%s", bits, rest, zero ? "-zp" : "");
            snprintf(label, sizeof label, "int%d %s%s", bits, of, zero ? " zero-point" : "");
            const struct quant_format *f = quant_format_find(name);
            cr_assert(f, "%s", name);
            cr_assert_eq(f, quant_format_find(label), "%s", label);
            cr_assert(f->bits == bits && f->group == group && f->zero_point == zero);
        }
}

Test(format_packed, no_two_formats_have_one_name) {
    for (size_t i = 0; quant_formats[i]; i++) {
        cr_assert_eq(quant_format_find(quant_formats[i]->name), quant_formats[i]);
        cr_assert_eq(quant_format_find(quant_formats[i]->label), quant_formats[i]);
    }
}

Test(format_packed, int3_codes_follow_each_other_from_the_lowest_bit) {
    float w[8] = {-3, -2, -1, 0, 1, 2, 3, -3}; // the scale is 1, the code w + 4
    uint8_t *data = quantize_new(&quant_int3_g32, w, 1, 8);
    cr_assert_eq(data[0], 1 | 2 << 3 | (3 & 3) << 6);
    cr_assert_eq(data[1], 3 >> 2 | 4 << 1 | 5 << 4 | (6 & 1) << 7);
    cr_assert_eq(data[2], 6 >> 1 | 7 << 2 | 1 << 5);
    free(data);
}

Test(format_packed, codes_of_all_widths_lie_where_the_header_says) {
    for (int bits = 2; bits <= 6; bits++) {
        char name[32];
        float w[37];
        int max = (1 << (bits - 1)) - 1;
        for (int i = 0; i < 37; i++)
            w[i] = (float)(i * 7 % (2 * max + 1) - max);
        w[0] = w[32] = (float)max;
        snprintf(name, sizeof name, "int%d-g32", bits);
        uint8_t *data = quantize_new(quant_format_find(name), w, 1, 37);
        for (size_t i = 0; bits != 4 && i < 37; i++)
            cr_assert_eq(code_at(data, i, bits), (int)w[i] + max + 1, "%s: code %zu", name, i);
        free(data);
    }
}

Test(format_packed, groups_of_16_halve_an_int4_block) {
    float w[32];
    for (int i = 0; i < 32; i++)
        w[i] = (float)(i % 15 - 7) * (i < 16 ? 1 : 2);
    w[31] = 14;
    uint8_t *data = quantize_new(&quant_int4_g16, w, 1, 32);
    for (int j = 0; j < 16; j++)
        cr_assert_eq(data[j], (j % 15 + 1) | (j == 15 ? 15 : (j + 16) % 15 + 1) << 4, "%d", j);
    cr_assert_eq(data[64] | data[65] << 8, 0x3c00); // 1.0 and 2.0 as float16s
    cr_assert_eq(data[66] | data[67] << 8, 0x4000);
    free(data);
}

Test(format_packed, zero_points_lie_like_codes) {
    float w[3 * 16] = {[0] = -7, [16] = 7, [32] = -4, [33] = 3};
    uint8_t *data = quantize_new(&quant_int3_g16_zp, w, 1, 48);
    const int expected[] = {7, 0, 4};
    for (size_t g = 0; g < 3; g++)
        cr_assert_eq(code_at(data + 128, g, 3), expected[g], "group %zu", g);
    free(data);
}

// What was in the bytes before does not shine through.
Test(format_packed, a_matrix_is_quantized_into_any_memory) {
    enum { N = 3 };
    float *w = weights_new(N, 512, 11);
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        size_t K = whole_blocks(f, 301);
        struct quant_hints hints = {.absmax = quant_absmax(w, N * K)};
        void *clean = quantize_new(f, w, N, K);
        size_t bytes;
        cr_assert(f->bytes(f, N, K, &bytes));
        void *dirty = memory_alloc(bytes, 1, f->name, NULL);
        memset(dirty, 0xff, bytes);
        cr_assert(f->quantize(f, w, 0, N, N, K, &hints, dirty, NULL));
        float *a = dequantize_new(f, clean, N, K), *b = dequantize_new(f, dirty, N, K);
        cr_assert(same_bits(a, b, N * K), "%s", f->name);
        free(a);
        free(b);
        free(clean);
        free(dirty);
    }
    free(w);
}

// One more bit divides the mean squared error by about four, a smaller group lowers it too.
Test(format_packed, more_bits_and_smaller_groups_lose_less) {
    enum { N = 32, K = 1024 };
    float *w = weights_new(N, K, 12);
    static const size_t groups[] = {16, 32, 64, 128, 256};
    for (int zero = 0; zero < 2; zero++) {
        double wider[5] = {0};
        for (int bits = 2; bits <= 6; bits++) {
            double before = 0;
            for (size_t g = 0; g < 5; g++) {
                char name[32];
                snprintf(name, sizeof name, "int%d-g%zu%s", bits, groups[g], zero ? "-zp" : "");
                const struct quant_format *f = quant_format_find(name);
                void *data = quantize_new(f, w, N, K);
                float *out = dequantize_new(f, data, N, K);
                double found = nmse(w, out, N * K);
                cr_assert(found > before && found < 1, "%s: %g", name, found);
                cr_assert(bits == 2 || found < 0.5 * wider[g], "%s: %g after %g", name, found,
                          wider[g]);
                wider[g] = before = found;
                free(data);
                free(out);
            }
        }
    }
    free(w);
}

// The matrix product reads every format through linear_forward.
Test(format_packed, linear_forward_multiplies_every_format) {
    enum { N = 9, M = 3 };
    float *w = weights_new(N, 512, 13), *x = weights_new(M, 512, 14), y[M * N];
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        size_t K = whole_blocks(f, 337);
        struct linear l = {.w = {.name = "w",
                                 .dtype = f->dtype,
                                 .format = f,
                                 .n_dims = 2,
                                 .shape = {N, K},
                                 .data = quantize_new(f, w, N, K)}};
        float *back = dequantize_new(f, l.w.data, N, K);
        cr_assert(linear_forward(y, &l, x, M, NULL));
        for (size_t m = 0; m < M; m++)
            for (size_t n = 0; n < N; n++) {
                double sum = 0, size = 0;
                for (size_t k = 0; k < K; k++) {
                    sum += (double)x[m * K + k] * back[n * K + k];
                    size += fabs((double)x[m * K + k] * back[n * K + k]);
                }
                cr_assert(fabs(y[m * N + n] - sum) <= 1e-6 * size, "%s: y[%zu, %zu]", f->name, m,
                          n);
            }
        free(back);
        free(l.w.data);
    }
    free(w);
    free(x);
}
