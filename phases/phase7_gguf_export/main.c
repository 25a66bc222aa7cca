// Phase 7: leave the lab.
//
// The model is quantized into the types of GGUF and written to a file that llama.cpp and all that
// is built on it can run. When all files are there, each is loaded as any model is, and measured:
// what counts is what others will read, not what we had in memory.
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/timer.h"
#include "export/gguf_report.h"
#include "lab/analysis.h"
#include "lab/measure.h"
#include "report/gguf_inspect.h"
#include "targets.h"
#include "text/tokenizer_parts.h"

static struct {
    struct target_flags target;
    bool dry_run, no_eval;
    const char *inspect;
} flags;

static const struct cli_flag own_flags[] = {
    {"type", "NAMES", CLI_TEXT, &flags.target.types, 1, 0, NULL,
     "one file for each: Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S "
     "Q5_K_M Q6_K IQ4_NL IQ4_XS MXFP4 F16 BF16 F32, joined by ','; or all [Q4_K_M]",
     "GGUF"},
    {"bits", "F", CLI_FLOAT, &flags.target.budget.bits, 1, 32, NULL,
     "the best mix of --formats with so many bits a weight: every tensor is measured in every "
     "format first",
     "GGUF"},
    {"size", "SIZE", CLI_TEXT, &flags.target.budget.size, 1, 0, NULL,
     "the best mix for a file of at most this size (900MB, 1.9GB, 2GiB)", "GGUF"},
    {"formats", "LIST", CLI_TEXT, &flags.target.budget.formats, 1, 0, NULL,
     "what --bits and --size choose from [" FILE_BUDGET_FORMATS "]", "GGUF"},
    {"dry-run", NULL, CLI_FLAG, &flags.dry_run, 0, 0, NULL,
     "show every tensor's type and size, and write no file of them", "GGUF"},
    {"no-eval", NULL, CLI_FLAG, &flags.no_eval, 0, 0, NULL,
     "only write the files; measure neither them nor the model they are made of", "GGUF"},
    {"inspect", "FILE", CLI_TEXT, &flags.inspect, 1, 0, NULL,
     "show what is in a GGUF file (or a checkpoint): keys, tensors, types, bits per weight",
     "GGUF"},
};

static const struct cli_program program = {
    .name = "phase7",
    .phase = 7,
    .summary = "GGUF: a quantized file that llama.cpp runs.",
    .examples = "./phase7                                        the bundled model as Q4_K_M\n"
                "./phase7 --model qwen2.5-3b --type Q4_0,Q4_K_M  two files, measured side by side\n"
                "./phase7 --model qwen2.5-3b --dry-run           what would be written\n"
                "./phase7 --model qwen2.5-3b --no-eval           written, and that is all\n"
                "./phase7 --recipe best.recipe --out best.gguf   the mix that phase 5 found\n"
                "./phase7 --size 3MB                             the best mix that fits\n"
                "./phase7 --inspect some-model.gguf              what others wrote\n"
                "llama-cli -m out/bundled/bundled-Q4_K_M.gguf\n",
    .flags = own_flags,
    .n_flags = sizeof own_flags / sizeof *own_flags,
};

// ---- writing ----------------------------------------------------------------------------------

static void show_progress(void *user, size_t done, size_t total, const char *tensor) {
    progress_update(user, done, total, tensor);
}

// What the linear layers of the blocks are in.
static const char *format_name(const struct gguf_plan *plan) {
    const struct quant_format *found = NULL;
    for (size_t i = 0; i < plan->n_tensors; i++) {
        const struct gguf_plan_tensor *t = &plan->tensors[i];
        if (!t->k || t->role == GGUF_EMBEDDING || t->role == GGUF_OUTPUT)
            continue;
        if (found && found != t->format)
            return "mixed";
        found = t->format;
    }
    return found->name;
}

static double bits_of(const struct gguf_plan *plan) {
    struct gguf_plan_size size;
    gguf_plan_sizes(plan, &size);
    return 8.0 * (double)size.bytes / (double)size.weights;
}

static bool write_file(struct lab *lab, const struct target *t, const char *model,
                       struct gguf_plan *plan, struct result_row *row, struct error *err) {
    struct progress p;
    struct gguf_export_options options = {
        .name = model, .search = lab->options.search, .progress = show_progress, .user = &p};
    size_t file_bytes = 0;
    double start = timer_now();
    if (!folder_create_for(t->path, err))
        return false;
    progress_start(&p, t->name, "B");
    bool ok = gguf_export(plan, lab->tokenizer, &options, t->path, &file_bytes, err);
    progress_finish(&p);
    row->quantize_s = timer_now() - start;
    row->file_bytes = (double)file_bytes;
    row->bits_per_weight = bits_of(plan);
    if (ok && !lab->options.quiet)
        fprintf(stderr, "%s: %.1f MB in %.1f s, %.0f MB of memory\n", t->path,
                (double)file_bytes / 1e6, row->quantize_s, (double)memory_use().peak / 1e6);
    return ok;
}

static bool print_types(const struct lab *lab, const struct target *t, const struct gguf_plan *plan,
                        struct error *err) {
    const struct cli_options *o = &lab->options;
    if ((o->json && strcmp(o->json, "-") == 0) || (o->csv && strcmp(o->csv, "-") == 0) || o->tokens)
        return true;
    printf("%s\n\n", t->path);
    bool ok = gguf_print_types(plan, stdout, err);
    printf("\n");
    return ok;
}

static bool write_target(struct lab *lab, const struct target *t, const char *model,
                         struct result_row *row, struct error *err) {
    struct gguf_plan plan;
    if (!target_plan(lab, t, &plan, err))
        return false;
    memory_peak_reset();
    result_row_init(row, t->name, format_name(&plan));
    bool ok = write_file(lab, t, model, &plan, row, err) && print_types(lab, t, &plan, err);
    row->peak_rss_bytes = (double)memory_use().peak;
    gguf_plan_free(&plan);
    return ok;
}

static bool write_targets(struct lab *lab, const struct targets *targets, struct result_row *rows,
                          struct error *err) {
    for (size_t i = 0; i < targets->n; i++)
        if (lab_wanted(lab, targets->items[i].name) &&
            !write_target(lab, &targets->items[i], targets->model, &rows[i], err))
            return false;
    return true;
}

// ---- measuring --------------------------------------------------------------------------------

// The file as anyone finds it. The row's peak memory is that of writing or of running, whichever
// is more.
static bool measure_file(struct lab *lab, const struct target *t, struct result_row *row,
                         struct error *err) {
    double peak = row->peak_rss_bytes;
    memory_peak_reset();
    struct model *m = model_load(t->path, err);
    bool ok = m && measure_row(lab, m, row, err);
    struct result_row *added =
        ok && lab->table.n_rows ? &lab->table.rows[lab->table.n_rows - 1] : NULL;
    if (added && added->peak_rss_bytes < peak)
        added->peak_rss_bytes = peak;
    model_free(m);
    return ok;
}

static bool measure_targets(struct lab *lab, const struct targets *targets, struct result_row *rows,
                            struct error *err) {
    bool ok = flags.no_eval || lab_baseline(lab, err);
    for (size_t i = 0; ok && i < targets->n; i++)
        if (!lab->done && lab_wanted(lab, targets->items[i].name))
            ok = flags.no_eval ? result_table_add(&lab->table, &rows[i], err)
                               : measure_file(lab, &targets->items[i], &rows[i], err);
    return ok;
}

static bool dry_run(struct lab *lab, const struct targets *targets, struct error *err) {
    for (size_t i = 0; i < targets->n; i++) {
        struct gguf_plan plan;
        if (!target_plan(lab, &targets->items[i], &plan, err))
            return false;
        printf("%s%s\n\n", i ? "\n" : "", targets->items[i].path);
        size_t bytes = 0;
        bool ok = gguf_print_tensors(&plan, stdout, err) &&
                  gguf_plan_file_size(&plan, lab->tokenizer, targets->model, &bytes, err);
        printf("\n%zu bytes with metadata\n", bytes);
        printf("%.3f bits per weight, of " RESULT_BITS_OF "\n", bits_of(&plan));
        gguf_plan_free(&plan);
        if (!ok)
            return false;
    }
    return true;
}

static void check_config(const struct lab *lab, const struct targets *targets) {
    bool found = lab_wanted(lab, "fp16") || lab_wanted(lab, "fp32") ||
                 (lab->options.recipe && lab_wanted(lab, lab_recipe_label(lab)));
    for (size_t i = 0; i < targets->n; i++)
        found |= lab_wanted(lab, targets->items[i].name);
    if (!found)
        cli_usage_error(&program, "--config is '%s', which is no row of this phase",
                        lab->options.config);
}

// Others compute these architectures without it.
static void warn_of_window(const struct lab *lab) {
    const struct model_config *c = &lab->model->config;
    bool windowed = false;
    for (size_t i = 0; i < c->n_layers; i++)
        windowed |= model_config_layer_windowed(c, i);
    if (windowed && c->sliding_window < c->max_context)
        cli_warn(lab->program,
                 "the model looks back %zu tokens; llama.cpp has no such window for this "
                 "architecture and differs on longer texts",
                 (size_t)c->sliding_window);
}

// A file names the way to split words; where there is no such name it says "default", which splits
// otherwise.
static void warn_of_words(const struct lab *lab) {
    size_t size;
    const struct tokenizer *t = lab->tokenizer;
    if (!lab->model->gguf && tokenizer_is_byte_level(t) && !tokenizer_pre_name(t, &size))
        cli_warn(lab->program,
                 "GGUF has no name for how this tokenizer splits words; who reads the file may "
                 "make other tokens of a text");
}

// A mix that was found for other formats is another one in those that GGUF has.
static bool warn_of_growth(const struct lab *lab, const struct targets *targets,
                           struct error *err) {
    struct gguf_plan plan;
    struct gguf_plan_size size;
    if (!lab->options.recipe)
        return true;
    if (!target_plan(lab, &targets->items[0], &plan, err))
        return false;
    gguf_plan_sizes(&plan, &size);
    gguf_plan_free(&plan);
    double bits = 8 / (double)size.weights;
    if ((double)size.bytes > 1.01 * (double)size.asked_bytes)
        cli_warn(lab->program,
                 "%s: %.3f bits per weight become %.3f in the nearest types that GGUF has; "
                 "'./phase5 --target gguf' mixes only those",
                 lab->options.recipe, bits * (double)size.asked_bytes, bits * (double)size.bytes);
    return true;
}

// --tokens needs no tokenizer, but a file does (a copy of a GGUF file's keys does not), and so does
// the text that a mix is measured on.
static bool load_tokenizer(struct lab *lab, struct error *err) {
    bool mix = flags.target.budget.size || flags.target.budget.bits > 0;
    return lab->tokenizer || (lab->model->gguf && !mix) ||
           (lab->tokenizer = tokenizer_load(lab->folder, err));
}

static bool write_and_measure(struct lab *lab, struct targets *targets, struct error *err) {
    struct result_row rows[MAX_TARGETS] = {0};
    // Without --config the logits of --tokens are the baseline's: nothing is written.
    bool only_logits = lab->options.tokens && !lab->options.config;
    bool ok =
        only_logits || (targets_check_paths(targets, lab, err) &&
                        targets_solve(targets, lab, err) && write_targets(lab, targets, rows, err));
    ok = ok && measure_targets(lab, targets, rows, err);
    for (size_t i = 0; i < targets->n; i++)
        result_row_free(&rows[i]);
    return ok;
}

static bool run(struct lab *lab, struct targets *targets, struct error *err) {
    lab->table.bits_of = RESULT_BITS_OF; // of files, whatever --only and --skip left in them
    if (!load_tokenizer(lab, err) || !targets_choose(targets, lab, &flags.target, err) ||
        !warn_of_growth(lab, targets, err))
        return false;
    if (flags.dry_run)
        return targets_solve(targets, lab, err) && dry_run(lab, targets, err);
    check_config(lab, targets);
    warn_of_window(lab);
    warn_of_words(lab);
    return write_and_measure(lab, targets, err);
}

static bool inspect(struct error *err) {
    bool ok = gguf_inspect(flags.inspect, stdout, err);
    return ok && (fflush(stdout) == 0 || error_set(err, "stdout: cannot write"));
}

static bool run_lab(int argc, char **argv, struct error *err) {
    struct lab lab;
    struct targets targets = {0};
    bool ok = lab_open(&lab, &program, argc, argv, err);
    if (ok && !lab.done)
        ok = run(&lab, &targets, err);
    targets_free(&targets);
    return lab_close(&lab, ok, err);
}

int main(int argc, char **argv) {
    struct error err = {0};
    struct cli_options options;
    cli_wait_briefly(argv);
    signal(SIGXFSZ, SIG_IGN); // a file that may not grow is a message, not the end
    cli_parse(&program, argc, argv, &options);
    if (!(flags.inspect ? inspect(&err) : run_lab(argc, argv, &err)))
        cli_fail(&program, &err);
    return 0;
}
