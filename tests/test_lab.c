// lab/: the programs from the command line to the rows, on tiny checkpoints.
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gguf_model.h"
#include "lab/analysis.h"
#include "shared.h"
#include "temp.h"

static const struct cli_program program = {.name = "phase2", .phase = 2};

enum { MAX_ARGS = 24 };

// Opens the lab with --model MODEL and the words that follow, NULL at the end.
static bool lab_with(struct lab *lab, struct error *err, const char *model,
                     const char *const *words) {
    static char *argv[MAX_ARGS + 1];
    int argc = 0;
    const char *const first[] = {"./phase2", "--quiet", "--threads", "1", "--model", model, NULL};
    for (size_t i = 0; first[i]; i++)
        argv[argc++] = (char *)(uintptr_t)first[i];
    for (; *words; words++)
        argv[argc++] = (char *)(uintptr_t)*words;
    cr_assert_lt(argc, MAX_ARGS);
    return lab_open(lab, &program, argc, argv, err);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const char *text_of(const char *model) {
    static char path[2048];
    snprintf(path, sizeof path, "%s/text.txt", model);
    return path;
}

// ---- --tokenize, --detokenize -------------------------------------------------------------------

static void detokenize(const char *model, const char *ids) {
    struct lab lab;
    struct error err = {0};
    const char *path = temp_file("ids", ids, strlen(ids));
    bool ok = lab_with(&lab, &err, model, WORDS("--detokenize", path));
    cr_assert(ok, "%s", err.message);
    cr_assert(lab.done && lab_close(&lab, ok, &err));
}

Test(lab, tokenize_prints_ids_on_one_line, .init = cr_redirect_stdout) {
    struct lab lab;
    struct error err = {0};
    const char *model = shared_path("fixtures/gpt2-f32"), *text = "Hello, world";
    const char *path = temp_file("text", text, strlen(text));
    bool ok = lab_with(&lab, &err, model, WORDS("--tokenize", path));
    cr_assert(ok, "%s", err.message);
    cr_assert(lab_close(&lab, ok, &err));
    cr_assert_stdout_eq_str("39 68 270 78 11 287 78 81 75 67\n");
}

Test(lab, detokenize_reads_what_tokenize_prints, .init = cr_redirect_stdout) {
    const char *model = shared_path("fixtures/gpt2-f32");
    detokenize(model, "39 68 270 78 11 287 78 81 75 67\n");
    detokenize(model, "");
    detokenize(model, " 39,68\r\n270,\t78 \n");
    fflush(stdout);
    cr_assert_stdout_eq_str("Hello, worldHello");
}

Test(lab, what_is_no_id_is_named) {
    static const char *const cases[][2] = {
        {"39 x", "found 'x' at byte 3"},
        {"39 -1", "found '-1' at byte 3"},
        {"4294967297", "found '4294967297' at byte 0"},
        {"99999999999999999999", "at byte 0"},
        {"39;68", "found '39;68' at byte 0"},
    };
    const char *model = shared_path("fixtures/gpt2-f32");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lab lab;
        struct error err = {0};
        const char *path = temp_file("ids", cases[i][0], strlen(cases[i][0]));
        cr_assert_not(lab_with(&lab, &err, model, WORDS("--detokenize", path)));
        cr_assert(strstr(err.message, cases[i][1]), "'%s' lacks '%s'", err.message, cases[i][1]);
        lab_close(&lab, false, &err);
    }
}

Test(lab, a_full_disk_is_noticed) {
    struct lab lab;
    struct error err = {0};
    const char *model = shared_path("fixtures/gpt2-f32");
    const char *path = temp_file("text", "Hello", 5);
    cr_assert_not_null(freopen("/dev/full", "w", stdout));
    cr_assert_not(lab_with(&lab, &err, model, WORDS("--tokenize", path)));
    cr_assert_str_eq(err.message, "stdout: cannot write: No space left on device");
    lab_close(&lab, false, &err);
}

// ---- rows ---------------------------------------------------------------------------------------

// The baseline and one int8 row of a model.
static void measure_int8(struct lab *lab, const char *model, const char *flag, const char *value) {
    struct error err = {0};
    cr_assert(
        lab_with(lab, &err, model,
                 WORDS("--text", text_of(model), "--ctx", "32", "--limit", "40", flag, value)),
        "%s", err.message);
    cr_assert(lab_baseline(lab, &err), "%s", err.message);
    cr_assert(lab_quantized(lab, (struct lab_config){.format = "int8"}, &err), "%s", err.message);
}

static double bits_of_blocks(const struct lab *lab, bool with_down) {
    const struct layer *l = &lab->model->layers[0];
    const struct linear *all[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
    const struct quant_format *f = quant_format_find("int8");
    size_t bytes = 0, weights = 0, one;
    for (size_t i = 0; i < (with_down ? 7 : 6); i++) { // every layer has these shapes
        cr_assert(f->bytes(f, all[i]->w.shape[0], all[i]->w.shape[1], &one));
        bytes += one;
        weights += all[i]->w.shape[0] * all[i]->w.shape[1];
    }
    return 8.0 * (double)bytes / (double)weights;
}

// The embedding becomes float16 on the way: it is not among the quantized weights.
Test(lab, bits_per_weight_of_a_float32_checkpoint_are_those_of_the_quantized_weights,
     .init = cr_redirect_stdout) {
    struct lab lab;
    struct error err = {0};
    measure_int8(&lab, shared_path("fixtures/mistral-gqa-f32"), "--limit", "40");
    cr_assert_eq(lab.table.n_rows, 3);
    cr_assert_str_eq(lab.table.rows[0].config, "fp32");
    cr_assert_float_eq(lab.table.rows[1].bits_per_weight, 16, 1e-9);
    cr_assert_float_eq(lab.table.rows[2].bits_per_weight, bits_of_blocks(&lab, true), 1e-9);
    lab_close(&lab, false, &err);
}

// Skipped matrices were float32 and are float16 in the row: quantizing them too saves less than the
// bytes of that.
Test(lab, what_is_skipped_in_a_float32_checkpoint_becomes_float16, .init = cr_redirect_stdout) {
    struct lab lab;
    struct error err = {0};
    const char *model = shared_path("fixtures/mistral-gqa-f32");
    measure_int8(&lab, model, "--skip", "*.down_proj");
    const struct tensor *down = &lab.model->layers[0].down.w;
    double halves = (double)(lab.model->config.n_layers * down->shape[0] * down->shape[1]) * 2;
    double skipped = lab.table.rows[2].model_bytes;
    cr_assert_float_eq(lab.table.rows[2].bits_per_weight, bits_of_blocks(&lab, false), 1e-9);
    lab_close(&lab, false, &err);
    measure_int8(&lab, model, "--limit", "40");
    double saved = skipped - lab.table.rows[2].model_bytes;
    cr_assert(saved > 0 && saved < halves, "%g, expected less than %g", saved, halves);
    lab_close(&lab, false, &err);
}

// --config names the row without the word that --search adds to it.
Test(lab, a_search_is_named_in_the_row_and_lowers_the_divergence, .init = cr_redirect_stdout) {
    const char *model = shared_path("fixtures/qwen2-tied-bf16");
    const char *flags[] = {"--quiet", "--search"};
    double kld[2];
    for (int i = 0; i < 2; i++) {
        struct lab lab;
        struct error err = {0};
        cr_assert(lab_with(&lab, &err, model,
                           WORDS("--text", text_of(model), "--ctx", "64", "--config",
                                 "int4 per-channel", flags[i])),
                  "%s", err.message);
        cr_assert(lab_baseline(&lab, &err), "%s", err.message);
        cr_assert(lab_quantized(&lab, (struct lab_config){.format = "int4"}, &err), "%s",
                  err.message);
        cr_assert_str_eq(lab.table.rows[1].config,
                         i ? "int4 per-channel search" : "int4 per-channel");
        kld[i] = lab.table.rows[1].kld_mean;
        lab_close(&lab, false, &err);
    }
    cr_assert(kld[1] > 0 && kld[1] < kld[0], "%g, %g", kld[1], kld[0]);
}

Test(lab, rows_before_a_failure_are_printed, .init = cr_redirect_stdout) {
    const char *model = shared_path("fixtures/qwen2-tied-bf16");
    struct lab lab;
    struct error err = {0};
    cr_assert(lab_with(&lab, &err, model, WORDS("--text", text_of(model), "--ctx", "64")));
    cr_assert(lab_baseline(&lab, &err), "%s", err.message);
    cr_assert_not(lab_quantized(&lab, (struct lab_config){.format = "int9"}, &err));
    cr_assert_not(lab_close(&lab, false, &err));
    cr_assert_str_eq(err.message, "no weight format is called 'int9'");
    char text[4096] = "";
    FILE *out = cr_get_redirected_stdout();
    cr_assert(fread(text, 1, sizeof text - 1, out) > 0);
    cr_assert(strstr(text, "| fp16"), "%s", text);
}

// Nothing is measured before: what was would be lost.
Test(lab, a_prompt_that_cannot_be_continued_is_refused_at_once) {
    static char longest[20000];
    struct lab lab;
    struct error err = {0};
    const char *model = shared_path("fixtures/qwen2-tied-bf16");
    cr_assert_not(lab_with(&lab, &err, model, WORDS("--text", text_of(model), "--prompt", "")));
    cr_expect(strstr(err.message, "the prompt has 0 tokens, expected 1 to"), "%s", err.message);
    cr_assert_not(lab_close(&lab, false, &err));
    for (size_t i = 0; i + 1 < sizeof longest; i++)
        longest[i] = "a z"[i % 3];
    cr_assert_not(
        lab_with(&lab, &err, model, WORDS("--text", text_of(model), "--prompt", longest)));
    cr_expect(strstr(err.message, " tokens, expected 1 to"), "%s", err.message);
    cr_assert_not(lab_close(&lab, false, &err));
}

// ---- command lines that are wrong ---------------------------------------------------------------

// The exit status of opening the lab, measuring and closing it, in a process of its own.
static int exit_status(const char *model, const char *flag, const char *value) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct lab lab;
        struct error err = {0};
        cr_assert_not_null(freopen("/dev/null", "w", stderr));
        measure_int8(&lab, model, flag, value);
        lab_close(&lab, true, &err);
        _exit(0);
    }
    int status = 0;
    cr_assert_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

Test(lab, patterns_that_leave_nothing_to_quantize_are_a_wrong_command_line) {
    const char *model = shared_path("fixtures/qwen2-tied-bf16");
    cr_assert_eq(exit_status(model, "--only", "*.no_such_proj"), 2);
    cr_assert_eq(exit_status(model, "--skip", "*"), 2);
}

Test(lab, a_model_that_is_no_gguf_file_is_refused) {
    struct lab lab;
    struct error err = {0};
    const char *path = temp_file("model.gguf", "{}", 2);
    cr_assert_not(lab_with(&lab, &err, path, WORDS("--text", path)));
    cr_assert(strstr(err.message, "model.gguf: no GGUF file; expected one"), "%s", err.message);
    lab_close(&lab, false, &err);
}

// ---- GGUF files ---------------------------------------------------------------------------------

// A fixture as a GGUF file, alone in the temporary folder.
static const char *write_gguf(const char *folder, const char *format) {
    struct error err = {0};
    struct model *m = model_load(folder, &err);
    cr_assert_not_null(m, "%s", err.message);
    struct gguf_bytes b =
        gguf_of_model(m, folder, "llama-bpe", format ? quant_format_find(format) : NULL);
    model_free(m);
    const char *path = temp_file("only.gguf", b.data, b.size);
    free(b.data);
    return path;
}

// Text, perplexity and a generated continuation come out of one file; as they do from the folder.
Test(lab, a_gguf_file_is_measured_like_its_checkpoint) {
    const char *folder = shared_path("fixtures/llama-untied-f16-sharded");
    struct result_row rows[2];
    const char *models[] = {folder, write_gguf(folder, NULL)};
    for (size_t i = 0; i < 2; i++) {
        struct lab lab;
        struct error err = {0};
        cr_assert(lab_with(&lab, &err, models[i],
                           WORDS("--text", text_of(folder), "--ctx", "32", "--prompt", "a b",
                                 "--max-tokens", "8")),
                  "%s", err.message);
        cr_assert(lab_baseline(&lab, &err), "%s", err.message);
        cr_assert_str_eq(lab.table.rows[0].config, "fp16");
        rows[i] = lab.table.rows[0];
        rows[i].text = strdup(rows[i].text);
        lab_close(&lab, false, &err);
    }
    cr_assert_float_eq(rows[0].nll, rows[1].nll, 1e-9);
    cr_assert(rows[0].ppl_tokens == rows[1].ppl_tokens && rows[0].ppl_tokens > 50);
    cr_assert_str_eq(rows[0].text, rows[1].text);
    free((char *)(uintptr_t)rows[0].text);
    free((char *)(uintptr_t)rows[1].text);
}

// Named after its format, with its bits; and rows of other formats are made from it.
Test(lab, a_quantized_gguf_file_is_the_baseline) {
    struct lab lab;
    const char *folder = shared_path("fixtures/llama-untied-f16-sharded");
    write_gguf(folder, "q8_0");
    temp_file("text.txt", "Once upon a time there was a file of a few words, and then no more.",
              67);
    measure_int8(&lab, temp_folder(), "--limit", "40"); // the folder's only GGUF file
    cr_assert_eq(lab.table.n_rows, 2);
    cr_assert_str_eq(lab.table.rows[0].config, quant_format_find("q8_0")->label);
    cr_assert_str_eq(lab.table.rows[0].format, "q8_0");
    cr_assert_float_eq(lab.table.rows[0].bits_per_weight, 8.5, 1e-9);
    cr_assert_str_eq(lab.table.rows[1].format, "int8");
    cr_assert(lab.table.rows[1].kld_mean > 0 && lab.table.rows[1].kld_mean < 0.1);
    lab_close(&lab, false, &(struct error){0});
}

// The kernels' own error, beside that of the weights: asked for below 0.1 % of the perplexity.
Test(lab, what_the_kernels_compute_is_scored_when_asked_for, .init = cr_redirect_stdout) {
    double nll[2], kld[2];
    for (int i = 0; i < 2; i++) {
        struct lab lab;
        struct error err = {0};
        cr_assert(lab_with(&lab, &err, "data/model",
                           WORDS("--text", "data/eval.txt", "--limit", "700", "--ctx", "256",
                                 "--choices", "none", "--activations", i ? "int8" : "f32")),
                  "%s", err.message);
        cr_assert(lab_baseline(&lab, &err), "%s", err.message);
        cr_assert(lab_quantized(&lab, (struct lab_config){.format = "int4-g32"}, &err), "%s",
                  err.message);
        nll[i] = lab.table.rows[1].nll;
        kld[i] = lab.table.rows[1].kld_mean;
        lab_close(&lab, false, &err);
    }
    cr_assert(nll[0] != nll[1], "both were computed alike");
    cr_assert(fabs(nll[1] - nll[0]) < 1e-3, "%g and %g", nll[0], nll[1]);
    cr_assert(kld[1] > 0 && fabs(kld[1] - kld[0]) < 5e-4, "%g and %g", kld[0], kld[1]);
}

// An hour of work on a large model, and the first progress comes after minutes.
Test(lab, an_analysis_says_what_it_does_and_where_that_will_be, .init = cr_redirect_stderr) {
    struct lab lab;
    struct sensitivity s;
    struct error err = {0};
    char expected[1024] = "";
    const char *model = shared_path("fixtures/qwen2-tied-bf16"), *text = text_of(model);
    const struct quant_format *f = quant_format_find("int8");
    const struct sensitivity_options options = {.tokens = 16, .window = 16, .anchors = 1};
    cr_assert(lab_with(&lab, &err, model, WORDS("--text", text, "--calib", text)), "%s",
              err.message);
    lab.options.quiet = false;
    cr_assert(lab_sensitivity_reuse(&lab, &f, 1, &options, temp_folder(), &s, &err), "%s",
              err.message);
    sensitivity_free(&s);
    cr_assert(lab_sensitivity_reuse(&lab, &f, 1, &options, temp_folder(), &s, &err), "%s",
              err.message);
    sensitivity_free(&s);
    const struct sensitivity_options other = {
        .tokens = 16, .window = 16, .anchors = 1, .search = true};
    cr_assert(lab_sensitivity_reuse(&lab, &f, 1, &other, temp_folder(), &s, &err), "%s",
              err.message);
    cr_expect(s.search);
    sensitivity_free(&s);
    struct sensitivity_options some = options;
    some.skip = "*embed*";
    cr_assert(lab_sensitivity(&lab, &f, 1, &some, temp_folder(), &s, &err), "%s", err.message);
    size_t blocks = s.n_tensors;
    sensitivity_free(&s);
    cr_assert(lab_sensitivity_reuse(&lab, &f, 1, &options, temp_folder(), &s, &err), "%s",
              err.message);
    cr_expect_eq(s.n_tensors, blocks + 1, "what --skip left out was not measured again");
    sensitivity_free(&s);
    fflush(stderr);
    for (size_t i = 0; i < 4; i++) // all but the second
        snprintf(expected + strlen(expected), sizeof expected - strlen(expected),
                 "phase2: measuring every matrix in 1 format, to be kept in %s/sensitivity.csv\n",
                 temp_folder());
    cr_assert_stderr_eq_str(expected);
    lab_close(&lab, false, &err);
}

// The first `lines` of a file as another.
static void copy_lines(const char *from, const char *to, size_t lines) {
    struct error err = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/%s", temp_folder(), from);
    char *text = file_read(path, 1 << 24, NULL, &err), *end = text;
    cr_assert(text, "%s", err.message);
    for (size_t i = 0; i < lines; i++)
        end = strchr(end, '\n') + 1;
    temp_file(to, text, (size_t)(end - text));
    free(text);
}

Test(lab, an_analysis_that_was_stopped_goes_on, .init = cr_redirect_stderr) {
    struct lab lab;
    struct sensitivity s;
    struct error err = {0};
    char expected[512];
    const char *model = shared_path("fixtures/qwen2-tied-bf16"), *text = text_of(model);
    const struct quant_format *f = quant_format_find("int8");
    const struct sensitivity_options options = {.tokens = 16, .window = 16, .anchors = 1};
    cr_assert(lab_with(&lab, &err, model, WORDS("--text", text, "--calib", text)), "%s",
              err.message);
    cr_assert(lab_sensitivity(&lab, &f, 1, &options, temp_folder(), &s, &err), "%s", err.message);
    sensitivity_free(&s);
    copy_lines("sensitivity.csv", "sensitivity.csv.part", 1 + 2);
    temp_file("sensitivity.csv", "of another model", 16);
    lab.options.quiet = false;
    cr_assert(lab_sensitivity_reuse(&lab, &f, 1, &options, temp_folder(), &s, &err), "%s",
              err.message);
    fflush(stderr);
    snprintf(expected, sizeof expected,
             "phase2: measuring every matrix in 1 format, to be kept in %s/sensitivity.csv\n"
             "phase2: 2 of %zu matrices were measured by a run that was stopped\n",
             temp_folder(), s.n_tensors);
    cr_assert_stderr_eq_str(expected);
    sensitivity_free(&s);
    lab_close(&lab, false, &err);
}

Test(lab, a_vocabulary_is_enough_to_tokenize, .init = cr_redirect_stdout) {
    struct lab lab;
    struct error err = {0};
    const char *model = shared_path("data/tokenizers/ggml-vocab-llama-spm.gguf");
    const char *path = temp_file("text", "Hello, world", 12);
    bool ok = lab_with(&lab, &err, model, WORDS("--tokenize", path));
    cr_assert(ok, "%s", err.message);
    cr_assert(lab_close(&lab, ok, &err));
    detokenize(model, "15043 29892 3186");
    fflush(stdout);
    cr_assert_stdout_eq_str("15043 29892 3186\nHello, world");
}

Test(lab, a_vocabulary_is_no_model) {
    struct lab lab;
    struct error err = {0};
    const char *model = shared_path("data/tokenizers/ggml-vocab-llama-spm.gguf");
    cr_assert_not(lab_with(&lab, &err, model, WORDS("--text", model)));
    cr_assert(strstr(err.message, "ggml-vocab-llama-spm.gguf: "), "%s", err.message);
    cr_assert(strstr(err.message, "has no tensors, only metadata"), "%s", err.message);
    lab_close(&lab, false, &err);
}

// ---- where results go ---------------------------------------------------------------------------

static void goes_to(const char *model, const char *folder) {
    struct lab lab = {.options.model = model};
    struct error err = {0};
    char *found = lab_results_folder(&lab, &err);
    cr_expect_str_eq(found, folder);
    free(found);
}

// However the bundled model is called: results/bundled has the tables of the write-ups.
Test(lab, results_of_the_bundled_model_are_apart_from_the_committed_ones) {
    goes_to(NULL, "out/bundled");
    goes_to("data/train/bundled/", "out/bundled");
    goes_to("models/bundled2", "results/bundled2");
    goes_to("Qwen/Qwen2.5-3B", "results/Qwen2.5-3B");
    goes_to("qwen2.5-3b", "results/qwen2.5-3b");
}
