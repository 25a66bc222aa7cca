// Kernel 3: a warp per row. Neighbouring lanes read neighbouring weights, so a load of the warp is
// one piece of memory, every byte of it used; the 32 partial sums meet in a shuffle at the end.
//
//     row 0   0 1 2 3 … 31 | 0 1 2 …      lane that reads the weight
//
// The traffic is now what it must be: half a byte per INT4 weight, and x from L1. But 32 INT4
// weights are only 16 to 32 bytes: small transactions, a lane waiting for each before it asks for
// the next, and a dozen instructions to unpack one weight.
#include "kernels/cuda/formats.cuh"

namespace NIBBLE_CUDA {

enum { WARPS = 8 };

template <class Reader>
__global__ void warp_per_row(const cuda_matrix w, const __half *x, unsigned x_stride, float *y,
                             unsigned y_stride) {
    unsigned row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32, i = blockIdx.y;
    if (row >= w.n) // the whole warp
        return;
    float sum = 0;
    for (unsigned col = lane; col < w.k; col += 32)
        sum += Reader::at(w, row, col) * __half2float(x[(size_t)i * x_stride + col]);
    sum = warp_sum(sum);
    if (lane == 0)
        y[(size_t)i * y_stride + row] = sum;
}

template <class Reader> struct run_warp {
    static const char *run(const cuda_call *c) {
        return LAUNCH(warp_per_row<Reader>, dim3(divide_up(c->w.n, WARPS), c->m), dim3(32 * WARPS),
                      0, c, c->w, (const __half *)c->x, c->x_stride, c->y, c->y_stride);
    }
};

const cuda_kernel kernel_warp = {3,         "",      "coalesced, one warp per row", 1e-6, false,
                                 takes_any, nullptr, with_reader<run_warp>};

} // namespace NIBBLE_CUDA
