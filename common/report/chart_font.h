// Letters for charts: outlines from DejaVu Sans by stb_truetype, or, where that is not installed,
// a built-in bitmap font of 5 x 7 dots (ASCII; what it lacks becomes a near letter or '?').
#ifndef NIBBLE_REPORT_CHART_FONT_H
#define NIBBLE_REPORT_CHART_FONT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

struct chart_font;

// file: "DejaVuSans.ttf", looked for where distributions keep it. NULL, or a file that is not
// found: the built-in font. Returns NULL only when memory is short.
struct chart_font *chart_font_open(const char *file, struct error *err);
void chart_font_close(struct chart_font *f);

// The picture of one letter; (left, top) from the pen on the baseline, y growing downwards.
struct glyph {
    int width, height, left, top;
    double advance;
    unsigned char *coverage; // [height, width], owned; NULL for a blank
};
// size: of the em in pixels; shift: of the pen within its pixel, 0 … 1.
struct glyph chart_font_glyph(const struct chart_font *f, double size, double shift, int32_t code);
void glyph_free(struct glyph *g);
double chart_font_advance(const struct chart_font *f, double size, int32_t code);
double chart_font_width(const struct chart_font *f, double size, const char *text);

// Takes one letter off *text: 0 at the end, U+FFFD for a broken one, ' ' for control characters.
int32_t text_next(const char **text);

// Rows of the built-in letters ' ' … '~', the leftmost dot in bit 4.
enum { GLYPH_FIRST = ' ', GLYPH_LAST = '~' };
extern const unsigned char chart_glyphs[GLYPH_LAST - GLYPH_FIRST + 1][7];

#endif
