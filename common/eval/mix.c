#include "eval/mix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

void mix_free(struct mix *x) {
    free(x->tensors);
    free(x->group);
    free(x->cost);
    *x = (struct mix){0};
}

// ---- what may be chosen -----------------------------------------------------------------------

static bool chosen_for(const struct sensitivity_tensor *t, const struct mix_rules *rules) {
    if (rules->skip && pattern_match(rules->skip, t->name))
        return false;
    if (rules->only)
        return pattern_match(rules->only, t->name);
    return rules->embeddings || t->layer != SENSITIVITY_NO_LAYER;
}

// Tensors whose kernels read the same activations.
static int kernel_of(const struct sensitivity_tensor *t) {
    if (pattern_match("*q_proj|*k_proj|*v_proj|attn_q|attn_k|attn_v", t->kind))
        return 1;
    return pattern_match("*gate_proj|*up_proj|ffn_gate|ffn_up", t->kind) ? 2 : 0;
}

// The first of the tensors before i that must share a format with it; i itself if none must.
static size_t group_of(const struct mix *x, size_t i) {
    const struct sensitivity_tensor *t = &x->s->tensors[x->tensors[i]];
    int kernel = kernel_of(t);
    for (size_t j = 0; kernel && j < i; j++) {
        const struct sensitivity_tensor *u = &x->s->tensors[x->tensors[j]];
        if (u->layer == t->layer && kernel_of(u) == kernel)
            return x->group[j];
    }
    return i;
}

static bool allowed(const struct mix_rules *rules, const struct sensitivity_tensor *t,
                    const struct sensitivity_cell *c) {
    double bits = 8 * (double)c->bytes / ((double)t->n * (double)t->k);
    if (!c->bytes || !isfinite(sensitivity_kld(c)))
        return false;
    if (t->layer != SENSITIVITY_NO_LAYER)
        return true;
    return bits >= rules->min_bits && (rules->max_bits == 0 || bits <= rules->max_bits);
}

static bool fill_costs(struct mix *x, size_t i, const struct mix_rules *rules, struct error *err) {
    const struct sensitivity_tensor *t = &x->s->tensors[x->tensors[i]];
    bool any = false;
    for (size_t f = 0; f < x->s->n_formats; f++) {
        const struct sensitivity_cell *c = sensitivity_at(x->s, x->tensors[i], f);
        bool may = allowed(rules, t, c);
        x->cost[mix_cell(x, i, f)] = may ? sensitivity_kld(c) : NAN;
        any |= may;
    }
    return any || error_set(err, "%s: none of the %zu formats can hold its %zu x %zu weights%s",
                            t->name, x->s->n_formats, t->n, t->k,
                            t->layer == SENSITIVITY_NO_LAYER ? " within the bits allowed" : "");
}

bool mix_init(struct mix *x, const struct sensitivity *s, const struct mix_rules *rules,
              struct error *err) {
    *x = (struct mix){.s = s, .search = rules->search};
    size_t cells;
    if (!size_mul(s->n_tensors, s->n_formats, &cells))
        return error_set(err, "%zu tensors in %zu formats overflow", s->n_tensors, s->n_formats);
    x->tensors = memory_alloc(s->n_tensors, sizeof *x->tensors, "mix", err);
    x->group = memory_alloc(s->n_tensors, sizeof *x->group, "mix", err);
    x->cost = memory_alloc(cells, sizeof *x->cost, "mix", err);
    bool ok = x->tensors && x->group && x->cost;
    for (size_t t = 0; ok && t < s->n_tensors; t++) {
        if (!chosen_for(&s->tensors[t], rules))
            continue;
        size_t i = x->n++;
        x->tensors[i] = t;
        x->group[i] = rules->share_kernels ? group_of(x, i) : i;
        ok = fill_costs(x, i, rules, err);
    }
    if (ok && !x->n)
        ok = error_set(err, "no tensor is left to choose a format for");
    if (!ok)
        mix_free(x);
    return ok;
}

// ---- what a mix takes and costs ---------------------------------------------------------------

size_t mix_bytes(const struct mix *x, const size_t *picks) {
    size_t bytes = 0;
    for (size_t i = 0; i < x->n; i++)
        bytes += mix_tensor_bytes(x, i, picks[i]);
    return bytes;
}

double mix_cost(const struct mix *x, const size_t *picks) {
    double cost = 0;
    for (size_t i = 0; i < x->n; i++)
        cost += x->cost[mix_cell(x, i, picks[i])];
    return cost;
}

size_t mix_weights(const struct mix *x) {
    size_t weights = 0;
    for (size_t i = 0; i < x->n; i++)
        weights += x->s->tensors[x->tensors[i]].n * x->s->tensors[x->tensors[i]].k;
    return weights;
}

size_t mix_stored_bytes(const struct mix *x) {
    size_t bytes = 0;
    for (size_t i = 0; i < x->n; i++)
        bytes += x->s->tensors[x->tensors[i]].bytes;
    return bytes;
}

// ---- items: tensors, or groups of them ----------------------------------------------------------

// What the group that begins with tensor i takes in a format; false if a member may not have it.
static bool group_choice(const struct mix *x, size_t i, size_t format, struct solver_choice *c) {
    *c = (struct solver_choice){0};
    for (size_t j = i; j < x->n; j++) {
        if (x->group[j] != i)
            continue;
        c->bytes += mix_tensor_bytes(x, j, format);
        c->cost += x->cost[mix_cell(x, j, format)];
    }
    return !isnan(c->cost);
}

static size_t extreme_bytes(const struct mix *x, bool largest) {
    size_t sum = 0;
    for (size_t i = 0; i < x->n; i++) {
        size_t best = 0;
        struct solver_choice c;
        for (size_t f = 0; x->group[i] == i && f < x->s->n_formats; f++)
            if (group_choice(x, i, f, &c) && (!best || (largest ? c.bytes > best : c.bytes < best)))
                best = c.bytes;
        sum += best;
    }
    return sum;
}

size_t mix_smallest(const struct mix *x) {
    return extreme_bytes(x, false);
}

size_t mix_largest(const struct mix *x) {
    return extreme_bytes(x, true);
}

struct problem {
    struct solver_item *items;     // [n]
    struct solver_choice *choices; // [n, n_formats]
    size_t *formats;               // [n, n_formats] of the choices
    size_t *first;                 // [n] each item's first tensor
    size_t n;
};

static void problem_free(struct problem *p) {
    free(p->items);
    free(p->choices);
    free(p->formats);
    free(p->first);
}

static bool problem_init(struct problem *p, const struct mix *x, struct error *err) {
    size_t n_formats = x->s->n_formats, cells = x->n * n_formats;
    *p = (struct problem){.items = memory_alloc(x->n, sizeof *p->items, "mix", err),
                          .choices = memory_alloc(cells, sizeof *p->choices, "mix", err),
                          .formats = memory_alloc(cells, sizeof *p->formats, "mix", err),
                          .first = memory_alloc(x->n, sizeof *p->first, "mix", err)};
    if (!p->items || !p->choices || !p->formats || !p->first)
        return false;
    for (size_t i = 0; i < x->n; i++) {
        if (x->group[i] != i)
            continue;
        struct solver_item *item = &p->items[p->n];
        size_t at = p->n * n_formats;
        item->choices = p->choices + at;
        p->first[p->n++] = i;
        for (size_t f = 0; f < n_formats; f++)
            if (group_choice(x, i, f, &p->choices[at + item->n]))
                p->formats[at + item->n++] = f;
        if (!item->n)
            return error_set(err, "%s and those that share its kernel have no format in common",
                             x->s->tensors[x->tensors[i]].name);
    }
    return true;
}

bool mix_solve(const struct mix *x, size_t budget, size_t *picks, struct solver_solution *solution,
               struct error *err) {
    struct problem p;
    *solution = (struct solver_solution){0};
    bool ok = problem_init(&p, x, err) && solver_solve(p.items, p.n, budget, solution, err);
    for (size_t k = 0; ok && k < p.n; k++)
        for (size_t i = p.first[k]; i < x->n; i++)
            if (x->group[i] == p.first[k])
                picks[i] = p.formats[k * x->s->n_formats + solution->picks[k]];
    free(solution->picks);
    solution->picks = NULL;
    problem_free(&p);
    return ok;
}

// ---- heuristics ---------------------------------------------------------------------------------

// Formats `high` for what is raised and `low` for the rest; where a tensor may not have its one,
// the pair will not do.
static bool pair_picks(const struct mix *x, const bool *raised, size_t high, size_t low,
                       size_t *picks) {
    for (size_t i = 0; i < x->n; i++) {
        picks[i] = raised[i] ? high : low;
        if (isnan(x->cost[mix_cell(x, i, picks[i])]))
            return false;
    }
    return true;
}

// Puts the picks behind the n before them where they belong, and drops the last if there are more
// than `most`.
static size_t insert_picks(const struct mix *x, size_t *all, size_t n, size_t most) {
    size_t at = n;
    double cost = mix_cost(x, all + n * x->n);
    while (at > 0 && mix_cost(x, all + (at - 1) * x->n) > cost)
        at--;
    for (size_t i = 0; i < x->n; i++) {
        size_t pick = all[n * x->n + i];
        for (size_t row = n; row > at; row--)
            all[row * x->n + i] = all[(row - 1) * x->n + i];
        all[at * x->n + i] = pick;
    }
    return n < most ? n + 1 : n;
}

size_t mix_pairs(const struct mix *x, const bool *raised, size_t budget, size_t most,
                 size_t *picks) {
    size_t n = 0;
    for (size_t high = 0; high < x->s->n_formats; high++)
        for (size_t low = 0; low < x->s->n_formats; low++) {
            size_t *next = picks + n * x->n;
            if (pair_picks(x, raised, high, low, next) && mix_bytes(x, next) <= budget)
                n = insert_picks(x, picks, n, most);
        }
    return n;
}

// ---- recipes ------------------------------------------------------------------------------------

bool mix_recipe(const struct mix *x, const size_t *picks, struct recipe *r, struct error *err) {
    *r = (struct recipe){0};
    for (size_t i = 0; i < x->n; i++) {
        const struct quant_format *f = x->s->formats[picks[i]];
        if (!recipe_add(r, x->s->tensors[x->tensors[i]].name, f, err)) {
            recipe_free(r);
            return false;
        }
        r->rules[i].search = x->search && f->dtype == DTYPE_BLOCK;
    }
    return true;
}
