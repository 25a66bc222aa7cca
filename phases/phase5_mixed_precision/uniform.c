// Which of all formats deserve a row beside the solver's: the best there are at its bytes.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "quant/quantize.h"
#include "study.h"

enum { BEST_PLAIN = 3, BEST_SEARCHED = 1 };

static bool check(struct study *st, struct uniform *u, struct error *err) {
    struct recipe r;
    struct quantize_stats stats;
    const struct quantize_options options = {0};
    if (!study_uniform_recipe(st, u->format, u->search, &r, err))
        return false;
    struct model *m = model_quantize_with(st->lab->model, &r, &options, &stats, err);
    bool ok = m && probe_kld(&st->check, m, 0, &u->checked, err);
    model_free(m);
    recipe_free(&r);
    return ok;
}

static bool at_budget(const struct study *st, const struct quant_format *f) {
    size_t bytes;
    double whole = (double)(st->budget.rest + st->budget.bytes);
    return f->dtype == DTYPE_BLOCK && study_uniform_bytes(st, f, &bytes) &&
           fabs((double)(st->budget.rest + bytes) / whole - 1) <= 0.01;
}

static bool is_reference(const struct uniform *u) {
    return strcmp(u->format->name, "int4-g128") == 0;
}

static int by_checked(const void *a, const void *b) {
    const struct uniform *x = a, *y = b;
    if (x->search != y->search)
        return x->search - y->search;
    return x->checked < y->checked ? -1 : x->checked > y->checked;
}

// Of n, plain ones first and best first among them, those that get a row.
static size_t choose(const struct uniform *all, size_t n, struct uniform rows[MAX_UNIFORMS]) {
    size_t kept = 0, taken[2] = {0};
    for (size_t i = 0; i < n; i++) {
        size_t most = all[i].search ? BEST_SEARCHED : BEST_PLAIN;
        if (is_reference(&all[i]) || taken[all[i].search]++ < most)
            rows[kept++] = all[i];
    }
    return kept;
}

bool study_uniforms(struct study *st, struct uniform rows[MAX_UNIFORMS], size_t *n,
                    struct error *err) {
    struct uniform *all = NULL;
    size_t count = 0, capacity = 0;
    bool ok = true;
    for (size_t i = 0; ok && quant_formats[i]; i++) {
        struct uniform u = {.format = quant_formats[i]};
        if (!at_budget(st, u.format) && !is_reference(&u))
            continue;
        for (int search = 0; ok && search <= !st->options->plain; search++) {
            u.search = search;
            struct uniform *grown =
                memory_grow(all, count, &capacity, sizeof *all, "uniform formats", err);
            ok = grown && check(st, &u, err);
            all = grown ? grown : all;
            if (ok)
                all[count++] = u;
        }
    }
    if (ok && count) {
        qsort(all, count, sizeof *all, by_checked);
        *n = choose(all, count, rows);
    }
    free(all);
    return ok;
}
