#include "report/chart_text.h"

#include <math.h>
#include <string.h>

// Bytes of the longest start of text that one line can take; 0 if no word fits and none may be
// broken.
static size_t line_bytes(const struct chart_font *f, const char *text, double size, double width,
                         bool break_words) {
    size_t fitting = 0, at_word = 0;
    double used = 0;
    const char *next = text;
    for (int32_t code; (code = text_next(&next));) {
        size_t end = (size_t)(next - text);
        used += chart_font_advance(f, size, code);
        if (used > width || end >= TEXT_LINE)
            break;
        fitting = end;
        if (!*next || *next == ' ' || code == '-' || code == '/' || code == '_')
            at_word = end;
    }
    if (at_word || !break_words)
        return at_word;
    if (fitting)
        return fitting;
    next = text;
    text_next(&next);
    return (size_t)(next - text);
}

static struct text_block wrap(const struct chart_font *f, const char *text, double size,
                              double width, size_t max_lines, bool break_words) {
    struct text_block b = {.size = size};
    while (*text == ' ')
        text++;
    while (*text && b.n_lines < max_lines) {
        size_t n = line_bytes(f, text, size, width, break_words);
        if (!n)
            return b;
        memcpy(b.lines[b.n_lines++], text, n); // the block is zeroed: it ends in a NUL
        text += n;
        while (*text == ' ')
            text++;
    }
    b.whole = !*text;
    return b;
}

static void end_in_ellipsis(struct text_block *b) {
    char *line = b->lines[b->n_lines - 1], *end = line + strlen(line);
    for (int letters = 2; letters && end > line; letters--) {
        end--;
        while (end > line && ((unsigned char)*end & 0xc0) == 0x80)
            end--;
    }
    strcpy(end, "…");
}

struct text_block text_fit(const struct chart_font *f, const char *text, double size,
                           double min_size, double width, size_t max_lines) {
    for (double s = size; s >= min_size; s--) {
        struct text_block b = wrap(f, text, s, width, max_lines, false);
        if (b.whole)
            return b;
    }
    struct text_block b = wrap(f, text, min_size, width, max_lines, true);
    if (!b.whole && b.n_lines)
        end_in_ellipsis(&b);
    b.whole = false;
    return b;
}

double text_block_width(const struct chart_font *f, const struct text_block *b) {
    double width = 0;
    for (size_t i = 0; i < b->n_lines; i++)
        width = fmax(width, chart_font_width(f, b->size, b->lines[i]));
    return width;
}

double text_line_height(double size) {
    return ceil(1.3 * size);
}
