// The products of matmul_weave.h in AMX tiles of int8, for many tokens.
//
//     a tile of activations      a tile of codes               a tile of sums
//     16 tokens × 64 columns     16 quads (weave.h) × 16 rows  16 tokens × 16 rows
//
// One instruction adds 16 * 16 * 64 products, exactly, in int32. A unit of 64 or 128 columns is one
// or two of them (with a few tokens, one of 16 or 32 is a part of one); then its sums are
// multiplied by the scales of both sides, with the operations and in the order of weave_simd.h: the
// results are those of AVX-512 VNNI to the bit.
#ifndef NIBBLE_MATMUL_WEAVE_TILES_H
#define NIBBLE_MATMUL_WEAVE_TILES_H

#include "kernels/cpu/matmul_weave.h"

// Whether this CPU has tiles, the format's units fill them and they pay for so many tokens. Units
// of 32 columns do not: their sums would be multiplied by scales for longer than they are summed.
// Nor do formats with a table or scales of two levels: those go through bfloat16 (matmul_tiles.h).
bool weave_tiles_wanted(const struct weave *w, size_t m);
// Whether it has tiles and they pay for a few tokens, whatever the format's scales and tables: 5 (7
// where a unit is 16 or 32 columns) to 16, or to 32 where a unit is 32 columns or more and more
// tokens do not want tiles by the above. Then
// weave_few_rows makes rows [row, row + n) of a job's result, row a multiple of 16.
bool weave_few_wanted(const struct weave *w, size_t m);
void weave_few_rows(const struct weave_job *job, const struct weave_x *x, size_t row, size_t n);
// matmul_weave for jobs that all want tiles; false when memory is short (y may be written in part).
bool matmul_weave_tiles(const struct weave_job *jobs, size_t n_jobs, const struct weave_x *x);

// Nothing but products of tiles that are in registers, 4 * steps of them: returns the operations,
// to be timed as this CPU's limit. 0 where there are no tiles.
double weave_tiles_operations(size_t steps);
// The same with every tile loaded from the L1 cache, as the products' inner loop does. Where a
// neighbour shares the core, loads slow down much more than products do.
double weave_tiles_fed_operations(size_t steps);

#endif
