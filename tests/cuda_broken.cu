// Kernels with one mistake each, and some without, for tests/test_cuda_emulator.c.
#include "kernels/cuda/hopper.cuh"

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

// ---- Hopper's, with one mistake ----------------------------------------------------------------

// Shared memory of these: a tile of 64 rows of 128 bytes, at a multiple of 1024; then mbarriers.
struct tile_memory {
    unsigned char *tile;
    mbarrier *barriers;
};

static __device__ tile_memory tile_at(unsigned char *shared, unsigned arrivals) {
    unsigned char *tile = shared + (0u - shared_address(shared)) % 1024;
    mbarrier *barriers = (mbarrier *)(tile + 64 * 128);
    if (threadIdx.x == 0) {
        barrier_init(barriers, arrivals);
        barriers_visible();
    }
    __syncthreads();
    return {tile, barriers};
}

static __global__ void arrival_missing(float *) {
    SHARED(unsigned char, shared);
    tile_memory s = tile_at(shared, 2);
    if (threadIdx.x == 0)
        barrier_arrive(s.barriers);
    barrier_wait(s.barriers, 0);
}

static __global__ void arrival_too_many(float *y) {
    SHARED(unsigned char, shared);
    tile_memory s = tile_at(shared, 1);
    if (threadIdx.x == 0)
        barrier_expect(s.barriers, 16);
    __syncthreads();
    if (threadIdx.x < 2)
        barrier_arrive(s.barriers);
    y[0] = 0;
}

static __global__ void barrier_unset(float *) {
    SHARED(unsigned char, shared);
    barrier_wait((mbarrier *)shared, 0);
}

static __global__ void bytes_missing(float *y) {
    SHARED(unsigned char, shared);
    tile_memory s = tile_at(shared, 1);
    if (threadIdx.x == 0) {
        barrier_expect(s.barriers, 64);
        copy_bulk(s.tile, y, 32, s.barriers);
    }
    barrier_wait(s.barriers, 0);
}

static __global__ void bulk_wait_missing(float *y) {
    SHARED(unsigned char, shared);
    tile_memory s = tile_at(shared, 1);
    if (threadIdx.x == 0) {
        barrier_expect(s.barriers, 512);
        copy_bulk(s.tile, y, 512, s.barriers);
    }
    __syncthreads();
    y[threadIdx.x] = ((float *)s.tile)[threadIdx.x];
    barrier_wait(s.barriers, 0);
}

static __global__ void bulk_to_nobody(float *y) {
    SHARED(unsigned char, shared);
    tile_memory s = tile_at(shared, 1);
    if (threadIdx.x == 0) {
        barrier_expect(s.barriers, 512);
        copy_bulk(s.tile, y, 512, s.barriers);
    }
}

static __global__ void bulk_unaligned(float *y) {
    SHARED(unsigned char, shared);
    tile_memory s = tile_at(shared, 1);
    if (threadIdx.x == 0)
        copy_bulk(s.tile + 8, y, 16, s.barriers);
}

// A: ones in column 0, B: column n is n + 1 in row 0. The tile is swizzled, k 16 … 31 of it are
// used.
static __device__ void fill_tile(unsigned char *tile, unsigned (&a)[4]) {
    for (unsigned row = threadIdx.x; row < 64; row += 128)
        for (unsigned k = 0; k < 64; k++)
            ((__half *)tile)[swizzled(row, k / 8) * 8 + k % 8] =
                __float2half_rn(k == 16              ? (float)row + 1
                                : k == 15 || k == 32 ? 100.0f
                                                     : 0.0f);
    const unsigned first = threadIdx.x % 4 == 0 ? 0x00003c00u : 0; // columns 0 and 1 of a row
    a[0] = a[1] = first, a[2] = a[3] = 0;
    __syncthreads();
}

static __device__ void store_products(float *y, const float (&d)[8][4]) {
    if (threadIdx.x % 32 / 4 == 0 && threadIdx.x / 32 < 2) // row 0 of warps 0 and 1
        for (unsigned i = 0; i < 16; i++)
            y[threadIdx.x / 32 * 64 + i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2] = d[i / 2][i % 2];
}

enum product_mistake { NONE, NO_FENCE, NO_WAIT, NO_COMMIT, NOT_TOGETHER, NO_ALIGNMENT, TOO_SOON };

static __device__ void product(float *y, product_mistake mistake) {
    SHARED(unsigned char, shared);
    tile_memory s = tile_at(shared, 1);
    unsigned a[4], tile = shared_address(s.tile) + 32;
    float d[8][4] = {};
    fill_tile(s.tile, a);
    if (mistake == NOT_TOGETHER && threadIdx.x / 32 == 2)
        tile += 32;
    if (mistake == NO_ALIGNMENT)
        tile += 512;
    if (mistake != NO_FENCE)
        wgmma_fence();
    wgmma_64x64x16(d, a, wgmma_tile(tile), false);
    wgmma_64x64x16(d, a, wgmma_tile(tile), true);
    if (mistake != NO_COMMIT)
        wgmma_commit();
    if (mistake == TOO_SOON)
        a[0] = 0;
    if (mistake != NO_WAIT)
        wgmma_wait<0>();
    store_products(y, d);
}

#define PRODUCT(name, mistake)                                                                     \
    static __global__ void name(float *y) {                                                        \
        product(y, mistake);                                                                       \
    }
PRODUCT(wgmma_without_fence, NO_FENCE)
PRODUCT(wgmma_without_wait, NO_WAIT)
PRODUCT(wgmma_without_commit, NO_COMMIT)
PRODUCT(wgmma_not_together, NOT_TOGETHER)
PRODUCT(wgmma_unaligned, NO_ALIGNMENT)
PRODUCT(wgmma_overwritten, TOO_SOON)
PRODUCT(wgmma_products, NONE)

// ---- right ones --------------------------------------------------------------------------------

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

// y[16][8] = A · B + 5 with A(row, k) = 9 row + 5 k + 1 and B(k, col) = 100 k + 31 col - 7, as
// bytes.
static __global__ void integer_products(float *y) {
    if (threadIdx.x >= 32)
        return;
    const int g = lane_of() / 4, t = lane_of() % 4;
    unsigned a[4] = {}, b[2] = {};
    int c[4] = {5, 5, 5, 5};
    for (int i = 0; i < 4; i++)
        for (int byte = 0; byte < 4; byte++) {
            const int row = g + i % 2 * 8, k = 4 * t + byte + i / 2 * 16;
            a[i] |= (unsigned)(uint8_t)(9 * row + 5 * k + 1) << 8 * byte;
        }
    for (int i = 0; i < 2; i++)
        for (int byte = 0; byte < 4; byte++) {
            const int k = 4 * t + byte + i * 16;
            b[i] |= (unsigned)(uint8_t)(100 * k + 31 * g - 7) << 8 * byte;
        }
    mma_16x8x32(c, a, b);
    for (int i = 0; i < 4; i++)
        y[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = (float)c[i];
}

// Four rounds of one stage: thread 0 fills it when all others have left it.
static __global__ void phases(float *y) {
    SHARED(unsigned char, shared);
    tile_memory s = tile_at(shared, 1);
    mbarrier *full = s.barriers, *empty = s.barriers + 1;
    if (threadIdx.x == 0)
        barrier_init(empty, 127);
    __syncthreads();
    float sum = 0;
    for (unsigned round = 0; round < 4; round++)
        if (threadIdx.x == 0) {
            barrier_wait(empty, (round + 1) % 2);
            barrier_expect(full, 128);
            copy_bulk(s.tile, y + round * 32, 64, full);
            copy_bulk(s.tile + 64, y + round * 32 + 16, 64, full);
        } else {
            barrier_wait(full, round % 2);
            sum += ((float *)s.tile)[threadIdx.x % 32];
            barrier_arrive(empty);
        }
    if (threadIdx.x == 0)
        barrier_wait(empty, 1); // of the fourth round
    __syncthreads();
    y[threadIdx.x] = sum;
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
    X(products)                                                                                    \
    X(integer_products)

// With 128 threads and 10 KB of shared memory.
#define HOPPER_KERNELS(X)                                                                          \
    X(arrival_missing)                                                                             \
    X(arrival_too_many)                                                                            \
    X(barrier_unset)                                                                               \
    X(bytes_missing)                                                                               \
    X(bulk_wait_missing)                                                                           \
    X(bulk_to_nobody)                                                                              \
    X(bulk_unaligned)                                                                              \
    X(wgmma_without_fence)                                                                         \
    X(wgmma_without_wait)                                                                          \
    X(wgmma_without_commit)                                                                        \
    X(wgmma_not_together)                                                                          \
    X(wgmma_unaligned)                                                                             \
    X(wgmma_overwritten)                                                                           \
    X(wgmma_products)                                                                              \
    X(phases)

// Runs the kernel of that name on 64 threads per block, 256 bytes of shared memory, unless it is
// one of Hopper's; y: 128 floats. NULL or what went wrong.
extern "C" const char *cuda_broken_run(const char *name, float *y, unsigned blocks, int schedule) {
    cuda_call call = {};
    call.schedule = schedule;
#define RUN(kernel)                                                                                \
    if (strcmp(name, #kernel) == 0)                                                                \
        return LAUNCH(kernel, dim3(blocks), dim3(64), 256, &call, y);
    KERNELS(RUN)
#undef RUN
#define RUN(kernel)                                                                                \
    if (strcmp(name, #kernel) == 0)                                                                \
        return LAUNCH(kernel, dim3(blocks), dim3(128), 10 << 10, &call, y);
    HOPPER_KERNELS(RUN)
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
