#include <float.h>
#include <math.h>
#include <stdio.h>

#include "report/chart_plot.h"

enum { MARGIN = 28, BAR = 22, WIDTH = 1200, TICK = 6, SHORTEST_SCALE = 160 };

static const struct colour missing = {200, 200, 200};

// From light to dark in even steps of lightness, so that it survives grey print.
struct colour heatmap_colour(double share) {
    static const struct colour stops[] = {
        {255, 246, 224}, {250, 199, 122}, {226, 116, 94}, {148, 52, 110}, {48, 18, 74}};
    enum { LAST = sizeof stops / sizeof *stops - 1 };
    double at = fmin(fmax(share, 0), 1) * LAST;
    int i = at < LAST ? (int)at : LAST - 1;
    const struct colour *a = &stops[i], *b = &stops[i + 1];
    double t = at - i;
    return (struct colour){(unsigned char)lround(a->r + t * (b->r - a->r)),
                           (unsigned char)lround(a->g + t * (b->g - a->g)),
                           (unsigned char)lround(a->b + t * (b->b - a->b))};
}

static double cell(const struct heatmap *h, size_t row, size_t col) {
    double v = h->values[row * h->cols + col];
    return chart_usable(v) ? v : NAN;
}

static bool scale(const struct heatmap *h, struct axis *a, struct error *err) {
    double low = DBL_MAX, high = -DBL_MAX;
    for (size_t i = 0; i < h->rows * h->cols; i++) {
        double v = h->values[i];
        if (!chart_usable(v))
            continue;
        if (h->log_scale && !(v > 1e-300))
            return error_set(err,
                             "heat map '%s': a value is %g on a logarithmic scale, expected more "
                             "than 0",
                             h->title, v);
        low = fmin(low, v);
        high = fmax(high, v);
    }
    if (low > high)
        return error_set(err, "heat map '%s': no value among %zu x %zu", h->title, h->rows,
                         h->cols);
    *a = axis_make(low, high, (struct axis_wish){.log = h->log_scale, .n_ticks = 5});
    return true;
}

// The largest value among the cells that a pixel shows: the one that hurts must not be averaged
// away. NaN where there is none.
static double largest(const struct heatmap *h, double row0, double row1, double col0, double col1) {
    double most = NAN;
    for (size_t r = (size_t)row0; r < h->rows && ((double)r < row1 || r == (size_t)row0); r++)
        for (size_t c = (size_t)col0; c < h->cols && ((double)c < col1 || c == (size_t)col0); c++)
            most = fmax(most, cell(h, r, c)); // fmax passes over NaN
    return most;
}

static void draw_cells(const struct heatmap *h, struct canvas *canvas, const struct rect *area,
                       const struct axis *a) {
    double rows = (double)h->rows / (area->y1 - area->y0);
    double cols = (double)h->cols / (area->x1 - area->x0);
    for (double y = area->y0; y < area->y1; y++)
        for (double x = area->x0; x < area->x1; x++) {
            double r = (y - area->y0) * rows, c = (x - area->x0) * cols;
            double v = largest(h, r, r + rows, c, c + cols);
            canvas_fill(canvas, (struct rect){x, y, x + 1, y + 1},
                        isnan(v) ? missing : heatmap_colour(axis_place(a, v)), 1);
        }
}

// Weights of the primaries in brightness (ITU-R BT.709).
static bool is_dark(struct colour c) {
    return 0.2126 * c.r + 0.7152 * c.g + 0.0722 * c.b < 115;
}

// The numbers themselves, where cells are large enough to hold them.
static void draw_values(const struct heatmap *h, struct canvas *canvas, const struct rect *area,
                        const struct axis *a) {
    static const struct colour white = {255, 255, 255};
    double width = (area->x1 - area->x0) / (double)h->cols;
    double height = (area->y1 - area->y0) / (double)h->rows;
    if (width < 40 || height < 15)
        return;
    double size = fmin(13, height - 4);
    for (size_t i = 0; i < h->rows * h->cols; i++) {
        double v = cell(h, i / h->cols, i % h->cols);
        char label[32] = "–";
        if (!isnan(v))
            axis_value_label(v, label);
        if (chart_font_width(canvas->font, size, label) > width - 4)
            continue;
        double x = area->x0 + ((double)(i % h->cols) + 0.5) * width;
        double y = area->y0 + ((double)(i / h->cols) + 0.5) * height;
        canvas_text(canvas, canvas->font, size, x, y + 0.36 * size, ALIGN_CENTRE, false,
                    !isnan(v) && is_dark(heatmap_colour(axis_place(a, v))) ? white : chart_ink,
                    label);
    }
}

// The given name, or the number of the row or column.
static const char *name_of(const char *const *labels, size_t i, char buffer[32]) {
    if (labels)
        return labels[i] ? labels[i] : "";
    snprintf(buffer, 32, "%zu", i);
    return buffer;
}

static double widest_name(const struct canvas *canvas, const char *const *labels, size_t n) {
    char buffer[32];
    double width = 0;
    for (size_t i = 0; i < n; i++)
        width = fmax(width, chart_font_width(canvas->font, SIZE_TICK, name_of(labels, i, buffer)));
    return width;
}

// Every how many-th name has room when one takes `needed` of the `given` pixels: for numbers, every
// 1st, 2nd, 5th, 10th, 20th …
static size_t name_stride(const char *const *labels, double needed, double given) {
    size_t stride = 1;
    for (size_t i = 0; labels ? (double)stride * given < needed
                              : (double)stride * given < 2 * needed && given < needed;
         i++)
        stride = labels ? stride + 1 : i % 3 == 1 ? stride / 2 * 5 : stride * 2;
    return stride;
}

static void draw_row_names(const struct heatmap *h, struct canvas *canvas,
                           const struct rect *area) {
    double height = (area->y1 - area->y0) / (double)h->rows;
    size_t stride = name_stride(h->row_labels, SIZE_TICK, height);
    for (size_t i = 0; i < h->rows; i += stride) {
        char buffer[32];
        struct text_block b = text_fit(canvas->font, name_of(h->row_labels, i, buffer), SIZE_TICK,
                                       9, area->x0 - MARGIN - 2 * SIZE_AXIS, 1);
        double y = area->y0 + ((double)i + 0.5) * height;
        canvas_text(canvas, canvas->font, b.size, area->x0 - TICK, y + 0.36 * b.size, ALIGN_RIGHT,
                    false, chart_ink, b.lines[0]);
    }
}

static void draw_col_names(const struct heatmap *h, struct canvas *canvas, const struct rect *area,
                           bool upwards) {
    double width = (area->x1 - area->x0) / (double)h->cols;
    size_t stride = name_stride(h->col_labels, upwards ? SIZE_TICK : 40, width);
    stride = h->col_labels && !upwards ? 1 : stride;
    for (size_t i = 0; i < h->cols; i += stride) {
        char buffer[32];
        const char *name = name_of(h->col_labels, i, buffer);
        double x = area->x0 + ((double)i + 0.5) * width, y = area->y1 + TICK;
        struct text_block b = text_fit(canvas->font, name, SIZE_TICK, SIZE_TICK, 240, 1);
        canvas_text(canvas, canvas->font, SIZE_TICK, upwards ? x + 0.36 * SIZE_TICK : x,
                    upwards ? y : y + SIZE_TICK, upwards ? ALIGN_RIGHT : ALIGN_CENTRE, upwards,
                    chart_ink, b.lines[0]);
    }
}

static void draw_scale(const struct heatmap *h, struct canvas *canvas, const struct rect *area,
                       const struct axis *a) {
    double x = area->x1 + MARGIN, widest = 0;
    double bottom = fmax(area->y1, area->y0 + SHORTEST_SCALE), height = bottom - area->y0;
    for (double y = area->y0; y < bottom; y++)
        canvas_fill(canvas, (struct rect){x, y, x + BAR, y + 1},
                    heatmap_colour((bottom - y - 0.5) / height), 1);
    for (size_t i = 0; i < a->n_ticks; i++) {
        double y = bottom - axis_place(a, a->ticks[i]) * height;
        canvas_line(canvas, x + BAR, y, x + BAR + TICK, y, 1, chart_frame, 1);
        canvas_text(canvas, canvas->font, SIZE_TICK, x + BAR + TICK + 4, y + 0.36 * SIZE_TICK,
                    ALIGN_LEFT, false, chart_ink, a->labels[i]);
        widest = fmax(widest, chart_font_width(canvas->font, SIZE_TICK, a->labels[i]));
    }
    if (!h->value_title)
        return;
    struct text_block b = text_fit(canvas->font, h->value_title, SIZE_AXIS, 9, height, 1);
    canvas_text(canvas, canvas->font, b.size, x + BAR + TICK + widest + 10 + SIZE_AXIS,
                (area->y0 + bottom) / 2, ALIGN_CENTRE, true, chart_ink, b.lines[0]);
}

struct layout {
    struct rect area;    // of the cells
    bool upwards;        // the names of the columns
    double names_height; // below the cells
};

static void draw_axis_titles(const struct heatmap *h, struct canvas *canvas,
                             const struct layout *l) {
    const struct rect *area = &l->area;
    if (h->x_title) {
        struct text_block b =
            text_fit(canvas->font, h->x_title, SIZE_AXIS, 9, canvas->width - area->x0, 1);
        canvas_text(canvas, canvas->font, b.size, (area->x0 + area->x1) / 2,
                    area->y1 + l->names_height + text_line_height(SIZE_AXIS), ALIGN_CENTRE, false,
                    chart_ink, b.lines[0]);
    }
    if (h->y_title) {
        double room = canvas->height - MARGIN - area->y0, height = area->y1 - area->y0;
        struct text_block b = text_fit(canvas->font, h->y_title, SIZE_AXIS, 9, room, 1);
        bool longer = text_block_width(canvas->font, &b) > height;
        canvas_text(canvas, canvas->font, b.size, MARGIN + 0.5 * SIZE_AXIS,
                    longer ? area->y0 : (area->y0 + area->y1) / 2,
                    longer ? ALIGN_RIGHT : ALIGN_CENTRE, true, chart_ink, b.lines[0]);
    }
}

// Cells of up to 110 x 40 pixels; many rows share 800, many columns what a width of 1200 leaves.
static bool lay_out(const struct heatmap *h, struct canvas *canvas, struct layout *l,
                    struct error *err) {
    struct rect *area = &l->area;
    double names = fmin(widest_name(canvas, h->row_labels, h->rows), 240);
    double col_names = fmin(widest_name(canvas, h->col_labels, h->cols), 240);
    double right = MARGIN + BAR + TICK + 130;
    area->x0 = ceil(MARGIN + (h->y_title ? 2.0 * SIZE_AXIS : 0) + names + TICK);
    area->x1 = area->x0 + floor(fmin(WIDTH - right - area->x0, 110 * (double)h->cols));
    double cell_width = (area->x1 - area->x0) / (double)h->cols;
    l->upwards = h->col_labels && col_names > cell_width - 6;
    l->names_height = TICK + (l->upwards ? col_names : SIZE_TICK) + 4;
    int width = (int)fmax(area->x1 + right, 600);
    if (!canvas_resize(canvas, width, 1, err)) // to learn how high the title gets
        return false;
    area->y0 = floor(chart_draw_title(canvas, h->title, h->subtitle, MARGIN) + 4);
    area->y1 = area->y0 + floor(fmin(800, 40 * (double)h->rows));
    double bottom = area->y1 + l->names_height;
    bottom += h->x_title ? text_line_height(SIZE_AXIS) + 4 : 0;
    bottom = fmax(bottom, area->y0 + SHORTEST_SCALE) + MARGIN / 2.0;
    return canvas_resize(canvas, width, (int)ceil(bottom), err);
}

bool heatmap_draw(const struct heatmap *h, struct canvas *canvas, struct rect *area,
                  struct error *err) {
    struct axis a;
    struct layout l;
    if (!scale(h, &a, err) || !lay_out(h, canvas, &l, err))
        return false;
    *area = l.area;
    chart_draw_title(canvas, h->title, h->subtitle, MARGIN);
    draw_cells(h, canvas, area, &a);
    draw_values(h, canvas, area, &a);
    draw_row_names(h, canvas, area);
    draw_col_names(h, canvas, area, l.upwards);
    draw_scale(h, canvas, area, &a);
    draw_axis_titles(h, canvas, &l);
    return true;
}

bool heatmap_write_png(const struct heatmap *h, const char *path, struct error *err) {
    struct canvas canvas;
    struct rect area;
    if (!canvas_init(&canvas, 1, 1, false, err))
        return false;
    bool ok = heatmap_draw(h, &canvas, &area, err) && canvas_write_png(&canvas, path, err);
    canvas_free(&canvas);
    return ok;
}
