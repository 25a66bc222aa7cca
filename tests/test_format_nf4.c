// quant/format_nf4: values, bytes and the edge cases of absmax in blocks of 64.
#include <float.h>

#include "format_data.h"

static const float values[16] = {-1.0f,
                                 -0.6961928009986877f,
                                 -0.5250730514526367f,
                                 -0.39491748809814453f,
                                 -0.28444138169288635f,
                                 -0.18477343022823334f,
                                 -0.09105003625154495f,
                                 0.0f,
                                 0.07958029955625534f,
                                 0.16093020141124725f,
                                 0.24611230194568634f,
                                 0.33791524171829224f,
                                 0.44070982933044434f,
                                 0.5626170039176941f,
                                 0.7229568362236023f,
                                 1.0f};

// absmax 2; the even weight is in the high nibble.
Test(format_nf4, a_block_by_hand) {
    uint8_t block[36] = {0, 0, 0, 0x40, 0x0f, 0x7e}, made[36];
    float w[64] = {0}, out[64];
    memset(block + 6, 0x77, 30); // code 7 is 0
    w[0] = -2;
    w[1] = 2;
    w[3] = 2 * 0.73f; // nearest to 0.7229, code 14
    quant_nf4.dequantize_ref(&quant_nf4, block, 1, 64, 0, 0, 64, out);
    cr_expect_eq(out[0], -2);
    cr_expect_eq(out[1], 2);
    cr_expect_eq(out[2], 0);
    cr_expect_eq(out[3], 2 * values[14]);
    for (int i = 4; i < 64; i++)
        cr_expect_eq(out[i], 0);
    cr_assert(quant_nf4.quantize(&quant_nf4, w, 0, 1, 1, 64, &(struct quant_hints){0}, made, NULL));
    cr_expect_arr_eq(made, block, sizeof block);
}

Test(format_nf4, sixteen_values_of_a_block_each_keep_theirs) {
    float w[64], out[64];
    for (int i = 0; i < 64; i++)
        w[i] = -0.375f * values[i % 16]; // a power of two and a half: products are exact enough
    void *data = quantize_new(&quant_nf4, w, 1, 64);
    quant_nf4.dequantize_ref(&quant_nf4, data, 1, 64, 0, 0, 64, out);
    for (int i = 0; i < 64; i++) // values have no mirror image: the nearest is within half a gap
        cr_expect(fabsf(out[i] - w[i]) <= 0.375f * 0.152f, "%d: %g became %g", i, (double)w[i],
                  (double)out[i]);
    for (int i = 0; i < 64; i++)
        w[i] = 0.375f * values[i % 16];
    free(data);
    data = quantize_new(&quant_nf4, w, 1, 64);
    quant_nf4.dequantize_ref(&quant_nf4, data, 1, 64, 0, 0, 64, out);
    for (int i = 0; i < 64; i++)
        cr_expect(fabsf(out[i] - w[i]) <= 1e-7f, "%d: %g became %g", i, (double)w[i],
                  (double)out[i]);
    free(data);
}

// Nothing nearer is left: the definition of rounding, for any block.
Test(format_nf4, every_weight_gets_the_nearest_value) {
    enum { N = 8, K = 512 };
    float *w = weights_new(N, K, 31);
    void *data = quantize_new(&quant_nf4, w, N, K);
    float *out = dequantize_new(&quant_nf4, data, N, K);
    for (size_t i = 0; i < N * K; i++) {
        float absmax = quant_absmax(w + i / 64 * 64, 64), nearest = FLT_MAX;
        for (int v = 0; v < 16; v++)
            nearest = fminf(nearest, fabsf(absmax * values[v] - w[i]));
        cr_assert(fabsf(out[i] - w[i]) <= nearest + 1e-6f * absmax, "%zu: %g became %g", i,
                  (double)w[i], (double)out[i]);
    }
    double found = nmse(w, out, N * K); // INT4 in groups of 64 loses 0.033 of such weights
    cr_assert(found <= 0.0144 && found >= 0.013, "%g", found);
    free(out);
    free(data);
    free(w);
}

Test(format_nf4, four_and_a_half_bits_in_whole_blocks) {
    size_t bytes;
    double bits;
    struct error err = {0};
    float w[100] = {0};
    uint8_t out[72];
    cr_assert(quant_bits_per_weight(&quant_nf4, 2048, 2048, &bits));
    cr_expect_eq(bits, 4.5);
    cr_expect_not(quant_nf4.bytes(&quant_nf4, 1, 100, &bytes));
    cr_expect_not(
        quant_nf4.quantize(&quant_nf4, w, 0, 1, 1, 100, &(struct quant_hints){0}, out, &err));
    cr_expect_str_eq(err.message, "rows have 100 weights, expected a multiple of 64 for NF4");
}

// A float32 scale: no weight is too large or too small for it.
Test(format_nf4, the_largest_and_the_smallest_come_back) {
    const float sizes[] = {FLT_MAX, 1e38f, 7e4f, 1e-30f, FLT_MIN};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        float w[64] = {[5] = -sizes[s], [6] = sizes[s] / 2}, out[64];
        void *data = quantize_new(&quant_nf4, w, 1, 64);
        quant_nf4.dequantize(&quant_nf4, data, 1, 64, 0, 0, 64, out);
        cr_expect_eq(out[5], -sizes[s]);
        cr_expect(fabsf(out[6] / sizes[s] - 0.5f) <= 0.0627f, "%g", (double)out[6]);
        cr_expect_eq(out[7], 0);
        free(data);
    }
}
