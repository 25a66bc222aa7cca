// Large arrays on large pages: a matrix product touches many rows of many arrays at once, and with
// pages of 4 KiB the processor spends 4 % of training looking up where they are.
#ifndef NIBBLE_TRAIN_PAGES_H
#define NIBBLE_TRAIN_PAGES_H

#include <stddef.h>

#include "core/error.h"

// n zeroed floats, on pages of 2 MiB where the kernel gives them; 64-byte aligned at least. Free
// with free(). NULL and a message naming `what` when n floats do not fit.
float *pages_alloc(size_t n, const char *what, struct error *err);

#endif
