// Kernel 5, int8 variant: activations become int8 as well, and dp4a multiplies four pairs of bytes
// and adds them up in one instruction, exactly.
//
// x is quantized once, in groups of 32: scale = max|x| / 127. Nibbles need only be separated into
// bytes, word & 0x0f0f0f0f and (word >> 4) & 0x0f0f0f0f: less than one instruction per weight. The
// zero point comes off at the end, since Σ (q - z) x = Σ q x - z Σ x: so x brings its sums along.
//
//     of 32 columns of x in the workspace:   0  int8 x[32]   32  float scale   36  int Σ x   40
#include "kernels/cuda/formats.cuh"

namespace NIBBLE_CUDA {

enum { WARPS = 8, IN_FLIGHT = 4, CHUNK = 32 };

struct chunk_i8 {
    int x[CHUNK / 4];
    float scale;
    int sum;
};

// A warp per chunk, a lane per column.
__global__ void quantize_x(const __half *x, unsigned x_stride, unsigned chunks, chunk_i8 *out) {
    unsigned chunk = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (chunk >= chunks)
        return;
    float v = __half2float(x[(size_t)blockIdx.y * x_stride + chunk * CHUNK + lane]);
    float largest = fabsf(v);
    for (int step = 16; step; step /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
    float scale = largest / 127;
    int code = scale > 0 ? __float2int_rn(v / scale) : 0, sum = code;
    for (int step = 16; step; step /= 2)
        sum += __shfl_xor_sync(~0u, sum, step);
    chunk_i8 *mine = out + (size_t)blockIdx.y * chunks + chunk;
    ((signed char *)mine->x)[lane] = (signed char)code;
    if (lane == 0) {
        mine->scale = scale;
        mine->sum = sum;
    }
}

// A chunk of 32 weights: one load of INT4, two of INT8.
template <class Reader> struct chunk_of_weights {
    typename Reader::raw raw[CHUNK / Reader::LENGTH];
};

__device__ __forceinline__ float dot_i8(const chunk_of_weights<read_int4> &w, const chunk_i8 &x) {
    int sum = 0;
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        unsigned word = word_of(w.raw[0].codes, i);
        sum = __dp4a((int)(word & 0x0f0f0f0f), x.x[i], sum);
        sum = __dp4a((int)(word >> 4 & 0x0f0f0f0f), x.x[4 + i], sum);
    }
    return w.raw[0].scale * x.scale * (float)(sum - (int)w.raw[0].zero * x.sum);
}

__device__ __forceinline__ float dot_i8(const chunk_of_weights<read_int8> &w, const chunk_i8 &x) {
    int sum = 0;
#pragma unroll
    for (unsigned i = 0; i < 8; i++)
        sum = __dp4a((int)word_of(w.raw[i / 4].codes, i % 4), x.x[i], sum);
    return w.raw[0].scale * x.scale * (float)sum;
}

template <class Reader>
__global__ void __launch_bounds__(32 * WARPS)
    dp4a_rows(const cuda_matrix w, const chunk_i8 *x, float *y, unsigned y_stride) {
    const unsigned row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    const unsigned i = blockIdx.y, chunks = w.k / CHUNK, loads = CHUNK / Reader::LENGTH;
    if (row >= w.n)
        return;
    x += (size_t)i * chunks;
    float sum = 0;
    for (unsigned chunk = lane; chunk < chunks; chunk += 32 * IN_FLIGHT) {
        chunk_of_weights<Reader> some[IN_FLIGHT];
#pragma unroll
        for (unsigned j = 0; j < IN_FLIGHT; j++)
#pragma unroll
            for (unsigned l = 0; l < loads; l++)
                if (chunk + 32 * j < chunks)
                    some[j].raw[l] = Reader::load(w, row, (chunk + 32 * j) * loads + l);
#pragma unroll
        for (unsigned j = 0; j < IN_FLIGHT; j++)
            if (chunk + 32 * j < chunks)
                sum += dot_i8(some[j], x[chunk + 32 * j]);
    }
    sum = warp_sum(sum);
    if (lane == 0)
        y[(size_t)i * y_stride + row] = sum;
}

template <class Reader> static const char *run_rows(const cuda_call *c) {
    return LAUNCH(dp4a_rows<Reader>, dim3(divide_up(c->w.n, WARPS), c->m), dim3(32 * WARPS), 0, c,
                  c->w, (const chunk_i8 *)c->workspace, c->y, c->y_stride);
}

static const char *run(const cuda_call *c) {
    unsigned chunks = c->w.k / CHUNK;
    const char *failed =
        LAUNCH(quantize_x, dim3(divide_up(chunks, WARPS), c->m), dim3(32 * WARPS), 0, c,
               (const __half *)c->x, c->x_stride, chunks, (chunk_i8 *)c->workspace);
    if (failed)
        return failed;
    return c->w.format == CUDA_INT4 ? run_rows<read_int4>(c) : run_rows<read_int8>(c);
}

static size_t workspace(const cuda_call *c) {
    return (size_t)c->m * (c->w.k / CHUNK) * sizeof(chunk_i8);
}

static bool takes(const cuda_matrix *w, unsigned) {
    return (w->format == CUDA_INT4 || w->format == CUDA_INT8) && rows_aligned(*w) &&
           w->k % CHUNK == 0 && w->group % CHUNK == 0;
}

const cuda_kernel kernel_dp4a = {
    5,         "int8", "int8 activations: four products per instruction", 1.5e-2, false, takes,
    workspace, run};

} // namespace NIBBLE_CUDA
