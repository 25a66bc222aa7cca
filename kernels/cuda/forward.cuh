// What the operations of forward.h share.
#ifndef NIBBLE_FORWARD_CUH
#define NIBBLE_FORWARD_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/forward.h"

namespace NIBBLE_CUDA {

// To float16; finite values stay finite, NaN stays NaN.
__device__ __forceinline__ __half narrow(float v) {
    const float size = fabsf(v);
    return __float2half_rn(size > 65504.0f && size < INFINITY ? copysignf(65504.0f, v) : v);
}

// Two neighbours as an mma operand wants them, the first in the low half.
__device__ __forceinline__ unsigned narrow_pair(float x, float y) {
    return bits_as<unsigned>(__halves2half2(narrow(x), narrow(y)));
}

// The sum over the block of up to 1024 threads, in every thread: within warps first, then over the
// warps in order. shared: 32 floats, free again after the next barrier.
__device__ __forceinline__ float block_sum(float v, float *shared) {
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    v = warp_sum(v);
    if (lane == 0)
        shared[warp] = v;
    __syncthreads();
    float sum = 0;
    for (unsigned i = 0; i < blockDim.x / 32; i++)
        sum += shared[i];
    __syncthreads();
    return sum;
}

extern const cuda_ops ops;
const char *embed(const cuda_launch *l, const cuda_embed *a);
const char *norm(const cuda_launch *l, const cuda_norm *a);
const char *angles(const cuda_launch *l, const cuda_angles *a);
const char *heads(const cuda_launch *l, const cuda_heads *a);
const char *attend(const cuda_launch *l, const cuda_attend *a);
const char *activate(const cuda_launch *l, const cuda_activate *a);
const char *round_rows(const cuda_launch *l, const cuda_round *a);
const char *narrow_rows(const cuda_launch *l, const cuda_narrow *a);
const char *add_bias(const cuda_launch *l, const cuda_bias *a);
const char *sample_next(const cuda_launch *l, const cuda_sample_next *a);

} // namespace NIBBLE_CUDA

#endif
