// Kernel 5: two weights with one instruction.
//
// An int-to-float conversion per weight is slow (a quarter of the rate of a multiply-add), and
// kernel 4 needs about eight instructions per weight; at 4.8 TB/s an H200 has three per INT4
// weight. But a float16 of 1024 … 2047 has its integer in its low ten bits:
//
//     0x6400 | q  is  1024 + q                   one lop3 puts two nibbles into the halves of a
//     word & 0x000f000f | 0x64006400             half2: nibbles 0 and 4 of the word
//     word & 0x00f000f0 | 0x64006400             1024 + 16 q: nibbles 1 and 5, scaled back by the
//                                                multiply-add that also takes off the zero point
//
// Nibble pairs (and byte pairs, by a byte permutation) are two columns apart, so x is put into
// shared memory in that order: columns 0 2 1 3 of every four. Products are summed in half2, eight
// to a chain, then in float32: the price of the speed, an error of about 3e-4.
#include "kernels/cuda/formats.cuh"

namespace NIBBLE_CUDA {

enum { WARPS = 8, ROWS = 4, IN_FLIGHT = 2 }; // rows per warp, chunks

__device__ __forceinline__ __half2 pair_of(unsigned bits) {
    return bits_as<__half2>(bits);
}

__device__ __forceinline__ __half2 twice(float v) {
    return __half2half2(__float2half_rn(v));
}

// Σ code · x over a chunk, codes counted from their zero point. x: the chunk's, reordered.
__device__ __forceinline__ float dot_half2(const read_int4::raw &r, const uint4 *x) {
    const unsigned magic = 0x64006400, low = 0x000f000f, high = 0x00f000f0;
    const __half2 low_zero = twice(1024 + r.zero), sixteenth = twice(0.0625f),
                  high_zero = twice(-64 - r.zero);
    __half2 sums[2] = {twice(0), twice(0)};
#pragma unroll
    for (unsigned i = 0; i < 4; i++) { // a word: columns 4i … 4i + 3 and 16 + 4i … 16 + 4i + 3
        unsigned word = word_of(r.codes, i);
        unsigned x0 = word_of(x[i / 2], i % 2 * 2), x1 = word_of(x[i / 2], i % 2 * 2 + 1);
        unsigned x2 = word_of(x[2 + i / 2], i % 2 * 2), x3 = word_of(x[2 + i / 2], i % 2 * 2 + 1);
        __half2 w0 = __hsub2(pair_of(and_or(word, low, magic)), low_zero);
        __half2 w1 = __hsub2(pair_of(and_or(word >> 8, low, magic)), low_zero);
        __half2 w2 = __hfma2(pair_of(and_or(word, high, magic)), sixteenth, high_zero);
        __half2 w3 = __hfma2(pair_of(and_or(word >> 8, high, magic)), sixteenth, high_zero);
        sums[0] = __hfma2(w1, pair_of(x1), __hfma2(w0, pair_of(x0), sums[0]));
        sums[1] = __hfma2(w3, pair_of(x3), __hfma2(w2, pair_of(x2), sums[1]));
    }
    float2 a = __half22float2(sums[0]), b = __half22float2(sums[1]);
    return r.scale * (a.x + a.y + b.x + b.y);
}

// Bytes: 0x64 above code + 128 is 1024 + 128 + code.
__device__ __forceinline__ float dot_half2(const read_int8::raw &r, const uint4 *x) {
    const __half2 zero = twice(1024 + 128);
    float sum = 0;
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        unsigned word = word_of(r.codes, i) ^ 0x80808080;
        __half2 w0 = __hsub2(pair_of(__byte_perm(word, 0x64646464, 0x4240)), zero);
        __half2 w1 = __hsub2(pair_of(__byte_perm(word, 0x64646464, 0x4341)), zero);
        // Codes to 127 times x: more than two products would waste too many of a half's ten bits.
        float2 s =
            __half22float2(__hfma2(w1, pair_of(word_of(x[i / 2], i % 2 * 2 + 1)),
                                   __hfma2(w0, pair_of(word_of(x[i / 2], i % 2 * 2)), twice(0))));
        sum += s.x + s.y;
    }
    return r.scale * sum;
}

template <class Reader>
__global__ void __launch_bounds__(32 * WARPS)
    half2_rows(const cuda_matrix w, const __half *x, unsigned x_stride, float *y,
               unsigned y_stride) {
    SHARED(__half, shared_x);
    const unsigned lane = threadIdx.x % 32, first = (blockIdx.x * WARPS + threadIdx.x / 32) * ROWS;
    const unsigned i = blockIdx.y, chunks = w.k / Reader::LENGTH;
    for (unsigned col = threadIdx.x; col < chunks * Reader::LENGTH; col += 32 * WARPS) {
        unsigned place = (col & ~3u) + (col % 2 * 2 + col / 2 % 2);
        shared_x[place] = x[(size_t)i * x_stride + col];
    }
    __syncthreads();
    const uint4 *x4 = (const uint4 *)shared_x;
    for (unsigned row = first; row < first + ROWS && row < w.n; row++) {
        float sum = 0;
        unsigned chunk = lane;
        for (; chunk + 32 * (IN_FLIGHT - 1) < chunks; chunk += 32 * IN_FLIGHT) {
            typename Reader::raw raw[IN_FLIGHT];
#pragma unroll
            for (unsigned j = 0; j < IN_FLIGHT; j++)
                raw[j] = Reader::load(w, row, chunk + 32 * j);
#pragma unroll
            for (unsigned j = 0; j < IN_FLIGHT; j++)
                sum += dot_half2(raw[j], x4 + (chunk + 32 * j) * (Reader::LENGTH / 8));
        }
        for (; chunk < chunks; chunk += 32)
            sum += dot_half2(Reader::load(w, row, chunk), x4 + chunk * (Reader::LENGTH / 8));
        sum = warp_sum(sum);
        if (lane == 0)
            y[(size_t)i * y_stride + row] = sum;
    }
}

template <class Reader> static const char *run_half2(const cuda_call *c) {
    size_t shared = c->w.k * sizeof(__half);
    return LAUNCH(half2_rows<Reader>, dim3(divide_up(c->w.n, WARPS * ROWS), c->m), dim3(32 * WARPS),
                  shared, c, c->w, (const __half *)c->x, c->x_stride, c->y, c->y_stride);
}

static const char *run(const cuda_call *c) {
    return c->w.format == CUDA_INT4 ? run_half2<read_int4>(c) : run_half2<read_int8>(c);
}

// x must fit into the 99 KB of shared memory that every card since 2020 has. Rows are whole chunks:
// a short last one has its own order of nibbles.
static bool takes(const cuda_matrix *w, unsigned) {
    unsigned length = w->format == CUDA_INT4 ? 32 : 16;
    return (w->format == CUDA_INT4 || w->format == CUDA_INT8) && rows_aligned(*w) &&
           w->k % length == 0 && w->group % length == 0 && w->k <= 48 << 10;
}

const cuda_kernel kernel_half2 = {
    5, "", "bit tricks: two weights per instruction", 2e-3, false, takes, nullptr, run};

} // namespace NIBBLE_CUDA
