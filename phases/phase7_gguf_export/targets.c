#include "targets.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "eval/mix.h"
#include "lab/analysis.h"

// ---- names ------------------------------------------------------------------------------------

// "qwen2.5-3b" of "results/qwen2.5-3b" and of "results/qwen2.5-3b.gguf"; "model" of "results/..".
static char *model_name(const struct lab *lab, struct error *err) {
    char *folder = lab_results_folder(lab, err);
    const char *slash = folder ? strrchr(folder, '/') : NULL;
    char *name = folder ? memory_strdup(slash ? slash + 1 : folder, err) : NULL;
    size_t n = name ? strlen(name) : 0;
    if (n && strspn(name, ".") == n) {
        free(name);
        name = memory_strdup("model", err);
    } else if (n > 5 && strcmp(name + n - 5, ".gguf") == 0) {
        name[n - 5] = '\0';
    }
    free(folder);
    return name;
}

static bool is_folder(const char *path) {
    return folder_exists(path) || path[strlen(path) - 1] == '/';
}

static bool names_file(const char *path) {
    size_t n = strlen(path);
    return !is_folder(path) && n > 5 && strcmp(path + n - 5, ".gguf") == 0;
}

// --out is the file, or the folder of several (or one that is there); without it
// results/<model>/<model>-<name>.gguf.
static char *target_path(const struct targets *all, const struct target *t, const char *out,
                         struct error *err) {
    if (out && all->n == 1 && !is_folder(out))
        return memory_strdup(out, err);
    if (out)
        return memory_printf(err, "%s%s%s-%s.gguf", out, out[strlen(out) - 1] == '/' ? "" : "/",
                             all->model, t->name);
    return memory_printf(err, "results/%s/%s-%s.gguf", all->model, all->model, t->name);
}

static bool add_target(struct targets *t, const struct gguf_preset *preset, const char *name,
                       struct error *err) {
    for (size_t i = 0; i < t->n; i++)
        if (preset && t->items[i].preset == preset)
            return true;
    struct target *new = &t->items[t->n];
    *new = (struct target){.preset = preset, .recipe = preset ? NULL : &t->mix};
    if (!(new->name = memory_strdup(name, err)))
        return false;
    t->n++;
    return true;
}

// "Q4_0,q8_0" or "all".
static bool add_types(struct targets *t, const struct lab *lab, const char *names,
                      struct error *err) {
    bool ok = true;
    if (strcmp(names, "all") == 0) {
        for (const struct gguf_preset *p = gguf_presets; ok && p->name; p++)
            ok = add_target(t, p, p->name, err);
        return ok;
    }
    for (const char *s = names; ok; s++) {
        size_t size = strcspn(s, ",");
        const struct gguf_preset *p = gguf_preset_find(s, size);
        if (!p)
            cli_usage_error(lab->program,
                            "--type: '%.*s' is no type; expected Q4_K_M, or others that --help "
                            "lists, joined by ','",
                            (int)size, s);
        ok = add_target(t, p, p->name, err);
        s += size;
        if (!*s)
            break;
    }
    return ok;
}

// ---- a recipe's file --------------------------------------------------------------------------

static bool add_recipe(struct targets *t, const struct lab *lab, struct error *err) {
    const char *label = lab_recipe_label(lab);
    const char *dot = strrchr(label, '.');
    size_t n = dot && dot != label ? (size_t)(dot - label) : strlen(label);
    char *name = memory_printf(err, "%.*s GGUF", (int)n, label);
    bool ok = name && lab_resolve_recipe(lab, &lab->recipe, &t->mix, err) &&
              add_target(t, NULL, name, err);
    free(name);
    return ok;
}

// ---- the best mix for a budget ------------------------------------------------------------------

// "900MB", "1.9GB", "2GiB", "123456"; 0 if it is none of these.
static double parse_size(const char *text) {
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {{"", 1},     {"B", 1},        {"kB", 1e3},     {"KB", 1e3},    {"MB", 1e6},
                 {"GB", 1e9}, {"KiB", 1024.0}, {"MiB", 0x1p20}, {"GiB", 0x1p30}};
    char *end;
    double number = strspn(text, "0123456789.") ? strtod(text, &end) : 0;
    for (size_t i = 0; number > 0 && i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].unit) == 0)
            return number * units[i].bytes;
    return 0;
}

// Bytes of a file beside the matrices that are chosen for, padding included.
static bool fixed_bytes(const struct lab *lab, const struct targets *t, const struct mix *x,
                        size_t *bytes, struct error *err) {
    struct gguf_plan plan;
    const struct gguf_preset *f16 = gguf_preset_find("F16", 3);
    if (!gguf_plan_preset(&plan, lab->model, f16, NULL, NULL, err))
        return false;
    bool ok = gguf_plan_file_size(&plan, lab->tokenizer, t->model, bytes, err);
    for (size_t i = 0; i < plan.n_tensors; i++)
        for (size_t j = 0; j < x->n; j++)
            if (strcmp(plan.tensors[i].source, x->s->tensors[x->tensors[j]].name) == 0 &&
                plan.tensors[i].k)
                *bytes -= plan.tensors[i].bytes - GGUF_ALIGNMENT;
    gguf_plan_free(&plan);
    return ok;
}

// Of the file, as --size says.
static size_t wanted_size(const struct lab *lab, const struct target_flags *flags) {
    double size = parse_size(flags->size);
    if (!(size >= 1 && size < 0x1p62))
        cli_usage_error(lab->program, "--size is '%s', expected such as 900MB or 1.9GB",
                        flags->size);
    return (size_t)size;
}

static bool find_budget(const struct targets *t, const struct lab *lab,
                        const struct target_flags *flags, const struct mix *x, size_t *budget,
                        struct error *err) {
    size_t fixed;
    if (!flags->size) {
        *budget = (size_t)((double)mix_weights(x) * (double)flags->bits / 8);
        return true;
    }
    if (!fixed_bytes(lab, t, x, &fixed, err))
        return false;
    size_t size = wanted_size(lab, flags);
    *budget = size < fixed ? 0 : size - fixed;
    return true;
}

// The file with every matrix in one format: its bytes, and the matrices' bits per weight.
static bool uniform_size(const struct lab *lab, const struct targets *t,
                         const struct quant_format *format, size_t *file, double *bits,
                         struct error *err) {
    struct recipe r = {0};
    struct gguf_plan plan;
    size_t weights, bytes;
    bool ok = recipe_add(&r, "*", format, err) && gguf_plan_recipe(&plan, lab->model, &r, err);
    if (ok) {
        ok = gguf_plan_file_size(&plan, lab->tokenizer, t->model, file, err);
        gguf_plan_sizes(&plan, &weights, &bytes);
        *bits = 8.0 * (double)bytes / (double)weights;
        gguf_plan_free(&plan);
    }
    recipe_free(&r);
    return ok;
}

// What no mix can reach is said before minutes are spent on measuring.
static bool check_reachable(const struct lab *lab, const struct targets *t,
                            const struct target_flags *flags, const struct quant_format **formats,
                            size_t n, struct error *err) {
    size_t least = SIZE_MAX, file;
    double least_bits = INFINITY, bits;
    for (size_t i = 0; i < n; i++) {
        if (!uniform_size(lab, t, formats[i], &file, &bits, err))
            return false;
        least = file < least ? file : least;
        least_bits = fmin(least_bits, bits);
    }
    if (flags->size && wanted_size(lab, flags) < least)
        return error_set(err, "--size %s: the smallest file of these formats has %zu bytes",
                         flags->size, least);
    if (!flags->size && (double)flags->bits < least_bits)
        return error_set(err, "--bits %g: the smallest of these formats has %.3f bits per weight",
                         (double)flags->bits, least_bits);
    return true;
}

static bool solve(struct targets *t, const struct lab *lab, const struct target_flags *flags,
                  const struct sensitivity *s, struct error *err) {
    const struct mix_rules rules = {.only = lab->options.only,
                                    .skip = lab->options.skip,
                                    .embeddings = true,
                                    .search = lab->options.search};
    struct mix x;
    struct solver_solution solution = {0};
    size_t budget = 0;
    if (!mix_init(&x, s, &rules, err))
        return false;
    size_t *picks = memory_alloc(x.n, sizeof *picks, "mix", err);
    bool ok = picks && find_budget(t, lab, flags, &x, &budget, err) &&
              mix_solve(&x, budget, picks, &solution, err) && mix_recipe(&x, picks, &t->mix, err);
    solver_solution_free(&solution);
    free(picks);
    mix_free(&x);
    return ok;
}

static bool check_candidates(const struct lab *lab, const struct quant_format **formats, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!formats[i]->gguf_type)
            cli_usage_error(lab->program, "--formats: GGUF has no type for %s", formats[i]->name);
    return true;
}

static bool add_mix(struct targets *t, const struct lab *lab, const struct target_flags *flags,
                    struct error *err) {
    struct sensitivity s = {0};
    const struct sensitivity_options options = {.search = lab->options.search};
    size_t n;
    const struct quant_format **formats = lab_formats(flags->formats, &n, err);
    // Apart from phase 4's, which is of other formats.
    char *results = formats ? lab_results_folder(lab, err) : NULL;
    char *folder = results ? path_join(results, "gguf", err) : NULL;
    char *name = flags->size ? memory_strdup(flags->size, err)
                             : memory_printf(err, "%gbits", (double)flags->bits);
    bool ok = folder && name && check_candidates(lab, formats, n) &&
              check_reachable(lab, t, flags, formats, n, err) && folder_create(folder, err) &&
              lab_sensitivity_reuse(lab, formats, n, &options, folder, &s, err) &&
              solve(t, lab, flags, &s, err) && add_target(t, NULL, name, err);
    sensitivity_free(&s);
    free(formats);
    free(results);
    free(folder);
    free(name);
    return ok;
}

// ---- all ----------------------------------------------------------------------------------------

bool targets_choose(struct targets *t, const struct lab *lab, const struct target_flags *flags,
                    struct error *err) {
    bool budget = flags->size || flags->bits > 0, recipe = lab->options.recipe != NULL;
    *t = (struct targets){0};
    if (!!flags->types + (flags->bits > 0) + !!flags->size + recipe > 1)
        cli_usage_error(lab->program, "--type, --recipe, --bits and --size exclude each other");
    if (flags->size)
        wanted_size(lab, flags);
    bool ok = (t->model = model_name(lab, err)) != NULL;
    if (ok && budget)
        ok = add_mix(t, lab, flags, err);
    else if (ok && recipe)
        ok = add_recipe(t, lab, err);
    else if (ok)
        ok = add_types(t, lab, flags->types ? flags->types : "Q4_K_M", err);
    if (ok && t->n > 1 && lab->options.out && names_file(lab->options.out))
        cli_usage_error(lab->program, "--out %s is one file, but there are %zu to write",
                        lab->options.out, t->n);
    for (size_t i = 0; ok && i < t->n; i++)
        ok = (t->items[i].path = target_path(t, &t->items[i], lab->options.out, err)) != NULL;
    return ok;
}

void targets_free(struct targets *t) {
    for (size_t i = 0; i < t->n; i++) {
        free(t->items[i].name);
        free(t->items[i].path);
    }
    free(t->model);
    recipe_free(&t->mix);
    *t = (struct targets){0};
}

bool target_plan(const struct lab *lab, const struct target *t, struct gguf_plan *plan,
                 struct error *err) {
    const struct cli_options *o = &lab->options;
    return t->preset ? gguf_plan_preset(plan, lab->model, t->preset, o->only, o->skip, err)
                     : gguf_plan_recipe(plan, lab->model, t->recipe, err);
}
