#include "report/chart_canvas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <stb/stb_image_write.h>

#include "core/file.h"
#include "core/memory.h"

bool canvas_init(struct canvas *c, int width, int height, bool dots, struct error *err) {
    *c = (struct canvas){0};
    c->font = chart_font_open(dots ? NULL : "DejaVuSans.ttf", err);
    c->bold = chart_font_open(dots ? NULL : "DejaVuSans-Bold.ttf", err);
    if (c->font && c->bold && canvas_resize(c, width, height, err))
        return true;
    canvas_free(c);
    return false;
}

bool canvas_resize(struct canvas *c, int width, int height, struct error *err) {
    size_t n = (size_t)width * (size_t)height;
    unsigned char *pixels = memory_alloc(n, 3, "chart", err);
    if (!pixels)
        return false;
    memset(pixels, 255, 3 * n);
    free(c->pixels);
    c->pixels = pixels;
    c->width = width;
    c->height = height;
    canvas_clip(c, NULL);
    return true;
}

void canvas_free(struct canvas *c) {
    free(c->pixels);
    chart_font_close(c->font);
    chart_font_close(c->bold);
    *c = (struct canvas){0};
}

void canvas_clip(struct canvas *c, const struct rect *clip) {
    c->clip = (struct rect){0, 0, c->width, c->height};
    if (!clip)
        return;
    c->clip = (struct rect){fmax(clip->x0, 0), fmax(clip->y0, 0), fmin(clip->x1, c->width),
                            fmin(clip->y1, c->height)};
}

static unsigned char mix(unsigned char below, unsigned char above, double alpha) {
    return (unsigned char)lround(below + (above - below) * alpha);
}

static void blend(struct canvas *c, int x, int y, struct colour colour, double alpha) {
    unsigned char *p = c->pixels + 3 * ((size_t)y * (size_t)c->width + (size_t)x);
    p[0] = mix(p[0], colour.r, alpha);
    p[1] = mix(p[1], colour.g, alpha);
    p[2] = mix(p[2], colour.b, alpha);
}

struct colour canvas_pixel(const struct canvas *c, int x, int y) {
    const unsigned char *p = c->pixels + 3 * ((size_t)y * (size_t)c->width + (size_t)x);
    return (struct colour){p[0], p[1], p[2]};
}

struct span {
    int x0, y0, x1, y1; // pixels, the last ones excluded
};

// The pixels that r touches inside the clip. NaN and infinite edges give none, or the clip's.
static struct span touched(const struct canvas *c, struct rect r) {
    r.x0 = fmax(r.x0, c->clip.x0);
    r.y0 = fmax(r.y0, c->clip.y0);
    r.x1 = fmin(r.x1, c->clip.x1);
    r.y1 = fmin(r.y1, c->clip.y1);
    if (!(r.x0 < r.x1 && r.y0 < r.y1))
        return (struct span){0};
    return (struct span){(int)floor(r.x0), (int)floor(r.y0), (int)ceil(r.x1), (int)ceil(r.y1)};
}

static double overlap(double a0, double a1, double b0, double b1) {
    double length = fmin(a1, b1) - fmax(a0, b0);
    return length > 0 ? length : 0;
}

void canvas_fill(struct canvas *c, struct rect r, struct colour colour, double alpha) {
    struct span s = touched(c, r);
    for (int y = s.y0; y < s.y1; y++)
        for (int x = s.x0; x < s.x1; x++)
            blend(c, x, y, colour,
                  alpha * overlap(r.x0, r.x1, x, x + 1) * overlap(r.y0, r.y1, y, y + 1));
}

// How much of a pixel lies inside a shape whose edge is `distance` away (negative: inside).
static double coverage(double distance) {
    return fmin(fmax(0.5 - distance, 0), 1);
}

// Cuts the segment p + t d, t in [t[0], t[1]], to low <= p + t d <= high in one direction.
static void cut(double p, double d, double low, double high, double t[2]) {
    if (d == 0) {
        if (p < low || p > high)
            t[1] = -1;
        return;
    }
    double a = (low - p) / d, b = (high - p) / d;
    t[0] = fmax(t[0], fmin(a, b));
    t[1] = fmin(t[1], fmax(a, b));
}

void canvas_line(struct canvas *c, double x0, double y0, double x1, double y1, double width,
                 struct colour colour, double alpha) {
    double half = width / 2, dx = x1 - x0, dy = y1 - y0, t[2] = {0, 1};
    cut(x0, dx, c->clip.x0 - width, c->clip.x1 + width, t);
    cut(y0, dy, c->clip.y0 - width, c->clip.y1 + width, t);
    if (!(t[0] <= t[1]))
        return;
    x1 = x0 + t[1] * dx, y1 = y0 + t[1] * dy;
    x0 += t[0] * dx, y0 += t[0] * dy;
    dx = x1 - x0, dy = y1 - y0;
    double squared = dx * dx + dy * dy;
    struct rect box = {fmin(x0, x1) - half - 1, fmin(y0, y1) - half - 1, fmax(x0, x1) + half + 1,
                       fmax(y0, y1) + half + 1};
    struct span s = touched(c, box);
    for (int y = s.y0; y < s.y1; y++)
        for (int x = s.x0; x < s.x1; x++) {
            double px = x + 0.5 - x0, py = y + 0.5 - y0;
            double along = squared > 0 ? (px * dx + py * dy) / squared : 0;
            along = fmin(fmax(along, 0), 1);
            double distance = hypot(px - along * dx, py - along * dy) - half;
            double share = coverage(distance) * fmin(width, 1);
            if (share > 0)
                blend(c, x, y, colour, alpha * share);
        }
}

// Signed distance from the edge of a marker around (0, 0); all look about equally large.
static double marker_distance(enum marker shape, double x, double y, double radius) {
    switch (shape) {
    case MARKER_SQUARE:
        return fmax(fabs(x), fabs(y)) - 0.88 * radius;
    case MARKER_TRIANGLE: // three half planes; the lower edge is half a radius below the centre
        return fmax(y, fabs(x) * 0.8660254 - y * 0.5) - 0.65 * radius;
    case MARKER_DIAMOND:
        return (fabs(x) + fabs(y)) * 0.7071068 - 0.88 * radius;
    default:
        return hypot(x, y) - radius;
    }
}

void canvas_marker(struct canvas *c, enum marker shape, double x, double y, double radius,
                   struct colour colour) {
    struct rect box = {x - 2 * radius, y - 2 * radius, x + 2 * radius, y + 2 * radius};
    struct span s = touched(c, box);
    for (int j = s.y0; j < s.y1; j++)
        for (int i = s.x0; i < s.x1; i++) {
            double share = coverage(marker_distance(shape, i + 0.5 - x, j + 0.5 - y, radius));
            if (share > 0)
                blend(c, i, j, colour, share);
        }
}

// Puts a letter's picture down with the pen at the integer (x, y).
static void draw_glyph(struct canvas *c, const struct glyph *g, int x, int y, bool upwards,
                       struct colour colour) {
    for (int j = 0; j < g->height; j++)
        for (int i = 0; i < g->width; i++) {
            int right = g->left + i, down = g->top + j;
            int px = upwards ? x + down : x + right, py = upwards ? y - right - 1 : y + down;
            if (px < c->clip.x0 || py < c->clip.y0 || px >= c->clip.x1 || py >= c->clip.y1)
                continue;
            blend(c, px, py, colour, g->coverage[j * g->width + i] / 255.0);
        }
}

void canvas_text(struct canvas *c, const struct chart_font *font, double size, double x, double y,
                 enum align align, bool upwards, struct colour colour, const char *text) {
    if (!(fabs(x) < 1e6 && fabs(y) < 1e6))
        return;
    double before = chart_font_width(font, size, text) * (align == ALIGN_LEFT     ? 0
                                                          : align == ALIGN_CENTRE ? 0.5
                                                                                  : 1);
    // The pen runs along `at`; upwards that is minus y.
    double at = (upwards ? -y : x) - before;
    long line = lround(upwards ? x : y);
    for (int32_t code; (code = text_next(&text));) {
        double pen = floor(at);
        struct glyph g = chart_font_glyph(font, size, at - pen, code);
        if (g.coverage)
            draw_glyph(c, &g, upwards ? (int)line : (int)pen, upwards ? (int)-pen : (int)line,
                       upwards, colour);
        at += g.advance;
        glyph_free(&g);
    }
}

static void write_to_stream(void *stream, void *data, int size) {
    fwrite(data, 1, (size_t)size, stream);
}

bool canvas_write_png(const struct canvas *c, const char *path, struct error *err) {
    struct file_writer w;
    if (!folder_create_for(path, err) || !file_writer_open(&w, path, err))
        return false;
    if (stbi_write_png_to_func(write_to_stream, w.stream, c->width, c->height, 3, c->pixels,
                               3 * c->width))
        return file_writer_commit(&w, err);
    file_writer_abort(&w);
    return error_set(err, "%s: out of memory for the PNG", path);
}
