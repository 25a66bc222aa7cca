#include "lab/mixed.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

const char *lab_recipe_label(const struct lab *lab) {
    const char *path = lab->options.recipe;
    const char *slash = path ? strrchr(path, '/') : NULL;
    return slash && slash[1] ? slash + 1 : path;
}

// ---- names ------------------------------------------------------------------------------------

struct names {
    const char **list;
    size_t n, capacity;
    struct error *err;
};

static bool add_name(struct names *names, const char *name) {
    const char **grown = memory_grow((void *)names->list, names->n, &names->capacity, sizeof *grown,
                                     "names of tensors", names->err);
    if (!grown)
        return false;
    names->list = grown;
    grown[names->n++] = name;
    return true;
}

static bool add_linear(void *user, struct linear *l) {
    return add_name(user, l->w.name);
}

// All that a rule may name: weight matrices, and norms and biases, which stay as they are. A tied
// head is the embedding under another name.
static bool collect_names(const struct lab *lab, struct names *names) {
    const struct model *m = lab->model;
    bool ok = model_visit_linears(lab->model, add_linear, names);
    if (ok && m->config.tied)
        ok = add_name(names, "lm_head.weight");
    for (size_t i = 0; ok && m->files && i < m->files->n_tensors; i++)
        ok = add_name(names, m->files->tensors[i].name);
    return ok;
}

bool lab_read_recipe(struct lab *lab, struct error *err) {
    const char *path = lab->options.recipe;
    struct names names = {.err = err};
    if (!recipe_read(&lab->recipe, path, err))
        return false;
    bool ok = lab->recipe.n_rules ||
              error_set(err, "%s: no rule, expected lines of 'pattern format'", path);
    ok = ok && collect_names(lab, &names) &&
         recipe_check(&lab->recipe, names.list, names.n, path, err);
    free((void *)names.list);
    return ok;
}

// ---- rows ---------------------------------------------------------------------------------------

struct resolving {
    const struct lab *lab;
    const struct recipe *recipe;
    struct recipe *out;
    const struct quant_format *rest; // what is not quantized becomes this; NULL: it stays
    struct error *err;
};

static bool excluded(const struct cli_options *o, const char *name) {
    return (o->skip && pattern_match(o->skip, name)) || (o->only && !pattern_match(o->only, name));
}

static bool resolve_linear(void *user, struct linear *l) {
    struct resolving *to = user;
    const struct recipe_rule *rule = recipe_find(to->recipe, l->w.name);
    bool chosen = rule && rule->format && !excluded(&to->lab->options, l->w.name);
    if (recipe_find(to->out, l->w.name)) // one tensor behind several linears
        return true;
    if (!recipe_add(to->out, l->w.name, chosen ? rule->format : to->rest, to->err))
        return false;
    to->out->rules[to->out->n_rules - 1].search = chosen && rule->search;
    return true;
}

bool lab_resolve_recipe(const struct lab *lab, const struct recipe *recipe, struct recipe *out,
                        struct error *err) {
    *out = (struct recipe){0};
    struct resolving to = {.lab = lab, .recipe = recipe, .out = out, .err = err};
    if (lab->model->layers[0].q.w.dtype == DTYPE_F32)
        to.rest = quant_format_find("f16");
    if (model_visit_linears(lab->model, resolve_linear, &to))
        return true;
    recipe_free(out);
    return false;
}

// The one format that its rules name; "mixed" if there are several.
static const char *format_name(const struct recipe *r) {
    const struct quant_format *one = NULL;
    for (size_t i = 0; i < r->n_rules; i++) {
        const struct quant_format *f = r->rules[i].format;
        if (f && one && f != one)
            return "mixed";
        one = f ? f : one;
    }
    return one ? one->name : "mixed";
}

bool lab_mixed(struct lab *lab, const struct recipe *recipe, const char *label, struct error *err) {
    struct recipe r;
    if (!lab_resolve_recipe(lab, recipe, &r, err))
        return false;
    bool ok = lab_recipe_row(lab, &r, false, label, format_name(recipe), err);
    recipe_free(&r);
    return ok;
}
