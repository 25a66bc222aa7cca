// Kernel 9: batches. For more than 64 rows of x the weights are no longer what takes the time: each
// is multiplied more often than it is read. Now x has to come through shared memory too.
//
//     block: 64 or 128 rows of w (16 per warp) by 64 rows of x, in steps of 128 columns
//
//                      x: 64 rows, 128 columns, shared by all warps
//     w: warp 0, 16 rows  ┌────────────────┐
//        warp 1           │  64 products   │   per step and warp, and one dequantization of its
//        …                │  of 16 × 8 × 16│   16 rows for all of them
//                         └────────────────┘
//
// The weights of a warp come the same way, in two stages. x lies in rows of 320 bytes:
// with 256 the eight lanes that load together would all want the same banks, with 64 more each pair
// of rows has banks of its own.
//
// Traffic: the weights once for every 64 rows of x, x once for every 64 or 128 rows of w; L2 serves
// most of the second readings.
#include "kernels/cuda/packed.cuh"

namespace NIBBLE_CUDA {

enum { TILES = 8, X_ROWS = 8 * TILES, X_PITCH = 320, X_STAGES = 2 };

template <class L> struct batch_shape {
    static constexpr unsigned WARPS = L::BITS == 16 ? 4 : 8;
    static constexpr unsigned STAGE = X_ROWS * X_PITCH + WARPS * L::BYTES; // bytes
};

// Copies the block's part of x, columns [col, col + 128); rows from m on become 0.
__device__ __forceinline__ void fetch_x(unsigned char *to, const __half *x, unsigned row0,
                                        unsigned m, unsigned x_stride, unsigned col) {
    for (unsigned i = threadIdx.x; i < X_ROWS * 16; i += blockDim.x) {
        const unsigned row = i / 16, piece = i % 16, from = min(row0 + row, m - 1);
        copy_async<false>(to + row * X_PITCH + piece * 16,
                          x + (size_t)from * x_stride + col + piece * 8, row0 + row < m ? 16 : 0);
    }
}

template <class L>
__device__ __forceinline__ void fetch_record(unsigned char *to, const unsigned char *record,
                                             unsigned lane) {
    for (unsigned i = lane * 16; i < L::BYTES; i += 32 * 16)
        copy_async<false>(to + i, record + i);
}

struct shared_x {
    const unsigned char *x;
    unsigned lane;
    __device__ __forceinline__ uint4 operator()(unsigned tile, unsigned pair) const {
        return *(const uint4 *)(x + (tile * 8 + lane / 4) * X_PITCH + pair * 64 + lane % 4 * 16);
    }
};

template <class L>
__global__ void __launch_bounds__(32 * batch_shape<L>::WARPS)
    batch(const packed_matrix w, const __half *x, unsigned m, unsigned x_stride, float *y,
          unsigned y_stride) {
    constexpr unsigned WARPS = batch_shape<L>::WARPS, STAGE = batch_shape<L>::STAGE;
    SHARED(unsigned char, shared);
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, row0 = blockIdx.y * X_ROWS;
    const unsigned tile_row = blockIdx.x * WARPS + warp;
    // Warps behind the last tile row load and multiply the last one again, and store nothing.
    const unsigned char *records =
        w.records + (size_t)min(tile_row, w.tiles - 1) * w.per_tile * L::BYTES;
    auto fetch = [&](unsigned step) {
        unsigned char *stage = shared + step % X_STAGES * STAGE;
        fetch_x(stage, x, row0, m, x_stride, step * PACKED_COLUMNS);
        fetch_record<L>(stage + X_ROWS * X_PITCH + warp * L::BYTES,
                        records + (size_t)step * L::BYTES, lane);
    };
    float sum[TILES][4] = {};
    fetch(0);
    copy_commit();
    for (unsigned step = 0; step < w.per_tile; step++) {
        if (step + 1 < w.per_tile)
            fetch(step + 1);
        copy_commit();
        copy_wait<1>();
        __syncthreads(); // this step's x is here, whoever copied it
        const unsigned char *stage = shared + step % X_STAGES * STAGE;
        record<L> r;
        record_load<L, false>(r, stage + X_ROWS * X_PITCH + warp * L::BYTES, lane);
        record_multiply(r, shared_x{stage, lane}, sum);
        __syncthreads(); // all have used it: it may be filled again
    }
    if (tile_row < w.tiles)
        store_tile(w, tile_row, lane, sum, y + (size_t)row0 * y_stride, y_stride,
                   min(m - row0, (unsigned)X_ROWS));
}

template <class L> struct run_batch {
    static const char *run(const cuda_call *c) {
        constexpr unsigned WARPS = batch_shape<L>::WARPS;
        packed_matrix w = packed_of(c->w);
        return LAUNCH(batch<L>, dim3(divide_up(w.tiles, WARPS), divide_up(c->m, X_ROWS)),
                      dim3(32 * WARPS), X_STAGES * batch_shape<L>::STAGE, c, w,
                      (const __half *)c->x, c->m, c->x_stride, c->y, c->y_stride);
    }
};

static bool takes(const cuda_matrix *w, unsigned m) {
    return takes_packed(w, m, ~0u);
}

const cuda_kernel kernel_batch = {
    9, "", "tensor-core product for batches", 1e-5, true, takes, nullptr, with_layout<run_batch>};

} // namespace NIBBLE_CUDA
