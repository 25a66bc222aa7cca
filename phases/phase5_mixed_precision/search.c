// From sensitivities to a mix: the additive optimum, what measuring around it finds, and whatever
// others would have taken; the check tokens decide.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "quant/heuristics.h"
#include "study.h"

enum { PAIRS = 3, AROUND = 4, UNIFORMS = 2 };
// Ratios of damages: what leaves others clearly behind; what may turn out better than the one that
// is predicted to be; and what cannot.
static const double CLEARLY = 0.9, NEARLY = 1.15, HOPELESS = 3;

static bool found_init(struct found *f, const struct study *st, const char *name,
                       struct error *err) {
    *f = (struct found){.predicted = NAN, .checked = NAN};
    snprintf(f->name, sizeof f->name, "%s", name);
    f->picks = memory_alloc(st->mix.n, sizeof *f->picks, "mix", err);
    return f->picks != NULL;
}

static bool check(struct study *st, struct found *f, struct error *err) {
    f->predicted = mix_cost(&st->mix, f->picks);
    bool ok = mix_measure(&st->mix, &st->check, f->picks, &f->checked, err);
    progress_update(&st->checking, ++st->checks, 0, NULL);
    return ok;
}

// Takes over f->picks.
static bool keep(struct shortlist *l, struct found *f, struct error *err) {
    struct found *grown = realloc(l->list, (l->n + 1) * sizeof *grown);
    if (!grown) {
        free(f->picks);
        return error_set(err, "out of memory for %zu mixes", l->n + 1);
    }
    l->list = grown;
    grown[l->n++] = *f;
    return true;
}

void shortlist_free(struct shortlist *l) {
    for (size_t i = 0; i < l->n; i++)
        free(l->list[i].picks);
    free(l->list);
    *l = (struct shortlist){0};
}

const struct found *shortlist_find(const struct shortlist *l, const char *name) {
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->list[i].name, name) == 0)
            return &l->list[i];
    return NULL;
}

// ---- what others would take ---------------------------------------------------------------------

// Tensors that share a kernel are raised together.
static void raise(const struct study *st, bool k_m, bool *raised) {
    const struct mix *x = &st->mix;
    size_t layers = st->lab->model->config.n_layers;
    for (size_t i = 0; i < x->n; i++) {
        const struct sensitivity_tensor *t = &st->s.tensors[x->tensors[i]];
        bool up =
            t->layer == SENSITIVITY_NO_LAYER || (k_m ? heuristic_k_m(t->kind, t->layer, layers)
                                                     : heuristic_first_last(t->layer, layers));
        raised[i] |= up;
        raised[x->group[i]] |= up;
    }
    for (size_t i = 0; i < x->n; i++)
        raised[i] = raised[x->group[i]];
}

// *any is false if no pair of formats fits; then out->picks is the caller's to free all the same.
static bool heuristic(struct study *st, size_t bytes, bool k_m, struct found *out, bool *any,
                      struct error *err) {
    size_t n = st->mix.n;
    bool *raised = memory_alloc(n, sizeof *raised, "mix", err);
    size_t *picks = memory_alloc(PAIRS + 1, n * sizeof *picks, "mix", err);
    bool ok =
        found_init(out, st, k_m ? "heuristic k_m" : "heuristic first-last", err) && raised && picks;
    size_t pairs = 0;
    if (ok) {
        raise(st, k_m, raised);
        pairs = mix_pairs(&st->mix, raised, bytes, PAIRS, picks);
    }
    for (size_t p = 0; ok && p < pairs; p++) {
        struct found next = {.picks = picks + p * n};
        if (mix_cost(&st->mix, next.picks) > NEARLY * mix_cost(&st->mix, picks))
            break; // predictions are better than that
        ok = check(st, &next, err);
        if (!ok || out->checked <= next.checked)
            continue;
        out->predicted = next.predicted;
        out->checked = next.checked;
        memcpy(out->picks, next.picks, n * sizeof *picks);
    }
    free(raised);
    free(picks);
    *any = pairs > 0;
    if (!ok)
        free(out->picks);
    return ok;
}

static bool keep_heuristics(struct study *st, size_t bytes, struct shortlist *l,
                            struct error *err) {
    for (int k_m = 0; k_m < 2; k_m++) {
        struct found f;
        bool any;
        if (!heuristic(st, bytes, k_m, &f, &any, err))
            return false;
        if (!any)
            free(f.picks);
        else if (!keep(l, &f, err))
            return false;
    }
    return true;
}

// The format of least predicted damage that fits, beyond those already taken; n_formats if none.
static size_t best_uniform(const struct study *st, size_t bytes, const bool *taken, size_t *picks) {
    size_t best = st->s.n_formats;
    double least = INFINITY;
    for (size_t f = 0; f < st->s.n_formats; f++) {
        for (size_t i = 0; i < st->mix.n; i++)
            picks[i] = f;
        double cost = mix_cost(&st->mix, picks); // NaN, not allowed, is never less
        if (!taken[f] && cost < least && mix_bytes(&st->mix, picks) <= bytes) {
            least = cost;
            best = f;
        }
    }
    for (size_t i = 0; i < st->mix.n; i++)
        picks[i] = best;
    return best;
}

static bool keep_uniforms(struct study *st, size_t bytes, struct shortlist *l, struct error *err) {
    bool *taken = memory_alloc(st->s.n_formats, sizeof *taken, "formats", err);
    bool ok = taken != NULL;
    for (size_t k = 0; ok && k < UNIFORMS; k++) {
        struct found f;
        if (!(ok = found_init(&f, st, "", err)))
            break;
        size_t best = best_uniform(st, bytes, taken, f.picks);
        if (best == st->s.n_formats ||
            mix_cost(&st->mix, f.picks) > HOPELESS * l->list[0].checked) {
            free(f.picks);
            break;
        }
        taken[best] = true;
        snprintf(f.name, sizeof f.name, "uniform %s", st->s.formats[best]->name);
        ok = check(st, &f, err) ? keep(l, &f, err) : (free(f.picks), false);
    }
    free(taken);
    return ok;
}

// ---- measuring around the solution --------------------------------------------------------------

static void show(void *user, size_t done, size_t total) {
    progress_update(user, done, total, NULL);
}

// Two ways to believe the new costs: alone, and halved with the additive ones, which have their own
// noise. Both are kept; the better one is the next round's start.
static bool try_changes(struct study *st, size_t bytes, const size_t *from, const double *kld,
                        int round, struct shortlist *l, size_t *best, struct error *err) {
    static const double weights[] = {1, 0.5};
    for (size_t k = 0; k < sizeof weights / sizeof *weights; k++) {
        char name[64];
        struct found f;
        snprintf(name, sizeof name, "round %d, %g of the measured changes", round, weights[k]);
        if (!found_init(&f, st, name, err))
            return false;
        if (!mix_solve_changes(&st->mix, from, kld, weights[k], bytes, f.picks, err) ||
            !check(st, &f, err)) {
            free(f.picks);
            return false;
        }
        if (!keep(l, &f, err))
            return false;
        if (k == 0 || f.checked < l->list[*best].checked)
            *best = l->n - 1;
    }
    return true;
}

// From l->list[from] on.
static bool refine(struct study *st, size_t bytes, int rounds, struct shortlist *l, size_t from,
                   struct error *err) {
    const struct mix *x = &st->mix;
    double *kld = memory_alloc(x->n, st->s.n_formats * sizeof *kld, "changes", err);
    bool ok = kld != NULL;
    for (int round = 1; ok && round <= rounds && isfinite(l->list[from].checked); round++) {
        struct progress p;
        size_t next = from;
        progress_start(&p, "around the solution", "tensors");
        ok = mix_measure_changes(x, st->lab->model, st->calib.ids, st->fit, st->n_fit,
                                 st->lab->options.ctx, l->list[from].picks, l->solution.lambda,
                                 AROUND, kld, show, &p, err);
        progress_finish(&p);
        ok = ok && try_changes(st, bytes, l->list[from].picks, kld, round, l, &next, err);
        from = next;
    }
    free(kld);
    return ok;
}

// ---- the whole ----------------------------------------------------------------------------------

static int by_checked(const void *a, const void *b) {
    double x = ((const struct found *)a)->checked, y = ((const struct found *)b)->checked;
    return x < y ? -1 : x > y;
}

bool study_solve_at(struct study *st, size_t bytes, size_t *picks, struct error *err) {
    struct solver_solution ignored;
    return mix_solve(&st->mix, bytes, picks, &ignored, err);
}

static bool keep_optimum(struct study *st, size_t bytes, struct shortlist *l, struct error *err) {
    struct found f;
    if (!found_init(&f, st, "additive optimum", err))
        return false;
    if (mix_solve(&st->mix, bytes, f.picks, &l->solution, err) && check(st, &f, err))
        return keep(l, &f, err);
    free(f.picks);
    return false;
}

// Whether the first of the list leaves the others so far behind that the check tokens' noise does
// not matter: two texts of some thousand tokens agree on a ratio to a few percent.
static bool is_clear(const struct shortlist *l) {
    for (size_t i = 1; i < l->n; i++)
        if (!(l->list[0].checked <= CLEARLY * l->list[i].checked))
            return false;
    return true;
}

static bool search(struct study *st, size_t bytes, int rounds, struct shortlist *l,
                   struct error *err) {
    if (!keep_optimum(st, bytes, l, err) || !keep_heuristics(st, bytes, l, err) ||
        !keep_uniforms(st, bytes, l, err))
        return false;
    if (rounds < 0)
        rounds = !is_clear(l);
    if (!refine(st, bytes, rounds, l, 0, err))
        return false;
    qsort(l->list, l->n, sizeof *l->list, by_checked);
    return true;
}

bool study_search(struct study *st, size_t bytes, int rounds, struct shortlist *out,
                  struct error *err) {
    *out = (struct shortlist){0};
    st->checks = 0;
    progress_start(&st->checking, "candidates", "mixes");
    bool ok = search(st, bytes, rounds, out, err);
    progress_finish(&st->checking);
    if (!ok)
        shortlist_free(out);
    return ok;
}

bool study_solve(struct study *st, struct error *err) {
    int rounds = st->options->rounds;
    if (rounds < 0)
        rounds = study_affords(st, 0.5 * AROUND * (double)st->mix.n, st->n_fit);
    return study_search(st, st->budget.bytes, rounds, &st->found, err);
}
