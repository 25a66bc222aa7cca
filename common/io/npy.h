// NumPy's .npy, float32 matrices only: how logits leave for a comparison elsewhere.
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#ifndef NIBBLE_IO_NPY_H
#define NIBBLE_IO_NPY_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

// Writes data [rows, cols]; "-" is stdout.
bool npy_write_f32(const char *path, const float *data, size_t rows, size_t cols,
                   struct error *err);
// Reads a C-ordered little-endian float32 array of two dimensions (or one, as one row); the caller
// frees it.
float *npy_read_f32(const char *path, size_t *rows, size_t *cols, struct error *err);

#endif
