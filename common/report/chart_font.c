#include "report/chart_font.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stb/stb_truetype.h>

#include "core/file.h"
#include "core/memory.h"
#include "text/utf8.h"

struct chart_font {
    char *data; // NULL: the built-in font
    stbtt_fontinfo info;
};

static const char *const folders[] = {"/usr/share/fonts/truetype/dejavu",
                                      "/usr/share/fonts/dejavu-sans-fonts", "/usr/share/fonts/TTF"};

static bool load(struct chart_font *f, const char *folder, const char *file) {
    char path[256];
    struct error ignored;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    f->data = file_read(path, 16 << 20, NULL, &ignored);
    if (f->data && !stbtt_InitFont(&f->info, (unsigned char *)f->data, 0)) {
        free(f->data);
        f->data = NULL;
    }
    return f->data != NULL;
}

struct chart_font *chart_font_open(const char *file, struct error *err) {
    struct chart_font *f = memory_alloc(1, sizeof *f, "chart font", err);
    for (size_t i = 0; f && file && i < sizeof folders / sizeof *folders; i++)
        if (load(f, folders[i], file))
            break;
    return f;
}

void chart_font_close(struct chart_font *f) {
    if (f)
        free(f->data);
    free(f);
}

int32_t text_next(const char **text) {
    if (!**text)
        return 0;
    struct utf8_char c = utf8_read(*text, strnlen(*text, 4));
    *text += c.size;
    return c.code < ' ' || c.code == 127 ? ' ' : (int32_t)c.code;
}

// The built-in letter nearest to code; *raised for superscripts.
static int nearest_ascii(int32_t code, bool *raised) {
    static const struct {
        int32_t code;
        char ascii;
    } near[] = {{0x2212, '-'}, {0x2013, '-'}, {0x2014, '-'}, {0xd7, 'x'},
                {0xb5, 'u'},   {0x3bc, 'u'},  {0xb7, '.'},   {0x2026, '.'}};
    static const int32_t superscripts[] = {0x2070, 0xb9,   0xb2,   0xb3,   0x2074, 0x2075,
                                           0x2076, 0x2077, 0x2078, 0x2079, 0x207b};
    *raised = false;
    if (code >= GLYPH_FIRST && code <= GLYPH_LAST)
        return code;
    for (size_t i = 0; i < sizeof near / sizeof *near; i++)
        if (near[i].code == code)
            return near[i].ascii;
    for (int i = 0; i < 11; i++)
        if (superscripts[i] == code) {
            *raised = true;
            return i < 10 ? '0' + i : '-';
        }
    return '?';
}

// Dots of the built-in font are squares of this many pixels; its capitals are 7 dots high, those of
// DejaVu 0.73 em.
static int dot_size(double size) {
    int dot = (int)lround(0.73 * size / 7 + 0.1); // 14 pixels, of labels, get two
    return dot > 1 ? dot : 1;
}

static struct glyph dot_glyph(double size, int32_t code) {
    bool raised;
    int dot = dot_size(size);
    int letter = nearest_ascii(code, &raised);
    const unsigned char *rows = chart_glyphs[letter - GLYPH_FIRST];
    struct glyph g = {.width = 5 * dot, .height = 7 * dot, .top = -7 * dot};
    g.advance = 6 * dot;
    g.top += raised ? -3 * dot : strchr("gpqy", letter) ? 2 * dot : 0;
    g.coverage = memory_alloc((size_t)(g.width * g.height), 1, "glyph", NULL);
    for (int y = 0; g.coverage && y < g.height; y++)
        for (int x = 0; x < g.width; x++)
            if (rows[y / dot] >> (4 - x / dot) & 1)
                g.coverage[y * g.width + x] = 255;
    return g;
}

double chart_font_advance(const struct chart_font *f, double size, int32_t code) {
    if (!f->data)
        return 6 * dot_size(size);
    double scale = stbtt_ScaleForMappingEmToPixels(&f->info, (float)size);
    int advance, bearing;
    stbtt_GetCodepointHMetrics(&f->info, code, &advance, &bearing);
    return scale * advance;
}

struct glyph chart_font_glyph(const struct chart_font *f, double size, double shift, int32_t code) {
    if (!f->data)
        return dot_glyph(size, code);
    float scale = stbtt_ScaleForMappingEmToPixels(&f->info, (float)size);
    struct glyph g = {.advance = chart_font_advance(f, size, code)};
    unsigned char *own = stbtt_GetCodepointBitmapSubpixel(
        &f->info, scale, scale, (float)shift, 0, code, &g.width, &g.height, &g.left, &g.top);
    size_t bytes = own ? (size_t)g.width * (size_t)g.height : 0;
    if (bytes && (g.coverage = memory_alloc(bytes, 1, "glyph", NULL)))
        memcpy(g.coverage, own, bytes);
    stbtt_FreeBitmap(own, NULL);
    return g;
}

void glyph_free(struct glyph *g) {
    free(g->coverage);
    g->coverage = NULL;
}

double chart_font_width(const struct chart_font *f, double size, const char *text) {
    double width = 0;
    for (int32_t code; (code = text_next(&text));)
        width += chart_font_advance(f, size, code);
    return width;
}
