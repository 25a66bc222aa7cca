#include <stdlib.h>

#include "core/memory.h"
#include "kernels/cpu/kernels.h"
#include "model/model.h"
#include "quant/format.h"
#include "quant/woven.h"
#include "kernels/cpu/matmul_rows.h"
#include "kernels/cpu/matmul_tiles.h"
#include "kernels/cpu/matmul_weave_tiles.h"

enum { LINEARS_TOGETHER = 3 }; // q, k and v

static void read_rows(const void *context, size_t row, size_t col, size_t count, float *out) {
    quant_read(context, row, col, count, out);
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

// Few tokens read 16-bit weights as they lie.
static bool goes_by_rows(const struct linear *l, size_t m) {
    return (l->w.dtype == DTYPE_BF16 || l->w.dtype == DTYPE_F16) && m <= ROWS_MAX_TOKENS;
}

// All else is unpacked to float32, a panel at a time.
static void forward_unpacked(float *y, const struct linear *l, const float *x, size_t m) {
    size_t n = l->w.shape[0], k = l->w.shape[1];
    struct weight_source source = {.n = n, .k = k, .context = &l->w, .read = read_rows};
    matmul(y, n, x, k, m, &source, l->bias);
}

// Those that are woven, with activations in int8: made once for all that have the first one's unit.
// (Woven ones whose x may not be rounded are read row by row, as any other: forward_unpacked.)
// With a gate, of silu(gate) * x.
static bool forward_woven(float *const *y, const struct linear *const *l, size_t n, const float *x,
                          const float *gate, size_t m, struct error *err) {
    struct weave_job jobs[LINEARS_TOGETHER];
    struct weave_x q = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < n;) {
        size_t together = 0;
        for (; i < n && (together == 0 || l[i]->weave.unit == jobs[0].w->unit); i++)
            jobs[together++] = (struct weave_job){&l[i]->weave, y[i], l[i]->w.shape[0], l[i]->bias};
        ok = weave_x_make_gated(&q, jobs[0].w, gate, x, jobs[0].w->k, m, err);
        if (ok)
            matmul_weave(jobs, together, &q);
    }
    weave_x_free(&q);
    return ok;
}

// Matrices too small for tiles: what they save is less than what filling them costs.
enum { TILES_MIN_WEIGHTS = 1 << 18 };
// Up to so many tokens woven weights stay in integers, in vectors or tiles: unpacking them to
// bfloat16 takes longer. Eight tokens of a 3 B model in Q4_0: 26 t/s so, 41 in vectors.
enum { WOVEN_MAX_TOKENS = 8 };

bool linear_rounds(const struct linear *l) {
    return l->rounds_x && l->w.dtype != DTYPE_F32;
}

// Whether l's product with so many tokens is made in tiles of bfloat16, and how. Woven ones that
// want tiles of int8 go there.
static bool tile_job(const struct linear *l, size_t m, float *y, struct weight_source *source,
                     struct tile_job *job) {
    enum dtype type = l->w.dtype;
    size_t n = l->w.shape[0], k = l->w.shape[1];
    if (!matmul_tiles_wanted(m) || n * k < TILES_MIN_WEIGHTS || !linear_rounds(l) ||
        l->int8_activations)
        return false;
    if (l->w.woven && (m <= WOVEN_MAX_TOKENS || weave_tiles_wanted(&l->weave, m) ||
                       weave_few_wanted(&l->weave, m)))
        return false;
    *source = (struct weight_source){.n = n, .k = k, .context = &l->w, .read = read_rows};
    *job = (struct tile_job){.n = n, .y = y, .y_stride = n, .bias = l->bias, .source = source};
    job->kind = type == DTYPE_BF16  ? TILE_BF16
                : type == DTYPE_F16 ? TILE_F16
                : l->w.woven        ? TILE_WOVEN
                                    : TILE_READ;
    job->rows16 = l->w.data;
    job->weave = l->w.woven ? &l->weave : NULL;
    return true;
}

// Of those that are not a tile_job.
static bool goes_woven(const struct linear *l) {
    return l->w.woven && l->rounds_x && !l->int8_activations;
}

bool linears_forward(float *const *y, const struct linear *const *l, size_t n, const float *x,
                     size_t m, struct error *err) {
    const struct linear *woven[LINEARS_TOGETHER];
    float *woven_y[LINEARS_TOGETHER];
    struct weight_source sources[LINEARS_TOGETHER];
    struct tile_job tiles[LINEARS_TOGETHER];
    struct rows_job rows[LINEARS_TOGETHER];
    size_t n_woven = 0, n_tiles = 0, n_rows = 0, k = l[0]->w.shape[1];
    for (size_t i = 0; i < n; i++) {
        if (tile_job(l[i], m, y[i], &sources[n_tiles], &tiles[n_tiles])) {
            n_tiles++;
        } else if (l[i]->int8_activations) {
            if (!forward_int8(y[i], l[i], x, m, err))
                return false;
        } else if (goes_woven(l[i])) {
            woven[n_woven] = l[i];
            woven_y[n_woven++] = y[i];
        } else if (goes_by_rows(l[i], m)) {
            size_t n_out = l[i]->w.shape[0];
            rows[n_rows++] = (struct rows_job){
                l[i]->w.data, l[i]->w.dtype == DTYPE_BF16, n_out, y[i], n_out, l[i]->bias};
        } else {
            forward_unpacked(y[i], l[i], x, m);
        }
    }
    if (n_rows)
        matmul_rows(rows, n_rows, x, k, m, k);
    if (n_tiles && !matmul_tiles(tiles, n_tiles, x, k, m, k))
        return error_set(err, "out of memory for the activations of %zu tokens", m);
    return n_woven == 0 || forward_woven(woven_y, woven, n_woven, x, NULL, m, err);
}

bool linear_forward(float *y, const struct linear *l, const float *x, size_t m, struct error *err) {
    return linears_forward(&y, &l, 1, x, m, err);
}

bool linear_forward_gated(float *y, const struct linear *l, const float *gate, float *up, size_t m,
                          struct error *err) {
    struct weight_source source;
    struct tile_job job;
    if (goes_woven(l) && !tile_job(l, m, y, &source, &job))
        return forward_woven(&y, &l, 1, up, gate, m, err);
    silu_mul(up, gate, up, m * l->w.shape[1]);
    return linear_forward(y, l, up, m, err);
}
