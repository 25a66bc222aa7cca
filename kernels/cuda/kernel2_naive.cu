// Kernel 2: one thread per row reads its weights one after another, unpacks each, multiplies.
//
// Nothing is written but the result, so per INT4 weight half a byte should move. But the 32 threads
// of a warp are in 32 rows, K/2 bytes apart: one load instruction touches 32 sectors of 32 bytes to
// use one byte of each. L1 keeps some of them for the next turns; with 8 warps of 32 rows there are
// more lines in use than it holds.
//
//     thread 0   ▪ · · · · · ·      each row's threads far apart,
//     thread 1   ▪ · · · · · ·      each ▪ a memory transaction of its own
//     thread 2   ▪ · · · · · ·
#include "kernels/cuda/formats.cuh"

namespace NIBBLE_CUDA {

template <class Reader>
__global__ void naive(const cuda_matrix w, const __half *x, unsigned x_stride, float *y,
                      unsigned y_stride) {
    unsigned row = blockIdx.x * blockDim.x + threadIdx.x, i = blockIdx.y;
    if (row >= w.n)
        return;
    float sum = 0;
    for (unsigned col = 0; col < w.k; col++)
        sum += Reader::at(w, row, col) * __half2float(x[(size_t)i * x_stride + col]);
    y[(size_t)i * y_stride + row] = sum;
}

template <class Reader> struct run_naive {
    static const char *run(const cuda_call *c) {
        return LAUNCH(naive<Reader>, dim3(divide_up(c->w.n, 128), c->m), dim3(128), 0, c, c->w,
                      (const __half *)c->x, c->x_stride, c->y, c->y_stride);
    }
};

const cuda_kernel kernel_naive = {2,         "",      "fused, one thread per row", 2e-6, false,
                                  takes_any, nullptr, with_reader<run_naive>};

} // namespace NIBBLE_CUDA
