// Rows of the formats, spelled out for weaving and back; for woven.c only.
#ifndef NIBBLE_QUANT_WOVEN_ROWS_H
#define NIBBLE_QUANT_WOVEN_ROWS_H

#include "core/tensor.h"
#include "kernels/cpu/weave.h"

// Row i of w, whose format woven_kind knows.
void woven_row_read(const struct tensor *w, size_t i, struct weave_row *row);
// The other way: row i of a matrix at `data` that is [N, K] in w's format, by any thread. Planes
// were zeros before.
void woven_row_write(const struct tensor *w, size_t i, const struct weave_row *row, void *data);
// Bytes from one row's codes (or blocks) to the next's.
size_t woven_row_bytes(const struct tensor *w);

#endif
