// Text that has to fit: broken into lines at spaces and hyphens, and made smaller where that is not
// enough.
#ifndef NIBBLE_REPORT_CHART_TEXT_H
#define NIBBLE_REPORT_CHART_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "report/chart_font.h"

enum { TEXT_MAX_LINES = 4, TEXT_LINE = 256 };

struct text_block {
    size_t n_lines;
    char lines[TEXT_MAX_LINES][TEXT_LINE];
    double size;
    bool whole; // nothing was cut off, and no word was broken
};

// The largest size in [min_size, size] in which text takes at most max_lines lines of `width`
// pixels; where there is none, at min_size with words broken and the rest cut off behind an '…'.
struct text_block text_fit(const struct chart_font *f, const char *text, double size,
                           double min_size, double width, size_t max_lines);
double text_block_width(const struct chart_font *f, const struct text_block *b);
// From one baseline to the next.
double text_line_height(double size);

#endif
