// The parts of the expander: where code and tables come from. Private to report/.
#ifndef NIBBLE_REPORT_EXPAND_PART_H
#define NIBBLE_REPORT_EXPAND_PART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "core/error.h"

// A text file cut into lines; each line ends in NUL in place of its newline.
struct text_lines {
    char *text, **lines;
    size_t n;
};
bool text_lines_read(struct text_lines *t, const char *path, struct error *err);
void text_lines_free(struct text_lines *t);

// The lines [*first, *end) of a source file that `part` names: "fn:name", "struct:name",
// "enum:name", an anchor, or NULL for all of them.
bool expand_find_part(const struct text_lines *t, const char *path, const char *part, size_t *first,
                      size_t *end, struct error *err);
// Whether the line is a comment that opens or closes an anchor.
bool expand_is_anchor(const char *line);

// A CSV file as a markdown table; columns: a comma-separated choice, or NULL for all.
bool expand_print_csv(const char *path, const char *columns, FILE *f, struct error *err);

#endif
