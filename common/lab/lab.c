#include "lab/lab.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/folder.h"
#include "core/memory.h"
#include "lab/gpu.h"
#include "lab/inputs.h"
#include "lab/measure.h"
#include "lab/mixed.h"
#include "model/arch.h"
#include "model/packed.h"
#include "kernels/cpu/kernels.h"

char *lab_project_path(const char *relative, struct error *err) {
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (!slash)
        return memory_strdup(relative, err);
    *slash = '\0';
    return path_join(self, relative, err);
}

// ---- opening and closing ----------------------------------------------------------------------

static bool choose_context(struct lab *lab, struct error *err) {
    size_t *ctx = &lab->options.ctx, limit = lab->model->config.max_context;
    if (!*ctx)
        *ctx = limit < 2048 ? limit : 2048;
    if (*ctx > limit && lab->model->position_embedding.w.data)
        return error_set(err, "--ctx %zu: the model has only %zu positions", *ctx, limit);
    if (*ctx > limit)
        cli_warn(lab->program, "--ctx %zu is longer than the %zu positions the model was made for",
                 *ctx, limit);
    lab->table.ctx = *ctx;
    return true;
}

static bool keeps(void *recipe, struct linear *l) {
    return !recipe_format(recipe, l->w.name);
}

// Patterns that leave nothing to quantize would give the baseline again, under other names.
static void check_patterns(const struct lab *lab) {
    const struct cli_options *o = &lab->options;
    struct recipe r;
    struct error err = {0};
    if (!recipe_uniform(&r, quant_format_find("int8"), o->only, o->skip, &err))
        cli_usage_error(lab->program, "--only, --skip: %s", err.message);
    if (model_visit_linears(lab->model, keeps, &r))
        cli_usage_error(lab->program, "--only, --skip: no weight matrix is left to quantize");
    recipe_free(&r);
}

static bool load_model(struct lab *lab, struct error *err) {
    lab->model = model_load(lab->folder, err);
    if (lab->model && (lab->options.only || lab->options.skip))
        check_patterns(lab);
    return lab->model && (!lab->options.recipe || lab_read_recipe(lab, err));
}

static bool open_model(struct lab *lab, struct error *err) {
    if (!load_model(lab, err))
        return false;
    if (tokenizer_vocab_size(lab->tokenizer) > lab->model->config.vocab)
        cli_warn(lab->program, "%s: the tokenizer has %zu ids, the model only %zu", lab->folder,
                 tokenizer_vocab_size(lab->tokenizer), lab->model->config.vocab);
    lab->table.arch = lab->model->config.arch->name;
    return choose_context(lab, err);
}

// Files that cannot be written are noticed before the work.
static bool check_outputs(const struct cli_options *o, struct error *err) {
    const char *paths[] = {o->json, o->csv, o->logits};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (paths[i] && strcmp(paths[i], "-") != 0 && !file_check_writable(paths[i], err))
            return false;
    return true;
}

bool lab_start(struct lab *lab, const struct cli_program *program, int argc, char **argv,
               struct error *err) {
    *lab = (struct lab){.program = program};
    struct cli_options *o = &lab->options;
    cli_parse(program, argc, argv, o);
    progress_set_quiet(o->quiet);
    omp_set_num_threads(o->threads);
    if (o->isa)
        kernels_level_force((enum cpu_level)(o->isa - 1));
    lab->table = (struct result_table){.phase = program->phase,
                                       .device = "cpu",
                                       .isa = kernels_level_name(kernels_level()),
                                       .threads = o->threads};
    return check_outputs(o, err);
}

// The rest of lab_open.
static bool open_inputs(struct lab *lab, struct error *err) {
    struct cli_options *o = &lab->options;
    lab->table.bits_of =
        o->only || o->skip ? "the matrices that --only and --skip leave" : RESULT_BITS_OF;
    if (o->cuda && !gpu_open(lab, err))
        return false;
    if (o->limits) {
        lab->done = true;
        return measure_limits(&lab->table, err);
    }
    lab->table.model = o->model ? o->model : "bundled";
    lab->table.ppl_mode = o->ppl_mode == PPL_HALF ? "half" : "full";
    if (!(lab->folder = inputs_find_model(o->model, err)))
        return false;
    inputs_keep_apart(lab);
    // A tokenizer alone is enough to tokenize; --tokens needs none.
    if (!o->tokens && !(lab->tokenizer = tokenizer_load(lab->folder, err)))
        return false;
    if (o->tokenize || o->detokenize) {
        lab->done = true;
        return o->tokenize ? inputs_tokenize(lab, err) : inputs_detokenize(lab, err);
    }
    if (o->tokens)
        return load_model(lab, err);
    return open_model(lab, err) && inputs_read_text(lab, err) && inputs_read_questions(lab, err) &&
           inputs_read_prompt(lab, err);
}

bool lab_open(struct lab *lab, const struct cli_program *program, int argc, char **argv,
              struct error *err) {
    return lab_start(lab, program, argc, argv, err) && open_inputs(lab, err);
}

static bool write_results(struct lab *lab, struct error *err) {
    const struct cli_options *o = &lab->options;
    bool to_stdout = (o->json && strcmp(o->json, "-") == 0) || (o->csv && strcmp(o->csv, "-") == 0);
    return (to_stdout || result_print_markdown(&lab->table, stdout, err)) &&
           (!o->json || result_write_json(&lab->table, o->json, err)) &&
           (!o->csv || result_write_csv(&lab->table, o->csv, err)) &&
           result_save_metrics(&lab->table, err);
}

bool lab_close(struct lab *lab, bool ok, struct error *err) {
    if (lab->table.n_rows)
        ok = write_results(lab, ok ? err : NULL) && ok; // the first failure is the one to tell
    result_table_free(&lab->table);
    eval_reference_close(&lab->reference);
    model_free(lab->reference_model);
    questions_free(&lab->questions);
    token_list_free(&lab->text);
    token_list_free(&lab->prompt);
    tokenizer_free(lab->tokenizer);
    model_free(lab->model);
    recipe_free(&lab->recipe);
    free(lab->folder);
    return ok;
}

// ---- rows --------------------------------------------------------------------------------------

// What the blocks' matrices are stored in; and what they take, with the embedding and the head
// where they are quantized (RESULT_BITS_OF).
struct stored {
    const struct quant_format *format; // of all of them; NULL: they differ
    bool quantized;                    // some of them
    size_t n, weights, bytes;
};

static void add_bytes(struct stored *s, const struct linear *l) {
    s->weights += l->w.shape[0] * l->w.shape[1];
    s->bytes += l->w.bytes;
}

static void add_stored(struct stored *s, const struct linear *l) {
    if (!l->w.data)
        return;
    s->format = s->n++ == 0 || s->format == l->w.format ? l->w.format : NULL;
    s->quantized |= l->w.dtype == DTYPE_BLOCK;
    add_bytes(s, l);
}

static struct stored stored_in(const struct model *m) {
    struct stored s = {0};
    for (size_t i = 0; i < m->config.n_layers; i++) {
        const struct layer *l = &m->layers[i];
        const struct linear *all[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            add_stored(&s, all[j]);
    }
    if (m->embedding.w.dtype == DTYPE_BLOCK)
        add_bytes(&s, &m->embedding);
    if (!m->config.tied && m->head.w.dtype == DTYPE_BLOCK)
        add_bytes(&s, &m->head);
    return s;
}

static bool is_f32(const struct lab *lab) {
    return lab->model->layers[0].q.w.dtype == DTYPE_F32 && !stored_in(lab->model).quantized;
}

// The name of the row that is the model as it is stored.
static void stored_label(const struct lab *lab, char label[96]) {
    struct stored s = stored_in(lab->model);
    if (s.quantized)
        snprintf(label, 96, "%s%s", s.format ? s.format->label : "mixed",
                 packed_summarize(lab->model).int8_activations ? " dynamic" : "");
    else
        strcpy(label, is_f32(lab) ? "fp32" : "fp16");
}

bool lab_wanted(const struct lab *lab, const char *label) {
    return !lab->options.config || strcmp(lab->options.config, label) == 0;
}

// The row's name: "int8 per-channel dynamic".
static bool config_label(struct lab_config config, char label[96], struct error *err) {
    const struct quant_format *format = quant_format_find(config.format);
    if (!format)
        return error_set(err, "no weight format is called '%s'", config.format);
    snprintf(label, 96, "%s%s", format->label, config.int8_activations ? " dynamic" : "");
    return true;
}

static void show_quantize(void *user, size_t done, size_t total) {
    progress_update(user, done, total, NULL);
}

bool lab_recipe_row(struct lab *lab, const struct recipe *recipe, bool int8_activations,
                    const char *label, const char *format, struct error *err) {
    struct quantize_stats stats;
    struct progress p;
    memory_peak_reset();
    progress_start(&p, label, "tensors");
    const struct quantize_options options = {.int8_activations = int8_activations,
                                             .search = lab->options.search,
                                             .progress = show_quantize,
                                             .user = &p};
    struct model *m = model_quantize_with(lab->model, recipe, &options, &stats, err);
    progress_finish(&p);
    if (!m)
        return false;
    struct result_row row;
    result_row_init(&row, label, format);
    row.quantize_s = stats.seconds;
    if (stats.weights)
        row.bits_per_weight = 8.0 * (double)stats.bytes / (double)stats.weights;
    // Saved before it is measured, for which the model is woven whole: saving weaves one at a time.
    bool ok = (!lab->save || lab_save(lab, m, recipe, &row, err)) && measure_row(lab, m, &row, err);
    model_free(m);
    return ok;
}

bool lab_save(const struct lab *lab, const struct model *m, const struct recipe *recipe,
              struct result_row *row, struct error *err) {
    size_t bytes;
    if (!packed_save(m, recipe, lab->folder, lab->options.out, &bytes, err))
        return false;
    row->file_bytes = (double)bytes;
    return true;
}

// A quantized model's own configuration is its first row.
static bool is_stored(const struct lab *lab, const char *label) {
    char stored[96];
    stored_label(lab, stored);
    return strcmp(stored, label) == 0;
}

static bool baseline_row(struct lab *lab, const char *label, struct error *err) {
    struct stored s = stored_in(lab->model);
    bool save = lab->save && lab_wanted(lab, label);
    struct result_row row;
    memory_peak_reset();
    result_row_init(&row, label, s.format ? s.format->name : "mixed");
    row.bits_per_weight = 8.0 * (double)s.bytes / (double)s.weights;
    return (!save || lab_save(lab, lab->model, NULL, &row, err)) &&
           measure_row(lab, lab->model, &row, err);
}

// The stored model, and its 16-bit version.
static bool stored_rows(struct lab *lab, struct error *err) {
    bool only_logits = lab->options.tokens;
    char label[96];
    stored_label(lab, label);
    // The stored model is every row's reference: --config does not leave it out, --tokens does.
    if ((lab_wanted(lab, label) || !only_logits) && !baseline_row(lab, label, err))
        return false;
    if (strcmp(label, "fp32") != 0 || lab->done || !lab_wanted(lab, "fp16"))
        return true;
    struct recipe r;
    if (!recipe_parse(&r, "* f16", "fp16", err))
        return false;
    bool ok = lab_recipe_row(lab, &r, false, "fp16", "f16", err);
    recipe_free(&r);
    return ok;
}

bool lab_baseline(struct lab *lab, struct error *err) {
    if (!stored_rows(lab, err))
        return false;
    const char *label = lab_recipe_label(lab);
    return !label || lab->done || !lab_wanted(lab, label) ||
           lab_mixed(lab, &lab->recipe, label, err);
}

// What stays unquantized is 16 bits wide in every row, also where the checkpoint has 32.
static bool keep_in_f16(struct recipe *r, struct error *err) {
    const struct quant_format *f16 = quant_format_find("f16");
    for (size_t i = 0; i < r->n_rules; i++)
        if (!r->rules[i].format)
            r->rules[i].format = f16;
    return recipe_add(r, "*", f16, err);
}

bool lab_quantized(struct lab *lab, struct lab_config config, struct error *err) {
    char label[96];
    if (!config_label(config, label, err))
        return false;
    if (lab->done || !lab_wanted(lab, label) || is_stored(lab, label))
        return true;
    const struct quant_format *format = quant_format_find(config.format);
    struct recipe r;
    if (!recipe_uniform(&r, format, lab->options.only, lab->options.skip, err))
        return false;
    bool ok = !is_f32(lab) || keep_in_f16(&r, err);
    if (lab->options.search && format->dtype == DTYPE_BLOCK && format->span != SPAN_TENSOR)
        strncat(label, " search", sizeof label - strlen(label) - 1);
    ok = ok && lab_recipe_row(lab, &r, config.int8_activations, label, format->name, err);
    recipe_free(&r);
    return ok;
}

// --out: which of the rows, and whether there is room for it, before minutes are spent on
// measuring.
static bool check_out(struct lab *lab, struct error *err) {
    const struct cli_options *o = &lab->options;
    if (!o->out)
        return true;
    if (!o->config)
        cli_usage_error(lab->program, "--out needs --config too: the row that is to be saved");
    if (o->tokens)
        cli_usage_error(lab->program, "--out and --tokens exclude each other");
    lab->save = true;
    return folder_check_new(o->out, err);
}

static void warn_of_packed(const struct lab *lab) {
    const struct packed_summary s = packed_summarize(lab->model);
    if (s.weights)
        cli_warn(lab->program, "%s: the weights are %s already; other formats are made from these",
                 lab->folder, s.format ? s.format->label : "in mixed formats");
}

// ", 'int8 per-channel'" to a list, if there is such a row. Returns whether --config names it.
static bool list_row(const struct lab *lab, const char *label, char list[1024]) {
    size_t used = strlen(list);
    if (!label)
        return false;
    snprintf(list + used, 1024 - used, "%s'%s'", used ? ", " : "", label);
    return lab_wanted(lab, label);
}

bool lab_check_config(const struct lab *lab, const char *const *rows, size_t n) {
    char stored[96], list[1024] = "";
    bool baseline, found = false;
    if (!lab->options.config)
        return false;
    stored_label(lab, stored);
    baseline = list_row(lab, stored, list);
    baseline |= list_row(lab, is_f32(lab) ? "fp16" : NULL, list);
    baseline |= list_row(lab, lab_recipe_label(lab), list);
    for (size_t i = 0; i < n; i++)
        found |= list_row(lab, rows[i], list);
    if (!found && !baseline)
        cli_usage_error(lab->program,
                        "--config is '%s', which is no row of this phase; there are %s",
                        lab->options.config, list);
    return baseline;
}

// A --config that names no row is noticed before minutes are spent on the baseline.
static bool check_config(const struct lab *lab, const struct lab_config *configs, size_t n,
                         struct error *err) {
    char(*labels)[96] = memory_alloc(n, sizeof *labels, "rows", err);
    const char **rows = memory_alloc(n, sizeof *rows, "rows", err);
    bool ok = labels && rows;
    for (size_t i = 0; ok && i < n; i++) {
        ok = config_label(configs[i], labels[i], err);
        rows[i] = labels[i];
    }
    if (ok)
        lab_check_config(lab, rows, n);
    free(labels);
    free((void *)rows);
    return ok;
}

bool lab_configs(struct lab *lab, const struct lab_config *configs, size_t n, struct error *err) {
    if (!open_inputs(lab, err))
        return false;
    if (lab->done)
        return true;
    if (!check_config(lab, configs, n, err) || !check_out(lab, err))
        return false;
    if (n)
        warn_of_packed(lab);
    bool ok = lab_baseline(lab, err);
    for (size_t i = 0; ok && i < n && !lab->done; i++)
        ok = lab_quantized(lab, configs[i], err);
    return ok;
}

bool lab_run(const struct cli_program *program, const struct lab_config *configs, size_t n,
             int argc, char **argv, struct error *err) {
    cli_wait_briefly(argv);
    struct lab lab;
    bool ok = lab_start(&lab, program, argc, argv, err) && lab_configs(&lab, configs, n, err);
    return lab_close(&lab, ok, err);
}
