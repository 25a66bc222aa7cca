#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "eval/sensitivity_report.h"
#include "quant/format.h"
#include "report/chart.h"

// What the charts share: a grid of layers × kinds that numbers are put into.
struct grid {
    const struct sensitivity_report *r;
    const struct sensitivity *s;
    const char *folder;
    struct sensitivity_group *kinds, *layers;
    size_t n_kinds, n_layers;
    const char **kind_names;
    char (*layer_names)[24];
    const char **layer_labels;
    double *x, *values; // [n_layers], [n_kinds or n_formats, n_layers]
    struct chart_series *series;
    struct error *err;
};

static bool grid_init(struct grid *g) {
    const struct sensitivity *s = g->s;
    size_t n = s->n_tensors, lines = n > s->n_formats ? n : s->n_formats;
    g->kinds = memory_alloc(n, sizeof *g->kinds, "chart", g->err);
    g->layers = memory_alloc(n, sizeof *g->layers, "chart", g->err);
    if (!g->kinds || !g->layers)
        return false;
    g->n_kinds = sensitivity_by_kind(g->r, g->kinds);
    g->n_layers = sensitivity_by_layer(g->r, g->layers);
    g->kind_names = memory_alloc(g->n_kinds, sizeof(char *), "chart", g->err);
    g->layer_names = memory_alloc(g->n_layers, sizeof *g->layer_names, "chart", g->err);
    g->layer_labels = memory_alloc(g->n_layers, sizeof(char *), "chart", g->err);
    g->x = memory_alloc(g->n_layers, sizeof *g->x, "chart", g->err);
    g->values = memory_alloc(lines, g->n_layers * sizeof *g->values, "chart", g->err);
    g->series = memory_alloc(lines, sizeof *g->series, "chart", g->err);
    if (!g->kind_names || !g->layer_names || !g->layer_labels || !g->x || !g->values || !g->series)
        return false;
    for (size_t k = 0; k < g->n_kinds; k++)
        g->kind_names[k] = g->kinds[k].kind;
    for (size_t l = 0; l < g->n_layers; l++) {
        g->x[l] = (double)g->layers[l].layer;
        snprintf(g->layer_names[l], sizeof *g->layer_names, "%zu", g->layers[l].layer);
        g->layer_labels[l] = g->layer_names[l];
    }
    return true;
}

static void grid_free(struct grid *g) {
    free(g->kinds);
    free(g->layers);
    free(g->kind_names);
    free(g->layer_names);
    free(g->layer_labels);
    free(g->x);
    free(g->values);
    free(g->series);
}

typedef double grid_number(const struct grid *g, size_t tensor);

static double damage(const struct grid *g, size_t t) {
    return sensitivity_kld(sensitivity_at(g->s, t, g->r->format));
}
static double output_error(const struct grid *g, size_t t) {
    return sensitivity_at(g->s, t, g->r->format)->output_nmse;
}
static double outlier_ratio(const struct grid *g, size_t t) {
    return g->s->tensors[t].input_outlier_ratio;
}

// values [n_layers, n_kinds] or, where lines are drawn, [n_kinds, n_layers]; logarithmic axes have
// no place for 0.
static void fill(struct grid *g, grid_number *number, bool lines) {
    for (size_t i = 0; i < g->n_kinds * g->n_layers; i++)
        g->values[i] = NAN;
    for (size_t t = 0; t < g->s->n_tensors; t++) {
        size_t k = 0, l = 0;
        double value = number(g, t);
        if (g->s->tensors[t].layer == SENSITIVITY_NO_LAYER || !(value > 0) || isinf(value))
            continue;
        while (strcmp(g->kinds[k].kind, g->s->tensors[t].kind) != 0)
            k++;
        while (g->layers[l].layer != g->s->tensors[t].layer)
            l++;
        g->values[lines ? k * g->n_layers + l : l * g->n_kinds + k] = value;
    }
}

static bool any(const double *values, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isnan(values[i]))
            return true;
    return false;
}

static char *chart_path(const struct grid *g, const char *name) {
    return memory_printf(g->err, "%s/sensitivity-%s.png", g->folder, name);
}

static bool draw_map(struct grid *g, grid_number *number, const char *title, const char *what,
                     const char *name) {
    fill(g, number, false);
    if (!any(g->values, g->n_kinds * g->n_layers))
        return true; // nothing above 0: a lossless format
    struct heatmap h = {.title = title,
                        .subtitle = g->s->formats[g->r->format]->label,
                        .x_title = "tensor",
                        .y_title = "layer",
                        .value_title = what,
                        .values = g->values,
                        .rows = g->n_layers,
                        .cols = g->n_kinds,
                        .row_labels = g->layer_labels,
                        .col_labels = g->kind_names,
                        .log_scale = true};
    char *path = chart_path(g, name);
    bool ok = path && heatmap_write_png(&h, path, g->err);
    free(path);
    return ok;
}

// Lines over the layers of what stands in values [n, n_layers].
static bool draw_lines(struct grid *g, size_t n, const char *title, const char *subtitle,
                       const char *what, const char *name) {
    if (!any(g->values, n * g->n_layers))
        return true;
    struct chart c = {.title = title,
                      .subtitle = subtitle,
                      .x_title = "layer",
                      .y_title = what,
                      .y_log = true,
                      .series = g->series,
                      .n_series = n};
    for (size_t i = 0; i < n; i++) {
        g->series[i].kind = CHART_LINE;
        g->series[i].x = g->x;
        g->series[i].y = g->values + i * g->n_layers;
        g->series[i].n = g->n_layers;
    }
    char *path = chart_path(g, name);
    bool ok = path && chart_write_png(&c, path, g->err);
    free(path);
    return ok;
}

static bool draw_kinds(struct grid *g, grid_number *number, const char *title, const char *subtitle,
                       const char *what, const char *name) {
    fill(g, number, true);
    for (size_t k = 0; k < g->n_kinds; k++)
        g->series[k].name = g->kinds[k].kind;
    return draw_lines(g, g->n_kinds, title, subtitle, what, name);
}

static bool draw_formats(struct grid *g) {
    struct sensitivity_report r = *g->r;
    for (size_t f = 0; f < g->s->n_formats; f++) {
        r.format = f;
        sensitivity_by_layer(&r, g->layers);
        for (size_t l = 0; l < g->n_layers; l++) {
            double kld = g->layers[l].kld;
            g->values[f * g->n_layers + l] = kld > 0 && isfinite(kld) ? kld : NAN;
        }
        g->series[f].name = g->s->formats[f]->label;
    }
    return draw_lines(g, g->s->n_formats, "Damage of each layer, by format",
                      "its tensors one at a time, summed", "KL divergence, nats", "formats");
}

bool sensitivity_write_charts(const struct sensitivity_report *r, const char *folder,
                              struct error *err) {
    struct grid g = {.r = r, .s = r->s, .folder = folder, .err = err};
    const char *format = r->s->formats[r->format]->label;
    bool ok =
        grid_init(&g) && folder_create(folder, err) &&
        draw_map(&g, damage, "Damage of each tensor, alone", "KL divergence, nats", "damage") &&
        draw_map(&g, output_error, "Error of each tensor's output on real activations", "NMSE",
                 "output-error") &&
        draw_kinds(&g, damage, "Damage of each tensor, by layer", format, "KL divergence, nats",
                   "layers") &&
        draw_kinds(&g, outlier_ratio, "Outlier channels in what the tensors read", NULL,
                   "largest channel / median channel", "outliers") &&
        draw_formats(&g);
    grid_free(&g);
    return ok;
}
