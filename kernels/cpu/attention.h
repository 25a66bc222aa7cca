// What attention.c hands to the versions of attention_simd.h and to attention_tiles.c.
#ifndef NIBBLE_ATTENTION_H
#define NIBBLE_ATTENTION_H

#include "kernels/cpu/kernels.h"

enum {
    ATTENTION_KEYS = 64,      // keys scored at a time; blocks start at multiples of it
    ATTENTION_SEGMENT = 512,  // keys one thread takes at a time when there are few queries
    ATTENTION_ROWS = 64,      // most queries times heads worked on together, without tiles
    ATTENTION_FLOATS = 32768, // of their queries or outputs: 128 KB
    // With tiles, keys and values are made tiles once for all rows, and sums come and go once for
    // all keys of a block: with 64 keys and 128 rows it took 1.15 times as long at 512 positions,
    // 1.4 times at 2048.
    ATTENTION_TILES_KEYS = 128,
    ATTENTION_TILES_ROWS = 256,
    ATTENTION_TILES_MIN = 32, // rows that fill two tiles: fewer together go without
    ATTENTION_TILES_D = 256   // heads wider than this go without, too
};

// Work for one thread: some queries of one cache, times some query heads of one key/value head.
// Row r is query r / n_heads, head r % n_heads.
struct attention_block {
    const float *k, *v; // position 0 of that key/value head
    size_t d, d_padded; // d rounded up to whole vectors; with tiles, pairs of them
    size_t n_heads, rows;
    size_t offset; // of row 0 in the call's q and out
    const struct attention_query *queries;
    int32_t first, last; // what any of the queries sees
    bool tiles;
    float q[ATTENTION_FLOATS]; // [rows][d], multiplied by the scale
};

// A softmax-weighted sum of values in the making: Σ e^(s - largest) v, and Σ e^(s - largest).
// Tiles fill whole pairs of tiles, rows up to a multiple of 32; they load and store cache lines.
struct attention_sums {
    float largest[ATTENTION_TILES_ROWS], total[ATTENTION_TILES_ROWS];
    float out[ATTENTION_FLOATS]; // [rows][d_padded]
} __attribute__((aligned(64)));

// attention_tiles.c: queries, keys, values and softmax's weights in bfloat16, sums in float32. How
// many rows a block may have, 0 where there are no tiles or heads are too wide.
size_t attention_tiles_rows(size_t d);
// The part of the block's work that lies in cached positions first … last; largest and total are
// fresh, out need not be.
void attention_tiles_segment(const struct attention_block *b, struct attention_sums *sums,
                             int32_t first, int32_t last);

#endif
