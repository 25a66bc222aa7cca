// Phase 5 as a user runs it, in a folder of its own, on a tiny checkpoint. Skips without ./phase5.
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
#include "shared.h"
#include "temp.h"

static const char FAST[] = "--formats int2-g64-zp,int4-g128,int4-g64,int8-g32 --probe 64 --ctx 32 "
                           "--mixes 4 --rounds 1 --threads 1";

struct outcome {
    int status;
    cJSON *json;
    char *err;
};

// The folder of a fixture, from the root on: phases run elsewhere.
static void fixture_path(const char *relative, char path[2048]) {
    char root[1024];
    const char *fixture = shared_path(relative);
    cr_assert_not_null(getcwd(root, sizeof root));
    snprintf(path, 2048, "%s%s%s", *fixture == '/' ? "" : root, *fixture == '/' ? "" : "/",
             fixture);
}

// Runs a phase on a fixture with its own text, from within the temporary folder.
static struct outcome run(const char *phase, const char *arguments) {
    char root[1024], model[2048], command[8192], path[512];
    cr_assert_not_null(getcwd(root, sizeof root));
    if (access(phase, X_OK) != 0)
        cr_skip_test("no ./%s", phase);
    fixture_path("fixtures/qwen2-tied-bf16", model);
    snprintf(command, sizeof command,
             "cd %s && %s/%s --model %s --text %s/text.txt --calib %s/text.txt %s --json out.json "
             ">out 2>err",
             temp_folder(), root, phase, model, model, model, arguments);
    struct outcome o = {.status = WEXITSTATUS(system(command))};
    struct error err = {0};
    size_t size;
    snprintf(path, sizeof path, "%s/err", temp_folder());
    o.err = file_read(path, 1 << 20, NULL, &err);
    cr_assert(o.err, "%s", err.message);
    snprintf(path, sizeof path, "%s/out.json", temp_folder());
    char *text = o.status == 0 ? file_read(path, 1 << 24, &size, &err) : NULL;
    if (text) {
        o.json = json_parse(text, size, "out.json", &err);
        cr_assert(o.json, "%s", err.message);
    }
    free(text);
    return o;
}

static void outcome_free(struct outcome *o) {
    cJSON_Delete(o->json);
    free(o->err);
}

static double number(const struct outcome *o, const char *config, const char *key) {
    const cJSON *row;
    cJSON_ArrayForEach (row, json_get(o->json, "rows")) {
        if (strcmp(json_get(row, "config")->valuestring, config) == 0) {
            const cJSON *v = json_get(row, key);
            cr_assert(cJSON_IsNumber(v), "no '%s' in '%s'", key, config);
            return v->valuedouble;
        }
    }
    cr_assert_fail("no row '%s'", config);
    return NAN;
}

static struct outcome run_fast(const char *more) {
    char arguments[6144];
    snprintf(arguments, sizeof arguments, "%s %s", FAST, more);
    struct outcome o = run("phase5", arguments);
    cr_assert_eq(o.status, 0, "%s", o.err);
    return o;
}

Test(phase5, every_row_is_there_and_the_solver_is_best_within_the_budget) {
    struct outcome o = run_fast("--keep 1");
    double budget = number(&o, "uniform int4-g128", "model_bytes");
    static const char *const rows[] = {"uniform int4-g128", "uniform int4-g128 search",
                                       "heuristic first-last", "heuristic k_m"};
    double kld = number(&o, "solver", "kld_mean");
    cr_expect_leq(number(&o, "solver", "model_bytes"), budget);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_leq(number(&o, rows[i], "model_bytes"), budget);
        cr_expect_leq(kld, number(&o, rows[i], "kld_mean"), "%s", rows[i]);
    }
    double kept = number(&o, "keep 1", "model_bytes");
    cr_expect_gt(kept, budget);
    cr_expect_leq(number(&o, "solver, bytes of keep 1", "model_bytes"), kept);
    cr_expect(number(&o, "solver, bytes of keep 1", "kld_mean") < number(&o, "keep 1", "kld_mean"));
    char *table = temp_text("out");
    cr_expect(strstr(table,
                     "\nBudget: the bytes of uniform int4-g128, 0.52 MB of weights in all. Over "
                     "it, for comparison: "),
              "%s", table);
    cr_expect(strstr(table, "'keep 1', 'solver, bytes of keep 1'\n"), "%s", table);
    free(table);
    outcome_free(&o);
}

Test(phase5, a_budget_for_everything_says_so) {
    struct outcome o = run_fast("--fit 8GB --config solver");
    cr_expect(strstr(o.err, "holds every tensor in its best format: nothing is left to choose"),
              "%s", o.err);
    char *table = temp_text("out");
    cr_expect(strstr(table, "It holds every tensor in its best format: nothing is left to choose."),
              "%s", table);
    cr_expect_eq(number(&o, "solver", "model_bytes"), number(&o, "fp16", "model_bytes"));
    free(table);
    outcome_free(&o);
}

Test(phase5, its_recipe_gives_phase_3_the_same_bytes_and_divergence) {
    struct outcome five = run_fast("--bits 3.5");
    struct outcome three =
        run("phase3", "--ctx 32 --threads 1 --config recipe.txt --recipe results/*/recipe.txt");
    cr_assert_eq(three.status, 0, "%s", three.err);
    static const char *const keys[] = {"model_bytes", "kld_mean", "ppl"};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        cr_expect_eq(number(&three, "recipe.txt", keys[k]), number(&five, "solver", keys[k]), "%s",
                     keys[k]);
    outcome_free(&five);
    outcome_free(&three);
}

Test(phase5, what_it_saves_is_loaded_again) {
    struct outcome five = run_fast("--bits 3.5 --config solver --out mix");
    cr_expect(number(&five, "solver", "file_bytes") > 0);
    struct outcome one = run("phase1", "--ctx 32 --threads 1 --model mix");
    cr_assert_eq(one.status, 0, "%s", one.err);
    const cJSON *row = cJSON_GetArrayItem(json_get(one.json, "rows"), 0);
    cr_expect_eq(json_get(row, "ppl")->valuedouble, number(&five, "solver", "ppl"));
    outcome_free(&five);
    outcome_free(&one);
}

Test(phase5, files_tell_the_study) {
    static const char *const names[] = {"recipe.txt", "mixed.md",        "mixes.md",
                                        "mixes.csv",  "mixes.png",       "pareto.csv",
                                        "pareto.png", "mixed-search.csv"};
    struct outcome o = run_fast("--group-kernels --embeddings 4-8 --sweep 3 --choices none");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/results/qwen2-tied-bf16/%s", temp_folder(), names[i]);
        cr_expect(access(path, R_OK) == 0, "%s", path);
    }
    cr_expect(strstr(o.err, "phase5: mixed.md, recipe.txt and charts are in "
                            "results/qwen2-tied-bf16\n"),
              "%s", o.err);
    outcome_free(&o);
}

Test(phase5, a_sweep_shows_the_solver_beside_its_rivals_at_every_budget) {
    struct outcome o = run_fast("--sweep 1.5 --lbl-dump-dir there --choices none");
    char *csv = temp_text("there/pareto.csv"), *table = temp_text("there/sweep.md"),
         *words = temp_text("there/mixed.md");
    static const double bits[] = {2.5, 4, 5.5, 7, 8.5};
    double before = INFINITY;
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++) {
        char name[64];
        size_t bytes;
        double predicted, measured;
        snprintf(name, sizeof name, "\nsolver %g bits,", bits[i]);
        const char *line = strstr(csv, name);
        cr_assert(line, "no '%s' in %s", name + 1, csv);
        cr_assert_eq(sscanf(line + strlen(name), "%zu,%lf,%lf", &bytes, &predicted, &measured), 3);
        cr_expect(predicted > 0 && measured > 0 && measured < before, "%s: %g", name, measured);
        before = measured;
    }
    cr_expect(strstr(csv, "\nheuristic k_m 4 bits,") && strstr(csv, "\nheuristic first-last 7 "));
    cr_expect(strstr(csv, "\nuniform q4_0 search,") && strstr(csv, "\nuniform int4-g128,"));
    cr_expect(strstr(table, "Solver / best other") && strstr(table, " of 5 budgets."), "%s", table);
    cr_expect(strstr(words, "](sweep.md)") && strstr(words, "| damage alone, nats |"));
    cr_expect(strstr(words, "| mix | predicted, nats | measured, nats |"), "%s", words);
    free(csv);
    free(table);
    free(words);
    outcome_free(&o);
}

// The words of a run on a calibration text of 1920 tokens.
static char *words_of_a_trial(const char *limit) {
    char text[4096] = "", arguments[512];
    for (size_t i = 0; i < 20; i++)
        strcat(text, "Two cats sat on the mat and watched the rain, while a third one slept. ");
    temp_file("long.txt", text, strlen(text));
    snprintf(
        arguments, sizeof arguments,
        "--formats int4-g128,int8-g32 --ctx 32 --mixes 0 --rounds 0 --threads 1 --choices none "
        "--calib long.txt --lbl-dump-dir there %s",
        limit);
    struct outcome o = run("phase5", arguments);
    cr_assert_eq(o.status, 0, "%s", o.err);
    outcome_free(&o);
    return temp_text("there/mixed.md");
}

Test(phase5, a_trial_on_few_tokens_measures_on_few_calibration_tokens) {
    char *trial = words_of_a_trial("--limit 160"), *least = words_of_a_trial("--limit 9");
    cr_expect_null(strstr(trial, "sweep.md"), "nobody asked for other budgets");
    cr_expect(strstr(trial, "on 160 calibration tokens"), "%s", trial);
    cr_expect(strstr(least, "on 128 calibration tokens"), "%s", least);
    free(trial);
    free(least);
}

Test(phase5, keep_may_have_another_base) {
    struct outcome o = run_fast("--base int3-g32 --keep 1 --bits 3.5 --choices none");
    double low = number(&o, "uniform int3-g32", "model_bytes"),
           kept = number(&o, "keep 1", "model_bytes");
    cr_expect(kept > low, "%g, %g", kept, low);
    cr_expect(number(&o, "keep 1", "kld_mean") < number(&o, "uniform int3-g32", "kld_mean"));
    cr_expect(number(&o, "solver, bytes of keep 1", "kld_mean") < number(&o, "keep 1", "kld_mean"));
    number(&o, "uniform int4-g128", "kld_mean");
    outcome_free(&o);
}

// Rows of 96 and 192 are no blocks of q4_k, those of 256 are: three matrices in three layers.
Test(phase5, keep_counts_the_damage_of_what_the_base_can_hold) {
    double bytes[2];
    char model[2048];
    fixture_path("fixtures/qwen3-qknorm-bf16", model);
    for (int i = 0; i < 2; i++) {
        char arguments[4096];
        snprintf(arguments, sizeof arguments, "--model %s --base q4_k --keep %d --choices none",
                 model, i + 1);
        struct outcome o = run_fast(arguments);
        bytes[i] = number(&o, i ? "keep 2" : "keep 1", "model_bytes");
        outcome_free(&o);
    }
    cr_expect_gt(bytes[1], bytes[0], "the second layer was the first again");
}

static ino_t inode_of_the_analysis(void) {
    char path[512];
    struct stat s;
    snprintf(path, sizeof path, "%s/results/qwen2-tied-bf16/mixed-search.csv", temp_folder());
    cr_assert_eq(stat(path, &s), 0, "%s", path);
    return s.st_ino;
}

Test(phase5, a_size_is_kept_and_an_analysis_read_again) {
    struct outcome a = run_fast("--size 600kB --config solver");
    ino_t before = inode_of_the_analysis();
    struct outcome b = run_fast("--size 600kB --config solver");
    cr_expect_eq(inode_of_the_analysis(), before, "it was written again");
    cr_expect_leq(number(&a, "solver", "model_bytes"), 600000);
    cr_expect_eq(number(&a, "solver", "kld_mean"), number(&b, "solver", "kld_mean"));
    outcome_free(&a);
    outcome_free(&b);
}

static void refused(const char *arguments, int status, const char *message) {
    char all[2048];
    snprintf(all, sizeof all, "%s %s", FAST, arguments);
    struct outcome o = run("phase5", all);
    cr_expect_eq(o.status, status, "%s: %d", arguments, o.status);
    cr_expect(strstr(o.err, message), "'%s' lacks '%s'", o.err, message);
    char *newline = strchr(o.err, '\n');
    cr_expect(newline && !newline[1], "not one line: %s", o.err);
    outcome_free(&o);
}

Test(phase5, mistakes_are_one_line) {
    refused("--bits 4 --fit 1GB", 2, "--bits, --size and --fit exclude each other");
    refused("--size big", 2, "--size is 'big', expected bytes such as 2.4GB");
    refused("--formats int9", 2, "no weight format is called 'int9'");
    refused("--base f16", 2, "--base is 'f16', which is no format of fewer than 16 bits");
    refused("--base nf4 --target gguf", 2, "--base is 'nf4', which has no type in GGUF files");
    refused("--sweep 0.001", 2, "--sweep is 0.001, expected 0 or at least 0.01 bits");
    refused("--keep 99", 2, "--keep is '99', expected 0 to 4, the layers of the model");
    refused("--config 'int4 group 128'", 2,
            "which is no row of this phase; there are 'fp16', 'uniform FORMAT', "
            "'uniform FORMAT search', 'keep 1', 'solver, bytes of keep 1', 'heuristic k_m', "
            "'heuristic first-last', 'solver'; try");
    refused("--config 'keep 2' --keep 3", 2, "'keep 3', 'solver, bytes of keep 3'");
    refused("--config 'uniform int9'", 2, "no weight format is called 'int9'");
    refused("--embeddings 8-4", 2, "--embeddings is '8-4', expected bits a weight");
}

static void expect_nothing_written(void) {
    char path[512];
    snprintf(path, sizeof path, "%s/results", temp_folder());
    cr_expect_neq(access(path, F_OK), 0, "something was measured before");
}

Test(phase5, what_no_mix_can_do_is_refused_before_anything_is_measured) {
    refused("--bits 1.5", 1, "--bits 1.5 cannot be met: the smallest mix takes 2.");
    refused("--bits 3 --embeddings 4-8 --only '*embed*'", 1, "the smallest mix takes 4.1");
    refused("--size 100kB", 1, "--size 100kB cannot be met: the smallest model takes ");
    refused("--fit 100kB --config solver", 1, "of cache for 32 positions");
    refused("--bits 1.5 --tokens 1 --logits x.npy", 1, "--bits 1.5 cannot be met");
    expect_nothing_written();
}

Test(phase5, out_is_checked_before_anything_is_measured) {
    temp_file("precious", "x", 1);
    refused("--out .", 1, ".: is there already; remove it first");
    refused("--out /proc/nothing", 1, "/proc/nothing: cannot create the folder: ");
    refused("--out mix --config 'keep 1'", 2, "--out saves the row 'solver'");
    refused("--out mix --tokens 1 --logits x.npy", 2, "--out and --tokens exclude each other");
    refused("--lbl-dump-dir /proc/nothing", 1, "/proc/nothing: cannot create the folder: ");
    refused("--lbl-dump-dir precious", 1, "precious: cannot create the folder: ");
    expect_nothing_written();
}

Test(phase5, a_recipe_that_is_read_is_not_replaced) {
    temp_file("recipe.txt", "* int8\n", 7);
    refused("--recipe ./recipe.txt --lbl-dump-dir .", 2, "this run writes its own there");
    expect_nothing_written();
}
