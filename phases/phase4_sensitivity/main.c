// Phase 4: which tensors hurt.
//
// One tensor at a time is quantized, in one format after another, and everything else left as it
// was. What that does to the model's predictions is the tensor's sensitivity. Some tensors can
// lose three quarters of their bits and nobody notices; others ruin the model alone.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/timer.h"
#include "eval/probe.h"
#include "eval/sensitivity_report.h"
#include "lab/analysis.h"

static const char *format_names, *dump_folder;
static struct sensitivity_options options;

static const struct cli_flag flags[] = {
    {"formats", "LIST", CLI_TEXT, &format_names, 1, 0,
     "int8,int6-g64,int4-g32,int4-g128,int3-g64,int4",
     "formats to try on every tensor, joined by ','", "Sensitivity"},
    {"probe", "N", CLI_SIZE, &options.tokens, 0, 1 << 20, "0",
     "calibration tokens to measure on (0: 2048, fewer for large models)", "Sensitivity"},
    {"anchors", "N", CLI_SIZE, &options.anchors, 0, 1000, "0",
     "formats measured per tensor, the others are estimated (0: all if quick, else 3 or 1)",
     "Sensitivity"},
    {"lbl-dump-dir", "DIR", CLI_TEXT, &dump_folder, 1, 0, NULL,
     "folder for lbl_analysis.md, sensitivity.csv and charts [results/<model>; the bundled model: "
     "out/bundled]",
     "Sensitivity"},
    {"out", "DIR", CLI_TEXT, &dump_folder, 1, 0, NULL, "the same as --lbl-dump-dir", "Output"},
};

static const struct cli_program program = {
    .name = "phase4",
    .phase = 4,
    .summary = "Sensitivity: what each tensor costs in each format, measured.",
    .examples = "./phase4                                        the bundled model\n"
                "./phase4 --formats int8,int4-g128 --lbl-dump-dir analysis\n"
                "./phase4 --model qwen2.5-0.5b --calib notes.txt --limit 20000 --json rows.json\n",
    .flags = flags,
    .n_flags = sizeof flags / sizeof *flags,
};

enum { SHOWN = 10 }; // tensors in the printed table

static double bits(const struct sensitivity *s, size_t format) {
    double bytes = 0, weights = 0;
    for (size_t t = 0; t < s->n_tensors; t++)
        if (s->tensors[t].layer != SENSITIVITY_NO_LAYER) {
            bytes += (double)sensitivity_at(s, t, format)->bytes;
            weights += (double)s->tensors[t].n * (double)s->tensors[t].k;
        }
    return 8 * bytes / weights;
}

// What the tensors' damages sum to, beside the row where it is measured.
static bool sum_row(struct lab *lab, const struct sensitivity *s, size_t format,
                    struct error *err) {
    char label[96];
    struct result_row row;
    snprintf(label, sizeof label, "%s, sum of tensors", s->formats[format]->label);
    result_row_init(&row, label, s->formats[format]->name);
    row.bits_per_weight = bits(s, format);
    row.kld_mean = sensitivity_sum(s, format);
    return result_table_add(&lab->table, &row, err);
}

// All blocks in one format, unless their rows are no multiples of its blocks.
static bool format_rows(struct lab *lab, const struct sensitivity *s, size_t format,
                        struct error *err) {
    if (isnan(sensitivity_sum(s, format))) {
        cli_warn(&program, "%s cannot hold every matrix of the blocks: it has no row for all",
                 s->formats[format]->name);
        return true;
    }
    return lab_quantized(lab, (struct lab_config){s->formats[format]->name, false}, err) &&
           sum_row(lab, s, format, err);
}

static bool tensor_row(struct lab *lab, const struct sensitivity *s, size_t tensor, size_t format,
                       struct error *err) {
    const struct sensitivity_tensor *t = &s->tensors[tensor];
    const struct sensitivity_cell *c = sensitivity_at(s, tensor, format);
    char label[96];
    struct result_row row;
    if (!c->bytes)
        return true;
    snprintf(label, sizeof label, "%s %s", t->name, s->formats[format]->name);
    result_row_init(&row, label, s->formats[format]->name);
    row.bits_per_weight = 8 * (double)c->bytes / ((double)t->n * (double)t->k);
    row.model_bytes = (double)(model_bytes(lab->model) - t->bytes + c->bytes);
    row.kld_mean = sensitivity_kld(c);
    row.rel_error = sqrt(c->output_nmse);
    return result_table_add(&lab->table, &row, err);
}

// JSON gets every tensor in every format, other tables the worst; sensitivity.csv has them all.
static bool tensor_rows(struct lab *lab, const struct sensitivity *s, struct error *err) {
    bool all = lab->options.json != NULL;
    size_t main_format = sensitivity_main_format(s);
    size_t *order = memory_alloc(s->n_tensors, sizeof *order, "ranks", err);
    bool ok = order != NULL;
    if (ok)
        sensitivity_rank(s, main_format, order);
    for (size_t i = 0; ok && i < s->n_tensors && (all || i < SHOWN); i++)
        for (size_t f = 0; ok && f < s->n_formats; f++)
            ok = !(all || f == main_format) || tensor_row(lab, s, order[i], f, err);
    free(order);
    return ok;
}

// All blocks in one format at once, on the tokens that the tensors were measured on.
static bool measure_uniform(const struct lab *lab, struct probe *probe,
                            const struct quant_format *f, double *kld, struct error *err) {
    struct recipe r;
    struct quantize_stats stats;
    const struct quantize_options how = {.search = options.search};
    if (!recipe_uniform(&r, f, options.only, options.skip, err))
        return false;
    struct model *m = model_quantize_with(lab->model, &r, &how, &stats, err);
    recipe_free(&r);
    bool ok = m && probe_kld(probe, m, 0, kld, err);
    model_free(m);
    return ok;
}

static bool measure_uniforms(const struct lab *lab, const struct sensitivity *s, double *uniform,
                             struct error *err) {
    struct token_list calib;
    struct probe probe = {0};
    if (!lab_calibration(lab, &calib, err))
        return false;
    struct progress p;
    bool ok =
        probe_open(&probe, lab->model, lab->model, calib.ids, calib.n, s->tokens, s->window, err);
    progress_start(&p, "all blocks at once", "formats");
    for (size_t f = 0; ok && f < s->n_formats; f++) {
        uniform[f] = NAN;
        ok = isnan(sensitivity_sum(s, f)) ||
             measure_uniform(lab, &probe, s->formats[f], &uniform[f], err);
        progress_update(&p, f + 1, s->n_formats, s->formats[f]->name);
    }
    progress_finish(&p);
    probe_close(&probe);
    token_list_free(&calib);
    return ok;
}

static bool report(const struct lab *lab, const struct sensitivity *s, const char *folder,
                   struct error *err) {
    const char *calib = lab->options.calib;
    double *uniform = memory_alloc(s->n_formats, sizeof *uniform, "formats", err);
    struct sensitivity_report r = {.s = s,
                                   .model = lab->table.model,
                                   .text = calib ? calib : "data/calib.txt",
                                   .format = sensitivity_main_format(s),
                                   .uniform = uniform};
    bool ok = uniform && measure_uniforms(lab, s, uniform, err) &&
              sensitivity_write_report(&r, folder, err) &&
              sensitivity_write_charts(&r, folder, err);
    free(uniform);
    return ok;
}

// lbl_cost.md: what the analysis took, and how good what was not measured is.
static bool write_cost(const struct lab *lab, const struct sensitivity *s, double seconds,
                       double processor_seconds, const char *folder, struct error *err) {
    struct file_writer w;
    char *path = path_join(folder, "lbl_cost.md", err);
    bool ok = path && file_writer_open(&w, path, err);
    size_t measured, cells = sensitivity_cells(s, &measured);
    free(path);
    if (!ok)
        return false;
    fprintf(w.stream,
            "%zu layers, %zu tensors, %zu formats, %zu tokens: %.0f seconds on %d threads, %.0f of "
            "the processors, a peak of %.2f GB (the checkpoint's %.2f GB are mapped). %zu of %zu "
            "combinations were measured%s",
            lab->model->config.n_layers, s->n_tensors, s->n_formats, s->tokens, seconds,
            lab->options.threads, processor_seconds, (double)memory_use().peak / 1e9,
            (double)model_bytes(lab->model) / 1e9, measured, cells,
            measured < cells ? ", the others estimated" : "");
    if (s->check.cells > 1)
        fprintf(w.stream, "; over %zu that have both the rank correlation is %.3f", s->check.cells,
                s->check.rank_correlation);
    if (s->kept)
        fprintf(w.stream, "; %zu of the tensors were measured before, by a run that was stopped",
                s->kept);
    fprintf(w.stream, ".\n");
    return file_writer_commit(&w, err);
}

static bool analyse(struct lab *lab, const struct quant_format *const *formats, size_t n,
                    const char *folder, struct error *err) {
    struct sensitivity s;
    double start = timer_now();
    clock_t worked = clock();
    memory_peak_reset();
    if (!lab_sensitivity(lab, formats, n, &options, folder, &s, err))
        return false;
    bool ok = write_cost(lab, &s, timer_now() - start, (double)(clock() - worked) / CLOCKS_PER_SEC,
                         folder, err) &&
              report(lab, &s, folder, err);
    for (size_t f = 0; ok && f < n; f++)
        ok = format_rows(lab, &s, f, err);
    ok = ok && tensor_rows(lab, &s, err);
    if (ok && !dump_folder && !lab->options.quiet)
        cli_note(&program, "lbl_analysis.md, sensitivity.csv and charts are in %s", folder);
    sensitivity_free(&s);
    return ok;
}

// A --config that names no row is noticed before minutes are spent.
static bool check_config(const struct lab *lab, const struct quant_format *const *formats, size_t n,
                         struct error *err) {
    const char **rows = memory_alloc(n, sizeof *rows, "rows", err);
    for (size_t f = 0; rows && f < n; f++)
        rows[f] = formats[f]->label;
    if (rows)
        lab_check_config(lab, rows, n);
    free((void *)rows);
    return rows != NULL;
}

static bool run(struct lab *lab, struct error *err) {
    size_t n;
    const struct quant_format **formats = lab_formats(format_names, &n, err);
    if (!formats)
        cli_usage_error(&program, "--formats: %s", err->message);
    options.window = lab->options.ctx < 512 ? lab->options.ctx : 512;
    options.search = lab->options.search;
    options.only = lab->options.only;
    options.skip = lab->options.skip;
    bool analysis = !lab->options.tokens; // --logits needs none
    bool ok = check_config(lab, formats, n, err);
    char *folder = ok && analysis ? lab_analysis_folder(lab, dump_folder, err) : NULL;
    ok = ok && (!analysis || folder) && lab_baseline(lab, err);
    if (!analysis)
        for (size_t f = 0; ok && f < n; f++)
            ok = lab_quantized(lab, (struct lab_config){formats[f]->name, false}, err);
    else
        ok = ok && analyse(lab, formats, n, folder, err);
    free(folder);
    free((void *)formats);
    return ok;
}

int main(int argc, char **argv) {
    struct error err = {0};
    struct lab lab;
    cli_wait_briefly(argv);
    bool ok = lab_open(&lab, &program, argc, argv, &err);
    ok = ok && (lab.done || run(&lab, &err));
    if (!lab_close(&lab, ok, &err))
        cli_fail(&program, &err);
    return 0;
}
