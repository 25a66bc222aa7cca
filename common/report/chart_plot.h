// Between chart.h and the canvas: the plotting area with its two axes, and the steps of drawing a
// chart. Private to report/, and to its tests, which look at pixels.
#ifndef NIBBLE_REPORT_CHART_PLOT_H
#define NIBBLE_REPORT_CHART_PLOT_H

#include "report/chart.h"
#include "report/chart_axis.h"
#include "report/chart_canvas.h"
#include "report/chart_text.h"

struct plot {
    struct rect area;
    struct axis x, y;
    struct text_block *categories; // [n_categories], owned; NULL where x has numbers
    bool categories_upwards;
};

static inline double plot_x(const struct plot *p, double value) {
    return p->area.x0 + axis_place(&p->x, value) * (p->area.x1 - p->area.x0);
}

static inline double plot_y(const struct plot *p, double value) {
    return p->area.y1 - axis_place(&p->y, value) * (p->area.y1 - p->area.y0);
}

// Where point i of a series lies; series without x count 0, 1, 2 …
static inline double series_x(const struct chart_series *s, size_t i) {
    return s->x ? s->x[i] : (double)i;
}

// Whether both coordinates are numbers that can be drawn. The bound keeps differences finite.
static inline bool chart_usable(double v) {
    return v > -1e300 && v < 1e300;
}

enum { SIZE_TITLE = 24, SIZE_SUBTITLE = 16, SIZE_AXIS = 17, SIZE_TICK = 15, SIZE_LABEL = 14 };
extern const struct colour chart_ink, chart_soft_ink, chart_frame, chart_grid, chart_minor_grid;
// Okabe and Ito's palette: told apart by the colour-blind, too.
struct colour chart_colour(size_t series);

// Draws the whole chart; p->categories is the caller's to free.
bool chart_draw(const struct chart *c, struct canvas *canvas, struct plot *p, struct error *err);
// Gives the canvas the size it needs; *area is where the cells lie.
bool heatmap_draw(const struct heatmap *h, struct canvas *canvas, struct rect *area,
                  struct error *err);
struct colour heatmap_colour(double share); // of a value's place between the least and the largest

// The steps. Checks every series and sets the axes:
bool chart_scale(const struct chart *c, const struct canvas *canvas, struct plot *p,
                 struct error *err);
// Sets p->area, and draws the title, the legend, the grid, the ticks and the axis titles around it:
bool chart_draw_frame(const struct chart *c, struct canvas *canvas, struct plot *p,
                      struct error *err);
void chart_draw_series(const struct chart *c, struct canvas *canvas, const struct plot *p);
// The mark of a series at (x, y) in the legend.
void chart_draw_swatch(struct canvas *canvas, enum chart_kind kind, size_t series, double x,
                       double y);
// Title and subtitle; returns the y below them.
double chart_draw_title(struct canvas *canvas, const char *title, const char *subtitle, double x);

#endif
