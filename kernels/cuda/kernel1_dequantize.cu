// Kernel 1: dequantize the matrix to float16 in memory, then multiply as if it had never been
// quantized: what engines without a fused kernel do.
//
// Per INT4 weight: half a byte read, two written, two read again. The product alone moves as much
// as with a float16 model; quantizing has saved memory and cost time. Float16 weights skip the
// first step: that row is the yardstick, cuBLAS alone.
#include "kernels/cuda/formats.cuh"

namespace NIBBLE_CUDA {

template <class Reader>
__global__ void dequantize(const cuda_matrix w, __half *out, unsigned stride) {
    unsigned col = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (col < w.k)
        out[(size_t)row * stride + col] = __float2half_rn(Reader::at(w, row, col));
}

// One thread per output: the plain product, where cuBLAS is not to be had.
__global__ void multiply_halves(const __half *w, unsigned w_stride, unsigned n, unsigned k,
                                const __half *x, unsigned x_stride, float *y, unsigned y_stride) {
    unsigned row = blockIdx.x * blockDim.x + threadIdx.x, i = blockIdx.y;
    if (row >= n)
        return;
    float sum = 0;
    for (unsigned col = 0; col < k; col++)
        sum += __half2float(w[(size_t)row * w_stride + col]) *
               __half2float(x[(size_t)i * x_stride + col]);
    y[(size_t)i * y_stride + row] = sum;
}

static const char *multiply(const cuda_call *c, const void *w, unsigned w_stride) {
#ifdef __CUDACC__
    if (!cublas_matmul(c, w, w_stride))
        return nullptr;
#endif
    return LAUNCH(multiply_halves, dim3(divide_up(c->w.n, 128), c->m), dim3(128), 0, c,
                  (const __half *)w, w_stride, c->w.n, c->w.k, (const __half *)c->x, c->x_stride,
                  c->y, c->y_stride);
}

template <class Reader> struct run_dequantize {
    static const char *run(const cuda_call *c) {
        const char *failed = LAUNCH(dequantize<Reader>, dim3(divide_up(c->w.k, 256), c->w.n),
                                    dim3(256), 0, c, c->w, (__half *)c->workspace, c->x_stride);
        return failed ? failed : multiply(c, c->workspace, c->x_stride);
    }
};

static const char *run(const cuda_call *c) {
    if (c->w.format == CUDA_F16)
        return multiply(c, c->w.codes, (unsigned)(c->w.row_bytes / 2));
    return with_reader<run_dequantize>(c);
}

static size_t workspace(const cuda_call *c) {
    return (size_t)c->w.n * c->x_stride * sizeof(__half);
}

static bool takes(const cuda_matrix *w, unsigned) {
    return w->format < CUDA_FORMATS &&
           w->n < 65536; // a row is a grid line, of which there are 65535
}

const cuda_kernel kernel_dequantize = {1,         "", "dequantize, then cuBLAS", 1e-3, false, takes,
                                       workspace, run};

} // namespace NIBBLE_CUDA
