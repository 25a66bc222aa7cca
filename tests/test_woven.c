// quant/woven.c: matrices of every format, woven, give the same bits, and their products.
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/random.h"
#include "kernels/cpu/matmul_weave.h"
#include "quant/woven.h"
#include "tests/compare.h"
#include "tests/kernel_data.h"

static float *weights(size_t n, size_t k) {
    struct random r = {n * 31 + k};
    float *w = malloc(n * k * sizeof *w);
    for (size_t i = 0; i < n * k; i++)
        w[i] = (float)(random_normal(&r) * (i % 97 == 3 ? 8 : 0.5));
    return w;
}

static struct tensor quantized(const struct quant_format *f, const float *w, size_t n, size_t k) {
    struct error err = {0};
    struct tensor t = {.name = "w", .dtype = f->dtype, .format = f, .n_dims = 2, .shape = {n, k}};
    cr_assert(f->bytes(f, n, k, &t.bytes));
    t.data = memory_alloc(t.bytes, 1, "w", &err);
    const struct quant_hints hints = {.absmax = quant_absmax(w, n * k)};
    cr_assert(f->quantize(f, w, 0, n, n, k, &hints, t.data, &err), "%s", err.message);
    return t;
}

// As a whole, and, blocks, row by row: the very bytes that were woven.
static void check_undone(const struct tensor *woven, const void *rows) {
    struct error err = {0};
    const struct quant_format *f = woven->format;
    size_t row_bytes = f->block_weights ? woven->bytes / woven->shape[0] : 0;
    unsigned char *undone = woven_undo(woven, &err), *row = malloc(row_bytes);
    cr_assert(undone, "%s", err.message);
    cr_assert_arr_eq(undone, rows, woven->bytes, "%s %zu x %zu", f->name, woven->shape[0],
                     woven->shape[1]);
    for (size_t i = 0; row_bytes && i < woven->shape[0]; i++) {
        memset(row, 0xff, row_bytes);
        cr_assert(woven_undo_row(woven, i, row));
        cr_assert_arr_eq(row, (const char *)rows + i * row_bytes, row_bytes, "%s row %zu", f->name,
                         i);
    }
    free(undone), free(row);
}

static void check(const struct quant_format *f, size_t n, size_t k, bool drop) {
    struct error err = {0};
    struct weave_kind kind;
    if (!woven_kind(f, k, &kind))
        return;
    float *w = weights(n, k), *want = malloc(n * k * sizeof *want), *got = malloc(k * sizeof *got);
    struct tensor t = quantized(f, w, n, k);
    for (size_t i = 0; i < n; i++)
        f->dequantize(f, t.data, n, k, i, 0, k, want + i * k);
    struct tensor woven = t;
    struct weave weave, again;
    void *rows = malloc(t.bytes);
    memcpy(rows, t.data, t.bytes);
    cr_assert(woven_make(&t, drop, &weave, &err), "%s", err.message);
    woven.data = weave.data;
    woven.woven = true;
    cr_assert(woven_layout(&woven, &again));
    cr_assert_eq(again.data, weave.data);
    cr_assert_eq(woven_bytes(&woven), weave_bytes(&weave));
    for (size_t i = 0; i < n; i++)
        for (size_t col = 0; col < k; col += 256) {
            size_t count = k - col < 256 ? k - col : 256;
            quant_read(&woven, i, col, count, got);
            cr_assert_arr_eq(got, want + i * k + col, count * sizeof *got, "%s row %zu column %zu",
                             f->name, i, col);
        }
    check_undone(&woven, rows);
    if (n % 16 == 0 && k % 256 == 0)
        cr_assert(weave_bytes(&weave) <= t.bytes + n / 16 * 128, "%s: %zu of %zu", f->name,
                  weave_bytes(&weave), t.bytes);
    woven_free(&weave);
    free(t.data), free(rows), free(w), free(want), free(got);
}

Test(woven, gives_the_bits_of_every_format) {
    size_t kinds = 0;
    struct weave_kind kind;
    for (const struct quant_format *const *f = quant_formats; *f; f++) {
        kinds += woven_kind(*f, 256, &kind);
        check(*f, 33, 512, false);
        check(*f, 16, 256, true);
        check(*f, 5, 67, false);
    }
    cr_assert_geq(kinds, 15);
}

// Whatever codes, tables and scales are in between: activations are rounded to int8 (0.7 %), NF4's
// values too (0.4 %).
Test(woven, products_are_those_of_the_weights_in_every_format) {
    enum { N = 48, K = 1024, M = 24 };
    float *w = weights(N, K), *x = malloc(M * K * sizeof *x), row[K], got[M * N], want[M * N];
    struct random r = {5};
    for (size_t i = 0; i < M * K; i++)
        x[i] = (float)random_normal(&r);
    for (const struct quant_format *const *f = quant_formats; *f; f++) {
        struct error err = {0};
        struct weave_kind kind;
        struct weave weave;
        struct weave_x q = {0};
        if (!woven_kind(*f, K, &kind))
            continue;
        struct tensor t = quantized(*f, w, N, K);
        cr_assert(woven_make(&t, false, &weave, &err));
        for (size_t j = 0; j < N; j++) {
            (*f)->dequantize(*f, t.data, N, K, j, 0, K, row);
            for (size_t i = 0; i < M; i++) {
                double sum = 0;
                for (size_t c = 0; c < K; c++)
                    sum += (double)row[c] * x[i * K + c];
                want[i * N + j] = (float)sum;
            }
        }
        for (size_t i = 0; kind.levels && i < 16; i++)
            cr_assert(fabsf(kind.levels[i] - kind.step * kind.table[i]) <= kind.step / 2);
        FOR_EACH_LEVEL(level)
        for (size_t m = 3; m <= M; m *= 2) { // 24: the few tokens' way, twice
            cr_assert(weave_x_make(&q, &weave, x, K, m, &err));
            matmul_weave(&(struct weave_job){&weave, got, N, NULL}, 1, &q);
            double error = rel_l2(got, want, m * N);
            cr_assert(error < 0.012, "%s, %zu tokens: %g", (*f)->name, m, error);
        }
        weave_x_free(&q), woven_free(&weave);
        free(t.data);
    }
    free(w), free(x);
}

// Large enough that pages of the original are given back on the way.
Test(woven, of_a_large_matrix) {
    check(quant_format_find("int4-g128"), 20000, 2048, true);
}

Test(woven, floats_are_left_alone) {
    struct weave_kind kind;
    cr_assert_not(woven_kind(quant_format_find("f16"), 256, &kind));
    cr_assert_not(woven_kind(quant_format_find("f32"), 256, &kind));
}
