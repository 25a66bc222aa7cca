// What the kernel files share with the backend: the rungs, and how a launch ends. For this folder.
//
// Every .cu file is compiled twice: by nvcc for the GPU, and as C++ with the emulator. Each build
// has a namespace of its own, so that both fit into one program.
#ifndef NIBBLE_LADDER_H
#define NIBBLE_LADDER_H

#include <string.h>

#include "kernels/cuda/cuda.h"

#ifdef __CUDACC__
#define NIBBLE_CUDA on_gpu
#else
#define NIBBLE_CUDA emulated
#endif

namespace NIBBLE_CUDA {

extern const cuda_kernel kernel_dequantize, kernel_naive, kernel_warp, kernel_wide, kernel_half2,
    kernel_dp4a, kernel_packed, kernel_async, kernel_stream, kernel_batch, kernel_wgmma,
    kernel_int8;

#ifdef __CUDACC__
// Raises the kernel's limit of dynamic shared memory where a launch needs more than 48 KB.
void cuda_allow_shared(const void *kernel, size_t bytes);
const char *cuda_launched(const char *kernel);
// Compute capability 9.0: code for sm_90a runs on no other.
bool cuda_is_hopper();
// c[m, n] = x[m, k] · wᵀ through cuBLAS, w [n, k] in halves; a message if it is not to be had.
const char *cublas_matmul(const cuda_call *call, const void *w, unsigned w_stride);
#else
const char *emulate_launched(const char *kernel, const char *message);
// Calls run(launch), or keeps the bytes of `launch` (which must be copyable as such) for the graph.
const char *emulate_graph_add(const void *launch, size_t bytes,
                              const char *(*run)(const void *launch));
#endif

extern const cuda_ops ops; // op_rows.cu

inline unsigned divide_up(size_t a, size_t b) {
    return (unsigned)((a + b - 1) / b);
}

} // namespace NIBBLE_CUDA

#endif
