// Operations on rows: embedding, norms with the residual sum, activations, conversions.
//
// Traffic of decoding is the weights'; these move kilobytes. What they cost is launches, so that
// neighbours are joined: the residual sum, its bias, the norm and the conversion to float16 are one
// kernel, and so are the biases, SiLU and product of the MLP.
#include "kernels/cuda/formats.cuh"
#include "kernels/cuda/forward.cuh"
#include "kernels/cuda/packed.h"

namespace NIBBLE_CUDA {

enum { THREADS = 256 };

// ---- embedding ----------------------------------------------------------------------------------

// One float16 weight of the packed layout: pack.c's picture, read backwards.
__device__ __forceinline__ float packed_half_at(const cuda_matrix &w, unsigned row, unsigned col) {
    const unsigned records = (w.k + PACKED_COLUMNS - 1) / PACKED_COLUMNS;
    const size_t record = (size_t)(row / PACKED_ROWS) * records + col / PACKED_COLUMNS;
    const unsigned r = row % PACKED_ROWS, c = col % PACKED_COLUMNS;
    const unsigned product = c / 32 * 2 + c % 8 / 4, lane = r % 8 * 4 + c % 32 / 8;
    const unsigned word = c % 4 / 2 * 2 + r / 8;
    return half_at((const unsigned char *)w.packed + record * PACKED_ROWS * PACKED_COLUMNS * 2,
                   ((product * 32 + lane) * 4 + word) * 2 + c % 2);
}

struct read_packed {
    static __device__ float at(const cuda_matrix &w, unsigned row, unsigned col) {
        return packed_half_at(w, row, col);
    }
};

template <class Reader> __global__ void embed_tokens(const cuda_embed a) {
    const unsigned col = blockIdx.x * blockDim.x + threadIdx.x, t = blockIdx.y;
    if (col >= a.width)
        return;
    float v = Reader::at(a.table, (unsigned)a.batch.tokens[t], col);
    if (a.places.n)
        v += read_f16::at(a.places, (unsigned)a.batch.positions[t], col);
    a.x[(size_t)t * a.width + col] = v;
}

template <class Reader> static const char *start_embed(const cuda_launch *l, const cuda_embed *a) {
    return LAUNCH(embed_tokens<Reader>, dim3(divide_up(a->width, THREADS), a->batch.n),
                  dim3(THREADS), 0, l, *a);
}

const char *embed(const cuda_launch *l, const cuda_embed *a) {
    if (!a->table.codes)
        return start_embed<read_packed>(l, a);
    switch (a->table.format) {
    case CUDA_F16:
        return start_embed<read_f16>(l, a);
    case CUDA_BF16:
        return start_embed<read_bf16>(l, a);
    case CUDA_INT8:
        return start_embed<read_int8>(l, a);
    case CUDA_INT4:
        return start_embed<read_int4>(l, a);
    case CUDA_NF4:
        return start_embed<read_nf4>(l, a);
    case CUDA_Q8_0:
        return start_embed<read_q8_0>(l, a);
    case CUDA_Q4_0:
        return start_embed<read_q4_0>(l, a);
    case CUDA_Q4_K:
        return start_embed<read_q4_k>(l, a);
    case CUDA_Q6_K:
        return start_embed<read_q6_k>(l, a);
    case CUDA_FORMATS:
        break;
    }
    return "no such format";
}

// ---- norms --------------------------------------------------------------------------------------

__device__ __forceinline__ float sum_squares(const float *x, unsigned n, float mean,
                                             float *shared) {
    float sum = 0;
    for (unsigned i = threadIdx.x; i < n; i += THREADS)
        sum += (x[i] - mean) * (x[i] - mean);
    return block_sum(sum, shared);
}

// A thread reads again only what it wrote itself: no barrier between the passes.
__global__ void __launch_bounds__(THREADS) norm_rows(const cuda_norm a) {
    SHARED(float, shared);
    const unsigned row = blockIdx.x;
    float *x = a.x + (size_t)row * a.width;
    float total = 0;
    for (unsigned i = threadIdx.x; i < a.width; i += THREADS) {
        float v = x[i];
        if (a.add)
            x[i] = v += a.add[(size_t)row * a.add_stride + i] + (a.add_bias ? a.add_bias[i] : 0);
        total += v;
    }
    if (!a.gain)
        return;
    const float mean = a.center ? block_sum(total, shared) / (float)a.width : 0;
    const float variance = sum_squares(x, a.width, mean, shared) / (float)a.width;
    const float scale = 1 / sqrtf(variance + a.eps);
    for (unsigned i = threadIdx.x; i < a.width; i += THREADS) {
        const float v = (x[i] - mean) * scale * a.gain[i] + (a.bias ? a.bias[i] : 0);
        if (a.copy)
            a.copy[(size_t)row * a.width + i] = v;
        if (a.out)
            ((__half *)a.out)[(size_t)row * a.out_stride + i] = narrow(v);
    }
    for (unsigned i = a.width + threadIdx.x; a.out && i < a.out_stride; i += THREADS)
        ((__half *)a.out)[(size_t)row * a.out_stride + i] = narrow(0);
}

const char *norm(const cuda_launch *l, const cuda_norm *a) {
    return LAUNCH(norm_rows, dim3(a->rows), dim3(THREADS), 32 * sizeof(float), l, *a);
}

// ---- activations --------------------------------------------------------------------------------

__device__ __forceinline__ float biased(const float *x, const float *bias, size_t row,
                                        unsigned stride, unsigned i) {
    return x[row * stride + i] + (bias ? bias[i] : 0);
}

__global__ void activate_rows(const cuda_activate a) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (i >= a.out_stride)
        return;
    float v = 0;
    if (i < a.width) {
        const float up = biased(a.up, a.up_bias, row, a.stride, i);
        if (a.kind == CUDA_SILU_MUL) {
            const float gate = biased(a.gate, a.gate_bias, row, a.stride, i);
            v = gate / (1 + expf(-gate)) * up;
        } else {
            v = 0.5f * up * (1 + tanhf(0.7978845608f * (up + 0.044715f * up * up * up)));
        }
    }
    ((__half *)a.out)[(size_t)row * a.out_stride + i] = narrow(v);
}

const char *activate(const cuda_launch *l, const cuda_activate *a) {
    return LAUNCH(activate_rows, dim3(divide_up(a->out_stride, THREADS), a->rows), dim3(THREADS), 0,
                  l, *a);
}

// ---- conversions --------------------------------------------------------------------------------

__global__ void __launch_bounds__(THREADS) round_to_int8(const cuda_round a) {
    SHARED(float, shared);
    const __half *x = (const __half *)a.x + (size_t)blockIdx.x * a.stride;
    __half *out = (__half *)a.out + (size_t)blockIdx.x * a.stride;
    float largest = 0;
    for (unsigned i = threadIdx.x; i < a.width; i += THREADS)
        largest = fmaxf(largest, fabsf(__half2float(x[i])));
    for (int step = 16; step; step /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = largest;
    __syncthreads();
    for (unsigned i = 0; i < THREADS / 32; i++)
        largest = fmaxf(largest, shared[i]);
    const float scale = largest / 127;
    for (unsigned i = threadIdx.x; i < a.width; i += THREADS)
        out[i] = scale > 0 ? narrow(rintf(__half2float(x[i]) / scale) * scale) : x[i];
}

const char *round_rows(const cuda_launch *l, const cuda_round *a) {
    return LAUNCH(round_to_int8, dim3(a->rows), dim3(THREADS), THREADS / 32 * sizeof(float), l, *a);
}

__global__ void narrow_floats(const cuda_narrow a) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (i < a.out_stride)
        ((__half *)a.out)[(size_t)row * a.out_stride + i] =
            narrow(i < a.width ? a.x[(size_t)row * a.width + i] : 0);
}

const char *narrow_rows(const cuda_launch *l, const cuda_narrow *a) {
    return LAUNCH(narrow_floats, dim3(divide_up(a->out_stride, THREADS), a->rows), dim3(THREADS), 0,
                  l, *a);
}

__global__ void add_bias_rows(const cuda_bias a) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (i < a.width)
        a.y[(size_t)row * a.width + i] += a.bias[i];
}

const char *add_bias(const cuda_launch *l, const cuda_bias *a) {
    return LAUNCH(add_bias_rows, dim3(divide_up(a->width, THREADS), a->rows), dim3(THREADS), 0, l,
                  *a);
}

const cuda_ops ops = {embed,    norm,       angles,      heads,    attend,
                      activate, round_rows, narrow_rows, add_bias, sample_next};

} // namespace NIBBLE_CUDA
