#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "report/markdown.h"
#include "report/result_key.h"
#include "text/utf8.h"

enum style {
    STYLE_3,       // three significant digits
    STYLE_4,       // four: perplexities
    STYLE_SMALL,   // two, and below 1 at least four decimals: 0.0080, 0.0000021
    STYLE_BYTES,   // MB, GB (10^9)
    STYLE_PERCENT, // of a share in 0 … 1
    STYLE_POWER,   // 1.2e-07
    STYLE_PLUS_MINUS
};

struct column {
    const char *title;
    size_t offset;
    enum style style;
};

#define OFFSET(key) offsetof(struct result_row, key)

// In the order people read them, which is not the order of the CSV. What is the same for all rows
// (tokens scored, questions asked) stands in the line above the table; the NLL is the PPL's
// logarithm.
static const struct column columns[] = {
    {"Bits/weight", OFFSET(bits_per_weight), STYLE_4},
    {"Size", OFFSET(model_bytes), STYLE_BYTES},
    {"File", OFFSET(file_bytes), STYLE_BYTES},
    {"Peak RSS", OFFSET(peak_rss_bytes), STYLE_BYTES},
    {"VRAM", OFFSET(vram_bytes), STYLE_BYTES},
    {"Quantize s", OFFSET(quantize_s), STYLE_3},
    {"TTFT ms", OFFSET(ttft_ms), STYLE_3},
    {"Prefill t/s", OFFSET(prefill_tps), STYLE_3},
    {"Decode t/s", OFFSET(decode_tps), STYLE_3},
    {"ms/token ± sd", OFFSET(tpot_ms), STYLE_PLUS_MINUS},
    {"PPL", OFFSET(ppl), STYLE_4},
    {"KLD", OFFSET(kld_mean), STYLE_SMALL},
    {"KLD p99", OFFSET(kld_p99), STYLE_SMALL},
    {"Top-1", OFFSET(top1_agree), STYLE_PERCENT},
    {"Accuracy", OFFSET(accuracy), STYLE_PERCENT},
    {"Rel. error", OFFSET(rel_error), STYLE_POWER},
    {"MSE / D(R)", OFFSET(d_ratio), STYLE_3},
    {"µs", OFFSET(us), STYLE_3},
    {"µs p99", OFFSET(us_p99), STYLE_3},
    {"GB/s", OFFSET(gb_s), STYLE_3},
    {"Gop/s", OFFSET(gop_s), STYLE_3},
    {"Of limit", OFFSET(of_limit), STYLE_PERCENT},
};
enum { N_COLUMNS = sizeof columns / sizeof *columns, CELL = 64 };

// Decimals that give `digits` significant digits.
static int decimals_for(double value, int digits) {
    int decimals = value == 0 ? 0 : digits - 1 - (int)floor(log10(fabs(value)));
    return decimals > 0 ? decimals : 0;
}

// At least `digits` significant ones, in plain notation as long as that stays readable.
static void format_digits(char *out, double value, int digits, int min_decimals) {
    double magnitude = fabs(value);
    int decimals = decimals_for(value, digits);
    if (value == 0)
        strcpy(out, "0");
    else if (magnitude >= 1e9 || magnitude < 1e-9)
        snprintf(out, CELL, "%.*e", digits - 1, value);
    else
        snprintf(out, CELL, "%.*f", decimals > min_decimals ? decimals : min_decimals, value);
}

// Both to the same digit: the spread's first, or the mean's third where that is finer.
static void format_plus_minus(char *out, double mean, double sd) {
    int decimals = decimals_for(mean, 3), of_sd = decimals_for(sd, 1);
    of_sd = of_sd < 2 ? of_sd : 2;
    decimals = decimals > of_sd ? decimals : of_sd;
    snprintf(out, CELL, "%.*f ± %.*f", decimals, mean, decimals, sd);
}

static void format_number(char *out, double value, enum style style) {
    if (!isfinite(value))
        strcpy(out, isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
    else if (style == STYLE_BYTES)
        markdown_bytes(value, out);
    else if (style == STYLE_PERCENT)
        snprintf(out, CELL, "%.1f %%", 100 * value);
    else if (style == STYLE_POWER)
        snprintf(out, CELL, "%.1e", value);
    else if (style == STYLE_SMALL)
        format_digits(out, value, fabs(value) < 1 ? 2 : 4, fabs(value) < 1 ? 4 : 0);
    else
        format_digits(out, value, style == STYLE_4 ? 4 : 3, 0);
}

static void format_cell(char *out, const struct result_row *row, const struct column *column) {
    if (!result_measured(row, column->offset)) {
        strcpy(out, "–");
        return;
    }
    double value = result_number(row, column->offset);
    if (column->style == STYLE_PLUS_MINUS && isfinite(value) && isfinite(row->tpot_sd_ms))
        format_plus_minus(out, value, row->tpot_sd_ms);
    else
        format_number(out, value, column->style);
}

static bool any_measured(const struct result_table *t, size_t offset) {
    for (size_t i = 0; i < t->n_rows; i++)
        if (result_measured(&t->rows[i], offset))
            return true;
    return false;
}

static bool any_format(const struct result_table *t) {
    for (size_t i = 0; i < t->n_rows; i++)
        if (*t->rows[i].format)
            return true;
    return false;
}

static bool fill_column(struct markdown_table *m, const struct result_table *t, size_t col,
                        const struct column *column, struct error *err) {
    bool ok = markdown_table_set(m, 0, col, column->title, err);
    for (size_t i = 0; ok && i < t->n_rows; i++) {
        char cell[CELL];
        format_cell(cell, &t->rows[i], column);
        ok = markdown_table_set(m, i + 1, col, cell, err);
    }
    return ok;
}

static bool fill_names(struct markdown_table *m, const struct result_table *t, bool formats,
                       struct error *err) {
    bool ok = markdown_table_set(m, 0, 0, "Config", err) &&
              (!formats || markdown_table_set(m, 0, 1, "Format", err));
    for (size_t i = 0; ok && i < t->n_rows; i++)
        ok = markdown_table_set(m, i + 1, 0, t->rows[i].config, err) &&
             (!formats || markdown_table_set(m, i + 1, 1, t->rows[i].format, err));
    m->left[0] = true;
    m->left[formats] = true;
    return ok;
}

static bool print_table(const struct result_table *t, FILE *f, struct error *err) {
    const struct column *used[N_COLUMNS];
    size_t n_used = 0;
    for (size_t c = 0; c < N_COLUMNS; c++)
        if (any_measured(t, columns[c].offset))
            used[n_used++] = &columns[c];
    bool formats = any_format(t);
    size_t names = formats ? 2 : 1;
    struct markdown_table m;
    if (!markdown_table_init(&m, t->n_rows + 1, names + n_used, err))
        return false;
    bool ok = fill_names(&m, t, formats, err);
    for (size_t c = 0; ok && c < n_used; c++)
        ok = fill_column(&m, t, names + c, used[c], err);
    if (ok)
        markdown_table_print(&m, f);
    markdown_table_free(&m);
    return ok;
}

// ", 6120 tokens" of the first row that has this count.
// ", 6120 tokens scored"
static void print_count(const struct result_table *t, size_t offset, const char *what,
                        const char *done, FILE *f) {
    for (size_t i = 0; i < t->n_rows; i++)
        if (result_measured(&t->rows[i], offset)) {
            double n = result_number(&t->rows[i], offset);
            fprintf(f, ", %.0f %s%s%s", n, what, n == 1 ? "" : "s", done);
            return;
        }
}

// "Phase 3: qwen2.5-3b (qwen2), text eval.txt, window 2048, perplexity mode full, 6120 tokens
// scored, 2 threads, cpu (amx)"
static void print_conditions(const struct result_table *t, FILE *f) {
    fprintf(f, "Phase %d: %s", t->phase, t->model ? t->model : "no model");
    if (t->arch)
        fprintf(f, " (%s)", t->arch);
    if (t->text)
        fprintf(f, ", text %s", t->text);
    if (t->ctx)
        fprintf(f, ", window %zu", t->ctx);
    if (t->ppl_mode)
        fprintf(f, ", perplexity mode %s", t->ppl_mode);
    print_count(t, OFFSET(ppl_tokens), "token", " scored", f);
    print_count(t, OFFSET(accuracy_n), "question", "", f);
    if (t->threads)
        fprintf(f, ", %d thread%s", t->threads, t->threads == 1 ? "" : "s");
    if (t->device)
        fprintf(f, ", %s", t->device);
    if (t->isa)
        fprintf(f, " (%s)", t->isa);
    fputs("\n\n", f);
}

// A block quote; two spaces before a line end keep the lines apart when rendered.
static bool print_text(const struct result_row *row, FILE *f, struct error *err) {
    char *text = utf8_clean(row->text, err);
    if (!text)
        return false;
    fprintf(f, "\n**%s**\n\n> ", row->config);
    size_t size = strlen(text);
    while (size && text[size - 1] == '\n')
        text[--size] = '\0';
    for (const char *c = text; *c; c++) {
        if (*c == '\n')
            fputs("  \n> ", f);
        else // the model's control bytes are not for the terminal
            fputc((unsigned char)*c < ' ' || *c == 127 ? ' ' : *c, f);
    }
    fputc('\n', f);
    free(text);
    return true;
}

bool result_print_markdown(const struct result_table *t, FILE *f, struct error *err) {
    print_conditions(t, f);
    if (!print_table(t, f, err))
        return false;
    if (t->bits_of && any_measured(t, OFFSET(bits_per_weight)))
        fprintf(f, "\nBits/weight: of %s.\n", t->bits_of);
    if (*t->note)
        fprintf(f, "\n%s\n", t->note);
    for (size_t i = 0; i < t->n_rows; i++)
        if (t->rows[i].text && !print_text(&t->rows[i], f, err))
            return false;
    if (fflush(f) != 0 || ferror(f))
        return error_set(err, "results: cannot write the table: %s", strerror(errno));
    return true;
}
