// Which of all formats deserve a row beside the solver's: the best there are at its bytes.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "quant/quantize.h"
#include "study.h"

enum { BEST_PLAIN = 3, BEST_SEARCHED = 1 };

static bool measure(struct study *st, struct probe *probe, struct uniform *u, struct error *err) {
    struct recipe r;
    struct quantize_stats stats;
    const struct quantize_options options = {0};
    if (!study_uniform_recipe(st, u->format, u->search, &r, err))
        return false;
    struct model *m = model_quantize_with(st->lab->model, &r, &options, &stats, err);
    bool ok = m && probe_kld(probe, m, 0, &u->checked, err);
    model_free(m);
    recipe_free(&r);
    return ok;
}

static bool at_budget(const struct study *st, const struct uniform *u) {
    double whole = (double)(st->budget.rest + st->budget.bytes);
    return fabs((double)(st->budget.rest + u->bytes) / whole - 1) <= 0.01;
}

// Has its row at any budget.
static bool is_reference(const struct study *st, const struct uniform *u) {
    return (st->options->base && u->format == st->base) ||
           strcmp(u->format->name, "int4-g128") == 0;
}

static int by_checked(const void *a, const void *b) {
    const struct uniform *x = a, *y = b;
    if (x->search != y->search)
        return x->search - y->search;
    return x->checked < y->checked ? -1 : x->checked > y->checked;
}

// Of n, plain ones first and best first among them, those that get a row.
static size_t choose(const struct study *st, const struct uniform *all, size_t n,
                     struct uniform rows[MAX_UNIFORMS]) {
    size_t kept = 0, taken[2] = {0};
    for (size_t i = 0; i < n; i++) {
        size_t most = all[i].search ? BEST_SEARCHED : BEST_PLAIN;
        if (is_reference(st, &all[i]) || taken[all[i].search]++ < most)
            rows[kept++] = all[i];
    }
    return kept;
}

bool study_uniform_try(struct study *st, struct probe *probe, struct uniform *u,
                       struct uniform **all, size_t *n, size_t *capacity, struct error *err) {
    double plain = NAN;
    for (int search = 0; search <= !st->options->plain; search++) {
        struct uniform *grown = memory_grow(*all, *n, capacity, sizeof *grown, "formats", err);
        if (!grown)
            return false;
        *all = grown;
        u->search = search;
        if (!measure(st, probe, u, err))
            return false;
        if (u->checked != plain) // a format without a search
            grown[(*n)++] = *u;
        plain = u->checked;
    }
    return true;
}

bool study_uniforms(struct study *st, struct uniform rows[MAX_UNIFORMS], size_t *n,
                    struct error *err) {
    struct uniform *all = NULL;
    size_t count = 0, capacity = 0;
    struct progress p;
    bool ok = true;
    progress_start(&p, "formats of these bytes", "formats");
    for (size_t i = 0; ok && quant_formats[i]; i++) {
        struct uniform u = {.format = quant_formats[i]};
        if (u.format->dtype != DTYPE_BLOCK || !study_uniform_bytes(st, u.format, &u.bytes) ||
            (!at_budget(st, &u) && !is_reference(st, &u)))
            continue;
        ok = study_uniform_try(st, &st->check, &u, &all, &count, &capacity, err);
        progress_update(&p, count, 0, u.format->name);
    }
    progress_finish(&p);
    if (ok && count) {
        qsort(all, count, sizeof *all, by_checked);
        *n = choose(st, all, count, rows);
    }
    free(all);
    return ok;
}
