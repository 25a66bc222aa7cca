#include "quant/woven.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "kernels/cpu/huge.h"
#include "quant/woven_rows.h"

// Rows between two times that pages are given back, about 16 MB of codes.
enum { DROP_BYTES = 16 << 20 };

static void read_woven(const struct quant_format *f, const void *data, size_t n, size_t k,
                       size_t row, size_t col, size_t count, float *out) {
    (void)data, (void)n, (void)k;
    weave_read(&((const struct woven *)(const void *)f)->weave, row, col, count, out);
}

// One block of sixteen rows.
static bool weave_block(const struct tensor *w, const struct weave *out, size_t block) {
    struct weave_row row;
    if (!weave_row_init(&row, out))
        return false;
    for (size_t i = block * WEAVE_ROWS; i < (block + 1) * WEAVE_ROWS && i < out->n; i++) {
        woven_row_read(w, i, &row);
        weave_put(out, i, &row);
    }
    weave_row_free(&row);
    return true;
}

static bool weave_rows(const struct tensor *w, const struct weave *out, bool drop) {
    size_t blocks = (out->n + WEAVE_ROWS - 1) / WEAVE_ROWS, stride = woven_row_bytes(w);
    size_t batch = DROP_BYTES / (stride * WEAVE_ROWS + 1) + 1, failed = 0;
    for (size_t from = 0; from < blocks; from += batch) {
        size_t to = from + batch < blocks ? from + batch : blocks;
#pragma omp parallel for schedule(dynamic, 1) reduction(+ : failed)
        for (size_t b = from; b < to; b++)
            failed += !weave_block(w, out, b);
        if (drop)
            huge_drop((const char *)w->data + from * WEAVE_ROWS * stride,
                      (to < blocks ? to - from : 0) * WEAVE_ROWS * stride);
    }
    return failed == 0;
}

struct woven *woven_make(const struct tensor *w, bool drop, struct error *err) {
    struct weave_kind kind;
    struct woven *out = calloc(1, sizeof *out);
    if (!out || !woven_kind(w->format, w->shape[1], &kind) ||
        !weave_layout(&out->weave, &kind, w->shape[0], w->shape[1])) {
        error_set(err, "%s: %s cannot be woven", w->name, w->format->name);
        free(out);
        return NULL;
    }
    out->base = w->format;
    out->format = *w->format;
    out->format.dequantize = out->format.dequantize_ref = read_woven;
    out->weave.data = huge_alloc(weave_bytes(&out->weave), w->name, err);
    if (out->weave.data && !weave_rows(w, &out->weave, drop)) {
        error_set(err, "%s: out of memory for a row", w->name);
        huge_free(out->weave.data, weave_bytes(&out->weave));
        out->weave.data = NULL;
    }
    if (out->weave.data)
        return out;
    free(out);
    return NULL;
}

void woven_free(struct woven *w) {
    if (!w)
        return;
    huge_free(w->weave.data, weave_bytes(&w->weave));
    free(w);
}

struct weaving {
    const struct model *model;
    struct error *err;
};

// w.bytes stays what the format takes: what a budget counts.
static bool weave_linear(void *user, struct linear *l) {
    const struct weaving *weaving = user;
    struct weave_kind kind;
    l->rounds_x = true;
    if (l->woven || l->int8_activations || !woven_kind(l->w.format, l->w.shape[1], &kind))
        return true;
    struct woven *woven = woven_make(&l->w, l->owns_data, weaving->err);
    if (!woven)
        return false;
    if (l->owns_data)
        free(l->w.data);
    else
        model_drop(weaving->model, l->w.data, l->w.bytes);
    l->woven = woven;
    l->owns_data = true;
    l->w.data = woven->weave.data;
    l->w.format = &woven->format;
    return true;
}

bool model_weave(struct model *m, struct error *err) {
    struct weaving weaving = {m->source ? m->source : m, err};
    bool ok = model_visit_linears(m, weave_linear, &weaving);
    if (m->config.tied) {
        m->head = m->embedding;
        m->head.owns_data = false;
    }
    return ok;
}
