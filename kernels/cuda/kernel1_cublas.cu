// cuBLAS for kernel 1, loaded at run time: the program needs it neither to link nor to start.
#include "kernels/cuda/ladder.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#include <dlfcn.h>

namespace on_gpu {

// From cublas_api.h, whose ABI these have been since version 11.
enum { OP_N = 0, OP_T = 1, HALF = 2, FLOAT = 0, COMPUTE_32F = 68, ALGO_DEFAULT = -1 };
enum { WORKSPACE = 32 << 20 };
typedef int create_function(void **handle);
typedef int set_stream_function(void *handle, cudaStream_t stream);
typedef int set_workspace_function(void *handle, void *workspace, size_t bytes);
typedef int gemm_function(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha,
                          const void *a, int type_a, int lda, const void *b, int type_b, int ldb,
                          const void *beta, void *c, int type_c, int ldc, int compute, int algo);

struct cublas {
    void *handle;
    set_stream_function *set_stream;
    set_workspace_function *set_workspace;
    void *workspace; // its own: cuBLAS must not allocate while a graph is captured
    gemm_function *gemm;
};

static const char *load(cublas *b) {
    const char *names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so.11", "libcublas.so"};
    void *library = nullptr;
    for (int i = 0; i < 4 && !library; i++)
        library = dlopen(names[i], RTLD_NOW);
    if (!library)
        return "cuBLAS is not installed";
    auto create = (create_function *)dlsym(library, "cublasCreate_v2");
    b->set_workspace = (set_workspace_function *)dlsym(library, "cublasSetWorkspace_v2");
    b->set_stream = (set_stream_function *)dlsym(library, "cublasSetStream_v2");
    b->gemm = (gemm_function *)dlsym(library, "cublasGemmEx");
    if (!create || !b->set_workspace || !b->set_stream || !b->gemm || create(&b->handle) ||
        cudaMalloc(&b->workspace, WORKSPACE))
        return "cuBLAS does not start";
    return nullptr;
}

// Column-major, as BLAS has it: y [n, m] = (w [k, n])ᵀ · x [k, m].
const char *cublas_matmul(const cuda_call *c, const void *w, unsigned w_stride) {
    static cublas blas;
    static const char *missing = load(&blas);
    const float one = 1, zero = 0;
    if (missing)
        return missing;
    if (blas.set_stream(blas.handle, (cudaStream_t)c->stream) || // resets the workspace
        blas.set_workspace(blas.handle, blas.workspace, WORKSPACE) ||
        blas.gemm(blas.handle, OP_T, OP_N, (int)c->w.n, (int)c->m, (int)c->w.k, &one, w, HALF,
                  (int)w_stride, c->x, HALF, (int)c->x_stride, &zero, c->y, FLOAT, (int)c->y_stride,
                  COMPUTE_32F, ALGO_DEFAULT))
        return "cuBLAS failed";
    return nullptr;
}

} // namespace on_gpu
#endif
