// Markdown tables whose columns line up in a terminal too.
//
//     | Config | PPL   |        cells are set as plain text: pipes, line ends, control bytes and
//     |:-------|------:|        broken UTF-8 are taken care of here
//     | fp16   | 9.002 |
#ifndef NIBBLE_REPORT_MARKDOWN_H
#define NIBBLE_REPORT_MARKDOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "core/error.h"

struct markdown_table {
    size_t rows, cols; // row 0 holds the titles
    char **cells;      // [rows, cols], owned; NULL is empty
    bool *left;        // [cols]: left-aligned; numbers are right-aligned
};

bool markdown_table_init(struct markdown_table *t, size_t rows, size_t cols, struct error *err);
bool markdown_table_set(struct markdown_table *t, size_t row, size_t col, const char *text,
                        struct error *err);
void markdown_table_print(const struct markdown_table *t, FILE *f);
void markdown_table_free(struct markdown_table *t);

// "806.4 kB", "5.6 MB", "1.93 GB" (powers of 1000): how every table shows a size.
enum { MARKDOWN_BYTES = 32 };
void markdown_bytes(double bytes, char out[MARKDOWN_BYTES]);

#endif
