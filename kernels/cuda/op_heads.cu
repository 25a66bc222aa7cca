// Between the product with the q, k and v matrices and attention: biases, the norms of heads
// (Qwen3), the rotation, and the cache. One warp per head and token:
//
//     qkv of token t   | q head 0 | q head 1 | … | k head 0 | … | v head 0 | … |
//                        + bias, norm, rotate      the same,      + bias,
//                        stays                     to the cache   to the cache
//
// A lane has the pairs (i, i + D/2) that the rotation turns together.
#include "kernels/cuda/forward.cuh"

namespace NIBBLE_CUDA {

__global__ void rotation_angles(const cuda_angles a) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, t = i / a.half, pair = i % a.half;
    if (t >= a.batch.n)
        return;
    double sine, cosine;
    sincos((double)a.batch.positions[t] * (double)a.inv_freq[pair], &sine, &cosine);
    a.out[2 * (size_t)i] = (float)cosine;
    a.out[2 * (size_t)i + 1] = (float)sine;
}

const char *angles(const cuda_launch *l, const cuda_angles *a) {
    return LAUNCH(rotation_angles, dim3(divide_up((size_t)a->batch.n * a->half, 128)), dim3(128), 0,
                  l, *a);
}

// 1 / sqrt(mean square + eps) of a head, its bias added.
__device__ __forceinline__ float head_scale(const float *x, const float *bias, unsigned d,
                                            float eps, unsigned lane) {
    float sum = 0;
    for (unsigned i = lane; i < d; i += 32) {
        const float v = x[i] + (bias ? bias[i] : 0);
        sum += v * v;
    }
    return 1 / sqrtf(warp_sum(sum) / (float)d + eps);
}

__global__ void __launch_bounds__(32) finish_heads(const cuda_heads a) {
    const unsigned lane = threadIdx.x, head = blockIdx.x, t = blockIdx.y, half = a.d / 2;
    const bool is_q = head < a.heads, is_v = head >= a.heads + a.kv_heads;
    float *x = a.qkv + (size_t)t * a.stride + head * a.d;
    const float *bias = a.bias ? a.bias + head * a.d : nullptr;
    const float *gain = is_v ? nullptr : is_q ? a.q_gain : a.k_gain;
    const float *turn = a.angles && !is_v ? a.angles + (size_t)t * a.d : nullptr;
    const float scale = gain ? head_scale(x, bias, a.d, a.eps, lane) : 1;
    __half *cache = nullptr;
    if (!is_q) {
        const size_t kv_head = (head - a.heads) % a.kv_heads;
        const size_t row = ((size_t)a.batch.sequences[t] * a.kv_heads + kv_head) * a.capacity;
        cache = (__half *)(is_v ? a.values : a.keys) + (row + a.batch.positions[t]) * a.d;
    }
    // The norm's sum is complete before a lane overwrites what others have read: warp_sum met.
    __syncwarp();
    for (unsigned i = lane; i < half; i += 32) {
        float low = x[i] + (bias ? bias[i] : 0), high = x[i + half] + (bias ? bias[i + half] : 0);
        if (gain)
            low *= scale * gain[i], high *= scale * gain[i + half];
        if (turn) {
            const float cosine = turn[2 * i], sine = turn[2 * i + 1], before = low;
            low = before * cosine - high * sine;
            high = high * cosine + before * sine;
        }
        if (is_q)
            x[i] = low, x[i + half] = high;
        else
            cache[i] = narrow(low), cache[i + half] = narrow(high);
    }
}

const char *heads(const cuda_launch *l, const cuda_heads *a) {
    return LAUNCH(finish_heads, dim3(a->heads + 2 * a->kv_heads, a->batch.n), dim3(32), 0, l, *a);
}

} // namespace NIBBLE_CUDA
