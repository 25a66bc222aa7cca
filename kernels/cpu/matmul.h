// What matmul.c hands to the versions of matmul_simd.h.
#ifndef NIBBLE_MATMUL_H
#define NIBBLE_MATMUL_H

#include "kernels/cpu/kernels.h"

enum {
    MATMUL_CHUNK = 1024,    // columns unpacked at a time: 4 KB of float32 a row
    MATMUL_PANEL_ROWS = 60, // rows unpacked at a time: a panel fits the L2 cache
    MATMUL_PANEL_STRIDE =
        MATMUL_CHUNK + 16 // a cache line more, so that rows fall into different sets
};

struct matmul_job {
    float *y;
    const float *x;
    size_t y_stride, x_stride, m;
    const struct weight_source *w;
    const float *bias;
};

#endif
