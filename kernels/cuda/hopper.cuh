// Hopper's own instructions (sm_90a), as functions: mbarriers, bulk copies, wgmma. Each has its PTX
// and, for the emulator, what it computes (emulate_async.h).
//
//     bulk copy  One thread asks, for kilobytes at once; the copy engine moves them and tells an
//                mbarrier how many have come. No register and no other thread takes part.
//     mbarrier   Eight bytes of shared memory that count. A phase is over when as many threads have
//                arrived as barrier_init said and all the bytes that barrier_expect announced are
//                there; the next one begins at once. Waiting names the parity of a phase: 0 for the
//                first, 1 for the second, 0 for the third …
//     wgmma      The product of a warpgroup, four warps: D [64][64] += A [64][16] · B [16][64]. A
//                and D are in registers, 16 rows per warp, which holds them as in mma.sync
//                (device.cuh). B is in shared memory, where the tensor cores read it themselves,
//                while the warps go on: until a wgmma_wait its registers and its tile of shared
//                memory belong to it.
#ifndef NIBBLE_HOPPER_CUH
#define NIBBLE_HOPPER_CUH

#include "kernels/cuda/device.cuh"

// Whether a kernel's body may use them: the emulator, and nvcc's pass for sm_90a.
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_HOPPER 1
#else
#define HAS_HOPPER 0
#endif

// Whether the program has such code for a Hopper GPU: a build for sm_90a says so (Makefile). With
// sm_90 alone a kernel that needs it must not be offered, and with both a GPU could take either.
#if !defined(__CUDACC__) || defined(NIBBLE_SM_90A)
#define BUILT_FOR_HOPPER 1
#else
#define BUILT_FOR_HOPPER 0
#endif
#if defined(NIBBLE_SM_90A) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900 && !HAS_HOPPER
#error "NIBBLE_SM_90A with code for sm_90: CUDA_ARCHS may have 90 or 90a, not both"
#endif

namespace NIBBLE_CUDA {

// Shared memory has addresses of its own, from 0 on, and these instructions take them.
__device__ __forceinline__ unsigned shared_address(const void *p) {
#ifdef __CUDACC__
    return (unsigned)__cvta_generic_to_shared(p);
#else
    return emulate_shared_address(p);
#endif
}

// ---- mbarriers ---------------------------------------------------------------------------------

typedef unsigned long long mbarrier;

// Before its first use by others, barriers_visible and a __syncthreads.
__device__ __forceinline__ void barrier_init(mbarrier *b, unsigned arrivals) {
#ifdef __CUDACC__
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals)
                 : "memory");
#else
    emulate_barrier_init(b, arrivals);
#endif
}

// The copy engine sees what this thread has initialized.
__device__ __forceinline__ void barriers_visible() {
#ifdef __CUDACC__
    asm volatile("fence.mbarrier_init.release.cluster;\n"
                 "fence.proxy.async.shared::cta;" ::
                     : "memory");
#endif
}

__device__ __forceinline__ void barrier_arrive(mbarrier *b) {
#ifdef __CUDACC__
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
#else
    emulate_barrier_arrive(b, 0);
#endif
}

// Arrives, and makes the phase wait for that many bytes of bulk copies too.
__device__ __forceinline__ void barrier_expect(mbarrier *b, unsigned bytes) {
#ifdef __CUDACC__
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)),
                 "r"(bytes)
                 : "memory");
#else
    emulate_barrier_arrive(b, bytes);
#endif
}

// Until the phase of that parity is over: it is, if the running one has the other. So parity 1 of a
// new barrier does not wait at all.
__device__ __forceinline__ void barrier_wait(mbarrier *b, unsigned parity) {
#ifdef __CUDACC__
    unsigned over;
    do
        asm volatile("{\n"
                     ".reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n"
                     "}"
                     : "=r"(over)
                     : "r"(shared_address(b)), "r"(parity)
                     : "memory");
    while (!over);
#else
    emulate_barrier_wait(b, parity);
#endif
}

// ---- bulk copies -------------------------------------------------------------------------------

// Global to shared memory. Addresses and bytes: multiples of 16.
__device__ __forceinline__ void copy_bulk(void *to, const void *from, unsigned bytes, mbarrier *b) {
#ifdef __CUDACC__
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(b))
                 : "memory");
#else
    emulate_bulk(to, from, bytes, b);
#endif
}

// ---- wgmma -------------------------------------------------------------------------------------

// Where 16-byte piece `piece` (0 … 7) of row `row` lies in a tile of rows of 128 bytes, as wgmma
// and the copy engine know it, "128-byte swizzle": pieces of one column of eight rows are in eight
// different places, so that reading them meets no bank twice.
__device__ __forceinline__ unsigned swizzled(unsigned row, unsigned piece) {
    return row * 8 + (piece ^ row % 8);
}

// Names B to the tensor cores. Column n of B is row n of the tile, 128 bytes: 64 halves, of which
// `address` (of shared memory) picks 16, as the place of the first of row 0 before the swizzle. The
// tile starts at a multiple of 1024.
//
//     bits 62, 63: 1, swizzle of 128 bytes   32 … 45: bytes from eight rows to the next eight / 16
//     bits 16 … 29: not used with a swizzle   0 … 13: address / 16
__device__ __forceinline__ unsigned long long wgmma_tile(unsigned address) {
    return 1ull << 62 | (unsigned long long)(8 * 128 / 16) << 32 | 1ull << 16 | address / 16;
}

// Between the last change of registers by other instructions and the product that reads them.
__device__ __forceinline__ void wgmma_fence() {
#ifdef __CUDACC__
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#else
    emulate_wgmma_fence();
#endif
}

#define FOUR(d) "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
#define ALL_OF(d)                                                                                  \
    FOUR(d[0]), FOUR(d[1]), FOUR(d[2]), FOUR(d[3]), FOUR(d[4]), FOUR(d[5]), FOUR(d[6]), FOUR(d[7])

// Starts D = A · B, or with `add` D += A · B. d[i]: columns 8i … 8i + 7.
__device__ __forceinline__ void wgmma_64x64x16(float (&d)[8][4], const unsigned (&a)[4],
                                               unsigned long long b, bool add) {
#ifdef __CUDACC__
    asm volatile("{\n"
                 ".reg .pred add;\n"
                 "setp.ne.b32 add, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, add, 1, 1, 0;\n" // A, B as they are; B not transposed
                 "}"
                 : ALL_OF(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add));
#else
    emulate_wgmma(d[0], a, b, add);
#endif
}

// What was started since the last commit is a group.
__device__ __forceinline__ void wgmma_commit() {
#ifdef __CUDACC__
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
    emulate_wgmma_commit();
#endif
}

// Waits until at most `pending` of the warp's committed groups are under way.
template <int pending> __device__ __forceinline__ void wgmma_wait() {
#ifdef __CUDACC__
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
#else
    emulate_wgmma_wait(pending);
#endif
}

// Behind a wait, before d is read: to the compiler d had its value when the product was started,
// and nothing else keeps it from reading d before the wait.
__device__ __forceinline__ void wgmma_result(float (&d)[8][4]) {
#ifdef __CUDACC__
    asm volatile("" : ALL_OF(d)::"memory");
#endif
    (void)d;
}

#undef FOUR
#undef ALL_OF

} // namespace NIBBLE_CUDA

#endif
