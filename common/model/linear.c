#include <stdlib.h>

#include "core/memory.h"
#include "kernels/cpu/kernels.h"
#include "model/model.h"
#include "quant/format.h"

static void read_rows(const void *context, size_t row, size_t col, size_t count, float *out) {
    const struct tensor *w = context;
    w->format->dequantize(w->format, w->data, w->shape[0], w->shape[1], row, col, count, out);
}

enum { INT8_MAX_K = 131072 }; // 131072 * 127 * 127 < 2^31: the integer sums hold

// W8A8: x becomes int8 too, one scale per token, and the products are summed as integers.
static bool forward_int8(float *y, const struct linear *l, const float *x, size_t m,
                         struct error *err) {
    size_t n = l->w.shape[0], k = l->w.shape[1], w_scale_step;
    const int8_t *codes;
    const float *w_scale;
    if (!quant_int8_planes(&l->w, &codes, &w_scale, &w_scale_step))
        return error_set(err, "%s: int8 activations need int8 weights per tensor or per channel",
                         l->w.name);
    if (k > INT8_MAX_K)
        return error_set(err, "%s: rows of %zu weights, expected at most %d with int8 activations",
                         l->w.name, k, INT8_MAX_K);
    int8_t *q = malloc(m * k);
    float *x_scale = malloc(m * sizeof *x_scale);
    bool ok = (q && x_scale) || error_set(err, "out of memory for %zu int8 activations", m * k);
    if (ok) {
        quantize_rows_i8(x, k, m, k, q, x_scale);
        matmul_i8(y, n, q, x_scale, m, codes, w_scale, w_scale_step, n, k, l->bias);
    }
    free(q);
    free(x_scale);
    return ok;
}

bool linear_forward(float *y, const struct linear *l, const float *x, size_t m, struct error *err) {
    if (l->int8_activations)
        return forward_int8(y, l, x, m, err);
    size_t n = l->w.shape[0], k = l->w.shape[1];
    struct weight_source source = {.n = n, .k = k, .context = &l->w, .read = read_rows};
    matmul(y, n, x, k, m, &source, l->bias);
    return true;
}
