#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "report/chart_plot.h"

const struct colour chart_ink = {34, 34, 34}, chart_soft_ink = {95, 95, 95},
                    chart_frame = {120, 120, 120}, chart_grid = {226, 226, 226},
                    chart_minor_grid = {242, 242, 242};

enum { MARGIN = 28, GAP = 10, SWATCH = 34, TICK = 6 };

// Lines of a block, centred or not, the first baseline one line height below y; returns the y
// below.
static double draw_lines(struct canvas *canvas, const struct chart_font *font,
                         const struct text_block *b, double x, double y, enum align align,
                         struct colour colour) {
    for (size_t i = 0; i < b->n_lines; i++) {
        y += text_line_height(b->size);
        canvas_text(canvas, font, b->size, x, y - 0.25 * b->size, align, false, colour,
                    b->lines[i]);
    }
    return y;
}

double chart_draw_title(struct canvas *canvas, const char *title, const char *subtitle, double x) {
    double width = canvas->width - x - MARGIN, y = MARGIN / 2.0;
    if (title && *title) {
        struct text_block b = text_fit(canvas->bold, title, SIZE_TITLE, 14, width, 2);
        y = draw_lines(canvas, canvas->bold, &b, x, y, ALIGN_LEFT, chart_ink);
    }
    if (subtitle && *subtitle) {
        struct text_block b = text_fit(canvas->font, subtitle, SIZE_SUBTITLE, 11, width, 3);
        y = draw_lines(canvas, canvas->font, &b, x, y, ALIGN_LEFT, chart_soft_ink);
    }
    return y + GAP + 2;
}

// Names in rows above the plot, so that they cover nothing; returns the y below.
static double draw_legend(const struct chart *c, struct canvas *canvas, double x0, double y) {
    double x = x0, line = text_line_height(SIZE_LABEL) + 4;
    bool any = false;
    for (size_t i = 0; i < c->n_series; i++) {
        const struct chart_series *s = &c->series[i];
        if (!s->name || !s->n)
            continue;
        double room = canvas->width - MARGIN - x0 - SWATCH;
        struct text_block b = text_fit(canvas->font, s->name, SIZE_LABEL, 10, room, 1);
        double width = SWATCH + text_block_width(canvas->font, &b);
        if (x > x0 && x + width > canvas->width - MARGIN) {
            x = x0;
            y += line;
        }
        chart_draw_swatch(canvas, s->kind, i, x + 12, y + line / 2);
        canvas_text(canvas, canvas->font, b.size, x + SWATCH, y + line / 2 + 0.36 * b.size,
                    ALIGN_LEFT, false, chart_ink, b.lines[0]);
        x += width + 24;
        any = true;
    }
    return any ? y + line + GAP : y;
}

static double widest_label(const struct canvas *canvas, const struct axis *a) {
    double width = 0;
    for (size_t i = 0; i < a->n_ticks; i++)
        width = fmax(width, chart_font_width(canvas->font, SIZE_TICK, a->labels[i]));
    return width;
}

// Sets all category names within `width` at one size, the largest that serves them all; false where
// a name would be cut.
static bool fit_names(const struct chart *c, const struct canvas *canvas, struct plot *p,
                      double size, double min_size, double width, size_t max_lines) {
    bool whole = true;
    for (size_t i = 0; i < c->n_categories; i++) {
        p->categories[i] =
            text_fit(canvas->font, c->categories[i], size, min_size, width, max_lines);
        whole = whole && (p->categories[i].whole || !*c->categories[i]);
        if (p->categories[i].size < size)
            return fit_names(c, canvas, p, p->categories[i].size, min_size, width, max_lines);
    }
    return whole;
}

// Breaks the category names to their share of the width, or turns them all upwards; returns the
// height they take.
static double fit_categories(const struct chart *c, const struct canvas *canvas, struct plot *p) {
    double slot = (p->area.x1 - p->area.x0) / (double)c->n_categories, height = 0;
    double size = fmin(fmax(floor(slot / 1.15), 7), SIZE_TICK);
    p->categories_upwards = !fit_names(c, canvas, p, SIZE_TICK, 12, slot - 8, 3);
    if (p->categories_upwards)
        fit_names(c, canvas, p, size, size, 0.35 * canvas->height, 1);
    for (size_t i = 0; i < c->n_categories; i++) {
        const struct text_block *b = &p->categories[i];
        height =
            fmax(height, p->categories_upwards ? text_block_width(canvas->font, b)
                                               : (double)b->n_lines * text_line_height(b->size));
    }
    return height;
}

static void draw_categories(const struct chart *c, struct canvas *canvas, const struct plot *p) {
    double free_from = 0, y = p->area.y1 + TICK;
    for (size_t i = 0; i < c->n_categories; i++) {
        const struct text_block *b = &p->categories[i];
        double x = plot_x(p, (double)i);
        if (!p->categories_upwards) {
            draw_lines(canvas, canvas->font, b, x, y, ALIGN_CENTRE, chart_ink);
        } else if (b->n_lines && x - b->size / 2 >= free_from) { // not all of hundreds have room
            canvas_text(canvas, canvas->font, b->size, x + 0.36 * b->size, y, ALIGN_RIGHT, true,
                        chart_ink, b->lines[0]);
            free_from = x + b->size / 2;
        }
    }
}

static void draw_x_ticks(struct canvas *canvas, const struct plot *p) {
    const struct rect *a = &p->area;
    for (size_t i = 0; i < p->x.n_minor; i++)
        canvas_line(canvas, plot_x(p, p->x.minor[i]), a->y0, plot_x(p, p->x.minor[i]), a->y1, 1,
                    chart_minor_grid, 1);
    for (size_t i = 0; i < p->x.n_ticks; i++) {
        double x = floor(plot_x(p, p->x.ticks[i])) + 0.5;
        canvas_line(canvas, x, a->y0, x, a->y1, 1, chart_grid, 1);
        canvas_line(canvas, x, a->y1, x, a->y1 + TICK, 1, chart_frame, 1);
        canvas_text(canvas, canvas->font, SIZE_TICK, x,
                    a->y1 + TICK + text_line_height(SIZE_TICK) - 3, ALIGN_CENTRE, false, chart_ink,
                    p->x.labels[i]);
    }
}

static void draw_y_ticks(struct canvas *canvas, const struct plot *p) {
    const struct rect *a = &p->area;
    for (size_t i = 0; i < p->y.n_minor; i++)
        canvas_line(canvas, a->x0, plot_y(p, p->y.minor[i]), a->x1, plot_y(p, p->y.minor[i]), 1,
                    chart_minor_grid, 1);
    for (size_t i = 0; i < p->y.n_ticks; i++) {
        double y = floor(plot_y(p, p->y.ticks[i])) + 0.5;
        canvas_line(canvas, a->x0, y, a->x1, y, 1, chart_grid, 1);
        canvas_line(canvas, a->x0 - TICK, y, a->x0, y, 1, chart_frame, 1);
        canvas_text(canvas, canvas->font, SIZE_TICK, a->x0 - TICK - 4, y + 0.36 * SIZE_TICK,
                    ALIGN_RIGHT, false, chart_ink, p->y.labels[i]);
    }
}

static void draw_axis_titles(const struct chart *c, struct canvas *canvas, const struct plot *p,
                             const struct text_block *x_title) {
    const struct rect *a = &p->area;
    draw_lines(canvas, canvas->font, x_title, (a->x0 + a->x1) / 2,
               canvas->height - MARGIN / 2.0 -
                   (double)x_title->n_lines * text_line_height(x_title->size),
               ALIGN_CENTRE, chart_ink);
    if (!c->y_title)
        return;
    struct text_block b = text_fit(canvas->font, c->y_title, SIZE_AXIS, 9, a->y1 - a->y0, 1);
    for (size_t i = 0; i < b.n_lines; i++)
        canvas_text(canvas, canvas->font, b.size, MARGIN + 0.5 * SIZE_AXIS, (a->y0 + a->y1) / 2,
                    ALIGN_CENTRE, true, chart_ink, b.lines[i]);
}

bool chart_draw_frame(const struct chart *c, struct canvas *canvas, struct plot *p,
                      struct error *err) {
    struct rect *a = &p->area;
    a->x0 = MARGIN + (c->y_title ? text_line_height(SIZE_AXIS) : 0) + widest_label(canvas, &p->y) +
            TICK + 6;
    a->x1 = canvas->width - MARGIN;
    a->x0 = floor(fmin(a->x0, 0.5 * a->x1));
    double top = chart_draw_title(canvas, c->title, c->subtitle, MARGIN);
    a->y0 = floor(draw_legend(c, canvas, MARGIN, top) + 4);
    struct text_block x_title =
        text_fit(canvas->font, c->x_title ? c->x_title : "", SIZE_AXIS, 11, a->x1 - a->x0, 2);
    double below = MARGIN / 2.0 + 4 + TICK;
    below += (double)x_title.n_lines * text_line_height(x_title.size);
    if (c->categories) {
        p->categories = memory_alloc(c->n_categories, sizeof *p->categories, "chart", err);
        if (!p->categories)
            return false;
        below += fit_categories(c, canvas, p) + 4;
    } else {
        below += text_line_height(SIZE_TICK);
    }
    a->y1 = floor(canvas->height - below);
    if (a->y1 - a->y0 < 40 || a->x1 - a->x0 < 40)
        return error_set(err, "chart '%s': %d x %d pixels leave no room to draw in", c->title,
                         canvas->width, canvas->height);
    if (!c->categories)
        draw_x_ticks(canvas, p);
    draw_y_ticks(canvas, p);
    if (c->categories)
        draw_categories(c, canvas, p);
    canvas_line(canvas, a->x0 + 0.5, a->y0, a->x0 + 0.5, a->y1, 1, chart_frame, 1);
    draw_axis_titles(c, canvas, p, &x_title);
    return true;
}
