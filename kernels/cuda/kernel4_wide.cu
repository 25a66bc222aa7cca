// Kernel 4: each lane loads 16 bytes at a time, and four such loads before it uses the first.
//
// Memory answers after some 700 ns; what is under way in that time is all the bandwidth there is:
// 4.8 TB/s · 700 ns = 3.4 MB over the whole GPU, 26 KB per multiprocessor. Kernel 3 had 64 warps ·
// 32 bytes = 2 KB under way. Here it is 64 warps · 4 · 512 bytes, as far as registers last.
//
//     row 0   lane 0: 16 bytes | lane 1: 16 bytes | …    512 bytes in one instruction, four of them
//
// A chunk's scale is loaded with it. Formats whose blocks start at odd addresses (18, 34, 210
// bytes) cannot be loaded in 16-byte pieces: theirs are put together from 2-byte loads.
#include "kernels/cuda/formats.cuh"

namespace NIBBLE_CUDA {

enum { WARPS = 8, IN_FLIGHT = 4 };

template <class Reader>
__device__ __forceinline__ float dot(const typename Reader::raw &raw, const uint4 *x) {
    float sum = 0;
#pragma unroll
    for (unsigned i = 0; i < Reader::LENGTH; i += 2) {
        unsigned pair = word_of(__ldg(x + i / 8), i / 2 % 4);
        float2 both = __half22float2(bits_as<__half2>(pair));
        sum += Reader::value(raw, i) * both.x + Reader::value(raw, i + 1) * both.y;
    }
    return sum;
}

template <class Reader>
__global__ void __launch_bounds__(32 * WARPS)
    wide(const cuda_matrix w, const __half *x, unsigned x_stride, float *y, unsigned y_stride) {
    unsigned row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32, i = blockIdx.y;
    if (row >= w.n)
        return;
    const unsigned chunks = w.k / Reader::LENGTH;
    x += (size_t)i * x_stride;
    const uint4 *x4 = (const uint4 *)x;
    float sum = 0;
    unsigned chunk = lane;
    for (; chunk + 32 * (IN_FLIGHT - 1) < chunks; chunk += 32 * IN_FLIGHT) {
        typename Reader::raw raw[IN_FLIGHT];
#pragma unroll
        for (unsigned j = 0; j < IN_FLIGHT; j++)
            raw[j] = Reader::load(w, row, chunk + 32 * j);
#pragma unroll
        for (unsigned j = 0; j < IN_FLIGHT; j++)
            sum += dot<Reader>(raw[j], x4 + (chunk + 32 * j) * (Reader::LENGTH / 8));
    }
    for (; chunk < chunks; chunk += 32)
        sum += dot<Reader>(Reader::load(w, row, chunk), x4 + chunk * (Reader::LENGTH / 8));
    for (unsigned col = chunks * Reader::LENGTH + lane; col < w.k; col += 32)
        sum += Reader::at(w, row, col) * __half2float(x[col]);
    sum = warp_sum(sum);
    if (lane == 0)
        y[(size_t)i * y_stride + row] = sum;
}

template <class Reader> struct run_wide {
    static const char *run(const cuda_call *c) {
        if (!Reader::aligned(c->w) ||
            (c->w.group && c->w.group < c->w.k && c->w.group % Reader::LENGTH != 0))
            return kernel_warp.run(c); // rows of an odd length: nothing to load in 16 bytes
        return LAUNCH(wide<Reader>, dim3(divide_up(c->w.n, WARPS), c->m), dim3(32 * WARPS), 0, c,
                      c->w, (const __half *)c->x, c->x_stride, c->y, c->y_stride);
    }
};

const cuda_kernel kernel_wide = {
    4, "", "16-byte loads, four in flight", 1e-6, false, takes_any, nullptr, with_reader<run_wide>};

} // namespace NIBBLE_CUDA
