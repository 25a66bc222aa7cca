// CSV files read back (RFC 4180): the rows that charts and write-ups show.
#ifndef NIBBLE_REPORT_CSV_H
#define NIBBLE_REPORT_CSV_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

struct csv {
    char *text, **fields; // [rows, cols]; fields point into text; row 0 is the header
    size_t rows, cols, n, capacity;
};

// Reads a file of at most 16 MiB; every row must have the header's number of fields.
bool csv_read(struct csv *c, const char *path, struct error *err);
void csv_free(struct csv *c);
// The field of data row `row` (0: the first behind the header) under that heading; "" if there is
// no such column.
const char *csv_text(const struct csv *c, size_t row, const char *column);
// The same as a number; NaN if it is empty or none.
double csv_number(const struct csv *c, size_t row, const char *column);

#endif
