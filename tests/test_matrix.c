// Quantizing one matrix from any source: what model_quantize and the GGUF writer share.
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "quant/matrix.h"

enum { N = 37, K = 300 };

static float weights[N * K];

static void fill(void) {
    struct random random = {7};
    for (size_t i = 0; i < N * K; i++)
        weights[i] = (float)random_normal(&random);
}

static void read_weights(const void *context, size_t row, size_t count, float *out) {
    memcpy(out, (const float *)context + row * K, count * K * sizeof(float));
}

static const struct matrix_source source = {N, K, weights, read_weights};

static void *quantize(const char *format, struct matrix_error *cost) {
    const struct quant_format *f = quant_format_find(format);
    struct error err = {0};
    size_t bytes;
    cr_assert(f && f->bytes(f, N, K, &bytes));
    void *out = calloc(bytes, 1);
    cr_assert(out && matrix_quantize(&source, f, NULL, out, cost, &err), "%s", err.message);
    return out;
}

// By hand, in one thread, one row after another.
static struct matrix_error expected_error(const char *format, const void *data) {
    const struct quant_format *f = quant_format_find(format);
    struct matrix_error e = {0};
    float back[K];
    for (size_t i = 0; i < N; i++) {
        f->dequantize_ref(f, data, N, K, i, 0, K, back);
        for (size_t j = 0; j < K; j++) {
            double w = weights[i * K + j], d = w - (double)back[j];
            e.error_squared += d * d;
            e.weight_squared += w * w;
        }
    }
    return e;
}

Test(matrix, the_error_is_that_of_the_bytes_written) {
    static const char *const formats[] = {"f16", "int8-tensor", "int8", "int4-g128"};
    fill();
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        const struct quant_format *f = quant_format_find(formats[i]);
        struct matrix_error cost, again, expected;
        struct error err = {0};
        void *data = quantize(formats[i], &cost);
        expected = expected_error(formats[i], data);
        cr_expect(fabs(cost.error_squared - expected.error_squared) <=
                      1e-12 * expected.error_squared,
                  "%s: %g, expected %g", formats[i], cost.error_squared, expected.error_squared);
        cr_expect(fabs(cost.weight_squared - expected.weight_squared) <=
                  1e-12 * expected.weight_squared);
        cr_assert(matrix_measure(&source, f, data, &again, &err));
        cr_expect(memcmp(&cost, &again, sizeof cost) == 0, "%s", formats[i]);
        free(data);
    }
}

Test(matrix, threads_change_nothing) {
    fill();
    struct matrix_error one, four;
    omp_set_num_threads(1);
    void *a = quantize("int8-tensor", &one);
    omp_set_num_threads(4);
    void *b = quantize("int8-tensor", &four);
    size_t bytes;
    const struct quant_format *f = quant_format_find("int8-tensor");
    cr_assert(f->bytes(f, N, K, &bytes));
    cr_expect(memcmp(a, b, bytes) == 0);
    cr_expect(memcmp(&one, &four, sizeof one) == 0);
    free(a);
    free(b);
}

Test(matrix, the_first_weight_that_is_not_finite_is_named) {
    struct error err = {0};
    char out[N * K * 2];
    fill();
    weights[30 * K + 5] = NAN;
    weights[9 * K + 299] = INFINITY;
    cr_expect(!matrix_quantize(&source, quant_format_find("f16"), NULL, out, NULL, &err));
    cr_expect(strstr(err.message, "row 9, column 299"), "%s", err.message);
    cr_expect(!matrix_quantize(&source, quant_format_find("int8-tensor"), NULL, out, NULL, &err));
    cr_expect(strstr(err.message, "row 9, column 299"), "%s", err.message);
}
