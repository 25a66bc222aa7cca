// What every kernel includes: CUDA where nvcc compiles, the emulator elsewhere, and the few
// instructions that C++ has no name for, as functions. Each has its PTX and, for the emulator, what
// it computes; nothing else in the kernels knows which of the two is in use.
//
// SHARED(type, name) declares the launch's dynamic shared memory (all kernels use only that).
// LAUNCH(kernel, grid, block, shared, call, …) is kernel<<<grid, block, shared, stream>>>(…).
#ifndef NIBBLE_DEVICE_CUH
#define NIBBLE_DEVICE_CUH

#include "kernels/cuda/ladder.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define SHARED(type, name)                                                                         \
    extern __shared__ __align__(128) unsigned char shared_bytes[];                                 \
    type *name = reinterpret_cast<type *>(shared_bytes)
// clang-format off
#define LAUNCH(kernel, grid, block, shared, call, ...)                                             \
    (cuda_allow_shared((const void *)(kernel), shared),                                            \
     kernel<<<grid, block, shared, (cudaStream_t)(call)->stream>>>(__VA_ARGS__),                   \
     cuda_launched(#kernel))
// clang-format on
#else
#include "kernels/cuda/emulate.h"
#define SHARED(type, name) type *name = reinterpret_cast<type *>(emulate::current->shared)
#define LAUNCH(kernel, grid, block, shared, call, ...)                                             \
    emulate_start(#kernel, grid, block, shared, (call)->schedule, kernel, __VA_ARGS__)
#endif

namespace NIBBLE_CUDA {

#ifndef __CUDACC__
// Runs a kernel, or notes it while a graph is captured; arguments are copied now, as a launch does.
template <class... Parameters, class... Arguments>
const char *emulate_start(const char *name, dim3 grid, dim3 block, size_t shared, int schedule,
                          void (*kernel)(Parameters...), Arguments... arguments) {
    auto launch = [=] {
        auto body = [=] { kernel(arguments...); };
        return emulate_launched(
            name, emulate::launch(grid, block, shared, (enum emulate::schedule)schedule, body));
    };
    return emulate_graph_add(&launch, sizeof launch,
                             [](const void *l) { return (*(const decltype(launch) *)l)(); });
}
#endif

template <class To, class From> __device__ __forceinline__ To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

// (a & b) | c in one instruction: lop3 takes any function of three bits as its truth table, and
// this one's is (0xf0 & 0xcc) | 0xaa.
__device__ __forceinline__ unsigned and_or(unsigned a, unsigned b, unsigned c) {
#ifdef __CUDACC__
    unsigned d;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
#else
    return (a & b) | c;
#endif
}

#ifdef __CUDACC__
// "This will not be needed again": what is read with it leaves L2 first.
__device__ __forceinline__ unsigned long long evict_first() {
    unsigned long long policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
#endif

// 16 bytes that are read once: not kept in L1, first to leave L2.
__device__ __forceinline__ uint4 load_once(const uint4 *p) {
#ifdef __CUDACC__
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(p), "l"(evict_first()));
    return v;
#else
    return *p;
#endif
}

// 16 bytes from global to shared memory without passing through registers, asynchronously;
// `filled` (0 or 16) of them are read, the rest is 0. Complete after copy_commit and copy_wait.
// once: first to leave L2.
template <bool once>
__device__ __forceinline__ void copy_async(void *to, const void *from, unsigned filled = 16) {
#ifdef __CUDACC__
    unsigned address = (unsigned)__cvta_generic_to_shared(to);
    if (once) {
        asm volatile(
            "cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(address),
            "l"(from), "r"(filled), "l"(evict_first())
            : "memory");
    } else {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                     "r"(filled)
                     : "memory");
    }
#else
    emulate_copy(to, from, 16, filled);
#endif
}

__device__ __forceinline__ void copy_commit() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    emulate_copy_commit();
#endif
}

// Waits until at most `pending` of this thread's committed groups are under way.
template <int pending> __device__ __forceinline__ void copy_wait() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#else
    emulate_copy_wait(pending);
#endif
}

#ifndef __CUDACC__
// One lane's registers of an m16n8k16 product.
struct mma_part {
    const unsigned *a, *b;
    float *c;
};

// Row and column of what a lane holds, from the PTX manual: with g = lane / 4 and t = lane % 4,
//     A [16][16]  a0: (g, 2t) (g, 2t+1)    a1: row g+8    a2: column +8    a3: both
//     B [16][8]   b0: (2t, g) (2t+1, g)    b1: row +8
//     C [16][8]   c0: (g, 2t)  c1: (g, 2t+1)  c2: (g+8, 2t)  c3: (g+8, 2t+1)
EMULATOR inline void mma_act(void **lanes) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const mma_part *p = (const mma_part *)lanes[lane];
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++)
            for (int half = 0; half < 2; half++)
                a[g + i % 2 * 8][2 * t + half + i / 2 * 8] =
                    emulate::half_to_float((uint16_t)(p->a[i] >> 16 * half));
        for (int i = 0; i < 2; i++)
            for (int half = 0; half < 2; half++)
                b[2 * t + half + i * 8][g] =
                    emulate::half_to_float((uint16_t)(p->b[i] >> 16 * half));
    }
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++) {
            double sum = 0;
            for (int k = 0; k < 16; k++)
                sum += (double)a[lane / 4 + i / 2 * 8][k] * b[k][lane % 4 * 2 + i % 2];
            ((mma_part *)lanes[lane])->c[i] += (float)sum;
        }
}
#endif

// C += A · B on the tensor cores: A [16][16] and B [16][8] in halves, C [16][8] in float32, spread
// over the warp's registers as mma_act tells.
__device__ __forceinline__ void mma_16x8x16(float (&c)[4], const unsigned (&a)[4],
                                            const unsigned (&b)[2]) {
#ifdef __CUDACC__
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    mma_part part = {a, b, c};
    emulate::meet(~0u, mma_act, &part, {"mma.sync", __FILE__, __LINE__});
#endif
}

#ifndef __CUDACC__
// One lane's registers of an m16n8k32 product of int8.
struct mma_i8_part {
    const unsigned *a, *b;
    int *c;
};

// A register holds four bytes, the first in its low bits; g and t as in mma_act:
//     A [16][32]  a0: (g, 4t … 4t+3)   a1: row g+8   a2: columns +16   a3: both
//     B [32][8]   b0: (4t … 4t+3, g)   b1: rows +16
//     C [16][8]   as there
EMULATOR inline void mma_i8_act(void **lanes) {
    int8_t a[16][32], b[32][8];
    for (int lane = 0; lane < 32; lane++) {
        const mma_i8_part *p = (const mma_i8_part *)lanes[lane];
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++)
            for (int byte = 0; byte < 4; byte++)
                a[g + i % 2 * 8][4 * t + byte + i / 2 * 16] = (int8_t)(p->a[i] >> 8 * byte);
        for (int i = 0; i < 2; i++)
            for (int byte = 0; byte < 4; byte++)
                b[4 * t + byte + i * 16][g] = (int8_t)(p->b[i] >> 8 * byte);
    }
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++) {
            unsigned sum = (unsigned)((mma_i8_part *)lanes[lane])->c[i]; // wraps, as there
            for (int k = 0; k < 32; k++)
                sum += (unsigned)(a[lane / 4 + i / 2 * 8][k] * b[k][lane % 4 * 2 + i % 2]);
            ((mma_i8_part *)lanes[lane])->c[i] = (int)sum;
        }
}
#endif

// C += A · B in integers, exactly: A [16][32] and B [32][8] in int8, C [16][8] in int32, spread
// over the warp's registers as mma_i8_act tells.
__device__ __forceinline__ void mma_16x8x32(int (&c)[4], const unsigned (&a)[4],
                                            const unsigned (&b)[2]) {
#ifdef __CUDACC__
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    mma_i8_part part = {a, b, c};
    emulate::meet(~0u, mma_i8_act, &part, {"mma.sync", __FILE__, __LINE__});
#endif
}

// The sum over the warp, in every lane.
__device__ __forceinline__ float warp_sum(float v) {
    for (int step = 16; step; step /= 2)
        v += __shfl_xor_sync(~0u, v, step);
    return v;
}

} // namespace NIBBLE_CUDA

#endif
