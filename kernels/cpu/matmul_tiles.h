// Products in AMX tiles, for 8 tokens and more: weights of any format become bfloat16 once, a panel
// at a time, and are multiplied with activations in bfloat16; sums are float32.
//
//     a tile of activations      a tile of weights             a tile of sums
//     16 tokens × 32 columns     16 pairs of columns × 16 rows  16 tokens × 16 rows
//
// (bfloat16 weights and at most 16 tokens: turned around, tiles_few_simd.h.)
//
// One instruction adds 16 * 16 * 32 products. Scales are multiplied into the weights, so sums need
// nothing in between; rounding both sides to 8 bits of mantissa moves a product by 2^-7 at most, a
// sum of hundreds by 1e-3 of |x| |w|.
#ifndef NIBBLE_MATMUL_TILES_H
#define NIBBLE_MATMUL_TILES_H

#include <stdbool.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/weave.h"

enum tile_kind { TILE_BF16, TILE_F16, TILE_WOVEN, TILE_READ };

struct tile_job {
    enum tile_kind kind;
    size_t n;
    const uint16_t *rows16;             // TILE_BF16, TILE_F16: [n, k] as they lie in the file
    const struct weave *weave;          // TILE_WOVEN
    const struct weight_source *source; // TILE_READ: anything else
    float *y;                           // [m, n]
    size_t y_stride;
    const float *bias; // [n] or NULL
};

// Results of one matrix, in floats, of which more go around the cache (amx_simd.h).
enum { TILES_CACHED_RESULTS = 1 << 18 };

// Whether this CPU has tiles and they pay for so many tokens.
bool matmul_tiles_wanted(size_t m);
// y = x wᵀ + bias for several matrices [n, k] that share x [m, k]; false when memory is short (y
// may be written in part). Only where matmul_tiles_wanted. Sums depend on neither threads nor m.
bool matmul_tiles(const struct tile_job *jobs, size_t n_jobs, const float *x, size_t x_stride,
                  size_t m, size_t k);

// Nothing but products of tiles that are in registers, 4 * steps of them: returns the operations,
// to be timed as this CPU's limit. 0 where there are no tiles.
double matmul_tiles_operations(size_t steps);

#endif
