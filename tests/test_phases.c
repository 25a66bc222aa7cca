// The programs as a user runs them: exit status, what goes to stdout, the one line of an error.
// They run from the repository root on a tiny checkpoint; without the programs these tests skip.
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    expect_failure("phase1", "--model %s --device cuda", 1, "no CUDA");
    expect_failure("phase2", "--model %s --tokens 1,512 --logits /dev/null", 1,
                   "token 512 is outside the model's vocabulary of 512");
    expect_failure("phase1", "--model %s --choices /dev/null", 1, "/dev/null: no questions");
}

Test(phases, a_wrong_command_line_is_status_2) {
    expect_failure("phase1", "--bogus", 2, "--bogus");
    expect_failure("phase2", "--ctx minus", 2, "--ctx");
    expect_failure("phase3", "extra", 2, "extra");
    expect_failure("phase3", "--model %s --config 'int5'", 2, "'int5', which is no row");
}
