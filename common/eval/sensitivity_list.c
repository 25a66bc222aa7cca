#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "eval/sensitivity_part.h"
#include "quant/format.h"
#include "quant/recipe.h"

const struct linear *model_linear(const struct model *m, size_t layer, enum linear_role role) {
    if (role == ROLE_EMBEDDING)
        return &m->embedding;
    if (role == ROLE_HEAD)
        return &m->head;
    const struct layer *l = &m->layers[layer];
    const struct linear *const parts[] = {
        [ROLE_Q] = &l->q,       [ROLE_K] = &l->k,   [ROLE_V] = &l->v,      [ROLE_O] = &l->o,
        [ROLE_GATE] = &l->gate, [ROLE_UP] = &l->up, [ROLE_DOWN] = &l->down};
    return parts[role];
}

typedef bool span_visitor(void *user, struct linear_span span, struct error *err);

static bool same_tensor(const struct linear *a, const struct linear *b) {
    return a->w.data && b->w.data && strcmp(a->w.name, b->w.name) == 0;
}

static bool visit_layer(const struct model *m, size_t layer, span_visitor *visit, void *user,
                        struct error *err) {
    for (enum linear_role r = ROLE_Q; r < ROLE_LAYER_END;) {
        const struct linear *l = model_linear(m, layer, r);
        struct linear_span span = {layer, r, 1};
        while (r + span.n < ROLE_LAYER_END &&
               same_tensor(l, model_linear(m, layer, r + (enum linear_role)span.n)))
            span.n++;
        if (l->w.data && !visit(user, span, err))
            return false;
        r += (enum linear_role)span.n;
    }
    return true;
}

static bool visit_all(const struct model *m, bool blocks_only, span_visitor *visit, void *user,
                      struct error *err) {
    for (size_t l = 0; l < m->config.n_layers; l++)
        if (!visit_layer(m, l, visit, user, err))
            return false;
    if (blocks_only)
        return true;
    return visit(user, (struct linear_span){SENSITIVITY_NO_LAYER, ROLE_EMBEDDING, 1}, err) &&
           (m->config.tied ||
            visit(user, (struct linear_span){SENSITIVITY_NO_LAYER, ROLE_HEAD, 1}, err));
}

// "model.layers.3.mlp.down_proj.weight": what is behind the last part that is a number, or for the
// embedding and the head behind "model.", without ".weight".
static char *kind_of(const char *name, struct error *err) {
    const char *from = strncmp(name, "model.", 6) == 0 ? name + 6 : name;
    for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.')) {
        size_t digits = strspn(dot + 1, "0123456789");
        if (digits && dot[1 + digits] == '.')
            from = dot + digits + 2;
    }
    size_t n = strlen(from);
    if (n > 7 && strcmp(from + n - 7, ".weight") == 0)
        n -= 7;
    return memory_printf(err, "%.*s", (int)n, from);
}

struct listing {
    const struct model *m;
    const struct sensitivity_options *options;
    struct sensitivity_tensor *tensors; // NULL: they are counted
    struct linear_span *spans;
    size_t n;
};

static bool is_wanted(const struct sensitivity_options *o, const char *name) {
    return !(o->skip && pattern_match(o->skip, name)) && (!o->only || pattern_match(o->only, name));
}

static bool list(void *user, struct linear_span span, struct error *err) {
    struct listing *l = user;
    const struct tensor *w = &model_linear(l->m, span.layer, span.first)->w;
    if (!is_wanted(l->options, w->name))
        return true;
    if (!l->tensors) {
        l->n++;
        return true;
    }
    struct sensitivity_tensor *t = &l->tensors[l->n];
    *t = (struct sensitivity_tensor){.layer = span.layer, .k = w->shape[1]};
    for (size_t i = 0; i < span.n; i++) {
        const struct tensor *part =
            &model_linear(l->m, span.layer, span.first + (enum linear_role)i)->w;
        t->n += part->shape[0];
        t->bytes += part->bytes;
    }
    l->spans[l->n++] = span;
    return (t->name = memory_strdup(w->name, err)) && (t->kind = kind_of(w->name, err));
}

bool sensitivity_list(const struct model *m, const struct quant_format *const *formats,
                      size_t n_formats, const struct sensitivity_options *options,
                      struct sensitivity *s, struct linear_span **spans, struct error *err) {
    struct listing l = {.m = m, .options = options};
    visit_all(m, options->blocks_only, list, &l, err);
    size_t n = l.n, cells;
    if (!n_formats)
        return error_set(err, "no format to measure");
    if (!n)
        return error_set(err, "no tensor to measure");
    if (!size_mul(n, n_formats, &cells))
        return error_set(err, "%zu tensors in %zu formats overflow", n, n_formats);
    s->n_formats = n_formats;
    s->tensors = memory_alloc(n, sizeof *s->tensors, "sensitivities", err);
    s->formats = memory_alloc(n_formats, sizeof(void *), "sensitivities", err);
    s->cells = memory_alloc(cells, sizeof *s->cells, "sensitivities", err);
    *spans = memory_alloc(n, sizeof **spans, "sensitivities", err);
    if (!s->tensors || !s->formats || !s->cells || !*spans)
        return false;
    memcpy(s->formats, formats, n_formats * sizeof *formats);
    s->n_tensors = n; // from here on, names are freed
    l = (struct listing){m, options, s->tensors, *spans, 0};
    return visit_all(m, options->blocks_only, list, &l, err);
}

// Of all its parts; 0 if the format cannot hold one.
static size_t bytes_in(const struct model *m, const struct linear_span *span,
                       const struct quant_format *f) {
    size_t sum = 0;
    for (size_t i = 0; i < span->n; i++) {
        const struct tensor *w =
            &model_linear(m, span->layer, span->first + (enum linear_role)i)->w;
        size_t bytes;
        if (!f->bytes(f, w->shape[0], w->shape[1], &bytes))
            return 0;
        sum += bytes;
    }
    return sum;
}

bool sensitivity_shapes(const struct model *m, const struct quant_format *const *formats,
                        size_t n_formats, bool blocks_only, struct sensitivity *s,
                        struct error *err) {
    struct linear_span *spans = NULL;
    const struct sensitivity_options options = {.blocks_only = blocks_only};
    *s = (struct sensitivity){0};
    bool ok = sensitivity_list(m, formats, n_formats, &options, s, &spans, err);
    for (size_t t = 0; ok && t < s->n_tensors; t++)
        for (size_t f = 0; f < n_formats; f++)
            *sensitivity_at(s, t, f) = (struct sensitivity_cell){
                .bytes = bytes_in(m, &spans[t], formats[f]), .kld_estimated = NAN};
    free(spans);
    if (!ok)
        sensitivity_free(s);
    return ok;
}
