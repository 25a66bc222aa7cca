// kernels/cpu/ladder: every step gives the product, whatever the CPU has.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "kernels/cpu/ladder/ladder.h"
#include "quant/woven.h"
#include "tests/kernel_data.h"

// A matrix of normal numbers in a format.
static struct tensor matrix(const char *format, size_t n, size_t k) {
    struct error err = {0};
    struct random r = {n * 31 + k};
    const struct quant_format *f = quant_format_find(format);
    struct tensor t = {.name = "w", .dtype = f->dtype, .format = f, .n_dims = 2, .shape = {n, k}};
    float *w = malloc(n * k * sizeof *w);
    for (size_t i = 0; i < n * k; i++)
        w[i] = (float)random_normal(&r);
    cr_assert(f->bytes(f, n, k, &t.bytes));
    t.data = memory_alloc(t.bytes, 1, "w", &err);
    cr_assert(f->quantize(f, w, 0, n, n, k, &(struct quant_hints){0}, t.data, &err));
    free(w);
    return t;
}

static void read_tensor(const void *context, size_t row, size_t col, size_t count, float *out) {
    const struct tensor *t = context;
    t->format->dequantize_ref(t->format, t->data, t->shape[0], t->shape[1], row, col, count, out);
}

// The largest dot error of all steps, of those that round x against x as they round it.
static double check(size_t n, size_t k) {
    struct error err = {0};
    struct random r = {n + k};
    struct tensor f16 = matrix("f16", n, k), packed = matrix("int4-g128", n, k);
    struct weave woven;
    struct quant_planes planes;
    float *x = outliers(&r, 1, k), *rounded = poisoned(k), *w = poisoned(n * k);
    float *want = poisoned(n), *got = poisoned(n), *unpacked = poisoned(n * k);
    cr_assert(woven_make(&packed, false, &woven, &err), "%s", err.message);
    cr_assert(quant_planes(packed.format, n, k, &planes));
    struct ladder l = {n,
                       k,
                       f16.data,
                       packed.data,
                       (const void *)((const char *)packed.data + planes.scales),
                       {n, k, &packed, read_tensor},
                       woven,
                       x,
                       .unpacked = unpacked,
                       .y = got};
    double worst = 0;
    for (const struct ladder_step *s = ladder_steps; s->name; s++) {
        const struct tensor *t = s->layout == LADDER_F16 ? &f16 : &packed;
        const struct weight_source source = {n, k, t, read_tensor};
        memset(got, 0xff, n * sizeof *got);
        cr_assert(s->multiply(&l, &err), "%s", err.message);
        for (size_t c = 0; c < k; c++)
            rounded[c] = s->rounds_x ? l.q.scale[c / LADDER_GROUP] * l.q.q[c] : x[c];
        for (size_t row = 0; row < n; row++)
            read_tensor(t, row, 0, k, w + row * k);
        matmul_ref(want, n, rounded, k, 1, &source, NULL);
        double error = dot_error(got, want, rounded, w, NULL, n, k);
        cr_assert(error <= 1e-6, "%s, %s, %zu x %zu: %g", kernels_level_name(kernels_level()),
                  s->name, n, k, error);
        worst = fmax(worst, error);
    }
    weave_x_free(&l.q);
    woven_free(&woven);
    free(f16.data), free(packed.data);
    release(x), release(rounded), release(w), release(want), release(got), release(unpacked);
    return worst;
}

Test(ladder, every_step_gives_the_product) {
    const size_t shapes[][2] = {{1, 128}, {17, 256}, {80, 384}, {130, 2048}};
    double worst = 0;
    omp_set_num_threads(2);
    FOR_EACH_LEVEL(level)
    for (size_t s = 0; s < 4; s++)
        worst = fmax(worst, check(shapes[s][0], shapes[s][1]));
    printf("ladder: dot error at most %.2g\n", worst);
}
