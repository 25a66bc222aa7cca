#include <math.h>

#include "report/chart_plot.h"

enum { MAX_PLACED = 400 };

struct colour chart_colour(size_t series) {
    static const struct colour palette[] = {
        {0, 114, 178}, {213, 94, 0},   {0, 158, 115}, {204, 121, 167},
        {230, 159, 0}, {86, 180, 233}, {64, 64, 64},  {148, 128, 18},
    };
    return palette[series % (sizeof palette / sizeof *palette)];
}

static const struct colour white = {255, 255, 255};

static void draw_marker(struct canvas *canvas, size_t series, double x, double y, double radius) {
    enum marker shape = (enum marker)(series % MARKER_COUNT);
    canvas_marker(canvas, shape, x, y, radius + 1.5, white); // keeps neighbours apart
    canvas_marker(canvas, shape, x, y, radius, chart_colour(series));
}

void chart_draw_swatch(struct canvas *canvas, enum chart_kind kind, size_t series, double x,
                       double y) {
    struct colour colour = chart_colour(series);
    if (kind == CHART_BAR || kind == CHART_HISTOGRAM)
        canvas_fill(canvas, (struct rect){x - 9, y - 6, x + 9, y + 6}, colour, 1);
    else if (kind == CHART_RULE)
        canvas_line(canvas, x, y - 8, x, y + 8, 2, colour, 1);
    if (kind == CHART_LINE)
        canvas_line(canvas, x - 12, y, x + 12, y, 2.5, colour, 1);
    if (kind == CHART_LINE || kind == CHART_SCATTER)
        draw_marker(canvas, series, x, y, 5);
}

static bool usable(const struct chart_series *s, size_t i) {
    return chart_usable(series_x(s, i)) && chart_usable(s->y[i]);
}

static void draw_line(struct canvas *canvas, const struct plot *p, const struct chart_series *s,
                      size_t series) {
    for (size_t i = 0; i + 1 < s->n; i++)
        if (usable(s, i) && usable(s, i + 1)) // a gap stays a gap
            canvas_line(canvas, plot_x(p, series_x(s, i)), plot_y(p, s->y[i]),
                        plot_x(p, series_x(s, i + 1)), plot_y(p, s->y[i + 1]),
                        s->n > 200 ? 1.5 : 2.5, chart_colour(series), 1);
}

// Markers that would run into one another say nothing: on long lines only lone points get one.
static void draw_markers(struct canvas *canvas, const struct plot *p, const struct chart_series *s,
                         size_t series) {
    bool crowded = s->kind == CHART_LINE && s->n > 60;
    for (size_t i = 0; i < s->n; i++) {
        bool alone = !(i > 0 && usable(s, i - 1)) && !(i + 1 < s->n && usable(s, i + 1));
        if (usable(s, i) && (!crowded || alone))
            draw_marker(canvas, series, plot_x(p, series_x(s, i)), plot_y(p, s->y[i]),
                        s->n > 500 ? 2.5 : 5.5);
    }
}

// Which of the chart's bar series this is, and how many there are: they share a category's width.
static size_t bar_rank(const struct chart *c, size_t series, size_t *n) {
    size_t rank = 0;
    *n = 0;
    for (size_t i = 0; i < c->n_series; i++)
        if (c->series[i].kind == CHART_BAR) {
            rank += i < series;
            ++*n;
        }
    return rank;
}

// The smallest distance between neighbours, in pixels.
static double slot_width(const struct chart *c, const struct plot *p,
                         const struct chart_series *s) {
    double width = p->area.x1 - p->area.x0;
    if (c->categories)
        return width / (double)c->n_categories;
    for (size_t i = 1; i < s->n; i++) {
        double step = fabs(plot_x(p, series_x(s, i)) - plot_x(p, series_x(s, i - 1)));
        if (step > 0 && step < width)
            width = step;
    }
    return width < 120 ? width : 120;
}

static double zero_line(const struct plot *p) {
    if (p->y.log)
        return p->area.y1;
    return fmin(fmax(plot_y(p, 0), p->area.y0), p->area.y1);
}

enum { LABEL_UPWARDS = 0, LABEL_NONE = -1, SMALLEST_LABEL = 10 };

// The size at which every label of a series fits in its room; else upwards, or not at all.
static int label_size(const struct canvas *canvas, const struct chart_series *s, double room) {
    double widest = 0;
    for (size_t i = 0; i < s->n; i++) {
        char label[32] = "";
        if (usable(s, i))
            axis_value_label(s->y[i], label);
        widest = fmax(widest, chart_font_width(canvas->font, SIZE_LABEL, label));
    }
    int size = widest > room ? (int)(SIZE_LABEL * room / widest) : SIZE_LABEL;
    return size >= SMALLEST_LABEL ? size : room >= 14 ? LABEL_UPWARDS : LABEL_NONE;
}

// The value above its bar, below a negative one; where there is no room below, above the zero line.
static void draw_bar_label(struct canvas *canvas, const struct plot *p, double value, double x,
                           int size) {
    char label[32];
    axis_value_label(value, label);
    double length = size == LABEL_UPWARDS ? chart_font_width(canvas->font, 12, label) : size;
    double y = plot_y(p, value);
    bool below = value < 0 && y + length + 8 < p->area.y1;
    if (value < 0 && !below)
        y = zero_line(p);
    if (size == LABEL_UPWARDS)
        canvas_text(canvas, canvas->font, 12, x + 4.5, below ? y + 6 : y - 6,
                    below ? ALIGN_RIGHT : ALIGN_LEFT, true, chart_ink, label);
    else if (size != LABEL_NONE)
        canvas_text(canvas, canvas->font, size, x, below ? y + size + 3 : y - 5, ALIGN_CENTRE,
                    false, chart_ink, label);
}

static void draw_bars(const struct chart *c, struct canvas *canvas, const struct plot *p,
                      const struct chart_series *s, size_t series) {
    size_t n_bars, rank = bar_rank(c, series, &n_bars);
    double slot = slot_width(c, p, s), group = slot * (n_bars > 1 ? 0.84 : 0.66);
    double width = group / (double)n_bars, gap = width > 12 ? 2 : 0;
    double zero = zero_line(p);
    int size = c->categories ? label_size(canvas, s, n_bars > 1 ? width : slot - 4) : LABEL_NONE;
    for (size_t i = 0; i < s->n; i++) {
        if (!usable(s, i))
            continue;
        double x = c->categories ? (double)i : series_x(s, i);
        double centre = plot_x(p, x) - group / 2 + ((double)rank + 0.5) * width;
        // A bar thinner than a pixel would fade away, and the lone outlier with it.
        double half = fmax((width - gap) / 2, 0.75), y = plot_y(p, s->y[i]);
        struct rect bar = {centre - half, fmin(y, zero), centre + half, fmax(y, zero)};
        canvas_fill(canvas, bar, chart_colour(series), 1);
        draw_bar_label(canvas, p, s->y[i], centre, size);
    }
    if (!p->y.log && p->y.min < 0)
        canvas_line(canvas, p->area.x0, zero, p->area.x1, zero, 1, chart_frame, 1);
}

static void draw_histogram(const struct chart *c, struct canvas *canvas, const struct plot *p,
                           const struct chart_series *s, size_t series) {
    size_t n_histograms = 0;
    for (size_t i = 0; i < c->n_series; i++)
        n_histograms += c->series[i].kind == CHART_HISTOGRAM && c->series[i].n;
    double zero = zero_line(p);
    for (size_t i = 0; i < s->n; i++) {
        double low = s->x[i], high = s->x[i + 1], count = s->y[i];
        if (!chart_usable(low) || !chart_usable(high) || !chart_usable(count) ||
            (p->y.log && count <= 0) || (p->x.log && !(low > 0 && high > 0)))
            continue;
        double x0 = plot_x(p, low), x1 = plot_x(p, high), y = plot_y(p, count);
        double gap = x1 - x0 >= 7 ? 0.5 : 0; // a hairline between bars that are wide enough
        canvas_fill(canvas, (struct rect){x0 + gap, fmin(y, zero), x1 - gap, fmax(y, zero)},
                    chart_colour(series), n_histograms > 1 ? 0.55 : 1);
    }
}

static void draw_rules(struct canvas *canvas, const struct plot *p, const struct chart_series *s,
                       size_t series) {
    double spacing = (p->area.x1 - p->area.x0) / (double)(s->n ? s->n : 1);
    double width = spacing < 6 ? 1 : 1.6;
    for (size_t i = 0; i < s->n; i++)
        if (chart_usable(s->x[i]))
            canvas_line(canvas, plot_x(p, s->x[i]), p->area.y0, plot_x(p, s->x[i]), p->area.y1,
                        width, chart_colour(series), spacing < 3 ? 0.5 : 1);
}

// Boxes that a label should stay clear of: points, and labels that have found their place.
struct obstacles {
    size_t n;
    struct rect boxes[MAX_PLACED];
};

static void obstacles_add(struct obstacles *o, struct rect r) {
    if (o->n < MAX_PLACED)
        o->boxes[o->n++] = r;
}

static double area_shared(struct rect a, struct rect b) {
    double w = fmin(a.x1, b.x1) - fmax(a.x0, b.x0), h = fmin(a.y1, b.y1) - fmax(a.y0, b.y0);
    return w > 0 && h > 0 ? w * h : 0;
}

// How badly a label sits at r: what it covers, and what of it lies outside the plot.
static double badness(const struct obstacles *o, struct rect r, struct rect plot) {
    double whole = (r.x1 - r.x0) * (r.y1 - r.y0);
    double bad = 4 * (whole - area_shared(r, plot));
    for (size_t i = 0; i < o->n; i++)
        bad += area_shared(r, o->boxes[i]);
    return bad;
}

// Tries eight places around the point and takes the first of the least bad.
static void draw_point_label(struct canvas *canvas, const struct plot *p, struct obstacles *o,
                             double x, double y, const char *label) {
    static const double places[8][2] = {{1, 0},  {-1, 0}, {0, -1},  {0, 1},
                                        {1, -1}, {1, 1},  {-1, -1}, {-1, 1}};
    double w = chart_font_width(canvas->font, SIZE_LABEL, label), h = SIZE_LABEL;
    struct rect best = {0};
    double least = INFINITY;
    for (size_t i = 0; i < 8; i++) {
        double away = places[i][0] != 0 && places[i][1] != 0 ? 7 : 10;
        double cx = x + places[i][0] * (w / 2 + away), cy = y + places[i][1] * (h / 2 + away);
        struct rect r = {cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2};
        double bad = badness(o, r, p->area);
        if (bad < least - 1e-9) {
            least = bad;
            best = r;
        }
    }
    canvas_text(canvas, canvas->font, SIZE_LABEL, best.x0, best.y1 - 0.14 * SIZE_LABEL, ALIGN_LEFT,
                false, chart_ink, label);
    obstacles_add(o, best);
}

static void draw_point_labels(const struct chart *c, struct canvas *canvas, const struct plot *p) {
    struct obstacles o = {0};
    for (size_t k = 0; k < c->n_series; k++)
        for (size_t i = 0; c->series[k].labels && i < c->series[k].n && o.n < MAX_PLACED / 2; i++)
            if (usable(&c->series[k], i)) {
                double x = plot_x(p, series_x(&c->series[k], i)), y = plot_y(p, c->series[k].y[i]);
                obstacles_add(&o, (struct rect){x - 6, y - 6, x + 6, y + 6});
            }
    for (size_t k = 0; k < c->n_series; k++)
        for (size_t i = 0; c->series[k].labels && i < c->series[k].n && o.n < MAX_PLACED; i++)
            if (usable(&c->series[k], i) && c->series[k].labels[i])
                draw_point_label(canvas, p, &o, plot_x(p, series_x(&c->series[k], i)),
                                 plot_y(p, c->series[k].y[i]), c->series[k].labels[i]);
}

void chart_draw_series(const struct chart *c, struct canvas *canvas, const struct plot *p) {
    struct rect room = p->area;
    canvas_clip(canvas, &room);
    for (size_t i = 0; i < c->n_series; i++) {
        const struct chart_series *s = &c->series[i];
        if (s->kind == CHART_BAR)
            draw_bars(c, canvas, p, s, i);
        else if (s->kind == CHART_HISTOGRAM)
            draw_histogram(c, canvas, p, s, i);
    }
    for (size_t i = 0; i < c->n_series; i++) {
        const struct chart_series *s = &c->series[i];
        if (s->kind == CHART_RULE)
            draw_rules(canvas, p, s, i);
        else if (s->kind == CHART_LINE)
            draw_line(canvas, p, s, i);
    }
    // Markers at the edge of the plot are shown whole.
    room = (struct rect){p->area.x0 - 8, p->area.y0 - 8, p->area.x1 + 8, p->area.y1 + 8};
    canvas_clip(canvas, &room);
    for (size_t i = 0; i < c->n_series; i++)
        if (c->series[i].kind == CHART_LINE || c->series[i].kind == CHART_SCATTER)
            draw_markers(canvas, p, &c->series[i], i);
    canvas_clip(canvas, NULL);
    draw_point_labels(c, canvas, p);
}
