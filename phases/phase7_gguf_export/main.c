// Phase 7: leave the lab.
//
// The model is quantized into the types of GGUF and written to a file that llama.cpp and all that
// is built on it can run. Then the file is loaded as any model is, and measured: what counts is
// what others will read, not what we had in memory.
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/timer.h"
#include "export/gguf_export.h"
#include "export/gguf_report.h"
#include "lab/lab.h"
#include "lab/measure.h"

static struct {
    const char *type, *recipe;
    bool search, dry_run;
} flags;

static const struct cli_flag own_flags[] = {
    {"type", "NAMES", CLI_TEXT, &flags.type, 1, 0, NULL,
     "one file for each: Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S "
     "Q5_K_M Q6_K IQ4_NL IQ4_XS MXFP4 F16 BF16 F32, joined by ','; or all [Q4_K_M]",
     "GGUF"},
    {"recipe", "FILE", CLI_TEXT, &flags.recipe, 1, 0, NULL,
     "which tensor gets which format (phase 5 writes such files), in place of --type", "GGUF"},
    {"search", NULL, CLI_FLAG, &flags.search, 0, 0, NULL,
     "look for the scales of least error: slower to write, as large, more accurate", "GGUF"},
    {"dry-run", NULL, CLI_FLAG, &flags.dry_run, 0, 0, NULL,
     "show every tensor's type and size, and write nothing", "GGUF"},
};

static const struct cli_program program = {
    .name = "phase7",
    .phase = 7,
    .summary = "GGUF: a quantized file that llama.cpp runs.",
    .examples = "./phase7                                        the bundled model as Q4_K_M\n"
                "./phase7 --model qwen2.5-3b --type Q4_0,Q4_K_M  two files, measured side by side\n"
                "./phase7 --model qwen2.5-3b --dry-run           what would be written\n"
                "./phase7 --recipe best.recipe --out best.gguf   the mix that phase 5 found\n"
                "llama-cli -m results/bundled/bundled-Q4_K_M.gguf\n",
    .flags = own_flags,
    .n_flags = sizeof own_flags / sizeof *own_flags,
};

// ---- what to write ----------------------------------------------------------------------------

enum { MAX_FILES = 64 };

// One file: of a preset, or of the recipe.
struct target {
    const struct gguf_preset *preset; // NULL: the recipe
    char *path;
};

struct targets {
    struct target items[MAX_FILES];
    size_t n;
    struct recipe recipe;
};

static void add_target(struct targets *t, const struct gguf_preset *preset) {
    for (size_t i = 0; i < t->n; i++)
        if (t->items[i].preset == preset)
            return;
    t->items[t->n++] = (struct target){.preset = preset};
}

// "Q4_0,q8_0" or "all". A name that is none ends the program.
static void parse_types(struct targets *t, const char *names) {
    if (strcmp(names, "all") == 0) {
        for (const struct gguf_preset *p = gguf_presets; p->name; p++)
            add_target(t, p);
        return;
    }
    for (const char *s = names;; s++) {
        size_t size = strcspn(s, ",");
        const struct gguf_preset *p = gguf_preset_find(s, size);
        if (!p)
            cli_usage_error(&program, "--type is '%.*s', expected names of --help joined by ','",
                            (int)size, s);
        add_target(t, p);
        s += size;
        if (!*s)
            return;
    }
}

static const char *target_name(const struct target *t) {
    return t->preset ? t->preset->name : "recipe";
}

// "qwen2.5-3b" of "Qwen/Qwen2.5-3B", "models/qwen2.5-3b/" and "qwen2.5-3b.gguf".
static char *model_name(const struct lab *lab, struct error *err) {
    const char *given = lab->options.model ? lab->options.model : "bundled";
    size_t end = strlen(given);
    while (end > 1 && given[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && given[begin - 1] != '/')
        begin--;
    if (end - begin > 5 && strncmp(given + end - 5, ".gguf", 5) == 0)
        end -= 5;
    return memory_printf(err, "%.*s", (int)(end - begin), given + begin);
}

// --out is the file, or the folder of several (or one that is there); without it
// results/<model>/<model>-<type>.gguf.
static char *target_path(const struct lab *lab, const char *model, const struct target *t,
                         bool single, struct error *err) {
    const char *out = lab->options.out;
    bool is_file = out && single && !folder_exists(out) && out[strlen(out) - 1] != '/';
    if (is_file)
        return memory_strdup(out, err);
    char *results = out ? NULL : lab_project_path("results", err), *path = NULL;
    if (out)
        path = memory_printf(err, "%s%s%s-%s.gguf", out, out[strlen(out) - 1] == '/' ? "" : "/",
                             model, target_name(t));
    else if (results)
        path = memory_printf(err, "%s/%s/%s-%s.gguf", results, model, model, target_name(t));
    free(results);
    return path;
}

static bool choose_targets(struct lab *lab, struct targets *t, const char *model,
                           struct error *err) {
    if (flags.recipe && flags.type)
        cli_usage_error(&program, "--type and --recipe exclude each other");
    if (!flags.recipe)
        parse_types(t, flags.type ? flags.type : "Q4_K_M");
    else if (recipe_read(&t->recipe, flags.recipe, err))
        t->items[t->n++] = (struct target){0};
    else
        return false;
    for (size_t i = 0; i < t->n; i++)
        if (!(t->items[i].path = target_path(lab, model, &t->items[i], t->n == 1, err)))
            return false;
    return true;
}

static void targets_free(struct targets *t) {
    for (size_t i = 0; i < t->n; i++)
        free(t->items[i].path);
    recipe_free(&t->recipe);
}

static bool make_plan(const struct lab *lab, const struct targets *targets, const struct target *t,
                      struct gguf_plan *plan, struct error *err) {
    return t->preset ? gguf_plan_preset(plan, lab->model, t->preset, err)
                     : gguf_plan_recipe(plan, lab->model, &targets->recipe, err);
}

// ---- writing ----------------------------------------------------------------------------------

static void show_progress(void *user, size_t done, size_t total, const char *tensor) {
    progress_update(user, done, total, tensor);
}

static bool write_file(struct lab *lab, const struct target *t, const char *model,
                       struct gguf_plan *plan, struct result_row *row, struct error *err) {
    struct progress p;
    struct gguf_export_options options = {
        .name = model, .search = flags.search, .progress = show_progress, .user = &p};
    size_t file_bytes = 0, weights, bytes;
    double start = timer_now();
    if (!folder_create_for(t->path, err))
        return false;
    progress_start(&p, target_name(t), "B");
    bool ok = gguf_export(plan, lab->tokenizer, &options, t->path, &file_bytes, err);
    progress_finish(&p);
    gguf_plan_sizes(plan, &weights, &bytes);
    row->quantize_s = timer_now() - start;
    row->file_bytes = (double)file_bytes;
    row->bits_per_weight = 8.0 * (double)bytes / (double)weights;
    if (ok)
        fprintf(stderr, "%s\n", t->path);
    return ok;
}

static bool to_stdout(const struct cli_options *o) {
    return (o->json && strcmp(o->json, "-") == 0) || (o->csv && strcmp(o->csv, "-") == 0);
}

static bool run_target(struct lab *lab, const struct targets *targets, const struct target *t,
                       const char *model, struct error *err) {
    struct gguf_plan plan;
    struct result_row row;
    if (!make_plan(lab, targets, t, &plan, err))
        return false;
    if (flags.dry_run) {
        printf("%s\n\n", t->path);
        bool printed = gguf_print_tensors(&plan, stdout, err);
        gguf_plan_free(&plan);
        return printed;
    }
    result_row_init(&row, target_name(t), "");
    bool ok = write_file(lab, t, model, &plan, &row, err);
    if (ok && !to_stdout(&lab->options)) {
        printf("%s\n\n", t->path);
        ok = gguf_print_types(&plan, stdout, err);
        printf("\n");
    }
    gguf_plan_free(&plan);
    result_row_free(&row);
    return ok;
}

static bool run(struct lab *lab, struct targets *targets, const char *model, struct error *err) {
    if (!choose_targets(lab, targets, model, err))
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < targets->n; i++)
        ok = run_target(lab, targets, &targets->items[i], model, err);
    return ok;
}

int main(int argc, char **argv) {
    struct error err = {0};
    struct lab lab;
    struct targets targets = {0};
    cli_wait_briefly(argv);
    signal(SIGXFSZ, SIG_IGN); // a file that may not grow is a message, not the end
    bool ok = lab_open(&lab, &program, argc, argv, &err);
    char *model = ok ? model_name(&lab, &err) : NULL;
    if (ok && !lab.done)
        ok = model && run(&lab, &targets, model, &err);
    targets_free(&targets);
    free(model);
    if (!lab_close(&lab, ok, &err))
        cli_fail(&program, &err);
    return 0;
}
