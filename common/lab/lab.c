#include "lab/lab.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"
#include "io/hub.h"
#include "lab/measure.h"
#include "model/arch.h"
#include "quant/woven.h"
#include "text/chat.h"
#include "kernels/cpu/kernels.h"

enum { TEXT_MAX = 1 << 30 };

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

// ---- finding the model
// ----------------------------------------------------------------------------

static void show_download(void *user, const char *file, uint64_t done, uint64_t total) {
    struct progress *p = user;
    if (!p->active || strcmp(p->label, file) != 0) {
        progress_finish(p);
        progress_start(p, file, "B");
    }
    progress_update(p, done, total, NULL);
}

// --model is nothing (the bundled one), a folder, or a name to look up.
static char *find_model(const char *model, struct error *err) {
    if (!model) {
        char *bundled = lab_project_path("data/model", err);
        if (!bundled || folder_exists(bundled))
            return bundled;
        error_set(err, "%s: the bundled model is missing; choose one with --model", bundled);
        free(bundled);
        return NULL;
    }
    if (folder_exists(model))
        return memory_strdup(model, err);
    if (file_exists(model)) {
        error_set(err, "%s: a file; expected a folder with config.json (GGUF is not read yet)",
                  model);
        return NULL;
    }
    if (!hub_repo_of(model)) {
        error_set(err,
                  "%s: no such folder, and no name of a model (org/name, or one that --help lists)",
                  model);
        return NULL;
    }
    struct progress p = {0};
    char *folder = hub_resolve(model, show_download, &p, err);
    progress_finish(&p);
    return folder;
}

// ---- text and tokens
// ------------------------------------------------------------------------------

static bool encode_file(struct lab *lab, const char *path, struct token_list *out,
                        struct error *err) {
    size_t size;
    char *text = file_read(path, TEXT_MAX, &size, err);
    bool ok = text && tokenizer_encode(lab->tokenizer, text, size, out, err);
    free(text);
    return ok;
}

static bool flush_stdout(struct error *err) {
    return (fflush(stdout) == 0 && !ferror(stdout)) ||
           error_set(err, "stdout: cannot write: %s", strerror(errno));
}

static bool tokenize(struct lab *lab, struct error *err) {
    struct token_list ids = {0};
    bool ok = encode_file(lab, lab->options.tokenize, &ids, err);
    for (size_t i = 0; ok && i < ids.n; i++)
        printf("%s%d", i ? " " : "", ids.ids[i]);
    if (ok)
        printf("\n");
    token_list_free(&ids);
    return ok && flush_stdout(err);
}

// What tokenize() prints, in any number of lines; commas, as --tokens has them, will do too.
static bool parse_ids(const char *text, const char *path, struct token_list *ids,
                      struct error *err) {
    static const char separators[] = " ,\t\r\n";
    for (const char *s = text + strspn(text, separators); *s; s += strspn(s, separators)) {
        size_t digits = strspn(s, "0123456789");
        long id = digits && digits <= 10 ? strtol(s, NULL, 10) : -1;
        if (id < 0 || id > INT32_MAX || (s[digits] && !strchr(separators, s[digits])))
            return error_set(err, "%s: found '%.20s' at byte %zu, expected a token id", path, s,
                             (size_t)(s - text));
        if (!token_list_push(ids, (int32_t)id, err))
            return false;
        s += digits;
    }
    return true;
}

static bool detokenize(struct lab *lab, struct error *err) {
    const char *path = lab->options.detokenize;
    size_t size;
    struct token_list ids = {0};
    char *text = file_read(path, TEXT_MAX, NULL, err), *out = NULL;
    if (text && parse_ids(text, path, &ids, err))
        out = tokenizer_decode(lab->tokenizer, ids.ids, ids.n, false, &size, err);
    if (out)
        fwrite(out, 1, size, stdout);
    token_list_free(&ids);
    free(text);
    free(out);
    return out && flush_stdout(err);
}

// The text's tokens, a BOS first where the tokenizer puts one, at most --limit of them.
static bool read_text(struct lab *lab, struct error *err) {
    const char *given = lab->options.text;
    char *path = given ? memory_strdup(given, err) : lab_project_path("data/eval.txt", err);
    int32_t bos = tokenizer_bos(lab->tokenizer);
    bool ok = path && (bos < 0 || token_list_push(&lab->text, bos, err)) &&
              encode_file(lab, path, &lab->text, err);
    free(path);
    if (ok && lab->options.limit && lab->text.n > lab->options.limit)
        lab->text.n = lab->options.limit;
    lab->table.text = given ? given : "data/eval.txt";
    return ok;
}

static bool read_prompt(struct lab *lab, struct error *err) {
    const struct cli_options *o = &lab->options;
    if (!o->prompt)
        return true;
    if (!o->chat) {
        int32_t bos = tokenizer_bos(lab->tokenizer);
        return (bos < 0 || token_list_push(&lab->prompt, bos, err)) &&
               tokenizer_encode(lab->tokenizer, o->prompt, strlen(o->prompt), &lab->prompt, err);
    }
    struct chat_message messages[2] = {{"system", o->system}, {"user", o->prompt}};
    size_t skip = o->system ? 0 : 1;
    char *text = chat_format(lab->tokenizer, NULL, messages + skip, 2 - skip, err);
    bool ok = text && tokenizer_encode(lab->tokenizer, text, strlen(text), &lab->prompt, err);
    free(text);
    return ok;
}

// The bundled model is asked the bundled questions; other models only those of --choices.
static bool read_questions(struct lab *lab, struct error *err) {
    const char *given = lab->options.choices;
    if (given ? strcmp(given, "none") == 0 : lab->options.model != NULL)
        return true;
    char *path = given ? memory_strdup(given, err) : lab_project_path("data/choices.jsonl", err);
    bool ok = path && questions_read(&lab->questions, path, err);
    free(path);
    return ok;
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
    return lab->model != NULL;
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

bool lab_open(struct lab *lab, const struct cli_program *program, int argc, char **argv,
              struct error *err) {
    *lab = (struct lab){.program = program};
    struct cli_options *o = &lab->options;
    cli_parse(program, argc, argv, o);
    progress_set_quiet(o->quiet);
    omp_set_num_threads(o->threads);
    if (o->isa)
        kernels_level_force((enum cpu_level)(o->isa - 1));
    lab->table = (struct result_table){.phase = program->phase,
                                       .model = o->model ? o->model : "bundled",
                                       .device = "cpu",
                                       .ppl_mode = o->ppl_mode == PPL_HALF ? "half" : "full",
                                       .threads = o->threads};
    if (o->cuda)
        return error_set(err, "--device cuda: this build has no CUDA kernels");
    if (o->limits) {
        lab->done = true;
        lab->table.model = lab->table.ppl_mode = NULL;
        return measure_limits(&lab->table, err);
    }
    if (!(lab->folder = find_model(o->model, err)))
        return false;
    // A tokenizer alone is enough to tokenize; --tokens needs none.
    if (!o->tokens && !(lab->tokenizer = tokenizer_load(lab->folder, err)))
        return false;
    if (o->tokenize || o->detokenize) {
        lab->done = true;
        return o->tokenize ? tokenize(lab, err) : detokenize(lab, err);
    }
    if (o->tokens)
        return load_model(lab, err);
    return open_model(lab, err) && read_text(lab, err) && read_questions(lab, err) &&
           read_prompt(lab, err);
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
    if (ok && lab->table.n_rows)
        ok = write_results(lab, err);
    result_table_free(&lab->table);
    eval_reference_close(&lab->reference);
    questions_free(&lab->questions);
    token_list_free(&lab->text);
    token_list_free(&lab->prompt);
    tokenizer_free(lab->tokenizer);
    model_free(lab->model);
    free(lab->folder);
    return ok;
}

// ---- rows
// -----------------------------------------------------------------------------------------

static bool is_f32(const struct lab *lab) {
    return lab->model->layers[0].q.w.dtype == DTYPE_F32;
}

// Whether --config asks for this row, or for none in particular.
static bool wanted(const struct lab *lab, const char *label) {
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

// A row whose weights are made from the checkpoint's by a recipe.
static bool recipe_row(struct lab *lab, const struct recipe *recipe, bool int8_activations,
                       const char *label, const char *format, struct error *err) {
    struct quantize_stats stats;
    struct progress p;
    memory_peak_reset();
    progress_start(&p, label, "tensors");
    struct model *m =
        model_quantize(lab->model, recipe, int8_activations, &stats, show_quantize, &p, err);
    progress_finish(&p);
    if (!m)
        return false;
    struct result_row row;
    result_row_init(&row, label, format);
    row.quantize_s = stats.seconds;
    if (stats.weights)
        row.bits_per_weight = 8.0 * (double)stats.bytes / (double)stats.weights;
    bool ok = model_weave(m, err) && measure_row(lab, m, &row, err);
    model_free(m);
    return ok;
}

static bool baseline_row(struct lab *lab, struct error *err) {
    const struct quant_format *format = lab->model->layers[0].q.w.format;
    struct result_row row;
    memory_peak_reset();
    result_row_init(&row, is_f32(lab) ? "fp32" : "fp16", format->name);
    row.bits_per_weight = format->bits;
    return measure_row(lab, lab->model, &row, err);
}

bool lab_baseline(struct lab *lab, struct error *err) {
    bool f32 = is_f32(lab), only_logits = lab->options.tokens;
    // The stored model is every row's reference: --config does not leave it out, --tokens does.
    if ((wanted(lab, f32 ? "fp32" : "fp16") || !only_logits) && !baseline_row(lab, err))
        return false;
    if (!f32 || lab->done || !wanted(lab, "fp16"))
        return true;
    struct recipe r;
    if (!recipe_parse(&r, "* f16", "fp16", err))
        return false;
    bool ok = recipe_row(lab, &r, false, "fp16", "f16", err);
    recipe_free(&r);
    return ok;
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
    if (lab->done || !wanted(lab, label))
        return true;
    const struct quant_format *format = quant_format_find(config.format);
    struct recipe r;
    if (!recipe_uniform(&r, format, lab->options.only, lab->options.skip, err))
        return false;
    bool ok = !is_f32(lab) || keep_in_f16(&r, err);
    ok = ok && recipe_row(lab, &r, config.int8_activations, label, format->name, err);
    recipe_free(&r);
    return ok;
}

// A --config that names no row is noticed before minutes are spent on the baseline.
static bool check_config(const struct lab *lab, const struct lab_config *configs, size_t n,
                         struct error *err) {
    bool found = wanted(lab, "fp16") || (is_f32(lab) && wanted(lab, "fp32"));
    for (size_t i = 0; i < n; i++) {
        char label[96];
        if (!config_label(configs[i], label, err))
            return false;
        found |= wanted(lab, label);
    }
    if (!found)
        cli_usage_error(lab->program, "--config is '%s', which is no row of this phase",
                        lab->options.config);
    return true;
}

bool lab_run(const struct cli_program *program, const struct lab_config *configs, size_t n,
             int argc, char **argv, struct error *err) {
    cli_wait_briefly(argv);
    struct lab lab;
    bool ok = lab_open(&lab, program, argc, argv, err);
    if (ok && !lab.done)
        ok = check_config(&lab, configs, n, err) && lab_baseline(&lab, err);
    for (size_t i = 0; ok && i < n && !lab.done; i++)
        ok = lab_quantized(&lab, configs[i], err);
    return lab_close(&lab, ok, err);
}
