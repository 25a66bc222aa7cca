// Draws the figures of the write-ups from a checkpoint and from the rows of results/<name>/*.csv:
//     figures MODEL_FOLDER RESULTS_FOLDER
// Everything is computed again from the weights; nothing is typed.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "model/model.h"
#include "quant/format.h"
#include "report/chart.h"
#include "report/csv.h"

static const char *out_folder;

static bool write_chart(const struct chart *c, const char *name, struct error *err) {
    char *path = memory_printf(err, "%s/%s.png", out_folder, name);
    bool ok = path && chart_write_png(c, path, err);
    if (ok)
        printf("%s\n", path);
    free(path);
    return ok;
}

// All of a matrix in float32; the caller frees it.
static float *read_matrix(const struct tensor *w, struct error *err) {
    size_t n = w->shape[0], k = w->shape[1];
    float *out = memory_alloc(n, k * sizeof *out, w->name, err);
    for (size_t i = 0; out && i < n; i++)
        quant_read(w, i, 0, k, out + i * k);
    return out;
}

static double column_absmax(const float *x, size_t n, size_t k, size_t col) {
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)x[i * k + col]));
    return largest;
}

// ---- the outlier columns ----------------------------------------------------------------------

static bool draw_columns(const struct tensor *w, const float *x, struct error *err) {
    size_t n = w->shape[0], k = w->shape[1];
    double *index = memory_alloc(k, sizeof *index, "columns", err);
    double *largest = memory_alloc(k, sizeof *largest, "columns", err);
    bool ok = index && largest;
    for (size_t c = 0; ok && c < k; c++) {
        index[c] = (double)c;
        largest[c] = column_absmax(x, n, k, c);
    }
    struct chart_series series = {.kind = CHART_LINE, .x = index, .y = largest, .n = k};
    struct chart chart = {.title = "A few input channels are much larger than the rest",
                          .subtitle = w->name,
                          .x_title = "input channel (column)",
                          .y_title = "largest |weight| in the column",
                          .series = &series,
                          .n_series = 1};
    ok = ok && write_chart(&chart, "outlier-columns", err);
    free(index);
    free(largest);
    return ok;
}

// ---- one row's weights, and the grid they are rounded to --------------------------------------

enum { BINS = 120, GRID_MAX = 256 };

// The values a symmetric format can give the weights of a row's first group: its codes times its
// scale. The largest weight takes the last code, so its value tells the scale.
static size_t grid_of(const struct quant_format *f, const float *row, size_t k, double *grid,
                      struct error *err) {
    size_t bytes, n = 0, group = f->group ? f->group : k;
    if (!f->bytes(f, 1, k, &bytes))
        return 0;
    void *data = memory_alloc(bytes, 1, f->name, err);
    float *back = memory_alloc(k, sizeof *back, f->name, err);
    if (data && back &&
        f->quantize(f, row, 0, 1, 1, k, &(struct quant_hints){.absmax = quant_absmax(row, k)}, data,
                    err)) {
        f->dequantize_ref(f, data, 1, k, 0, 0, k, back);
        int half = (1 << (f->bits - 1)) - 1;
        double step = (double)quant_absmax(back, group < k ? group : k) / half;
        for (int code = -half; step > 0 && code <= half && n < GRID_MAX; code++)
            grid[n++] = code * step;
    }
    free(data);
    free(back);
    return n;
}

static bool draw_histogram(const struct tensor *w, const float *row, const char *format,
                           size_t count, double range, const char *title, const char *name,
                           struct error *err) {
    const struct quant_format *f = quant_format_find(format);
    double edges[BINS + 1], counts[BINS] = {0}, grid[GRID_MAX];
    size_t n_grid = grid_of(f, row, count, grid, err), shown = 0;
    for (size_t b = 0; b <= BINS; b++)
        edges[b] = range * (2.0 * (double)b / BINS - 1);
    for (size_t i = 0; i < count; i++) {
        double at = ((double)row[i] / range + 1) / 2 * BINS;
        if (at >= 0 && at < BINS)
            counts[(size_t)at]++;
    }
    for (size_t g = 0; g < n_grid; g++)
        if (fabs(grid[g]) <= range)
            grid[shown++] = grid[g];
    struct chart_series series[2] = {
        {.kind = CHART_HISTOGRAM, .name = "weights", .x = edges, .y = counts, .n = BINS},
        {.kind = CHART_RULE, .name = f->label, .x = grid, .n = shown}};
    struct chart chart = {.title = title,
                          .subtitle = w->name,
                          .x_title = "weight",
                          .y_title = "weights per bin",
                          .series = series,
                          .n_series = 2};
    return write_chart(&chart, name, err);
}

// The row whose largest weight is the largest multiple of its mean weight: where one outlier rules.
static size_t worst_row(const float *x, size_t n, size_t k) {
    size_t worst = 0;
    double worst_ratio = 0;
    for (size_t i = 0; i < n; i++) {
        double sum = 0, largest = quant_absmax(x + i * k, k);
        for (size_t c = 0; c < k; c++)
            sum += fabs((double)x[i * k + c]);
        if (sum > 0 && largest * (double)k / sum > worst_ratio)
            worst = i, worst_ratio = largest * (double)k / sum;
    }
    return worst;
}

// The group of a row whose largest weight is smallest: one that no outlier has come into.
static const float *quiet_group(const float *row, size_t k, size_t group) {
    const float *best = row;
    for (size_t c = 0; c + group <= k; c += group)
        if (quant_absmax(row + c, group) < quant_absmax(best, group))
            best = row + c;
    return best;
}

static bool draw_histograms(const struct tensor *w, const float *x, struct error *err) {
    size_t k = w->shape[1];
    const float *row = x + worst_row(x, w->shape[0], k) * k;
    double sum = 0;
    for (size_t c = 0; c < k; c++)
        sum += fabs((double)row[c]);
    double range = 5 * sum / (double)k; // the bulk; the outliers lie outside
    size_t group = k < 128 ? k : 128;
    return draw_histogram(w, row, "int8", k, range,
                          "INT8 per channel: 255 levels, fine enough even beside an outlier",
                          "histogram-int8", err) &&
           draw_histogram(w, row, "int4", k, range,
                          "INT4 per channel: the outlier sets the step, the bulk falls on zero",
                          "histogram-int4-channel", err) &&
           draw_histogram(w, quiet_group(row, k, group), "int4-g128", group, range,
                          "INT4 group 128: a group without the outlier, and its own step",
                          "histogram-int4-group", err);
}

// ---- charts of measured rows -------------------------------------------------------------------

static bool draw_bars(const struct csv *rows, const char *column, double scale, const char *title,
                      const char *y_title, bool log, const char *name, struct error *err) {
    const char *labels[64];
    double values[64];
    size_t n = 0;
    for (size_t r = 0; r + 1 < rows->rows && n < 64; r++) {
        double value = csv_number(rows, r, column);
        if (!isfinite(value))
            continue;
        labels[n] = csv_text(rows, r, "config");
        values[n++] = value * scale;
    }
    if (!n)
        return true;
    struct chart_series series = {.kind = CHART_BAR, .y = values, .n = n};
    struct chart chart = {.title = title,
                          .y_title = y_title,
                          .y_log = log,
                          .categories = labels,
                          .n_categories = n,
                          .series = &series,
                          .n_series = 1,
                          .width = 1400};
    return write_chart(&chart, name, err);
}

// KL divergence of the INT4 rows against the weights per scale.
static bool draw_group_error(const struct csv *rows, struct error *err) {
    static const char *const suffixes[2] = {"", "-zp"};
    static const char *const names[2] = {"symmetric", "zero-point"};
    double x[2][8], y[2][8];
    size_t n[2] = {0, 0};
    for (int kind = 0; kind < 2; kind++)
        for (size_t group = 32; group <= 256; group *= 2) {
            char format[32];
            snprintf(format, sizeof format, "int4-g%zu%s", group, suffixes[kind]);
            for (size_t r = 0; r + 1 < rows->rows; r++)
                if (strcmp(csv_text(rows, r, "format"), format) == 0) {
                    x[kind][n[kind]] = (double)group;
                    y[kind][n[kind]++] = csv_number(rows, r, "kld_mean");
                }
        }
    struct chart_series series[2];
    for (int kind = 0; kind < 2; kind++)
        series[kind] = (struct chart_series){
            .kind = CHART_LINE, .name = names[kind], .x = x[kind], .y = y[kind], .n = n[kind]};
    struct chart chart = {.title = "Smaller groups, smaller error",
                          .x_title = "weights that share a scale",
                          .y_title = "KL divergence, nats",
                          .x_log = true,
                          .y_log = true,
                          .series = series,
                          .n_series = 2};
    return n[0] + n[1] == 0 || write_chart(&chart, "error-against-group", err);
}

static bool draw_rows(const char *folder, struct error *err) {
    struct csv rows;
    char *path = path_join(folder, "phase3.csv", err);
    bool ok = path && csv_read(&rows, path, err);
    free(path);
    if (!ok)
        return false;
    ok = draw_bars(&rows, "model_bytes", 1e-6, "What a model weighs", "megabytes", false, "size",
                   err) &&
         draw_bars(&rows, "decode_tps", 1, "How fast it decodes", "tokens per second", false,
                   "decode-speed", err) &&
         draw_bars(&rows, "ppl", 1, "Naive INT4 collapses, groups recover it",
                   "perplexity (logarithmic)", true, "perplexity", err) &&
         draw_group_error(&rows, err);
    csv_free(&rows);
    return ok;
}

// The block matrix whose columns differ most: that is where the story is.
struct search {
    const struct tensor *best;
    double ratio;
    struct error *err;
};

static bool consider(void *user, struct linear *l) {
    struct search *s = user;
    size_t n = l->w.shape[0], k = l->w.shape[1];
    if (!strchr(l->w.name, '.') || strstr(l->w.name, "embed") || strstr(l->w.name, "wte"))
        return true;
    float *x = read_matrix(&l->w, s->err);
    if (!x)
        return false;
    double largest = 0, sum = 0;
    for (size_t c = 0; c < k; c++) {
        double column = column_absmax(x, n, k, c);
        largest = fmax(largest, column);
        sum += column;
    }
    if (sum > 0 && largest * (double)k / sum > s->ratio) {
        s->ratio = largest * (double)k / sum;
        s->best = &l->w;
    }
    free(x);
    return true;
}

static bool draw_all(struct model *m, struct error *err) {
    struct search s = {.err = err};
    if (!model_visit_linears(m, consider, &s))
        return false;
    if (!s.best)
        return error_set(err, "the model has no weights but zeros: nothing to draw");
    float *x = read_matrix(s.best, err);
    bool ok = x && draw_columns(s.best, x, err) && draw_histograms(s.best, x, err);
    free(x);
    return ok && draw_rows(out_folder, err);
}

int main(int argc, char **argv) {
    struct error err = {0};
    if (argc != 3) {
        fprintf(stderr, "usage: figures MODEL_FOLDER RESULTS_FOLDER\n");
        return 2;
    }
    out_folder = argv[2];
    struct model *m = model_load(argv[1], &err);
    bool ok = m && folder_create(out_folder, &err) && draw_all(m, &err);
    model_free(m);
    if (!ok)
        fprintf(stderr, "figures: %s\n", err.message);
    return !ok;
}
