// Kernel 6: weights and scales re-laid out once, in the order in which they are read, so that all a
// warp needs next is the next kilobyte; and the tensor cores multiply.
//
// A file's layout is made for files: codes in one place, scales in another, nibbles in an order
// that has to be undone. pack.c writes records of 16 rows by 128 columns in which a lane's 16 bytes
// are just the weights that the tensor cores want from that lane. With one row of x, seven of their
// eight columns are wasted, but what used to be 32 multiply-adds, additions and conversions is now
// one instruction, sums are in float32, and up to eight rows of x cost nothing more.
//
//     block: 16 rows of w     warp 0: record 0, 8, 16 …   warp 1: record 1, 9, 17 …
//
// Traffic per INT4 weight (groups of 128): 0.516 bytes, in loads of 512 bytes. Two records are
// under way per warp: more would need more registers.
#include "kernels/cuda/packed.cuh"

namespace NIBBLE_CUDA {

enum { WARPS = 8 };

// The warps' sums of one tile, added up in the order of the warps: the same bits every time.
__device__ __forceinline__ void add_warps(float *shared, const float (&sum)[1][4],
                                          float (&total)[1][4]) {
    float4 *slots = (float4 *)shared;
    slots[threadIdx.x] = {sum[0][0], sum[0][1], sum[0][2], sum[0][3]};
    __syncthreads();
    for (unsigned i = 0; i < 4; i++)
        total[0][i] = 0;
    for (unsigned warp = 0; warp < WARPS && threadIdx.x < 32; warp++) {
        const float4 s = slots[warp * 32 + threadIdx.x];
        total[0][0] += s.x, total[0][1] += s.y, total[0][2] += s.z, total[0][3] += s.w;
    }
}

template <class L>
__global__ void __launch_bounds__(32 * WARPS)
    packed_rows(const packed_matrix w, const __half *x, unsigned m, unsigned x_stride, float *y,
                unsigned y_stride) {
    SHARED(float, shared);
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned char *records = w.records + (size_t)blockIdx.x * w.per_tile * L::BYTES;
    float sum[1][4] = {}, total[1][4];
    record<L> now, next;
    if (warp < w.per_tile)
        record_load<L, true>(next, records + (size_t)warp * L::BYTES, lane);
    for (unsigned i = warp; i < w.per_tile; i += WARPS) {
        now = next;
        if (i + WARPS < w.per_tile)
            record_load<L, true>(next, records + (size_t)(i + WARPS) * L::BYTES, lane);
        record_multiply(now, global_x{x + i * PACKED_COLUMNS, m, x_stride, lane}, sum);
    }
    add_warps(shared, sum, total);
    if (warp == 0)
        store_tile(w, blockIdx.x, lane, total, y, y_stride, m);
}

template <class L> struct run_packed {
    static const char *run(const cuda_call *c) {
        packed_matrix w = packed_of(c->w);
        return LAUNCH(packed_rows<L>, dim3(w.tiles), dim3(32 * WARPS), 32 * WARPS * sizeof(float4),
                      c, w, (const __half *)c->x, c->m, c->x_stride, c->y, c->y_stride);
    }
};

static bool takes(const cuda_matrix *w, unsigned m) {
    return takes_packed(w, m, 8);
}

const cuda_kernel kernel_packed = {6,     "",      "re-laid out in reading order", 1e-5, true,
                                   takes, nullptr, with_layout<run_packed>};

} // namespace NIBBLE_CUDA
