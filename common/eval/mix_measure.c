#include "eval/mix_measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/random.h"
#include "quant/quantize.h"

// ---- whole mixes --------------------------------------------------------------------------------

static struct model *quantized(const struct model *m, struct recipe *r, bool ok,
                               struct error *err) {
    const struct quantize_options options = {0};
    struct quantize_stats stats;
    struct model *out = ok ? model_quantize_with(m, r, &options, &stats, err) : NULL;
    recipe_free(r);
    return out;
}

struct model *mix_model(const struct mix *x, const struct model *m, const size_t *picks,
                        struct error *err) {
    struct recipe r = {0};
    bool ok = mix_recipe(x, picks, &r, err);
    return quantized(m, &r, ok, err);
}

bool mix_measure(const struct mix *x, struct probe *probe, const size_t *picks, double *kld,
                 struct error *err) {
    struct model *m = mix_model(x, probe->base, picks, err);
    bool ok = m && probe_kld(probe, m, 0, kld, err);
    model_free(m);
    return ok;
}

// ---- one change at a time -----------------------------------------------------------------------

struct linears {
    struct linear **all;
    size_t n, capacity;
    struct error *err;
};

static bool collect_linear(void *user, struct linear *l) {
    struct linears *all = user;
    struct linear **grown =
        memory_grow((void *)all->all, all->n, &all->capacity, sizeof *grown, "linears", all->err);
    if (!grown)
        return false;
    all->all = grown;
    grown[all->n++] = l;
    return true;
}

struct graft {
    const struct linears *from;
    const char *except;
    size_t at;
};

static bool graft_linear(void *user, struct linear *l) {
    struct graft *g = user;
    const struct linear *from = g->from->all[g->at++];
    if (strcmp(l->w.name, g->except) != 0) {
        *l = *from;
        l->owns_data = false;
    }
    return true;
}

// The base with one tensor in another format; everything else is the base's.
static struct model *changed_model(const struct mix *x, const struct model *m,
                                   const struct linears *base, size_t i, size_t format,
                                   struct error *err) {
    const struct quant_format *f = x->s->formats[format];
    const char *name = x->s->tensors[x->tensors[i]].name;
    struct recipe r = {0};
    bool ok = recipe_add(&r, name, f, err);
    if (ok)
        r.rules[0].search = x->search && f->dtype == DTYPE_BLOCK;
    struct model *out = quantized(m, &r, ok, err);
    struct graft g = {.from = base, .except = name};
    if (!out)
        return NULL;
    model_visit_linears(out, graft_linear, &g);
    if (out->config.tied) {
        out->head = out->embedding;
        out->head.owns_data = false;
    }
    return out;
}

static size_t first_layer(const struct mix *x, const struct model *m, size_t i) {
    const struct sensitivity_tensor *t = &x->s->tensors[x->tensors[i]];
    if (t->layer != SENSITIVITY_NO_LAYER)
        return t->layer;
    return strcmp(t->name, m->embedding.w.name) == 0 ? 0 : m->config.n_layers;
}

// The format of the least cost + lambda bytes whose cell is still NaN; n_formats if there is none.
static size_t next_format(const struct mix *x, size_t i, double lambda, const double *kld) {
    size_t best = x->s->n_formats;
    double least = INFINITY;
    for (size_t f = 0; f < x->s->n_formats; f++) {
        double price = x->cost[mix_cell(x, i, f)] + lambda * (double)mix_tensor_bytes(x, i, f);
        if (isnan(kld[mix_cell(x, i, f)]) && price < least) { // NaN, not allowed, is never less
            least = price;
            best = f;
        }
    }
    return best;
}

struct changes {
    const struct mix *x;
    const struct model *m;
    struct probe probe;
    struct linears base;
    double *kld;
};

static bool measure_change(struct changes *c, size_t i, size_t format, struct error *err) {
    struct model *changed = changed_model(c->x, c->m, &c->base, i, format, err);
    bool ok = changed && probe_kld(&c->probe, changed, first_layer(c->x, c->m, i),
                                   &c->kld[mix_cell(c->x, i, format)], err);
    model_free(changed);
    return ok;
}

static bool measure_tensor(struct changes *c, size_t i, size_t own, double own_kld, double lambda,
                           size_t around, struct error *err) {
    for (size_t f = 0; f < c->x->s->n_formats; f++)
        c->kld[mix_cell(c->x, i, f)] = f == own ? own_kld : NAN;
    for (size_t k = 0; k < around; k++) {
        size_t f = next_format(c->x, i, lambda, c->kld);
        if (f == c->x->s->n_formats)
            break;
        if (!measure_change(c, i, f, err))
            return false;
    }
    return true;
}

bool mix_measure_changes(const struct mix *x, const struct model *m, const int32_t *tokens,
                         size_t n_tokens, size_t want, size_t window, const size_t *picks,
                         double lambda, size_t around, double *kld, mix_progress *progress,
                         void *user, struct error *err) {
    struct changes c = {.x = x, .m = m, .base = {.err = err}, .kld = kld};
    struct model *base = mix_model(x, m, picks, err);
    double own;
    bool ok = base && model_visit_linears(base, collect_linear, &c.base) &&
              probe_open(&c.probe, m, base, tokens, n_tokens, want, window, err) &&
              probe_kld(&c.probe, base, m->config.n_layers, &own, err);
    for (size_t i = 0; ok && i < x->n; i++) {
        ok = measure_tensor(&c, i, picks[i], own, lambda, around, err);
        if (progress)
            progress(user, i + 1, x->n);
    }
    probe_close(&c.probe);
    free(c.base.all);
    model_free(base);
    return ok;
}

bool mix_solve_changes(const struct mix *x, const size_t *from, const double *kld, double weight,
                       size_t budget, size_t *picks, struct error *err) {
    struct mix around = *x;
    struct solver_solution solution;
    around.cost = memory_alloc(x->n, x->s->n_formats * sizeof *around.cost, "mix", err);
    if (!around.cost)
        return false;
    for (size_t i = 0; i < x->n; i++) {
        double own = kld[mix_cell(x, i, from[i])], cost = x->cost[mix_cell(x, i, from[i])];
        for (size_t f = 0; f < x->s->n_formats; f++) {
            size_t at = mix_cell(x, i, f);
            double change = weight * (kld[at] - own) + (1 - weight) * (x->cost[at] - cost);
            around.cost[at] = isfinite(kld[at]) ? change : NAN; // infinite: it overflowed
        }
    }
    bool ok = mix_solve(&around, budget, picks, &solution, err);
    free(around.cost);
    return ok;
}

// ---- at random ----------------------------------------------------------------------------------

static double bits_of(const struct mix *x, size_t i, size_t format) {
    const struct sensitivity_tensor *t = &x->s->tensors[x->tensors[i]];
    return 8 * (double)mix_tensor_bytes(x, i, format) / ((double)t->n * (double)t->k);
}

// One of the allowed formats within `reach` bits of the level, or the nearest.
static size_t draw_format(const struct mix *x, size_t i, double level, double reach,
                          struct random *random) {
    size_t n_near = 0, chosen = 0;
    double nearest = INFINITY;
    for (size_t f = 0; f < x->s->n_formats; f++) {
        double distance = fabs(bits_of(x, i, f) - level);
        if (isnan(x->cost[mix_cell(x, i, f)]))
            continue;
        if (distance <= reach && random_below(random, (uint32_t)++n_near) == 0)
            chosen = f;
        if (!n_near && distance < nearest) {
            nearest = distance;
            chosen = f;
        }
    }
    return chosen;
}

void mix_random(const struct mix *x, uint64_t seed, size_t *picks) {
    struct random random = {seed};
    double level = 3 + 3 * random_uniform(&random);
    for (size_t i = 0; i < x->n; i++)
        picks[i] = x->group[i] == i ? draw_format(x, i, level, 1.5, &random) : picks[x->group[i]];
}
