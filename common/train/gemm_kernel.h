// The innermost loop of a matrix product: a tile of c, kept in registers, takes one outer product
// per step of k.
//
//                      b: one row of the packed panel, WIDTH floats
//                      [ b0 ][ b1 ]
//     a: ROWS   a0 ->  [c00 ][c01 ]     each step: load b0 b1, broadcast each a, and
//     scalars   a1 ->  [c10 ][c11 ]     ROWS × 2 fused multiply-adds: 24 for 12 × 32
//               ...
//
// A tile of ROWS × WIDTH costs ROWS + WIDTH loads per ROWS * WIDTH multiply-adds, so the tile is as
// large as the register file allows.
#ifndef NIBBLE_TRAIN_GEMM_KERNEL_H
#define NIBBLE_TRAIN_GEMM_KERNEL_H

#include <stdbool.h>
#include <stddef.h>

// c[rows, width] = (c +) Σ_k a(i, k) b[k][width]; a(i, k) = a[i * a_row + k * a_column].
typedef void gemm_tile(size_t K, const float *a, size_t a_row, size_t a_column, const float *b,
                       bool add, float *c, size_t c_stride);

// What a CPU runs: tiles of `width` columns with as many rows as there are, then the rest. The
// order of sums in an element is the same in all three.
struct gemm_kernel {
    size_t width;
    struct {
        size_t rows;
        gemm_tile *tile;
    } tiles[3]; // most rows first; the last has one row
};

enum { GEMM_MAX_ROWS = 12, GEMM_MAX_WIDTH = 32 };

// The best one for this CPU.
const struct gemm_kernel *gemm_kernel_best(void);
// For tests: kernel number i of those this CPU can run, or NULL behind the last. 0 is portable.
const struct gemm_kernel *gemm_kernel_at(size_t i);

#endif
