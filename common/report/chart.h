// Charts as PNG: lines, bars, histograms and heat maps on a light background, with titles, axis
// titles with units, ticks at round numbers, and a legend. Text by stb_truetype with DejaVu Sans (a
// built-in bitmap font where it is not installed), pixels by stb_image_write.
#ifndef NIBBLE_REPORT_CHART_H
#define NIBBLE_REPORT_CHART_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

enum chart_kind {
    CHART_LINE,      // points joined, with markers
    CHART_SCATTER,   // markers only, labelled if `labels` is set
    CHART_BAR,       // one bar per (category, series), grouped
    CHART_HISTOGRAM, // bars that touch: x holds n + 1 edges, y holds n counts
    CHART_RULE       // vertical lines at x[0..n): a quantization grid over a histogram
};

struct chart_series {
    enum chart_kind kind;
    const char *name; // in the legend; NULL: not listed
    const double *x, *y; // x may be NULL: 0, 1, 2 …; points with a NaN are left out
    const char *const *labels; // [n] beside points, or NULL
    size_t n;
};

struct chart {
    const char *title, *subtitle, *x_title, *y_title; // subtitle may be NULL
    bool x_log, y_log;
    double y_min, y_max;             // both 0: from the data
    const char *const *categories;   // [n_categories] for bars; NULL otherwise
    size_t n_categories;
    const struct chart_series *series;
    size_t n_series;
    int width, height; // 0: 1200 × 700
};
// Fails on a logarithmic axis through zero, and where no point is left to draw.
bool chart_write_png(const struct chart *c, const char *path, struct error *err);

struct heatmap {
    const char *title, *subtitle, *x_title, *y_title, *value_title;
    const double *values; // [rows, cols]; NaN is drawn grey
    size_t rows, cols;
    const char *const *row_labels, *const *col_labels;
    bool log_scale;
};
bool heatmap_write_png(const struct heatmap *h, const char *path, struct error *err);

#endif
