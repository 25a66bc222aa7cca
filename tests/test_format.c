// quant/format: the table, sizes, bytes and edge cases of every weight format.
#include <fenv.h>
#include <float.h>

#include "format_data.h"

// ŵ for a few weights of one row. Nothing may be divided by 0 or be NaN on the way.
static void round_trip(const char *name, const float *w, size_t k, float *out) {
    const struct quant_format *f = quant_format_find(name);
    feclearexcept(FE_ALL_EXCEPT);
    void *data = quantize_new(f, w, 1, k);
    f->dequantize_ref(f, data, 1, k, 0, 0, k, out);
    cr_assert_eq(fetestexcept(FE_DIVBYZERO | FE_INVALID), 0, "%s", name);
    free(data);
}

// The message of a quantization of an [n, k] matrix that must fail.
static const char *failure(const char *name, const float *w, size_t n, size_t k, float absmax) {
    static struct error err;
    const struct quant_format *f = quant_format_find(name);
    size_t bytes;
    cr_assert(f->bytes(f, n, k, &bytes));
    void *data = memory_alloc(bytes, 1, f->name, NULL);
    cr_assert_not(
        f->quantize(f, w, 0, n, n, k, &(struct quant_hints){.absmax = absmax}, data, &err), "%s",
        name);
    free(data);
    return err.message;
}

Test(format, the_table_has_the_names_that_users_type) {
    const char *names[][2] = {
        {"f32", "fp32"},
        {"f16", "fp16"},
        {"bf16", "bf16"},
        {"int8-tensor", "int8 per-tensor"},
        {"int8", "int8 per-channel"},
        {"int8-g32", "int8 group 32"},
        {"int8-g64", "int8 group 64"},
        {"int8-g128", "int8 group 128"},
        {"int8-g32-zp", "int8 group 32 zero-point"},
        {"int8-g64-zp", "int8 group 64 zero-point"},
        {"int8-g128-zp", "int8 group 128 zero-point"},
        {"int6", "int6 per-channel"},
        {"int6-g16", "int6 group 16"},
    };
    size_t count = sizeof names / sizeof *names;
    for (size_t i = 0; i < count; i++) {
        cr_assert_str_eq(quant_formats[i]->name, names[i][0]);
        cr_assert_str_eq(quant_formats[i]->label, names[i][1]);
        cr_assert_eq(quant_format_find(names[i][0]), quant_formats[i]);
        cr_assert_eq(quant_format_find(names[i][1]), quant_formats[i]);
    }
    cr_assert_null(quant_format_find("INT4"));
    cr_assert_null(quant_format_find(""));
    cr_assert_str_eq(quant_format_of_dtype(DTYPE_BF16)->name, "bf16");
    cr_assert_null(quant_format_of_dtype(DTYPE_BLOCK));
    cr_assert_null(quant_format_of_dtype(DTYPE_I8));
}

Test(format, sizes_are_codes_scales_and_zero_points) {
    const struct {
        const char *name;
        size_t bytes; // of [3, 300]; a plane starts at a multiple of 64
    } sizes[] = {
        {"f32", 3600},
        {"f16", 1800},
        {"int8-tensor", 960 + 4},
        {"int8", 960 + 3 * 4},
        {"int8-g128", 960 + 3 * 3 * 2},
        {"int4", 512 + 3 * 4},
        {"int4-zp", 512 + 64 + 3 * 1},
        {"int4-g128", 512 + 3 * 3 * 2},
        {"int4-g128-zp", 512 + 64 + 3 * 2}, // three zero points take two bytes
        {"int3-g128", 384 + 3 * 3 * 2},     // 300 codes take 113 bytes
        {"int3-g128-zp", 384 + 64 + 3 * 2}, // three zero points of three bits too
        {"int6-g16", 704 + 3 * 19 * 2},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const struct quant_format *f = quant_format_find(sizes[i].name);
        size_t bytes;
        cr_assert(f->bytes(f, 3, 300, &bytes));
        cr_assert_eq(bytes, sizes[i].bytes, "%s: %zu", f->name, bytes);
    }
}

Test(format, bits_per_weight_counts_everything) {
    const struct {
        const char *name;
        double bits; // of [2048, 2048]
    } expected[] = {
        {"bf16", 16},
        {"int8", 8 + 32.0 / 2048},
        {"int8-g128", 8 + 16.0 / 128},
        {"int4", 4 + 32.0 / 2048},
        {"int4-g128", 4 + 16.0 / 128},
        {"int4-g32-zp", 4 + 20.0 / 32},
        {"int4-zp", 4 + (32.0 + 8) / 2048}, // half of each row's byte is unused
        {"int2-g16-zp", 2 + 18.0 / 16},
        {"int3-g64", 3 + 16.0 / 64},
        {"int5-g256-zp", 5 + 21.0 / 256},
        {"int8-g128-zp", 8 + 24.0 / 128},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        double bits;
        cr_assert(quant_bits_per_weight(quant_format_find(expected[i].name), 2048, 2048, &bits));
        cr_assert_eq(bits, expected[i].bits, "%s: %f", expected[i].name, bits);
    }
    double none;
    cr_assert_not(quant_bits_per_weight(&quant_int4, 0, 128, &none));
}

Test(format, sizes_do_not_wrap) {
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        size_t bytes = 7;
        double bits;
        struct error err = {0};
        cr_assert_not(f->bytes(f, SIZE_MAX / 2, 5, &bytes), "%s", f->name);
        cr_assert_not(f->bytes(f, SIZE_MAX - 3, 1, &bytes), "%s", f->name);
        cr_assert_not(f->bytes(f, 1, SIZE_MAX, &bytes), "%s", f->name);
        cr_assert_eq(bytes, 7);
        cr_assert_not(quant_bits_per_weight(f, SIZE_MAX / 2, 5, &bits));
        cr_assert_not(
            f->quantize(f, NULL, 0, 0, SIZE_MAX / 2, 5, &(struct quant_hints){0}, NULL, &err), "%s",
            f->name);
    }
}

Test(format, int8_codes_are_absmax) {
    float w[4] = {-0.8f, 0.1f, 0.42f, 1.27f}, scale;
    int8_t *data = quantize_new(&quant_int8, w, 1, 4);
    int8_t expected[4] = {-80, 10, 42, 127};
    cr_assert_arr_eq(data, expected, 4);
    memcpy(&scale, data + 64, sizeof scale);
    cr_assert_eq(scale, 1.27f / 127);
    free(data);
}

Test(format, one_scale_for_the_tensor_is_that_of_its_largest_row) {
    float w[4] = {1, 0.5f, 127, -63.5f};
    int8_t *data = quantize_new(&quant_int8_tensor, w, 2, 2);
    int8_t expected[4] = {1, 0, 127, -64}; // ties to even
    cr_assert_arr_eq(data, expected, 4);
    free(data);
}

Test(format, int4_puts_weight_j_below_weight_j_plus_16) {
    float w[32];
    uint8_t expected[16];
    for (int i = 0; i < 32; i++)
        w[i] = (float)(i % 15 - 7); // -7 … 7: the scale is 1, the code w + 8
    for (int j = 0; j < 16; j++)
        expected[j] = (uint8_t)((j % 15 + 1) | ((j + 16) % 15 + 1) << 4);
    uint8_t *data = quantize_new(&quant_int4_g32, w, 1, 32);
    cr_assert_arr_eq(data, expected, 16);
    cr_assert_eq(data[64] | data[65] << 8, 0x3c00); // 1.0 as a float16
    free(data);
}

Test(format, int4_short_blocks_split_in_the_middle) {
    float w[5] = {-7, -1, 0, 3, 7};
    uint8_t *data = quantize_new(&quant_int4, w, 1, 5);
    cr_assert_eq(data[0], 1 | 11 << 4);
    cr_assert_eq(data[1], 7 | 15 << 4);
    cr_assert_eq(data[2], 8); // five weights: the last half byte is nobody's
    free(data);
}

Test(format, int4_zero_point_spends_its_codes_on_what_is_there) {
    float w[4] = {-0.5f, 0, 1, 7}, out[4];
    uint8_t *data = quantize_new(&quant_int4_g32_zp, w, 1, 4);
    cr_assert_eq(data[0], 0 | 3 << 4); // scale 7.5 / 15, zero 1
    cr_assert_eq(data[1], 1 | 15 << 4);
    cr_assert_eq(data[128], 1);
    round_trip("int4-g32-zp", w, 4, out);
    cr_assert_arr_eq(out, w, sizeof w);
    free(data);
}

Test(format, int4_zero_points_of_two_groups_share_a_byte) {
    float w[96] = {[0] = -15, [32] = 15, [64] = -5, [65] = 10};
    uint8_t *data = quantize_new(&quant_int4_g32_zp, w, 1, 96);
    cr_assert_eq(data[128], 15 | 0 << 4);
    cr_assert_eq(data[129], 5);
    free(data);
}

Test(format, int4_positive_groups_keep_zero_in_range) {
    float w[3] = {5, 5, 4.9f}, out[3];
    round_trip("int4-zp", w, 3, out);
    cr_assert_float_eq(out[0], 5, 1e-6);
    cr_assert_float_eq(out[2], 5, 1e-6);
}

Test(format, a_group_of_zeros_comes_back_as_zeros) {
    float zeros[512] = {0}, out[512];
    zeros[7] = zeros[290] = -0.0f;
    for (size_t i = 0; quant_formats[i]; i++) {
        size_t k = whole_blocks(quant_formats[i], 300);
        memset(out, 0xff, sizeof out);
        round_trip(quant_formats[i]->name, zeros, k, out);
        for (size_t j = 0; j < k; j++)
            cr_assert_eq(out[j], 0, "%s: %g", quant_formats[i]->name, (double)out[j]);
    }
}

Test(format, a_huge_outlier_hurts_its_group_only) {
    float w[256], out[256];
    for (int i = 0; i < 256; i++)
        w[i] = 0.01f * (float)(i % 15 - 7);
    w[200] = 1000;
    round_trip("int4", w, 256, out);
    for (int i = 0; i < 256; i++)
        cr_assert_eq(out[i], i == 200 ? 1000.0f / 7 * 7 : 0);
    round_trip("int4-g128", w, 256, out);
    cr_assert_lt(nmse(w, out, 128), 1e-3);
    cr_assert_float_eq(out[200], 1000, 0.5);
    cr_assert_eq(out[201], 0);
}

Test(format, the_largest_magnitude_may_be_negative) {
    float w[2] = {-1.27f, 0.635f}, out[2];
    round_trip("int8", w, 2, out);
    cr_assert_eq(out[0], -1.27f / 127 * 127);
    round_trip("int4-g32", w, 2, out);
    cr_assert_float_eq(out[0], -1.27f, 1e-3);
    round_trip("int4-g32-zp", w, 2, out);
    cr_assert_float_eq(out[0], -1.27f, 1e-3);
}

Test(format, ties_go_to_the_even_code) {
    float w[8] = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 0.49999997f}, out[8];
    float expected[8] = {127, 0, 2, 2, 0, -2, -2, 0};
    round_trip("int8", w, 8, out);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(out[i], expected[i], "%d: %g", i, (double)out[i]);
}

// Scales that underflow, in float16 or even in float32, lose precision but no more than that.
Test(format, tiny_weights_stay_finite_and_small) {
    const float sizes[] = {1e-4f, 1e-6f, 3e-7f, 1e-7f, 1e-8f, 1e-20f, FLT_MIN, 1e-42f, 0x1p-149f};
    for (size_t i = 0; quant_formats[i]; i++) {
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            float w[256] = {0}, out[256];
            for (int j = 0; j < 40; j++)
                w[j] = sizes[s] * (float)(j - 20) / 20;
            size_t k = whole_blocks(quant_formats[i], 40);
            round_trip(quant_formats[i]->name, w, k, out);
            // Codes made with a scale that is rounded to a multiple of 2^-24 later.
            float more = whole_blocks(quant_formats[i], 1) == 32 ? 31 * 0x1p-25f : 0;
            for (size_t j = 0; j < k; j++)
                cr_assert(fabsf(out[j] - w[j]) <= sizes[s] + more, "%s: %g for %g",
                          quant_formats[i]->name, (double)out[j], (double)w[j]);
        }
    }
}

Test(format, the_largest_floats_do_not_overflow_on_the_way) {
    float w[2] = {1.8e37f, -1.8e37f}, out[2], large = FLT_MAX;
    const char *names[] = {"f32", "int8-tensor", "int8", "int4", "int4-zp"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        round_trip(names[i], w, 2, out);
        cr_assert(fabsf(out[0] - w[0]) < 2e36f && fabsf(out[1] - w[1]) < 2e36f, "%s", names[i]);
    }
    cr_assert_str_eq(failure("int8", &large, 1, 1, 1),
                     "row 0, columns 0 to 0: scale is 2.67939e+36, expected at most 2.65846e+36");
}

Test(format, nan_and_infinity_are_named_with_row_and_column) {
    float w[2 * 512] = {0};
    for (size_t i = 0; quant_formats[i]; i++) {
        const char *name = quant_formats[i]->name;
        size_t k = whole_blocks(quant_formats[i], 300);
        w[k + 290] = NAN;
        cr_assert_str_eq(failure(name, w, 2, k, 1),
                         "row 1, column 290: weight is nan, expected a finite number");
        w[k + 290] = -NAN;
        w[7] = -INFINITY;
        cr_assert_str_eq(failure(name, w, 2, k, 1),
                         "row 0, column 7: weight is -inf, expected a finite number");
        w[k + 290] = w[7] = 0;
    }
}

Test(format, a_scale_too_large_for_float16_is_an_error) {
    float w[300] = {[299] = 65504.0f * 128};
    cr_assert_str_eq(failure("int8-g128", w, 1, 300, 1),
                     "row 0, columns 256 to 299: scale is 66019.8, expected at most 65504");
    w[299] = -500000;
    cr_assert(strstr(failure("int4-g64", w, 1, 300, 1), "scale is 71428.6,"));
    w[299] = -1e6f;
    cr_assert(strstr(failure("int4-g64-zp", w, 1, 300, 1), "scale is 66666.7,"));
    cr_assert(strstr(failure("int8-tensor", w, 1, 300, INFINITY), "scale is inf,"));
}

Test(format, floats_round_to_nearest_even) {
    float w[3] = {1 + 0x1p-11f, 1 + 0x3p-11f, -65504}, out[3];
    round_trip("f16", w, 3, out);
    cr_assert_eq(out[0], 1);
    cr_assert_eq(out[1], 1 + 0x1p-9f);
    cr_assert_eq(out[2], -65504);
    w[0] = 1 + 0x1p-8f;
    round_trip("bf16", w, 3, out);
    cr_assert_eq(out[0], 1);
    round_trip("f32", w, 3, out);
    cr_assert(same_bits(out, w, 3));
}

Test(format, floats_that_do_not_fit_are_named) {
    float w[6] = {1, 2, 3, 4, -65520, 5};
    cr_assert_str_eq(failure("f16", w, 2, 3, 1),
                     "row 1, column 1: weight -65520 is too large for fp16");
    w[4] = FLT_MAX;
    cr_assert_str_eq(failure("bf16", w, 2, 3, 1),
                     "row 1, column 1: weight 3.40282347e+38 is too large for bf16");
    w[4] = -65519.99f;
    free(quantize_new(&quant_f16, w, 2, 3));
}

Test(format, absmax_and_range_see_every_weight) {
    float w[70] = {0};
    for (int i = 0; i < 70; i++) {
        w[i] = -3;
        cr_assert_eq(quant_absmax(w, 70), 3);
        cr_assert_eq(quant_range(w, 70).lo, -3);
        cr_assert_eq(quant_range(w, 70).hi, 0);
        w[i] = 2;
        cr_assert_eq(quant_range(w, 70).hi, 2);
        w[i] = -NAN;
        cr_assert(isnan(quant_absmax(w, 70)) && isnan(quant_range(w, 70).lo));
        w[i] = 0;
    }
    cr_assert_eq(quant_absmax(w, 0), 0);
}

Test(format, scales_are_read_like_any_float16) {
    for (uint16_t h = 0; h < 0x7c00; h++) {
        uint16_t negative = h | 0x8000;
        cr_assert_eq(scale_from_f16(&h, 0), f16_to_f32(h), "%04x", h);
        cr_assert_eq(f32_bits(scale_from_f16(&negative, 0)), f32_bits(f16_to_f32(negative)));
    }
}

Test(format, int8_planes_are_what_an_integer_product_reads) {
    float w[6] = {1, 2, 3, -4, 5, 6};
    struct tensor t = {.dtype = DTYPE_BLOCK, .n_dims = 2, .shape = {2, 3}};
    const int8_t *codes;
    const float *scales;
    size_t step;
    for (size_t i = 0; quant_formats[i]; i++) {
        t.format = quant_formats[i];
        if (t.format->block_weights)
            continue;
        t.data = quantize_new(t.format, w, 2, 3);
        cr_assert(t.format->bytes(t.format, 2, 3, &t.bytes));
        bool expected = t.format == &quant_int8 || t.format == &quant_int8_tensor;
        cr_assert_eq(quant_int8_planes(&t, &codes, &scales, &step), expected);
        for (size_t j = 0; expected && j < 6; j++)
            cr_assert_float_eq(scales[j / 3 * step] * codes[j], w[j], 0.03);
        t.bytes--;
        cr_assert_not(quant_int8_planes(&t, &codes, &scales, &step));
        free(t.data);
    }
    t.format = NULL;
    cr_assert_not(quant_int8_planes(&t, &codes, &scales, &step));
}

Test(format, formats_are_found_by_their_type_in_gguf_files) {
    cr_assert_eq(quant_format_of_gguf(0), quant_format_find("f32"));
    cr_assert_eq(quant_format_of_gguf(1), quant_format_find("f16"));
    cr_assert_eq(quant_format_of_gguf(30), quant_format_find("bf16"));
    cr_assert_null(quant_format_of_gguf(4), "a type that was removed from the format");
    cr_assert_null(quant_format_of_gguf(UINT32_MAX), "int8 has no type");
}
