// The table's rows: the best formats for all, what the original study would have kept, heuristics,
// and the solver's mix.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "eval/sensitivity_report.h"
#include "lab/mixed.h"
#include "study.h"

// Bits per weight of a mix are those of all tensors that were chosen for, the ones that stay 16 bit
// included.
static bool mix_row(struct study *st, const size_t *picks, const char *label, struct error *err) {
    struct lab *lab = st->lab;
    struct recipe r;
    size_t rows = lab->table.n_rows;
    if (lab->done || !lab_wanted(lab, label))
        return true;
    if (!mix_recipe(&st->mix, picks, &r, err))
        return false;
    bool ok = lab_mixed(lab, &r, label, err);
    recipe_free(&r);
    if (ok && lab->table.n_rows > rows)
        lab->table.rows[rows].bits_per_weight =
            8 * (double)mix_bytes(&st->mix, picks) / (double)mix_weights(&st->mix);
    return ok;
}

static bool uniform_row(struct study *st, const struct quant_format *f, bool search,
                        struct error *err) {
    char label[96];
    struct recipe r;
    snprintf(label, sizeof label, "uniform %s%s", f->name, search ? " search" : "");
    if (st->lab->done || !lab_wanted(st->lab, label))
        return true;
    if (!study_uniform_recipe(st, f, search, &r, err))
        return false;
    bool ok = lab_mixed(st->lab, &r, label, err);
    recipe_free(&r);
    return ok;
}

bool study_uniform_alone(struct lab *lab, const struct quant_format *f, bool search,
                         struct error *err) {
    struct recipe r;
    if (!recipe_uniform(&r, f, lab->options.only, lab->options.skip, err))
        return false;
    r.rules[r.n_rules - 1].search = search;
    bool ok = lab_mixed(lab, &r, lab->options.config, err);
    recipe_free(&r);
    return ok;
}

static bool uniform_rows(struct study *st, struct error *err) {
    struct uniform rows[MAX_UNIFORMS];
    size_t n = 0;
    bool ok = st->lab->options.tokens || study_uniforms(st, rows, &n, err);
    for (size_t i = 0; ok && i < n; i++)
        ok = uniform_row(st, rows[i].format, rows[i].search, err);
    return ok;
}

// The picks of the original study: four bits everywhere, but for the N layers that they hurt most,
// which stay in 16.
static bool keep_picks(const struct study *st, size_t n, size_t *picks, struct error *err) {
    size_t layers = st->lab->model->config.n_layers, low = 0;
    size_t high = st->s.n_formats - 1; // the checkpoint's own
    while (st->s.formats[low] != st->base)
        low++;
    double *damage = memory_alloc(layers, sizeof *damage, "layers", err);
    if (!damage)
        return false;
    for (size_t i = 0; i < st->mix.n; i++) {
        const struct sensitivity_tensor *t = &st->s.tensors[st->mix.tensors[i]];
        bool lowered = t->layer != SENSITIVITY_NO_LAYER && mix_tensor_bytes(&st->mix, i, low) > 0;
        picks[i] = lowered ? low : high;
        if (lowered)
            damage[t->layer] += sensitivity_kld(sensitivity_at(&st->s, st->mix.tensors[i], low));
    }
    for (size_t k = 0; k < n && k < layers; k++) {
        size_t worst = 0;
        for (size_t l = 1; l < layers; l++)
            worst = damage[l] > damage[worst] ? l : worst;
        damage[worst] = -1;
        for (size_t i = 0; i < st->mix.n; i++)
            if (st->s.tensors[st->mix.tensors[i]].layer == worst)
                picks[i] = high;
    }
    free(damage);
    return true;
}

size_t study_keep(const struct lab *lab, const struct study_options *o) {
    size_t layers = lab->model->config.n_layers;
    return o->keep ? o->keep : layers < 8 ? 1 : layers / 8;
}

// And what the solver does with the same bytes.
static bool keep_rows(struct study *st, struct error *err) {
    size_t n = study_keep(st->lab, st->options);
    size_t *picks = memory_alloc(st->mix.n, sizeof *picks, "mix", err);
    char label[96];
    snprintf(label, sizeof label, "keep %zu", n);
    bool search = st->mix.search;
    st->mix.search = false;
    bool ok = picks && keep_picks(st, n, picks, err) && mix_row(st, picks, label, err);
    st->mix.search = search;
    snprintf(label, sizeof label, "solver, bytes of keep %zu", n);
    ok = ok && study_solve_at(st, mix_bytes(&st->mix, picks), picks, err) &&
         mix_row(st, picks, label, err);
    free(picks);
    return ok;
}

static bool heuristic_rows(struct study *st, struct error *err) {
    bool ok = true;
    for (size_t i = 0; ok && i < st->found.n; i++)
        if (strncmp(st->found.list[i].name, "heuristic", 9) == 0)
            ok = mix_row(st, st->found.list[i].picks, st->found.list[i].name, err);
    return ok;
}

// What the budget is, and which of the rows from `first` on do not keep to it.
static void note_budget(const struct study *st, size_t first) {
    struct result_table *t = &st->lab->table;
    size_t whole = st->budget.rest + st->budget.bytes, size = sizeof t->note;
    size_t used = (size_t)snprintf(t->note, size, "Budget: %s, %.2f MB of weights in all.",
                                   st->budget.words, (double)whole / 1e6);
    if (study_holds_all(st))
        used += (size_t)snprintf(
            t->note + used, size - used,
            " It holds every tensor in its best format: nothing is left to choose.");
    const char *before = " Over it, for comparison: ";
    for (size_t i = first; i < t->n_rows && used < size; i++)
        if (t->rows[i].model_bytes > (double)whole) {
            used +=
                (size_t)snprintf(t->note + used, size - used, "%s'%s'", before, t->rows[i].config);
            before = ", ";
        }
}

bool study_rows(struct study *st, struct error *err) {
    struct lab *lab = st->lab;
    size_t first = lab->table.n_rows;
    bool ok = study_measure(st, err) && uniform_rows(st, err) && keep_rows(st, err) &&
              (lab->done || study_solve(st, err)) && heuristic_rows(st, err);
    ok = ok && (lab->done || mix_row(st, st->found.list[0].picks, "solver", err));
    if (ok)
        note_budget(st, first);
    return ok;
}
