// Inside attention only: how queries are cut into tiles, and the memory of one thread.
//
// A tile of TILE queries meets all keys up to its last query:
//
//     keys →    0 ......... first ... last
//     query      visible      | ▙        the triangle on the right is masked: P = 0
//     first …    visible      | ▜▙
#ifndef NIBBLE_TRAIN_ATTENTION_TILE_H
#define NIBBLE_TRAIN_ATTENTION_TILE_H

#include "train/attention.h"
#include "train/gemm.h"

enum { ATTENTION_TILE = 60 }; // five register tiles of twelve rows

// One thread's scratch. Scores of a row are `stride` apart: an odd number of cache lines, since a
// power of two would map a column's elements to the same few sets of the cache.
struct attention_space {
    size_t stride;
    float *keys_t, *values_t, *keys, *values; // packed for gemm_packed; values_t, keys: gradient
    float *p, *dp;                            // [TILE][stride]
    float *query, *dout;                      // packed tiles of Q and dout, gradient only
};
struct attention_space attention_space_of(const struct attention_shape *s, float *space,
                                          size_t thread);

// One task: key/value head b of window w, and the query heads that read it.
struct attention_task {
    size_t row, group, head; // floats from token to token in qkv; A / B; the first query head
    size_t out_row;          // floats from token to token in out
    const float *q, *k, *v;  // of the window's first token
};
struct attention_task attention_task_of(const struct attention_shape *s, const float *qkv, size_t w,
                                        size_t b);

#endif
