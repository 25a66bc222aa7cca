// The programs as a user runs them: exit status, what goes to stdout, the one line of an error.
// They run from the repository root on a tiny checkpoint; without the programs these tests skip.
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/file.h"
#include "io/json.h"
#include "io/npy.h"
#include "shared.h"
#include "temp.h"

struct outcome {
    int status;
    char *out, *err;
};

// Runs "./phaseN <arguments>"; %s in arguments is the tiny checkpoint.
static struct outcome run(const char *phase, const char *arguments) {
    if (access(phase, X_OK) != 0)
        cr_skip_test("no ./%s", phase);
    char command[4096], words[2048], path[512];
    snprintf(words, sizeof words, arguments, shared_path("data/models/stories260K"));
    snprintf(command, sizeof command, "./%s %s >%s/out 2>%s/err", phase, words, temp_folder(),
             temp_folder());
    struct outcome o = {.status = WEXITSTATUS(system(command))};
    struct error err = {0};
    snprintf(path, sizeof path, "%s/out", temp_folder());
    o.out = file_read(path, 1 << 24, NULL, &err);
    snprintf(path, sizeof path, "%s/err", temp_folder());
    o.err = file_read(path, 1 << 24, NULL, &err);
    cr_assert(o.out && o.err, "%s", err.message);
    return o;
}

static void outcome_free(struct outcome *o) {
    free(o->out);
    free(o->err);
}

static void expect_failure(const char *phase, const char *arguments, int status,
                           const char *message) {
    struct outcome o = run(phase, arguments);
    cr_expect_eq(o.status, status, "%s: %d", arguments, o.status);
    cr_expect_str_eq(o.out, "", "%s", arguments);
    char *newline = strchr(o.err, '\n');
    cr_expect(newline && !newline[1], "not one line: %s", o.err);
    cr_expect(strncmp(o.err, phase, strlen(phase)) == 0, "%s", o.err);
    cr_expect(strstr(o.err, message), "'%s' lacks '%s'", o.err, message);
    outcome_free(&o);
}

static const cJSON *row_named(const cJSON *json, const char *config) {
    const cJSON *row;
    cJSON_ArrayForEach (row, json_get(json, "rows")) {
        if (strcmp(json_get(row, "config")->valuestring, config) == 0)
            return row;
    }
    cr_assert_fail("no row '%s'", config);
    return NULL;
}

static double number(const cJSON *row, const char *key) {
    const cJSON *v = json_get(row, key);
    cr_assert(cJSON_IsNumber(v), "no number '%s' in '%s'", key,
              json_get(row, "config")->valuestring);
    return v->valuedouble;
}

static char *text_file(void) {
    static char path[256];
    const char *text =
        "Once upon a time there was a little girl who liked to play outside. One day "
        "she saw a big cat. The cat was sad because it could not find its ball.";
    strcpy(path, temp_file("text.txt", text, strlen(text)));
    return path;
}

// Phase 3 measures all rows of phases 1 and 2 again, under the names of the contract.
Test(phases, json_has_every_row_under_its_name) {
    char arguments[1024];
    snprintf(arguments, sizeof arguments,
             "--model %%s --text %s --json - --prompt 'Once upon' --max-tokens 5", text_file());
    struct outcome o = run("phase3", arguments);
    cr_assert_eq(o.status, 0, "%s", o.err);
    struct error err = {0};
    cJSON *json = json_parse(o.out, strlen(o.out), "stdout", &err);
    cr_assert_not_null(json, "%s", err.message);
    cr_expect_eq(number(json, "phase"), 3);
    cr_expect_str_eq(json_get(json, "arch")->valuestring, "llama");
    cr_expect_str_eq(json_get(json, "device")->valuestring, "cpu");
    cr_expect_eq(number(json, "ctx"), 512);
    static const char *const configs[] = {"fp32",
                                          "fp16",
                                          "int8 per-tensor",
                                          "int8 per-channel",
                                          "int4 per-channel",
                                          "int4 group 32",
                                          "int4 group 64",
                                          "int4 group 128",
                                          "int4 group 256",
                                          "int4 group 128 zero-point",
                                          "int8 per-channel dynamic"};
    static const char *const keys[] = {
        "bits_per_weight", "model_bytes", "peak_rss_bytes", "ppl",    "nll",
        "ppl_tokens",      "prefill_tps", "decode_tps",     "tpot_ms"};
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        const cJSON *row = row_named(json, configs[c]);
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            cr_expect(number(row, keys[k]) > 0, "%s %s", configs[c], keys[k]);
        cr_expect(cJSON_IsString(json_get(row, "text")), "%s", configs[c]);
        if (c) {
            cr_expect(number(row, "kld_mean") >= 0 && number(row, "kld_p99") >= 0);
            cr_expect(number(row, "top1_agree") <= 1);
        }
    }
    const cJSON *fp16 = row_named(json, "fp16"), *int4 = row_named(json, "int4 per-channel");
    cr_expect(fabs(number(fp16, "ppl") / number(row_named(json, "fp32"), "ppl") - 1) < 1e-3);
    cr_expect(number(int4, "kld_mean") > number(row_named(json, "int8 per-channel"), "kld_mean"));
    cr_expect(number(int4, "model_bytes") < number(fp16, "model_bytes"));
    cr_expect(number(int4, "bits_per_weight") > 4 && number(int4, "bits_per_weight") < 5.5);
    cJSON_Delete(json);
    outcome_free(&o);
}

Test(phases, a_table_goes_to_stdout_and_nothing_else) {
    char arguments[1024];
    snprintf(arguments, sizeof arguments, "--model %%s --text %s --ppl-mode half --ctx 16",
             text_file());
    struct outcome o = run("phase1", arguments);
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_expect(strstr(o.out, "| Config") && strstr(o.out, "| fp32") && strstr(o.out, "mode half"));
    cr_expect_str_eq(o.err, "");
    outcome_free(&o);
}

// ---- phase 3's ladder ---------------------------------------------------------------------------

static cJSON *json_of(const struct outcome *o) {
    struct error err = {0};
    cr_assert_eq(o->status, 0, "%s", o->err);
    cJSON *json = json_parse(o->out, strlen(o->out), "stdout", &err);
    cr_assert(json, "%s", err.message);
    return json;
}

Test(phases, the_ladder_has_a_row_for_each_step) {
    static const char *const configs[] = {"memory read, one thread", "memory read, all threads",
                                          "float16, one thread",     "float16, all threads",
                                          "1 unpack the matrix",     "2 unpack each weight",
                                          "3 unpack in vectors",     "4 integer products",
                                          "5 woven weights",         "6 woven, all threads"};
    struct outcome o = run("phase3", "--bench --ladder --shape 80x384 --json -");
    cJSON *json = json_of(&o);
    cr_expect_eq(cJSON_GetArraySize(json_get(json, "rows")), 10);
    for (size_t c = 0; c < 10; c++) {
        const cJSON *row = row_named(json, configs[c]);
        double us = number(row, "us"), bytes = number(row, "bits_per_weight") / 8 * 80 * 384;
        bool f16 = strncmp(configs[c], "float16", 7) == 0;
        cr_expect_str_eq(json_get(row, "format")->valuestring, f16 ? "f16" : "int4-g128");
        cr_expect_float_eq(number(row, "gb_s") * us * 1e3 / bytes, 1, 1e-3, "%s", configs[c]);
        cr_expect_float_eq(number(row, "decode_tps") * us * 3.086e3 / (80 * 384), 1, 1e-3);
        cr_expect(number(row, "of_limit") > 0, "%s", configs[c]);
        if (c >= 2) // those that round x are off by what that costs
            cr_expect(number(row, "rel_error") <= (c < 7 ? 1e-5 : 2e-2), "%s", configs[c]);
    }
    cr_expect_float_eq(number(row_named(json, configs[1]), "of_limit"), 1, 1e-9);
    cJSON_Delete(json);
    outcome_free(&o);
}

Test(phases, the_ladder_refuses_what_it_has_no_use_for) {
    expect_failure("phase3", "--ladder", 2, "--ladder needs --bench too");
    expect_failure("phase3", "--bench --shape 80x384", 2, "--shape needs --ladder too");
    expect_failure("phase3", "--bench --ladder --model %s", 2, "--ladder and --model exclude");
    expect_failure("phase3", "--bench --ladder --config fp16", 2, "'fp16', which is no row of");
    static const char *const shapes[] = {"80-384", "80x",      "0x128",
                                         "80x100", "80x65664", "80x128x1"};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        char arguments[64];
        snprintf(arguments, sizeof arguments, "--bench --ladder --shape %s", shapes[i]);
        expect_failure("phase3", arguments, 2, "expected rows x columns");
    }
}

Test(phases, csv_appends_under_one_header) {
    char arguments[1024], path[256];
    snprintf(path, sizeof path, "%s/rows.csv", temp_folder());
    snprintf(arguments, sizeof arguments, "--model %%s --text %s --csv %s", text_file(), path);
    for (int i = 0; i < 2; i++) {
        struct outcome o = run("phase1", arguments);
        cr_assert_eq(o.status, 0, "%s", o.err);
        outcome_free(&o);
    }
    struct error err = {0};
    char *csv = file_read(path, 1 << 20, NULL, &err);
    size_t lines = 0;
    for (const char *c = csv; (c = strchr(c, '\n')); c++)
        lines++;
    cr_expect_eq(lines, 1 + 2 * 2); // a header, and fp32 and fp16 of each run
    free(csv);
}

Test(phases, logits_of_given_tokens_in_a_chosen_configuration) {
    char arguments[1024], path[256];
    struct error err = {0};
    size_t rows, cols;
    snprintf(path, sizeof path, "%s/l.npy", temp_folder());
    snprintf(arguments, sizeof arguments, "--model %%s --tokens 1,2,3 --logits %s", path);
    struct outcome o = run("phase1", arguments);
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_expect_str_eq(o.out, "");
    float *plain = npy_read_f32(path, &rows, &cols, &err);
    cr_assert(plain && rows == 3 && cols == 512, "%s", err.message);
    strcat(arguments, " --config 'int4 group 32'");
    struct outcome q = run("phase3", arguments);
    cr_assert_eq(q.status, 0, "%s", q.err);
    float *quantized = npy_read_f32(path, &rows, &cols, &err);
    cr_assert(quantized && rows == 3 && cols == 512);
    double difference = 0, norm = 0;
    for (size_t i = 0; i < rows * cols; i++) {
        difference += pow((double)plain[i] - quantized[i], 2);
        norm += pow(plain[i], 2);
    }
    double error = sqrt(difference / norm);
    cr_expect(error > 1e-3 && error < 0.5, "%g", error);
    free(plain);
    free(quantized);
    outcome_free(&o);
    outcome_free(&q);
}

Test(phases, tokens_go_to_text_and_back) {
    char arguments[1024], ids[256];
    snprintf(arguments, sizeof arguments, "--model %%s --tokenize %s", text_file());
    struct outcome o = run("phase1", arguments);
    cr_assert_eq(o.status, 0, "%s", o.err);
    strcpy(ids, temp_file("ids.txt", o.out, strlen(o.out)));
    snprintf(arguments, sizeof arguments, "--model %%s --detokenize %s", ids);
    struct outcome back = run("phase1", arguments);
    struct error err = {0};
    char *text = file_read(text_file(), 1 << 20, NULL, &err);
    cr_expect_str_eq(back.out, text);
    free(text);
    outcome_free(&o);
    outcome_free(&back);
}

Test(phases, failures_are_one_line_and_status_1) {
    expect_failure("phase1", "--model /no/such/folder", 1, "/no/such/folder");
    expect_failure("phase1", "--model nonsense", 1, "nonsense: no such folder");
    expect_failure("phase1", "--model %s --text /no/such/text", 1, "/no/such/text: No such file");
    expect_failure("phase2", "--model %s --tokens 1,512 --logits /dev/null", 1,
                   "token 512 is outside the model's vocabulary of 512");
    expect_failure("phase1", "--model %s --choices /dev/null", 1, "/dev/null: no questions");
}

// A file's content is failed work; a word of the command line is status 2 (the next test).
Test(phases, a_recipe_that_is_missing_or_wrong_is_status_1) {
    char arguments[512];
    expect_failure("phase3", "--model %s --recipe /no/such/recipe", 1, "/no/such/recipe: No such");
    snprintf(arguments, sizeof arguments, "--model %%s --recipe %s",
             temp_file("mix", "* int8\n* int9\n", 14));
    expect_failure("phase3", arguments, 1, "mix:2: unknown format 'int9'");
}

Test(phases, a_wrong_command_line_is_status_2) {
    expect_failure("phase1", "--model %s --limit 1", 2,
                   "--limit is '1', expected 0 or at least 2 so that a token is scored");
    expect_failure("phase1", "--model %s --ctx 64 --ppl-mode half --limit 63", 2,
                   "--limit is '63', expected 0 or at least 64, a window, so that a token");
    expect_failure("phase1", "--bogus", 2, "--bogus");
    expect_failure("phase2", "--ctx minus", 2, "--ctx");
    expect_failure("phase3", "extra", 2, "extra");
    expect_failure("phase2", "--model %s --config recipe", 2,
                   "'recipe', which is no row of this phase; there are 'fp32', 'fp16', "
                   "'int8 per-tensor', 'int8 per-channel', ");
}

// ---- saving and loading -------------------------------------------------------------------------

static const char *in_temp(char path[256], const char *name) {
    snprintf(path, 256, "%s/%s", temp_folder(), name);
    return path;
}

Test(phases, a_saved_model_is_loaded_with_the_same_figures) {
    char arguments[1024], saved[256];
    in_temp(saved, "m4");
    snprintf(arguments, sizeof arguments,
             "--model %%s --text %s --limit 100 --json - --config 'int4 group 32' --out %s",
             text_file(), saved);
    struct outcome o = run("phase3", arguments);
    cJSON *json = json_of(&o);
    const cJSON *row = row_named(json, "int4 group 32");
    struct stat st;
    char weights[300];
    snprintf(weights, sizeof weights, "%s/model.safetensors", saved);
    cr_assert_eq(stat(weights, &st), 0);
    cr_expect_eq(number(row, "file_bytes"), (double)st.st_size);
    snprintf(arguments, sizeof arguments, "--model %s --text %s --limit 100 --json -", saved,
             text_file());
    struct outcome back = run("phase1", arguments);
    cJSON *loaded = json_of(&back);
    cr_assert_eq(cJSON_GetArraySize(json_get(loaded, "rows")), 1);
    const cJSON *again = row_named(loaded, "int4 group 32");
    static const char *const same[] = {"bits_per_weight", "model_bytes", "ppl", "nll"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        cr_expect_eq(number(row, same[i]), number(again, same[i]), "%s", same[i]);
    cr_expect_str_eq(json_get(again, "format")->valuestring, "int4-g32");
    cJSON_Delete(json);
    cJSON_Delete(loaded);
    outcome_free(&o);
    outcome_free(&back);
}

// The other formats are made from the weights that were saved, and a warning says so.
Test(phases, a_saved_model_goes_through_the_other_phases) {
    char arguments[1024], saved[256];
    in_temp(saved, "m8");
    snprintf(arguments, sizeof arguments,
             "--model %%s --text %s --limit 60 --config 'int8 per-channel' --out %s", text_file(),
             saved);
    struct outcome o = run("phase2", arguments);
    cr_assert_eq(o.status, 0, "%s", o.err);
    snprintf(arguments, sizeof arguments, "--model %s --text %s --limit 60 --json -", saved,
             text_file());
    struct outcome next = run("phase3", arguments);
    cJSON *json = json_of(&next);
    cr_expect(strstr(next.err, "warning: ") && strstr(next.err, "int8 per-channel already"), "%s",
              next.err);
    size_t n = 0;
    const cJSON *row;
    cJSON_ArrayForEach (row, json_get(json, "rows"))
        n += strcmp(json_get(row, "config")->valuestring, "int8 per-channel") == 0;
    cr_expect_eq(n, 1);
    cr_expect(number(row_named(json, "int8 per-channel dynamic"), "kld_mean") > 0);
    cr_expect(number(row_named(json, "int4 group 32"), "kld_mean") > 0);
    cJSON_Delete(json);
    outcome_free(&o);
    outcome_free(&next);
}

Test(phases, logits_of_a_saved_model_are_the_same_bytes) {
    char arguments[1024], saved[256], before[256], after[256];
    in_temp(saved, "mixed");
    in_temp(before, "before.npy");
    in_temp(after, "new/folder/after.npy");
    const char *config = "--config 'int4 group 64 zero-point' --only '*.mlp.*' --search";
    snprintf(arguments, sizeof arguments, "--model %%s --text %s --limit 60 %s --out %s",
             text_file(), config, saved);
    struct outcome o = run("phase3", arguments);
    cr_assert_eq(o.status, 0, "%s", o.err);
    outcome_free(&o);
    snprintf(arguments, sizeof arguments, "--model %%s %s --tokens 1,2,3 --logits %s", config,
             before);
    o = run("phase3", arguments);
    cr_assert_eq(o.status, 0, "%s", o.err);
    outcome_free(&o);
    snprintf(arguments, sizeof arguments, "--model %s --tokens 1,2,3 --logits %s", saved, after);
    o = run("phase1", arguments);
    cr_assert_eq(o.status, 0, "%s", o.err);
    outcome_free(&o);
    char command[600];
    snprintf(command, sizeof command, "cmp %s %s", before, after);
    cr_assert_eq(system(command), 0);
}

Test(phases, out_is_checked_before_the_work) {
    char arguments[512];
    expect_failure("phase3", "--model %s --out /tmp/x", 2, "--out needs --config too");
    expect_failure("phase1", "--model %s --only x", 2, "--only: this phase has no use for it");
    temp_file("precious", "x", 1);
    snprintf(arguments, sizeof arguments, "--model %%s --config 'int4 group 32' --out %s",
             temp_folder());
    expect_failure("phase3", arguments, 1, "is there already; remove it first");
    expect_failure("phase3", "--model %s --config 'int4 group 32' --out /proc/no/m4", 1,
                   "cannot create the folder");
    expect_failure("phase3", "--model %s --config 'int4 group 32' --out x --tokens 1 --logits y", 2,
                   "exclude each other");
}

// ---- where output goes --------------------------------------------------------------------------

Test(phases, outputs_that_cannot_be_written_are_noticed_before_the_work) {
    char arguments[512];
    static const char *const flags[] = {"--json", "--csv", "--tokens 1 --logits"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(arguments, sizeof arguments, "--model /no/such/model %s %s", flags[i],
                 temp_folder());
        expect_failure("phase1", arguments, 1, "a folder, expected a file to write");
        snprintf(arguments, sizeof arguments, "--model /no/such/model %s /proc/no/x", flags[i]);
        expect_failure("phase1", arguments, 1, "/proc/no: cannot create the folder");
    }
}

// A text, a recipe, a part of the model: none is replaced, and the CSV is not appended to one.
Test(phases, a_file_that_is_read_is_not_written) {
    char arguments[1024], model[256], link[256];
    const char *text = text_file(), *fixture = shared_path("fixtures/qwen2-tied-bf16");
    snprintf(arguments, sizeof arguments, "cp -r %s %s", fixture, in_temp(model, "model"));
    cr_assert_eq(system(arguments), 0);
    cr_assert_eq(symlink(text, in_temp(link, "link")), 0);
    snprintf(arguments, sizeof arguments, "--model %%s --text %s --json %s", text, text);
    expect_failure("phase1", arguments, 2, "text.txt: this run reads that file");
    snprintf(arguments, sizeof arguments, "--model %%s --text %s --csv %s", text, link);
    expect_failure("phase2", arguments, 2, "link: this run reads that file");
    snprintf(arguments, sizeof arguments, "--model %%s --recipe %s --csv %s", text, text);
    expect_failure("phase3", arguments, 2, "--csv ");
    snprintf(arguments, sizeof arguments, "--model %s --text %s --json %s/config.json", model, text,
             model);
    expect_failure("phase3", arguments, 2, "config.json: this run reads that file");
    snprintf(arguments, sizeof arguments, "--model %s --logits %s/model.safetensors --tokens 1",
             model, model);
    expect_failure("phase1", arguments, 2, "--logits ");
    snprintf(arguments, sizeof arguments, "cmp %s/config.json %s/config.json", model, fixture);
    cr_expect_eq(system(arguments), 0);
    struct outcome o;
    for (size_t i = 0; i < 2; i++) { // results may lie beside the model, and be replaced there
        snprintf(arguments, sizeof arguments, "--model %s --text %s --json %s/results.json", model,
                 text, model);
        o = run("phase1", arguments);
        cr_expect_eq(o.status, 0, "%s", o.err);
        outcome_free(&o);
    }
}

// In a copy of the project, so that a failure costs nothing.
Test(phases, bundled_texts_are_not_written) {
    char command[2048];
    const char *t = temp_folder(), *model = shared_path("data/models/stories260K");
    if (access("phase1", X_OK) != 0)
        cr_skip_test("no ./phase1");
    snprintf(
        command, sizeof command,
        "cp phase1 %s && mkdir %s/data && echo Once >%s/data/calib.txt && %s/phase1 --model %s "
        "--text %s --json %s/data/calib.txt 2>%s/err",
        t, t, t, t, model, text_file(), t, t);
    cr_expect_eq(WEXITSTATUS(system(command)), 2);
}

Test(phases, logits_go_to_stdout_too) {
    struct error err = {0};
    size_t rows, cols;
    struct outcome o = run("phase1", "--model %s --tokens 1,2 --logits -");
    cr_assert_eq(o.status, 0, "%s", o.err);
    char path[256];
    float *logits = npy_read_f32(in_temp(path, "out"), &rows, &cols, &err);
    cr_assert(logits && rows == 2 && cols == 512, "%s", err.message);
    cr_assert_neq(access("-", F_OK), 0);
    free(logits);
    outcome_free(&o);
}

Test(phases, a_closed_stdout_is_a_failure) {
    char command[1024], path[256];
    if (access("phase1", X_OK) != 0)
        cr_skip_test("no ./phase1");
    snprintf(command, sizeof command, "./phase1 --version >&- 2>%s", in_temp(path, "err"));
    cr_assert_eq(WEXITSTATUS(system(command)), 1);
    struct error err = {0};
    char *text = file_read(path, 1 << 16, NULL, &err);
    cr_assert_str_eq(text, "phase1: stdout: it is closed, expected a place to print to\n");
    free(text);
}
