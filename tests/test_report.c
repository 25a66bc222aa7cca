// report/: rows as markdown, JSON and CSV, and the progress bar.
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"
#include "io/json.h"
#include "report/markdown.h"
#include "report/progress.h"
#include "report/result.h"
#include "text/utf8.h"

typedef bool (*printer)(const struct result_table *t, FILE *f, struct error *err);

static bool print_csv(const struct result_table *t, FILE *f, struct error *err) {
    return result_print_csv(t, true, f, err);
}

static char *printed(const struct result_table *t, printer print) {
    char *text = NULL;
    size_t size;
    struct error err = {0};
    FILE *f = open_memstream(&text, &size);
    cr_assert(print(t, f, &err), "%s", err.message);
    fclose(f);
    return text;
}

static struct result_row *add(struct result_table *t, const char *config, const char *format) {
    struct result_row row;
    struct error err = {0};
    result_row_init(&row, config, format);
    cr_assert(result_table_add(t, &row, &err), "%s", err.message);
    return &t->rows[t->n_rows - 1];
}

static struct result_table study(void) {
    struct result_table t = {.phase = 3,
                             .model = "qwen2.5-3b",
                             .arch = "qwen2",
                             .text = "eval.txt",
                             .device = "cpu",
                             .ppl_mode = "full",
                             .ctx = 2048,
                             .threads = 2};
    struct result_row *row = add(&t, "fp16", "f16");
    row->model_bytes = 5810000000;
    row->ppl = 9.0012;
    row->ppl_tokens = 12345;
    row = add(&t, "int4 per-channel", "int4");
    row->model_bytes = 2060000000;
    row->ppl = 6645.3;
    row->ppl_tokens = 12345;
    row->kld_mean = 0.0000021;
    return t;
}

Test(report, markdown_shows_measured_columns_in_line) {
    struct result_table t = study();
    char *text = printed(&t, result_print_markdown);
    cr_assert_str_eq(
        text, "Phase 3: qwen2.5-3b (qwen2), text eval.txt, window 2048, perplexity mode full, "
              "12345 tokens scored, 2 threads, cpu\n"
              "\n"
              "| Config           | Format |    Size |   PPL |       KLD |\n"
              "|:-----------------|:-------|--------:|------:|----------:|\n"
              "| fp16             | f16    | 5.81 GB | 9.001 |         – |\n"
              "| int4 per-channel | int4   | 2.06 GB |  6645 | 0.0000021 |\n");
    free(text);
    result_table_free(&t);
}

// The cell of the last row's last column.
static void assert_cell(double value, size_t offset, const char *expected) {
    struct result_table t = {.phase = 1};
    *(double *)((char *)add(&t, "x", "") + offset) = value;
    char *text = printed(&t, result_print_markdown);
    char wanted[64];
    snprintf(wanted, sizeof wanted, " %s |\n", expected);
    cr_assert(strstr(text, wanted), "%s not in\n%s", wanted, text);
    free(text);
    result_table_free(&t);
}

Test(report, markdown_numbers_have_sensible_digits) {
    size_t ppl = offsetof(struct result_row, ppl), kld = offsetof(struct result_row, kld_mean);
    assert_cell(9, ppl, "9.000");
    assert_cell(66451.4, ppl, "66451");
    assert_cell(1.2e30, ppl, "1.200e+30");
    assert_cell(INFINITY, ppl, "inf");
    assert_cell(0.008, kld, "0.0080");
    assert_cell(0.12345, kld, "0.1235");
    assert_cell(12.3456, kld, "12.35");
    assert_cell(0, kld, "0");
    assert_cell(28.2, offsetof(struct result_row, decode_tps), "28.2");
    assert_cell(1234, offsetof(struct result_row, prefill_tps), "1234");
    assert_cell(7345678, offsetof(struct result_row, file_bytes), "7.3 MB");
    assert_cell(512, offsetof(struct result_row, file_bytes), "512 B");
    assert_cell(0.9871, offsetof(struct result_row, top1_agree), "98.7 %");
    assert_cell(1.25e-7, offsetof(struct result_row, rel_error), "1.2e-07");
    assert_cell(4.125, offsetof(struct result_row, bits_per_weight), "4.125");
}

Test(report, markdown_says_which_weights_bits_are_of) {
    static const char note[] =
        "\nBits/weight: of the matrices of the blocks, and the embedding and "
        "the head where they are quantized.\n";
    struct result_table t = {.phase = 1, .bits_of = RESULT_BITS_OF};
    struct result_row *row = add(&t, "x", "");
    row->ppl = 9;
    char *text = printed(&t, result_print_markdown);
    cr_assert_null(strstr(text, note), "%s", text);
    free(text);
    t.rows[0].bits_per_weight = 4.5;
    text = printed(&t, result_print_markdown);
    cr_assert(strstr(text, note), "%s", text);
    free(text);
    result_table_free(&t);
}

Test(report, markdown_shows_spread_and_broken_perplexity) {
    struct result_table t = {.phase = 1};
    struct result_row *row = add(&t, "a|b\nc", "");
    row->tpot_ms = 12.34;
    row->tpot_sd_ms = 0.52;
    row->ppl_tokens = 10; // scored, and NaN came out
    char *text = printed(&t, result_print_markdown);
    cr_assert(strstr(text, "| a\\|b c |    12.3 ± 0.5 | nan |\n"), "%s", text);
    free(text);
    result_table_free(&t);
}

Test(report, markdown_spread_is_never_rounded_away) {
    struct result_table t = {.phase = 1};
    struct result_row *row = add(&t, "x", "");
    row->tpot_ms = 150.42;
    row->tpot_sd_ms = 0.31;
    char *text = printed(&t, result_print_markdown);
    cr_assert(strstr(text, "150.4 ± 0.3 |\n"), "%s", text);
    free(text);
    result_table_free(&t);
}

Test(report, markdown_has_its_note_below_the_table) {
    struct result_table t = study();
    strcpy(t.note, "Budget: 4.5 bits per weight.");
    char *text = printed(&t, result_print_markdown);
    cr_assert(strstr(text, " |\n\nBudget: 4.5 bits per weight.\n"), "%s", text);
    free(text);
    result_table_free(&t);
}

Test(report, markdown_quotes_generated_text) {
    struct result_table t = {.phase = 1};
    struct error err = {0};
    add(&t, "fp16", "")->text = memory_strdup("one\ntwo \x1b[2J\xe2\x82", &err);
    char *text = printed(&t, result_print_markdown);
    cr_assert(strstr(text, "\n**fp16**\n\n> one  \n> two  [2J\xef\xbf\xbd\n"), "%s", text);
    free(text);
    result_table_free(&t);
}

Test(report, json_has_the_measured_keys_only) {
    struct result_table t = study();
    struct error err = {0};
    t.rows[1].text = memory_strdup("a \"b\"\n\x80", &err);
    t.rows[0].ppl = INFINITY;
    char *text = printed(&t, result_print_json);
    cJSON *root = json_parse(text, strlen(text), "json", &err);
    cr_assert(root, "%s\n%s", err.message, text);
    const cJSON *rows = json_get(root, "rows");
    cr_assert_eq(cJSON_GetArraySize(rows), 2);
    cr_assert_eq(json_get(root, "ctx")->valuedouble, 2048);
    cr_assert_str_eq(json_get(root, "ppl_mode")->valuestring, "full");
    const cJSON *row = cJSON_GetArrayItem(rows, 0);
    cr_assert(cJSON_IsNull(cJSON_GetObjectItem(row, "ppl")), "JSON knows no inf");
    cr_assert_not(cJSON_HasObjectItem(row, "kld_mean"));
    cr_assert_not(cJSON_HasObjectItem(row, "text"));
    cr_assert(strstr(text, "5810000000,"), "bytes are integers");
    row = cJSON_GetArrayItem(rows, 1);
    cr_assert_float_eq(json_get(row, "kld_mean")->valuedouble, 2.1e-6, 1e-14);
    cr_assert_str_eq(json_get(row, "text")->valuestring, "a \"b\"\n\xef\xbf\xbd");
    cJSON_Delete(root);
    free(text);
    result_table_free(&t);
}

Test(report, json_of_nothing_is_an_object) {
    struct result_table t = {.phase = 1};
    struct error err = {0};
    char *text = printed(&t, result_print_json);
    cJSON *root = json_parse(text, strlen(text), "json", &err);
    cr_assert(root && cJSON_IsNull(cJSON_GetObjectItem(root, "model")));
    cr_assert_eq(cJSON_GetArraySize(json_get(root, "rows")), 0);
    cJSON_Delete(root);
    free(text);
    text = printed(&t, result_print_markdown);
    cr_assert(strstr(text, "| Config |\n|:-------|\n"), "%s", text);
    free(text);
}

Test(report, csv_quotes_by_rfc_4180) {
    struct result_table t = study();
    struct error err = {0};
    t.text = "a,\"b\".txt";
    t.rows[0].text = memory_strdup("one\ntwo", &err);
    t.rows[0].ppl = INFINITY;
    char *text = printed(&t, print_csv);
    cr_assert(strstr(text, "phase,model,arch,text,ctx,ppl_mode,threads,device,config,format,"
                           "bits_per_weight,model_bytes,") == text);
    cr_assert(strstr(text, "\n3,qwen2.5-3b,qwen2,\"a,\"\"b\"\".txt\",2048,full,2,cpu,fp16,f16,,"
                           "5810000000,,,,inf,,12345,"),
              "%s", text);
    cr_assert(strstr(text, ",\"one\ntwo\"\n3,"), "%s", text);
    free(text);
    result_table_free(&t);
}

static size_t count(const char *text, const char *needle) {
    size_t n = 0;
    for (const char *c = text; (c = strstr(c, needle)); c++)
        n++;
    return n;
}

// A fresh folder to write in.
static void enter_scratch(void) {
    char folder[] = "/tmp/nibble-report-XXXXXX";
    cr_assert(mkdtemp(folder) && chdir(folder) == 0);
}

static void leave_scratch(void) {
    char folder[1024], command[1100];
    cr_assert(getcwd(folder, sizeof folder) && strncmp(folder, "/tmp/nibble-", 12) == 0);
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    cr_assert(chdir("/") == 0 && system(command) == 0);
}

Test(report, csv_appends_under_one_header, .init = enter_scratch, .fini = leave_scratch) {
    struct result_table t = study();
    struct error err = {0};
    for (int i = 0; i < 2; i++)
        cr_assert(result_write_csv(&t, "new/rows.csv", &err), "%s", err.message);
    char *text = file_read("new/rows.csv", 100000, NULL, &err);
    cr_assert_eq(count(text, "phase,model"), 1);
    cr_assert_eq(count(text, "int4 per-channel"), 2);
    free(text);
    result_table_free(&t);
}

Test(report, csv_leaves_a_foreign_file_alone, .init = enter_scratch, .fini = leave_scratch) {
    struct result_table t = study();
    struct error err = {0};
    FILE *f = fopen("rows.csv", "w");
    fputs("mine,too\n1,2\n", f);
    fclose(f);
    cr_assert_not(result_write_csv(&t, "rows.csv", &err));
    cr_assert(strstr(err.message, "rows.csv: starts with 'mine,too"), "%s", err.message);
    char *text = file_read("rows.csv", 1000, NULL, &err);
    cr_assert_str_eq(text, "mine,too\n1,2\n");
    free(text);
    cr_assert_not(result_write_csv(&t, ".", &err));
    result_table_free(&t);
}

Test(report, metrics_are_saved_on_request, .init = enter_scratch, .fini = leave_scratch) {
    struct result_table t = study();
    struct error err = {0};
    setenv("SAVE_EVAL_RESULTS", "0", 1);
    cr_assert(result_save_metrics(&t, &err) && !folder_exists("results"));
    setenv("SAVE_EVAL_RESULTS", "1", 1);
    cr_assert(result_save_metrics(&t, &err), "%s", err.message);
    char *text = file_read("results/metrics.csv", 100000, NULL, &err);
    cr_assert(strncmp(text, "time,phase,model", 16) == 0, "%s", text);
    int year, n = 0;
    sscanf(strchr(text, '\n'), "\n%4d-%*2d-%*2dT%*2d:%*2d:%*2dZ,3,qwen2.5-3b%n", &year, &n);
    cr_assert(n && year >= 2024, "%s", text);
    free(text);
    result_table_free(&t);
}

Test(report, json_file_is_replaced, .init = enter_scratch, .fini = leave_scratch) {
    struct result_table t = study();
    struct error err = {0};
    for (int i = 0; i < 2; i++)
        cr_assert(result_write_json(&t, "new/rows.json", &err), "%s", err.message);
    cJSON *root = json_parse_file("new/rows.json", &err);
    cr_assert(root, "%s", err.message);
    cJSON_Delete(root);
    cr_assert(result_write_json(&t, "/dev/null", &err), "%s", err.message);
    cr_assert_not(result_write_json(&t, "/dev/full", &err));
    cr_assert(strstr(err.message, "No space left"), "%s", err.message);
    result_table_free(&t);
}

Test(report, sizes_have_the_unit_that_fits) {
    static const struct {
        double bytes;
        const char *text;
    } sizes[] = {{999, "999 B"}, {806400, "806.4 kB"}, {5570560, "5.6 MB"}, {1.927e9, "1.93 GB"}};
    for (size_t i = 0; i < 4; i++) {
        char text[MARKDOWN_BYTES];
        markdown_bytes(sizes[i].bytes, text);
        cr_expect_str_eq(text, sizes[i].text);
    }
}

Test(report, widths_count_columns_of_a_terminal) {
    cr_assert_eq(utf8_width("± sd"), 4);
    cr_assert_eq(utf8_width("漢字"), 4);
    cr_assert_eq(utf8_width("\xff\xfe"), 2);
}

static void assert_line(double elapsed, uint64_t done, uint64_t total, const char *note,
                        int columns, const char *expected) {
    struct progress p = {.label = "score", .unit = "tokens"};
    char line[1024];
    progress_format(&p, elapsed, done, total, note, columns, false, line, sizeof line);
    cr_assert_str_eq(line, expected);
}

Test(report, progress_shows_share_rate_and_time_left) {
    assert_line(10, 5000, 20000, NULL, 60,
                "score  25 % ━━─────────  5000/20.0k tokens  500/s  0:30 left");
    assert_line(10, 5000, 20000, "ppl 9", 64,
                "score  25 % ━━──────  5000/20.0k tokens  500/s  0:30 left  ppl 9");
    assert_line(10, 5000, 20000, "ppl 9", 47, "score  25 % 5000/20.0k tokens  500/s  0:30 left");
    assert_line(10, 5000, 20000, "ppl 9", 12, "score  25 % ");
    assert_line(10, 5000, 0, NULL, 80, "score  5000 tokens  500/s");
    assert_line(10, 0, 9, NULL, 30, "score   0 % 0/9 tokens  0/s");
    assert_line(1, 30, 20, NULL, 41, "score 100 % 20/20 tokens  20/s  0:00 left");
}

Test(report, progress_shows_the_time_left_that_its_caller_knows) {
    struct progress p = {.label = "score", .unit = "cells", .left = 90};
    char line[1024];
    progress_format(&p, 10, 50, 100, NULL, 0, false, line, sizeof line);
    cr_assert_str_eq(line, "score  50 % 50/100 cells  5.0/s  1:30 left");
}

// Criterion's redirection makes stderr a pipe.
Test(report, progress_is_a_line_in_30_seconds_without_a_terminal, .init = cr_redirect_stderr) {
    struct progress p, next;
    progress_start(&p, "first", "tokens");
    progress_update(&p, 1, 2, NULL);
    p.shown -= 31;
    p.start -= 40;
    progress_update(&p, 5000, 20000, "ppl 9");
    progress_update(&p, 6000, 20000, "ppl 9");
    progress_finish(&p);
    progress_start(&next, "next", "tokens"); // the process has just said something
    progress_update(&next, 1, 2, NULL);
    progress_finish(&next);
    progress_set_quiet(true);
    progress_start(&p, "quiet", "tokens");
    p.shown -= 31;
    progress_update(&p, 1, 2, NULL);
    progress_finish(&p);
    fflush(stderr);
    cr_assert_stderr_eq_str("first  25 % 5000/20.0k tokens  125/s  2:00 left  ppl 9\n");
}
