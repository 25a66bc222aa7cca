// Kernels with one mistake each, and some without, for tests/test_cuda_emulator.c.
#include "kernels/cuda/device.cuh"

using namespace NIBBLE_CUDA;

static __device__ int lane_of() {
    return (int)(threadIdx.x % 32);
}

static __global__ void barrier_in_a_branch(float *) {
    if (threadIdx.x < 40)
        __syncthreads();
}

static __global__ void two_barriers(float *) {
    if (threadIdx.x % 2)
        __syncthreads();
    else
        __syncthreads();
}

static __global__ void shuffle_without_a_lane(float *y) {
    if (threadIdx.x == 5)
        return;
    y[threadIdx.x] = __shfl_xor_sync(~0u, 1.0f, 1);
}

static __global__ void shuffle_outside_the_mask(float *y) {
    y[threadIdx.x] = __shfl_sync(threadIdx.x % 32 < 16 ? 0xffffu : 0xffff0000u, 1.0f, 20);
}

static __global__ void mask_of_others(float *y) {
    y[threadIdx.x] = __shfl_sync(0xffu, 1.0f, 0);
}

static __global__ void missing_barrier(float *y) {
    SHARED(float, s);
    s[threadIdx.x] = (float)threadIdx.x;
    y[threadIdx.x] = s[(threadIdx.x + 32) % 64];
}

static __global__ void missing_warp_barrier(float *y) {
    SHARED(float, s);
    s[threadIdx.x] = (float)threadIdx.x;
    y[threadIdx.x] = s[threadIdx.x ^ 1];
}

static __global__ void missing_second_barrier(float *y) {
    SHARED(float, s);
    for (int i = 0; i < 2; i++) {
        s[threadIdx.x] = (float)i;
        __syncthreads();
        y[threadIdx.x] = s[63 - threadIdx.x];
    }
}

static __global__ void missing_wait(float *y) {
    SHARED(float, s);
    if (lane_of() == 0)
        copy_async<false>(s + threadIdx.x / 32 * 4, y);
    copy_commit();
    __syncthreads();
    y[4 + threadIdx.x] = s[0];
}

static __global__ void unwritten_shared(float *y) {
    SHARED(float, s);
    y[threadIdx.x] = s[threadIdx.x];
}

static __global__ void too_far(float *y) {
    SHARED(float, s);
    s[threadIdx.x + 1] = 1;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];
}

// ---- right ones
// ----------------------------------------------------------------------------------

static __global__ void reverse(float *y) {
    SHARED(float, s);
    s[threadIdx.x] = y[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x];
}

static __global__ void votes(float *y) {
    bool odd = threadIdx.x % 2;
    y[threadIdx.x] = (float)(__ballot_sync(~0u, odd) == 0xaaaaaaaau) + 2 * __any_sync(~0u, odd) +
                     4 * __all_sync(~0u, odd);
}

static __global__ void shuffles(float *y) {
    float v = (float)lane_of();
    y[threadIdx.x] = __shfl_down_sync(~0u, v, 4, 8) + 100 * __shfl_up_sync(~0u, v, 1) +
                     10000 * __shfl_sync(~0u, v, 3, 8);
}

// Only the upper half of a warp takes part.
static __global__ void half_warps(float *y) {
    float v = (float)lane_of();
    if (lane_of() >= 16)
        v = __shfl_xor_sync(0xffff0000u, v, 8);
    y[threadIdx.x] = v;
}

static __global__ void counting(float *y) {
    atomicAdd(y, 1.0f);
}

static __global__ void copies(float *y) {
    SHARED(float, s);
    if (threadIdx.x < 16) // the second half is filled with zeros
        copy_async<false>(s + 4 * threadIdx.x, y + 4 * threadIdx.x, threadIdx.x < 8 ? 16 : 0);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];
}

static __global__ void products(float *y) {
    // A = row of ones at 0, B = columns 1, 2, …: c(0, col) = 16 · (col + 1).
    const int g = lane_of() / 4;
    const unsigned one = g == 0 ? 0x3c003c00u : 0,
                   b = bits_as<unsigned>(__floats2half2_rn((float)g + 1, (float)g + 1));
    const unsigned a[4] = {one, 0, one, 0}, bs[2] = {b, b};
    float c[4] = {0, 0, 0, 0};
    mma_16x8x16(c, a, bs);
    if (threadIdx.x < 4)
        for (int i = 0; i < 2; i++)
            y[threadIdx.x * 2 + (unsigned)i] = c[i];
}

#define KERNELS(X)                                                                                 \
    X(barrier_in_a_branch)                                                                         \
    X(two_barriers)                                                                                \
    X(shuffle_without_a_lane)                                                                      \
    X(shuffle_outside_the_mask)                                                                    \
    X(mask_of_others)                                                                              \
    X(missing_barrier)                                                                             \
    X(missing_warp_barrier)                                                                        \
    X(missing_second_barrier)                                                                      \
    X(missing_wait)                                                                                \
    X(unwritten_shared)                                                                            \
    X(too_far)                                                                                     \
    X(reverse)                                                                                     \
    X(votes)                                                                                       \
    X(shuffles)                                                                                    \
    X(half_warps)                                                                                  \
    X(counting)                                                                                    \
    X(copies)                                                                                      \
    X(products)

// Runs the kernel of that name on 64 threads per block, 256 bytes of shared memory; NULL or what
// went wrong.
extern "C" const char *cuda_broken_run(const char *name, float *y, unsigned blocks, int schedule) {
    cuda_call call = {};
    call.schedule = schedule;
#define RUN(kernel)                                                                                \
    if (strcmp(name, #kernel) == 0)                                                                \
        return LAUNCH(kernel, dim3(blocks), dim3(64), 256, &call, y);
    KERNELS(RUN)
    return "no such kernel";
}

// Whether accesses are watched: not under AddressSanitizer.
extern "C" bool cuda_broken_watched(void) {
#ifdef __SANITIZE_THREAD__
    return true;
#else
    return false;
#endif
}
