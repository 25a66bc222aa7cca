// Rows of the formats, spelled out for weaving; for woven.c only.
#ifndef NIBBLE_QUANT_WOVEN_ROWS_H
#define NIBBLE_QUANT_WOVEN_ROWS_H

#include "core/tensor.h"
#include "kernels/cpu/weave.h"

// Row i of w, whose format woven_kind knows.
void woven_row_read(const struct tensor *w, size_t i, struct weave_row *row);
// Bytes from one row's codes (or blocks) to the next's.
size_t woven_row_bytes(const struct tensor *w);

#endif
