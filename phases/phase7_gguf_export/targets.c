#include "targets.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "lab/analysis.h"
#include "lab/inputs.h"

// ---- names ------------------------------------------------------------------------------------

// "qwen2.5-3b" of "results/qwen2.5-3b" and of "results/qwen2.5-3b.gguf", "model" of "results/..";
// and the folder with that name at its end.
static bool name_model(struct targets *t, const struct lab *lab, struct error *err) {
    char *folder = lab_results_folder(lab, err);
    if (!folder)
        return false;
    char *name = strrchr(folder, '/') + 1;
    size_t n = strlen(name);
    if (n > 5 && strcmp(name + n - 5, ".gguf") == 0)
        name[n - 5] = '\0';
    t->model = memory_strdup(strspn(name, ".") == n ? "model" : name, err);
    t->folder =
        t->model ? memory_printf(err, "%.*s%s", (int)(name - folder), folder, t->model) : NULL;
    free(folder);
    return t->folder;
}

static bool is_folder(const char *path) {
    return folder_exists(path) || path[strlen(path) - 1] == '/';
}

static bool names_file(const char *path) {
    size_t n = strlen(path);
    return !is_folder(path) && (file_exists(path) || (n > 5 && strcmp(path + n - 5, ".gguf") == 0));
}

// --out is the file, or the folder of several (or one that is there); without it
// results/<model>/<model>-<name>.gguf, or out/bundled/ for the bundled model.
static char *target_path(const struct targets *all, const struct target *t, const char *out,
                         struct error *err) {
    if (out && all->n == 1 && !is_folder(out))
        return memory_strdup(out, err);
    if (out)
        return memory_printf(err, "%s%s%s-%s.gguf", out, out[strlen(out) - 1] == '/' ? "" : "/",
                             all->model, t->name);
    return memory_printf(err, "%s/%s-%s.gguf", all->folder, all->model, t->name);
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

static void refuse_type(const struct lab *lab, const char *names, const char *name, size_t size) {
    if (!size)
        cli_usage_error(lab->program, "--type is '%s', expected names joined by ','", names);
    const char *nearest = gguf_preset_nearest(name, size)->name;
    char others[256] = "";
    for (const struct gguf_preset *p = gguf_presets; p->name; p++)
        if (p->name != nearest)
            snprintf(others + strlen(others), sizeof others - strlen(others), " %s", p->name);
    cli_usage_error(lab->program, "--type: '%.*s' is no type; nearest is %s, others are%s",
                    (int)size, name, nearest, others);
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
            refuse_type(lab, names, s, size);
        ok = add_target(t, p, p->name, err);
        s += size;
        if (!*s)
            break;
    }
    return ok;
}

// ---- a recipe's file, a budget's --------------------------------------------------------------

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

static bool add_budget(struct targets *t, const struct lab *lab,
                       const struct file_budget_flags *flags, struct error *err) {
    char *name = flags->size ? memory_strdup(flags->size, err)
                             : memory_printf(err, "%gbits", (double)flags->bits);
    bool ok = name && file_budget_open(&t->budget, lab, t->model, flags, err) &&
              add_target(t, NULL, name, err);
    free(name);
    return ok;
}

// ---- all ----------------------------------------------------------------------------------------

static bool choose(struct targets *t, const struct lab *lab, const struct target_flags *flags,
                   struct error *err) {
    if (flags->budget.size || flags->budget.bits > 0)
        return add_budget(t, lab, &flags->budget, err);
    if (lab->options.recipe)
        return add_recipe(t, lab, err);
    return add_types(t, lab, flags->types ? flags->types : "Q4_K_M", err);
}

bool targets_choose(struct targets *t, const struct lab *lab, const struct target_flags *flags,
                    struct error *err) {
    const char *out = lab->options.out;
    size_t chosen_by =
        !!flags->types + (flags->budget.bits > 0) + !!flags->budget.size + !!lab->options.recipe;
    *t = (struct targets){0};
    if (chosen_by > 1)
        cli_usage_error(lab->program, "--type, --recipe, --bits and --size exclude each other");
    if (flags->budget.formats && !flags->budget.size && flags->budget.bits <= 0)
        cli_usage_error(lab->program, "--formats is what --bits and --size choose from: one of "
                                      "them is missing");
    bool ok = name_model(t, lab, err) && choose(t, lab, flags, err);
    if (ok && t->n > 1 && out && names_file(out))
        cli_usage_error(lab->program, "--out %s is one file, expected a folder for %zu files", out,
                        t->n);
    for (size_t i = 0; ok && i < t->n; i++)
        ok = (t->items[i].path = target_path(t, &t->items[i], out, err)) != NULL;
    return ok;
}

bool targets_check_paths(const struct targets *t, const struct lab *lab, struct error *err) {
    for (size_t i = 0; i < t->n; i++) {
        const char *path = t->items[i].path;
        if (!lab_wanted(lab, t->items[i].name))
            continue;
        if (inputs_read_file(lab, path))
            cli_usage_error(lab->program, "%s: this run reads that file, expected another to write",
                            path);
        if (!(lab->options.out ? file_check_new : file_check_writable)(path, err))
            return false;
    }
    return true;
}

bool targets_solve(struct targets *t, const struct lab *lab, struct error *err) {
    if (!t->budget.n_formats)
        return true;
    // Apart from phase 4's analysis, which is of other formats; scales that were searched for do
    // other damage.
    char *results = path_join(t->folder, lab->options.search ? "gguf-search" : "gguf", err);
    char *folder = results ? lab_analysis_folder(lab, results, err) : NULL;
    bool ok = folder && file_budget_solve(&t->budget, lab, folder, &t->mix, err);
    free(results);
    free(folder);
    return ok;
}

void targets_free(struct targets *t) {
    for (size_t i = 0; i < t->n; i++) {
        free(t->items[i].name);
        free(t->items[i].path);
    }
    free(t->model);
    free(t->folder);
    file_budget_close(&t->budget);
    recipe_free(&t->mix);
    *t = (struct targets){0};
}

bool target_plan(const struct lab *lab, const struct target *t, struct gguf_plan *plan,
                 struct error *err) {
    const struct cli_options *o = &lab->options;
    return t->preset ? gguf_plan_preset(plan, lab->model, t->preset, o->only, o->skip, err)
                     : gguf_plan_recipe(plan, lab->model, t->recipe, err);
}
