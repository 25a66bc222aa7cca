// What attention.c hands to the versions of attention_simd.h.
#ifndef NIBBLE_ATTENTION_H
#define NIBBLE_ATTENTION_H

#include "kernels/cpu/kernels.h"

enum {
    ATTENTION_KEYS = 64,     // keys scored at a time; blocks start at multiples of it
    ATTENTION_SEGMENT = 512, // keys one thread takes at a time when there are few queries
    ATTENTION_ROWS = 64,     // most queries times heads worked on together
    ATTENTION_FLOATS = 16384 // of their queries or outputs: 64 KB
};

// Work for one thread: some queries of one cache, times some query heads of one key/value head.
// Row r is query r / n_heads, head r % n_heads.
struct attention_block {
    const float *k, *v; // position 0 of that key/value head
    size_t d, d_padded; // d rounded up to whole vectors
    size_t n_heads, rows;
    size_t offset; // of row 0 in the call's q and out
    const struct attention_query *queries;
    int32_t first, last;       // what any of the queries sees
    float q[ATTENTION_FLOATS]; // [rows][d], multiplied by the scale
};

// A softmax-weighted sum of values in the making: Σ e^(s - largest) v, and Σ e^(s - largest).
struct attention_sums {
    float largest[ATTENTION_ROWS], total[ATTENTION_ROWS];
    float out[ATTENTION_FLOATS]; // [rows][d_padded]
};

#endif
