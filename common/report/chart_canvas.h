// Pixels and what is drawn on them, with smooth edges: the share of a pixel that a shape covers is
// the share of its colour. Coordinates are in pixels from the top left corner; pixel (0, 0) spans
// 0 … 1. Everything outside `clip` stays as it is; no coordinate does harm, and up to 10⁹ all are
// exact enough.
#ifndef NIBBLE_REPORT_CHART_CANVAS_H
#define NIBBLE_REPORT_CHART_CANVAS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"
#include "report/chart_font.h"

struct colour {
    unsigned char r, g, b;
};

struct rect {
    double x0, y0, x1, y1;
};

enum align { ALIGN_LEFT, ALIGN_CENTRE, ALIGN_RIGHT };
enum marker { MARKER_DISC, MARKER_SQUARE, MARKER_TRIANGLE, MARKER_DIAMOND, MARKER_COUNT };

struct canvas {
    int width, height;
    unsigned char *pixels; // [height, width, 3], white at first
    struct rect clip;
    struct chart_font *font, *bold;
};

// dots: with the built-in font even where DejaVu is installed.
bool canvas_init(struct canvas *c, int width, int height, bool dots, struct error *err);
// Starts anew on white pixels of another size, with the same fonts.
bool canvas_resize(struct canvas *c, int width, int height, struct error *err);
void canvas_free(struct canvas *c);
void canvas_clip(struct canvas *c, const struct rect *clip); // NULL: everything
void canvas_fill(struct canvas *c, struct rect r, struct colour colour, double alpha);
void canvas_line(struct canvas *c, double x0, double y0, double x1, double y1, double width,
                 struct colour colour, double alpha);
void canvas_marker(struct canvas *c, enum marker shape, double x, double y, double radius,
                   struct colour colour);
// y is the baseline. upwards: reads from bottom to top, x is the baseline, ALIGN_LEFT starts at y.
void canvas_text(struct canvas *c, const struct chart_font *font, double size, double x, double y,
                 enum align align, bool upwards, struct colour colour, const char *text);
struct colour canvas_pixel(const struct canvas *c, int x, int y);
bool canvas_write_png(const struct canvas *c, const char *path, struct error *err);

#endif
