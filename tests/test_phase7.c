// Phase 7 as a user runs it, in a folder of its own, on the bundled model. Skips without ./phase7.
#include <criterion/criterion.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/file.h"
#include "io/gguf.h"
#include "io/json.h"
#include "shared.h"
#include "temp.h"

struct outcome {
    int status;
    char *out, *err;
};

static char *read_text(const char *name) {
    char path[512];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s", temp_folder(), name);
    char *text = file_read(path, 1 << 24, NULL, &err);
    cr_assert(text, "%s", err.message);
    return text;
}

static const char *absolute(const char *path) {
    static char buffer[PATH_MAX];
    cr_assert_not_null(realpath(path, buffer));
    return buffer;
}

// Runs "PREFIX PHASE ARGUMENTS" in the temporary folder.
static struct outcome run_program(const char *phase, const char *prefix, const char *arguments) {
    char root[1024], command[8192];
    if (access(phase, X_OK) != 0)
        cr_skip_test("no ./%s", phase);
    cr_assert_not_null(getcwd(root, sizeof root));
    snprintf(command, sizeof command, "cd %s && %s %s/%s --quiet --threads 1 %s >stdout 2>stderr",
             temp_folder(), prefix, root, phase, arguments);
    int status = system(command);
    return (struct outcome){WEXITSTATUS(status), read_text("stdout"), read_text("stderr")};
}

static struct outcome run_after(const char *prefix, const char *arguments) {
    return run_program("phase7", prefix, arguments);
}

static struct outcome run(const char *arguments) {
    return run_program("phase7", "", arguments);
}

static void outcome_free(struct outcome *o) {
    free(o->out);
    free(o->err);
}

static void expect_done(struct outcome o, const char *expected) {
    cr_expect_eq(o.status, 0, "%s", o.err);
    cr_expect(strstr(o.out, expected), "'%s' lacks '%s'", o.out, expected);
    outcome_free(&o);
}

static void expect_refused(struct outcome o, int status, const char *message) {
    cr_expect_eq(o.status, status, "%d: %s", o.status, o.err);
    cr_expect(strstr(o.err, message), "'%s' lacks '%s'", o.err, message);
    char *newline = strchr(o.err, '\n');
    cr_expect(newline && !newline[1], "not one line: %s", o.err);
    outcome_free(&o);
}

static const char *in_temp(const char *name) {
    static char paths[2][512]; // two may be in use
    static size_t next;
    char *path = paths[next++ % 2];
    snprintf(path, sizeof paths[0], "%s/%s", temp_folder(), name);
    return path;
}

static long size_of(const char *name) {
    struct stat st;
    return stat(in_temp(name), &st) == 0 ? (long)st.st_size : -1;
}

// Names in the temporary folder that contain `part`.
static size_t count_files(const char *part) {
    char command[512], line[512];
    size_t n = 0;
    snprintf(command, sizeof command, "find %s -name '*%s*' -type f", temp_folder(), part);
    FILE *f = popen(command, "r");
    while (f && fgets(line, sizeof line, f))
        n++;
    cr_assert(f && pclose(f) == 0);
    return n;
}

Test(phase7, a_dry_run_says_what_will_be_written) {
    char expected[64];
    struct outcome dry = run("--type Q5_K_M --dry-run");
    cr_expect_eq(count_files("gguf"), 0);
    expect_done(run("--type Q5_K_M --no-eval --out a.gguf"), "| Q5_K_M |");
    snprintf(expected, sizeof expected, "\n%ld bytes with metadata\n", size_of("a.gguf"));
    expect_done(dry, expected);
}

Test(phase7, without_evaluation_the_row_has_what_writing_tells) {
    struct error err = {0};
    struct outcome o = run("--type Q8_0 --no-eval --json - --out a.gguf");
    cr_assert_eq(o.status, 0, "%s", o.err);
    cr_expect_str_eq(o.err, "");
    cJSON *json = json_parse(o.out, strlen(o.out), "out", &err);
    const cJSON *row = json ? cJSON_GetArrayItem(json_get(json, "rows"), 0) : NULL;
    cr_assert(row, "%s", o.out);
    cr_expect_eq(json_get(row, "file_bytes")->valuedouble, (double)size_of("a.gguf"));
    cr_expect_eq(json_get(row, "bits_per_weight")->valuedouble, 8.5);
    cr_expect_null(json_get(row, "ppl"));
    cJSON_Delete(json);
    outcome_free(&o);
}

Test(phase7, several_types_are_several_files_measured_behind_the_model) {
    struct outcome o =
        run("--type F16,Q8_0 --limit 256 --ctx 128 --choices none --csv - --out files/");
    cr_expect_eq(o.status, 0, "%s", o.err);
    const char *f16 = strstr(o.out, ",F16,"), *q8 = strstr(o.out, ",Q8_0,");
    cr_expect(f16 && q8 && f16 < q8 && strstr(o.out, ",fp16,") < f16, "%s", o.out);
    cr_expect_gt(size_of("files/bundled-F16.gguf"), size_of("files/bundled-Q8_0.gguf"));
    cr_expect_gt(size_of("files/bundled-Q8_0.gguf"), 0);
    outcome_free(&o);
}

Test(phase7, a_file_may_be_the_model_of_the_next) {
    expect_done(run("--type F16 --no-eval --out a.gguf"), "| F16");
    expect_done(run("--model a.gguf --type Q4_K_M --no-eval"), "| Q4_K_M |");
    cr_expect_gt(size_of("results/a/a-Q4_K_M.gguf"), 0);
    expect_done(run("--inspect results/a/a-Q4_K_M.gguf"), "| blk.0.attn_v.weight      |");
}

Test(phase7, formats_of_ours_show_what_they_become_and_what_that_costs) {
    temp_file("r.recipe", "*.mlp.* int4-g128\n* int8\n", 25);
    expect_done(run("--recipe r.recipe --dry-run"), "| int4-g128  |");
    struct outcome o = run("--recipe r.recipe --no-eval --out r.gguf");
    cr_expect(strstr(o.out, "| Instead of | Its NMSE |"), "%s", o.out);
    cr_expect(strstr(o.out, "| int8       |"), "%s", o.out);
    expect_done(o, "| r GGUF |");
}

// The number in front of `what`; NaN if there is none.
static double number_before(const char *text, const char *what) {
    const char *at = strstr(text, what);
    while (at && at > text && strchr("0123456789.", at[-1]))
        at--;
    return at ? strtod(at, NULL) : NAN;
}

static double bits_of(const char *phase, const char *arguments) {
    struct error err = {0};
    struct outcome o = run_program(phase, "", arguments);
    cr_assert_eq(o.status, 0, "%s", o.err);
    cJSON *json = json_parse(o.out, strlen(o.out), "stdout", &err);
    cr_assert(json, "%s", o.out);
    double bits =
        json_get(cJSON_GetArrayItem(json_get(json, "rows"), 0), "bits_per_weight")->valuedouble;
    cJSON_Delete(json);
    outcome_free(&o);
    return bits;
}

// Embedding and head in other types than the blocks, or in 16 bits; a block's matrix in 16 bits.
Test(phase7, bits_per_weight_are_the_same_wherever_they_are_shown) {
    static const char *const flags[] = {"--type Q4_K_M", "--type F16",
                                        "--type Q4_0 --skip '*embed*'",
                                        "--type Q2_K --skip '*.1.mlp.*'"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "%s --dry-run", flags[i]);
        struct outcome dry = run(arguments);
        double planned = number_before(dry.out, " bits per weight, of the matrices of the blocks");
        snprintf(arguments, sizeof arguments, "%s --no-eval --json - --out %zu.gguf", flags[i], i);
        double written = bits_of("phase7", arguments);
        snprintf(arguments, sizeof arguments, "--model %zu.gguf --limit 64 --choices none --json -",
                 i);
        cr_expect_eq(bits_of("phase1", arguments), written, "%s", flags[i]);
        snprintf(arguments, sizeof arguments, "--inspect %zu.gguf", i);
        struct outcome shown = run(arguments);
        double inspected =
            number_before(shown.out, " bits per weight, of the matrices of the blocks");
        cr_expect_float_eq(planned, written, 0.0006, "%g, %g: %s", planned, written, flags[i]);
        cr_expect_float_eq(inspected, written, 0.0006, "%g, %g: %s", inspected, written, flags[i]);
        outcome_free(&dry);
        outcome_free(&shown);
    }
}

Test(phase7, a_recipe_that_grows_says_by_how_much) {
    static const char *const grows = "warning: r.recipe: 4.125 bits per weight become 4.500 in the "
                                     "nearest types that GGUF has; './phase5 --target gguf'";
    temp_file("r.recipe", "*.layers.* int4-g128\n", 21);
    struct outcome o = run("--recipe r.recipe --dry-run");
    cr_expect(strstr(o.err, grows), "%s", o.err);
    cr_expect(strstr(o.out, "\n4.500 bits per weight, of the matrices of the blocks"), "%s", o.out);
    outcome_free(&o);
    o = run("--recipe r.recipe --no-eval --out r.gguf");
    cr_expect(strstr(o.err, grows), "%s", o.err);
    outcome_free(&o);
    temp_file("r.recipe", "*.layers.* q4_k\n", 16);
    o = run("--recipe r.recipe --dry-run");
    cr_expect_str_eq(o.err, "");
    outcome_free(&o);
}

Test(phase7, a_budget_is_kept) {
    const char *calib = temp_file("calib.txt", "Once upon a time a girl was given eight figs.", 45);
    char arguments[512];
    snprintf(arguments, sizeof arguments,
             "--size 3.5MB --formats q4_0,q8_0 --calib %s --no-eval --out a.gguf", calib);
    expect_done(run(arguments), "| 3.5MB  |");
    cr_expect_leq(size_of("a.gguf"), 3500000);
    cr_expect_gt(size_of("a.gguf"), 3200000, "%ld", size_of("a.gguf"));
}

// A number that is named as the least is one that can be met.
Test(phase7, a_budget_that_cannot_be_met_is_refused_before_the_work) {
    struct outcome o = run("--size 1kB --formats q4_0,q8_0");
    size_t least = 0;
    const char *said = strstr(o.err, "cannot be met: the smallest file takes ");
    cr_assert(said && sscanf(said, "cannot be met: the smallest file takes %zu bytes", &least) == 1,
              "%s", o.err);
    cr_expect_eq(o.status, 1);
    outcome_free(&o);
    char arguments[512];
    const char *calib = temp_file("calib.txt", "Once upon a time a girl was given eight figs.", 45);
    snprintf(arguments, sizeof arguments, "--size %zu --formats q4_0,q8_0", least - 1);
    expect_refused(run(arguments), 1, "cannot be met");
    expect_refused(run("--bits 2.5"), 1,
                   "--bits 2.5 cannot be met: the smallest mix takes 2.625 bits per weight");
    expect_refused(run("--bits 4 --skip '*'"), 2, "no weight matrix is left");
    cr_expect_eq(count_files("sensitivity"), 0);
    snprintf(arguments, sizeof arguments,
             "--size %zu --formats q4_0,q8_0 --calib %s --no-eval --out a.gguf", least, calib);
    expect_done(run(arguments), "| Q4_0 |");
    cr_expect_eq(size_of("a.gguf"), (long)least);
    // What is read again has more formats than there are candidates now.
    snprintf(arguments, sizeof arguments, "--bits 16 --formats q4_0 --calib %s --no-eval", calib);
    struct outcome again = run(arguments);
    cr_expect(strstr(again.out, "| Q4_0") && !strstr(again.out, "Q8_0"), "%s", again.out);
    outcome_free(&again);
}

Test(phase7, rows_that_no_format_can_hold_are_named) {
    char arguments[PATH_MAX + 64];
    snprintf(arguments, sizeof arguments, "--model %s --bits 5 --no-eval",
             absolute(shared_path("data/models/stories260K")));
    expect_refused(run(arguments), 1, "none of the 9 formats can hold its 64 x 172 weights");
}

Test(phase7, a_file_that_cannot_grow_leaves_what_was_there) {
    static const char file[] = "out/bundled/bundled-Q8_0.gguf";
    cr_assert_eq(mkdir(in_temp("out"), 0777) + mkdir(in_temp("out/bundled"), 0777), 0);
    temp_file(file, "before", 6);
    expect_refused(run_after("ulimit -f 100;", "--type Q8_0 --no-eval"), 1,
                   "out/bundled/bundled-Q8_0.gguf: cannot write 5");
    cr_expect_eq(size_of(file), 6);
    cr_expect_eq(count_files("tmp"), 0);
}

Test(phase7, what_out_names_is_new_and_what_it_named_itself_is_made_again) {
    temp_file("a.gguf", "precious", 8);
    temp_file("bundled-Q8_0.gguf", "precious", 8);
    expect_refused(run("--no-eval --out a.gguf"), 1, "a.gguf: is there already; remove it first");
    expect_refused(run("--no-eval --type Q8_0 --out ."), 1,
                   "./bundled-Q8_0.gguf: is there already; remove it first");
    cr_expect_eq(size_of("a.gguf"), 8);
    cr_expect_eq(size_of("bundled-Q8_0.gguf"), 8);
    expect_done(run("--no-eval --type Q2_K"), "| Q2_K");
    expect_done(run("--no-eval --type Q2_K"), "| Q2_K");
    temp_file("empty.gguf", "", 0); // as mktemp leaves it
    expect_done(run("--no-eval --type Q2_K --out empty.gguf"), "| Q2_K");
    cr_expect_gt(size_of("empty.gguf"), 1000000);
}

Test(phase7, what_it_reads_is_never_written_over) {
    char arguments[512];
    expect_done(run("--type F16 --no-eval --out a.gguf"), "| F16");
    long before = size_of("a.gguf");
    cr_assert_eq(link(in_temp("a.gguf"), in_temp("b.gguf")), 0);
    static const char *const flags[] = {"--out a.gguf", "--out b.gguf", "--json b.gguf"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(arguments, sizeof arguments, "--model a.gguf --type Q8_0 --no-eval %s", flags[i]);
        expect_refused(run(arguments), 2, ".gguf: this run reads that file, expected another");
    }
    cr_expect_eq(size_of("a.gguf"), before);
}

Test(phase7, paths_are_checked_before_anything_is_measured) {
    expect_refused(run("--bits 5 --out /proc/a.gguf"), 1, "phase7: /proc/a.gguf: cannot write: ");
    expect_refused(run("--bits 5 --config fp15"), 2, "which is no row of this phase");
    cr_expect_eq(count_files("sensitivity"), 0);
    temp_file("out", "", 0);
    expect_refused(run("--bits 5 --out a.gguf"), 1,
                   "phase7: out: cannot create the folder: it is a file");
}

Test(phase7, mistakes_are_one_line) {
    expect_refused(run("--type Q4_0,Q4_Z"), 2,
                   "--type: 'Q4_Z' is no type; nearest is Q4_1, others are F32 F16 ");
    expect_refused(run("--type Q4_0, --no-eval"), 2, "--type is 'Q4_0,', expected names");
    expect_refused(run("--type Q4_0,Q4_1 --out a.gguf"), 2,
                   "is one file, expected a folder for 2 files");
    expect_refused(run("--type Q4_0 --bits 4"), 2, "exclude each other");
    expect_refused(run("--config Q4_0"), 2, "which is no row of this phase");
    expect_refused(run("--size 3XB"), 2, "--size is '3XB', expected such as 900MB");
    expect_refused(run("--bits 4 --formats int8"), 2, "--formats: GGUF has no type for int8");
    expect_refused(run("--bits 4 --formats q4_k,int9"), 2,
                   "--formats: no weight format is called 'int9'");
    expect_refused(run("--formats q4_k"), 2, "one of them is missing");
    expect_refused(run("--recipe none.recipe"), 1, "none.recipe: No such file");
    expect_refused(run("--inspect none.gguf"), 1, "none.gguf: No such file");
    expect_refused(run("--no-eval --out /proc/none/a.gguf"), 1, "cannot create the folder");
    expect_refused(run("--no-eval --out /dev/full"), 1, "/dev/full: not a regular file");
    temp_file("file", "x", 1);
    expect_refused(run("--type Q4_0,Q4_1 --out file"), 2, "is one file, expected a folder");
    expect_refused(run("--no-eval --out file/"), 1, "file: cannot create the folder: it is a file");
    cr_expect_eq(count_files("gguf"), 0);
}

Test(phase7, a_window_that_others_ignore_is_mentioned) {
    char command[4096];
    snprintf(command, sizeof command,
             "cp %s/* %s && chmod u+w %s/* && sed -i 's/\"sliding_window\": null/"
             "\"sliding_window\": 32/' %s/config.json",
             shared_path("fixtures/mistral-gqa-f32"), temp_folder(), temp_folder(), temp_folder());
    cr_assert_eq(system(command), 0);
    struct outcome o = run("--model . --type F16 --no-eval");
    cr_expect(strstr(o.err, "the model looks back 32 tokens"), "%s", o.err);
    cr_expect_gt(size_of("results/model/model-F16.gguf"), 0);
    outcome_free(&o);
}

Test(phase7, words_that_are_split_in_a_way_without_a_name_are_mentioned) {
    char command[1024];
    snprintf(command, sizeof command,
             "cp -r data/model %s/m && chmod -R u+w %s/m && sed -i 's/\"Regex\": \"/&zz|/' "
             "%s/m/tokenizer.json",
             temp_folder(), temp_folder(), temp_folder());
    cr_assert_eq(system(command), 0);
    struct outcome o = run("--model m --type F16 --no-eval");
    cr_expect(strstr(o.err, "GGUF has no name for how this tokenizer splits words"), "%s", o.err);
    cr_expect_gt(size_of("results/m/m-F16.gguf"), 0);
    outcome_free(&o);
}
