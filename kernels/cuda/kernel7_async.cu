// Kernel 7: records come through shared memory, asynchronously, several stages ahead.
//
// Kernel 6 keeps two records per warp under way, in registers, and 24 warps on a multiprocessor:
// 50 KB. cp.async needs no register for what it fetches. A ring of up to eight records per warp
// keeps some 60 KB per block under way, two blocks on a multiprocessor. All of it is marked
// "evict first": weights are read once per token, and must not push x and the sums out of L2.
//
//     memory ──cp.async──▶ ring (shared) ──▶ registers ──▶ tensor cores
//
// Same traffic, same tiles as kernel 6. What is left: a block's first records come when nothing is
// there to multiply, its last are multiplied when nothing is under way, and with 64 records per row
// of tiles a warp has only eight.
#include "kernels/cuda/ring.cuh"

namespace NIBBLE_CUDA {

enum { WARPS = 8 };

template <class L>
__global__ void __launch_bounds__(32 * WARPS)
    async_rows(const packed_matrix w, const __half *x, unsigned m, unsigned x_stride, float *y,
               unsigned y_stride) {
    SHARED(unsigned char, shared);
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned char *records = w.records + (size_t)blockIdx.x * w.per_tile * L::BYTES;
    ring<L> stages(shared, warp, lane);
    unsigned ahead = warp;
    for (unsigned i = 0; i < ring<L>::STAGES - 1; i++, ahead += WARPS)
        stages.push(ahead < w.per_tile ? records + (size_t)ahead * L::BYTES : nullptr);
    float sum[1][4] = {};
    for (unsigned i = warp; i < w.per_tile; i += WARPS, ahead += WARPS) {
        record<L> r;
        stages.pop(r);
        stages.push(ahead < w.per_tile ? records + (size_t)ahead * L::BYTES : nullptr);
        record_multiply(r, global_x{x + i * PACKED_COLUMNS, m, x_stride, lane}, sum);
    }
    copy_wait<0>();
    __syncthreads(); // the ring becomes the place where the warps' sums meet
    float4 *slots = (float4 *)shared;
    slots[threadIdx.x] = {sum[0][0], sum[0][1], sum[0][2], sum[0][3]};
    __syncthreads();
    if (warp != 0)
        return;
    float total[1][4] = {};
    for (unsigned i = 0; i < WARPS; i++) { // in the order of the warps: the same bits every time
        const float4 s = slots[i * 32 + lane];
        total[0][0] += s.x, total[0][1] += s.y, total[0][2] += s.z, total[0][3] += s.w;
    }
    store_tile(w, blockIdx.x, lane, total, y, y_stride, m);
}

template <class L> struct run_async {
    static const char *run(const cuda_call *c) {
        packed_matrix w = packed_of(c->w);
        return LAUNCH(async_rows<L>, dim3(w.tiles), dim3(32 * WARPS), WARPS * ring<L>::BYTES, c, w,
                      (const __half *)c->x, c->m, c->x_stride, c->y, c->y_stride);
    }
};

static bool takes(const cuda_matrix *w, unsigned m) {
    return takes_packed(w, m, 8);
}

const cuda_kernel kernel_async = {
    7, "", "asynchronous copies, eight stages", 1e-5, true, takes, nullptr, with_layout<run_async>};

} // namespace NIBBLE_CUDA
