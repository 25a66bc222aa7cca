// Single-precision matrix products, the nine tenths of training that must run at the machine's
// peak.
//
// One function serves the three products of backpropagation through y = x wᵀ, because a matrix is
// seen through two strides and transposing is exchanging them:
//
//     y  = x wᵀ     gemm(.., by_rows(x), by_columns(w), ..)
//     dx = dy w     gemm(.., by_rows(dy), by_rows(w), ..)
//     dw = dyᵀ x    gemm(.., by_columns(dy), by_rows(x), ..)
//
// Every element of the result is one chain of fused multiply-adds in an order that depends only on
// K: the result is the same, bit for bit, for any number of threads and any way of tiling M and N.
#ifndef NIBBLE_TRAIN_GEMM_H
#define NIBBLE_TRAIN_GEMM_H

#include <stdbool.h>
#include <stddef.h>

// Element (i, j) is data[i * row + j * column].
struct gemm_view {
    const float *data;
    size_t row, column;
};

// data[i][j], rows `stride` floats apart.
static inline struct gemm_view gemm_by_rows(const float *data, size_t stride) {
    return (struct gemm_view){data, stride, 1};
}

// The transpose of that.
static inline struct gemm_view gemm_by_columns(const float *data, size_t stride) {
    return (struct gemm_view){data, 1, stride};
}

enum { GEMM_BLOCK_K = 256, GEMM_BLOCK_N = 2048, GEMM_SPACE = GEMM_BLOCK_K * GEMM_BLOCK_N };

// Scratch for gemm, allocated once, and whether it may round both matrices to bfloat16 (sums stay
// in float32), where the CPU has tiles of it: gemm_tiles.h. Elsewhere products are in float32.
struct gemm_work {
    float *space; // GEMM_SPACE floats: packed blocks (2 MiB: the L2 cache)
    bool bf16;
};

// c[M, N] = a[M, K] b[K, N], or c += a b if add. Rows of c are c_stride floats apart. All threads.
void gemm(size_t M, size_t N, size_t K, struct gemm_view a, struct gemm_view b, bool add, float *c,
          size_t c_stride, struct gemm_work work);
void gemm_ref(size_t M, size_t N, size_t K, struct gemm_view a, struct gemm_view b, bool add,
              float *c, size_t c_stride);

// The parts, for a caller that has its own threads (attention): b packed once into
// gemm_packed_size(N, K) floats, then any number of products with it, each on the calling thread.
size_t gemm_packed_size(size_t N, size_t K);
void gemm_pack(size_t N, size_t K, struct gemm_view b, float *packed);
void gemm_packed(size_t M, size_t N, size_t K, struct gemm_view a, const float *packed, bool add,
                 float *c, size_t c_stride);

#endif
