// Phase 4 as a user runs it, on the bundled model with a small probe.
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/json.h"
#include "shared.h"
#include "temp.h"

struct outcome {
    int status;
    char *out, *err;
};

// Every %s in arguments is the temporary folder.
static struct outcome run(const char *arguments) {
    if (access("phase4", X_OK) != 0)
        cr_skip_test("no ./phase4");
    char command[2048];
    const char *t = temp_folder();
    int n = snprintf(command, sizeof command, "./phase4 --limit 256 --choices none ");
    n += snprintf(command + n, sizeof command - (size_t)n, arguments, t, t);
    snprintf(command + n, sizeof command - (size_t)n, " >%s/out 2>%s/err", t, t);
    struct outcome o = {.status = WEXITSTATUS(system(command))};
    o.out = temp_text("out");
    o.err = temp_text("err");
    return o;
}

static void outcome_free(struct outcome *o) {
    free(o->out);
    free(o->err);
}

static const cJSON *row_named(const cJSON *json, const char *config) {
    const cJSON *row;
    cJSON_ArrayForEach (row, json_get(json, "rows"))
        if (strcmp(json_get(row, "config")->valuestring, config) == 0)
            return row;
    cr_assert_fail("no row '%s'", config);
    return NULL;
}

static double number(const cJSON *row, const char *key) {
    const cJSON *v = json_get(row, key);
    cr_assert(cJSON_IsNumber(v), "no number '%s'", key);
    return v->valuedouble;
}

Test(phase4, json_has_formats_sums_and_every_tensor) {
    struct outcome o =
        run("--probe 64 --formats int8,int4-g128 --json - --lbl-dump-dir %s/analysis");
    cr_assert_eq(o.status, 0, "%s", o.err);
    struct error err = {0};
    cJSON *json = json_parse(o.out, strlen(o.out), "stdout", &err);
    cr_assert_not_null(json, "%s", err.message);
    cr_expect_eq(number(json, "phase"), 4);
    cr_expect_eq(cJSON_GetArraySize(json_get(json, "rows")), 1 + 2 * 2 + 43 * 2);
    const cJSON *all = row_named(json, "int4 group 128"),
                *sum = row_named(json, "int4 group 128, sum of tensors");
    cr_expect(number(all, "kld_mean") > 0 && number(all, "ppl") > 1);
    cr_expect(number(sum, "kld_mean") > 0);
    cr_expect_float_eq(number(sum, "bits_per_weight"), number(all, "bits_per_weight"), 1e-9);
    const cJSON *tensor = row_named(json, "model.layers.0.mlp.down_proj.weight int4-g128");
    cr_expect_str_eq(json_get(tensor, "format")->valuestring, "int4-g128");
    cr_expect(number(tensor, "kld_mean") > 0 && number(tensor, "rel_error") > 0);
    cr_expect(number(tensor, "kld_mean") < number(sum, "kld_mean"));
    cr_expect(number(tensor, "model_bytes") < number(row_named(json, "fp16"), "model_bytes"));
    cJSON_Delete(json);
    outcome_free(&o);
    static const char *const files[] = {
        "lbl_analysis.md",        "sensitivity.csv",         "lbl_cost.md",
        "lbl_findings.md",        "sensitivity-damage.png",  "sensitivity-output-error.png",
        "sensitivity-layers.png", "sensitivity-formats.png", "sensitivity-outliers.png"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/analysis/%s", temp_folder(), files[i]);
        cr_expect_eq(access(path, R_OK), 0, "%s", files[i]);
    }
    char *report = temp_text("analysis/lbl_analysis.md");
    cr_expect(strstr(report, "# Which tensors hurt: bundled") &&
              strstr(report, "| model.layers.5.self_attn.o_proj"));
    free(report);
    char *cost = temp_text("analysis/lbl_cost.md");
    cr_expect(strstr(cost, "6 layers, 43 tensors, 2 formats, 64 tokens: ") &&
                  strstr(cost, "86 of 86 combinations were measured"),
              "%s", cost);
    free(cost);
}

Test(phase4, the_terminal_shows_the_worst_ten) {
    struct outcome o = run("--probe 32 --formats int4-g128 --lbl-dump-dir %s/a");
    cr_assert_eq(o.status, 0, "%s", o.err);
    size_t rows = 0;
    for (const char *c = o.out; (c = strstr(c, ".weight int4-g128")); c++)
        rows++;
    cr_expect_eq(rows, 10);
    cr_expect_null(strstr(o.err, "phase4: lbl_analysis.md"), "%s", o.err);
    outcome_free(&o);
}

// The rows of whole models have searched scales then, and their tensors' damages are to explain
// them.
Test(phase4, a_search_for_scales_holds_for_the_tensors_too) {
    struct outcome o =
        run("--search --probe 16 --formats int4-g128 --quiet --lbl-dump-dir %s/searched");
    cr_assert_eq(o.status, 0, "%s", o.err);
    char *report = temp_text("searched/lbl_analysis.md");
    cr_expect(strstr(report, "Each tensor was quantized alone, with scales of least error, "), "%s",
              report);
    free(report);
    outcome_free(&o);
}

Test(phase4, only_and_skip_hold_for_the_tensors_too) {
    struct outcome o = run("--only '*down_proj' --skip '*.0.*' --probe 16 --formats int4-g128 "
                           "--json - --lbl-dump-dir %s/some");
    cr_assert_eq(o.status, 0, "%s", o.err);
    struct error err = {0};
    cJSON *json = json_parse(o.out, strlen(o.out), "stdout", &err);
    cr_assert_not_null(json, "%s", err.message);
    cr_expect_eq(cJSON_GetArraySize(json_get(json, "rows")), 1 + 2 + 5);
    row_named(json, "model.layers.5.mlp.down_proj.weight int4-g128");
    cJSON_Delete(json);
    outcome_free(&o);
}

Test(phase4, what_a_run_that_was_stopped_has_done_is_no_cost_of_the_next) {
    char command[1024];
    struct outcome o = run("--probe 32 --formats int4-g128 --lbl-dump-dir %s/a");
    cr_assert_eq(o.status, 0, "%s", o.err);
    outcome_free(&o);
    snprintf(command, sizeof command, "cd %s/a && head -n 8 sensitivity.csv >sensitivity.csv.part",
             temp_folder());
    cr_assert_eq(system(command), 0);
    o = run("--probe 32 --formats int4-g128 --lbl-dump-dir %s/a");
    cr_assert_eq(o.status, 0, "%s", o.err);
    outcome_free(&o);
    char *cost = temp_text("a/lbl_cost.md");
    cr_expect(strstr(cost, "; 7 of the tensors were measured before, by a run that was stopped."),
              "%s", cost);
    free(cost);
}

// results/bundled has the tables of the write-ups: a trial must not replace them.
Test(phase4, a_trial_of_the_bundled_model_writes_to_out_and_says_so) {
    char root[512], command[1024];
    if (access("phase4", X_OK) != 0)
        cr_skip_test("no ./phase4");
    cr_assert_not_null(getcwd(root, sizeof root));
    snprintf(command, sizeof command,
             "cd %s && mkdir results && %s/phase4 --limit 64 --choices none --probe 16 "
             "--formats int4-g128 >table 2>err",
             temp_folder(), root);
    cr_assert_eq(WEXITSTATUS(system(command)), 0);
    char *err = temp_text("err");
    cr_expect(strstr(err, "phase4: lbl_analysis.md, sensitivity.csv and charts are in "
                          "out/bundled\n"),
              "%s", err);
    free(err);
    free(temp_text("out/bundled/lbl_analysis.md"));
    snprintf(command, sizeof command, "%s/results", temp_folder());
    cr_expect_eq(rmdir(command), 0, "something is in %s", command);
}

// Rows of 128 are no whole blocks of q4_k, and that is no reason to lose the table.
Test(phase4, a_format_that_cannot_hold_a_matrix_has_no_row_for_all) {
    char arguments[1024];
    const char *model = shared_path("fixtures/qwen2-tied-bf16");
    snprintf(arguments, sizeof arguments,
             "--model %s --text %s/text.txt --calib %s/text.txt --ctx 32 --probe 16 "
             "--formats q4_k,int8 --lbl-dump-dir %%s/a",
             model, model, model);
    struct outcome o = run(arguments);
    cr_expect_eq(o.status, 0, "%s", o.err);
    cr_expect(strstr(o.err, "warning: q4_k cannot hold every matrix of the blocks"), "%s", o.err);
    cr_expect(strstr(o.out, "| int8 per-channel, sum of tensors "), "%s", o.out);
    cr_expect_null(strstr(o.out, "q4_k"), "%s", o.out);
    outcome_free(&o);
    char *cost = temp_text("a/lbl_cost.md"); // 28 matrices and the embedding, in int8 alone
    cr_expect(strstr(cost, "29 of 29 combinations were measured.\n"), "%s", cost);
    free(cost);
}

static void expect_failure(const char *arguments, int status, const char *message) {
    struct outcome o = run(arguments);
    cr_expect_eq(o.status, status, "%s: %d", arguments, o.status);
    char *newline = strchr(o.err, '\n');
    cr_expect(newline && !newline[1], "not one line: %s", o.err);
    cr_expect(strstr(o.err, message), "'%s' lacks '%s'", o.err, message);
    outcome_free(&o);
}

Test(phase4, bad_command_lines_are_status_2) {
    expect_failure("--formats int8,int9", 2, "--formats: no weight format is called 'int9'");
    expect_failure("--formats int8,int4,int8", 2, "--formats: 'int8' is named twice");
    expect_failure("--formats ,", 2, "--formats: no format is named");
    expect_failure("--formats int8 --config int4", 2,
                   "'int4', which is no row of this phase; there are "
                   "'fp16', 'int8 per-channel'; try");
    expect_failure("--probe many", 2, "--probe");
}

Test(phase4, what_cannot_be_done_is_status_1) {
    expect_failure("--calib %s/none.txt", 1, "none.txt");
    temp_file("empty.txt", "", 0);
    expect_failure("--calib %s/empty.txt", 1, "empty.txt: 0 tokens, too few to calibrate on");
    temp_file("a-file", "", 0);
    expect_failure("--probe 16 --formats int8 --lbl-dump-dir %s/a-file", 1, "a-file");
}
