#include "file_budget.h"

#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "eval/mix.h"
#include "export/gguf_export.h"
#include "lab/analysis.h"
#include "lab/budget.h"

// ---- mixes -------------------------------------------------------------------------------------

static size_t padded(size_t bytes) {
    return (bytes + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT;
}

// An analysis that was read again may have formats that are no candidates now: no bytes, no choice.
static void set_bytes(const struct file_budget *b, struct sensitivity *s) {
    for (size_t f = 0; f < s->n_formats; f++) {
        bool candidate = false;
        for (size_t i = 0; i < b->n_formats; i++)
            candidate |= s->formats[f] == b->formats[i];
        for (size_t t = 0; t < s->n_tensors; t++) {
            size_t *bytes = &sensitivity_at(s, t, f)->bytes;
            *bytes = !candidate ? 0 : b->padded ? padded(*bytes) : *bytes;
        }
    }
}

static bool open_mix(const struct file_budget *b, const struct lab *lab, struct sensitivity *s,
                     struct mix *x, struct error *err) {
    const struct mix_rules rules = {.only = lab->options.only,
                                    .skip = lab->options.skip,
                                    .embeddings = true,
                                    .search = lab->options.search};
    set_bytes(b, s);
    return mix_init(x, s, &rules, err);
}

static bool solve(const struct mix *x, size_t bytes, struct recipe *r, struct error *err) {
    struct solver_solution solution = {0};
    size_t *picks = memory_alloc(x->n, sizeof *picks, "mix", err);
    bool ok = picks && mix_solve(x, bytes, picks, &solution, err) && mix_recipe(x, picks, r, err);
    solver_solution_free(&solution);
    free(picks);
    return ok;
}

// ---- what is asked for --------------------------------------------------------------------------

static bool smallest_file(const struct lab *lab, const char *model, const struct mix *x,
                          size_t *bytes, struct error *err) {
    struct recipe r;
    struct gguf_plan plan;
    if (!solve(x, mix_smallest(x), &r, err))
        return false;
    bool ok = gguf_plan_recipe(&plan, lab->model, &r, err);
    if (ok) {
        ok = gguf_plan_file_size(&plan, lab->tokenizer, model, bytes, err);
        gguf_plan_free(&plan);
    }
    recipe_free(&r);
    return ok;
}

static bool resolve_size(struct file_budget *b, const struct lab *lab, const char *model,
                         const char *text, const struct mix *x, struct error *err) {
    size_t size = 0, smallest;
    budget_parse_bytes(text, &size);
    if (!smallest_file(lab, model, x, &smallest, err))
        return false;
    size_t others = smallest - mix_smallest(x);
    b->bytes = size > others ? size - others : 0;
    return size >= smallest ||
           error_set(err, "--size %s cannot be met: the smallest file takes %zu bytes", text,
                     smallest);
}

static bool resolve_bits(struct file_budget *b, float bits, const struct mix *x,
                         struct error *err) {
    double weights = (double)mix_weights(x), least = 8 * (double)mix_smallest(x) / weights;
    b->bytes = (size_t)((double)bits * weights / 8);
    return b->bytes >= mix_smallest(x) ||
           error_set(err, "--bits %g cannot be met: the smallest mix takes %.4g bits per weight",
                     (double)bits, ceil(least * 1000) / 1000);
}

static void check_flags(const struct file_budget *b, const struct lab *lab,
                        const struct file_budget_flags *flags) {
    size_t ignored;
    if (flags->size && !budget_parse_bytes(flags->size, &ignored))
        cli_usage_error(lab->program, "--size is '%s', expected such as 900MB or 1.9GB",
                        flags->size);
    for (size_t i = 0; i < b->n_formats; i++)
        if (!b->formats[i]->gguf_type)
            cli_usage_error(lab->program, "--formats: GGUF has no type for %s",
                            b->formats[i]->name);
}

bool file_budget_open(struct file_budget *b, const struct lab *lab, const char *model,
                      const struct file_budget_flags *flags, struct error *err) {
    struct sensitivity shapes;
    struct mix x = {0};
    *b = (struct file_budget){.padded = flags->size != NULL};
    b->formats =
        lab_formats(flags->formats ? flags->formats : FILE_BUDGET_FORMATS, &b->n_formats, err);
    if (!b->formats)
        cli_usage_error(lab->program, "--formats: %s", err->message);
    check_flags(b, lab, flags);
    if (!sensitivity_shapes(lab->model, b->formats, b->n_formats, false, &shapes, err))
        return false;
    bool ok = open_mix(b, lab, &shapes, &x, err) &&
              (flags->size ? resolve_size(b, lab, model, flags->size, &x, err)
                           : resolve_bits(b, flags->bits, &x, err));
    mix_free(&x);
    sensitivity_free(&shapes);
    return ok;
}

void file_budget_close(struct file_budget *b) {
    free((void *)b->formats);
    *b = (struct file_budget){0};
}

// ---- the best mix -------------------------------------------------------------------------------

bool file_budget_solve(const struct file_budget *b, const struct lab *lab, const char *folder,
                       struct recipe *mix, struct error *err) {
    struct sensitivity s = {0};
    struct mix x = {0};
    const struct sensitivity_options options = {.search = lab->options.search};
    bool ok = lab_sensitivity_reuse(lab, b->formats, b->n_formats, &options, folder, &s, err) &&
              open_mix(b, lab, &s, &x, err) && solve(&x, b->bytes, mix, err);
    mix_free(&x);
    sensitivity_free(&s);
    return ok;
}
