#include "quant/woven.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "kernels/cpu/huge.h"
#include "quant/woven_rows.h"

// Rows between two times that pages are given back, about 16 MB of codes.
enum { DROP_BYTES = 16 << 20 };

bool woven_layout(const struct tensor *w, struct weave *out) {
    struct weave_kind kind;
    if (!woven_kind(w->format, w->shape[1], &kind) ||
        !weave_layout(out, &kind, w->shape[0], w->shape[1]))
        return false;
    out->data = w->woven ? w->data : NULL;
    return true;
}

size_t woven_bytes(const struct tensor *w) {
    struct weave weave;
    return w->woven && woven_layout(w, &weave) ? weave_bytes(&weave) : w->bytes;
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

bool woven_make(const struct tensor *w, bool drop, struct weave *out, struct error *err) {
    if (!woven_layout(w, out))
        return error_set(err, "%s: %s cannot be woven", w->name, w->format->name);
    out->data = huge_alloc(weave_bytes(out), w->name, err);
    if (!out->data || weave_rows(w, out, drop))
        return out->data;
    woven_free(out);
    return error_set(err, "%s: out of memory for a row", w->name);
}

void woven_free(struct weave *w) {
    huge_free(w->data, weave_bytes(w));
    w->data = NULL;
}

// ---- back to rows -------------------------------------------------------------------------------

static bool undo_block(const struct tensor *w, const struct weave *from, size_t block, void *out) {
    struct weave_row row;
    if (!weave_row_init(&row, from))
        return false;
    for (size_t i = block * WEAVE_ROWS; i < (block + 1) * WEAVE_ROWS && i < from->n; i++) {
        weave_get(from, i, &row);
        woven_row_write(w, i, &row, out);
    }
    weave_row_free(&row);
    return true;
}

void *woven_undo(const struct tensor *w, struct error *err) {
    struct weave from;
    void *out = memory_alloc(w->bytes, 1, w->name, err);
    if (!out || !woven_layout(w, &from))
        return out;
    size_t blocks = (from.n + WEAVE_ROWS - 1) / WEAVE_ROWS, failed = 0;
#pragma omp parallel for schedule(dynamic, 1) reduction(+ : failed)
    for (size_t b = 0; b < blocks; b++)
        failed += !undo_block(w, &from, b, out);
    if (!failed)
        return out;
    error_set(err, "%s: out of memory for a row", w->name);
    free(out);
    return NULL;
}

bool woven_undo_row(const struct tensor *w, size_t row, void *out) {
    struct weave from;
    struct weave_row spelled;
    if (!woven_layout(w, &from) || !weave_row_init(&spelled, &from))
        return false;
    weave_get(&from, row, &spelled);
    woven_row_write(w, 0, &spelled, out);
    weave_row_free(&spelled);
    return true;
}

// ---- a model ------------------------------------------------------------------------------------

struct weaving {
    const struct model *model;
    struct error *err;
};

static bool weave_linear(void *user, struct linear *l) {
    const struct weaving *weaving = user;
    struct weave_kind kind;
    l->rounds_x = true;
    if (l->w.woven || l->int8_activations || !woven_kind(l->w.format, l->w.shape[1], &kind))
        return true;
    if (!woven_make(&l->w, l->owns_data, &l->weave, weaving->err))
        return false;
    if (l->owns_data)
        free(l->w.data);
    else
        model_drop(weaving->model, l->w.data, l->w.bytes);
    l->owns_data = true;
    l->w.data = l->weave.data;
    l->w.woven = true;
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
