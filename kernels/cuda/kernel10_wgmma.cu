// Kernel 10: batches on Hopper (sm_90a), with wgmma and bulk copies. In kernel 9 every warp does
// everything: it asks for copies, waits for them, unpacks weights, loads x and waits for each of
// its products. Here each of these has somebody of its own:
//
//     one warp       asks for the x and the records of a step, as far ahead as stages are empty
//     copy engine    moves them into the stage, and tells its mbarrier `full`
//     4·T warps      unpack records, from shared memory to registers, and tell `empty`
//     tensor cores   multiply these registers by the x in the stage, which no warp ever loads
//
//     a warp         │ unpack 0 │ unpack 1   │ unpack 2   │ …          p = 0 … 7: the products of a
//     tensor cores   │          │ multiply 0 │ multiply 1 │ …          record, 16 columns each
//
// A block has T warpgroups, 1 or 2, for 64·T rows of w by 64·T rows of x, in steps of 128 columns.
//
// The tensor cores read x from shared memory on their own, so it must lie there as they want it,
// and `arrange` writes it that way, once, before the product. It does two things. Every 64 bytes
// are 4 × 4 words; they are transposed, because a record has its columns in that order (pack.c).
// And the rows are swizzled (hopper.cuh). What a block needs in a step is then one piece, and one
// copy:
//
//     x, arranged   rows 0 … 64·T - 1, columns 0 … 127 | the same rows, columns 128 … 255 | …
//     a piece       columns 0 … 63 of all its rows, 128 bytes each | columns 64 … 127
//
// Traffic: the weights once for every 64·T rows of x, x once to arrange it and then once for every
// 64·T rows of w. Blocks with the same weights run side by side: L2 gives the weights to all but
// the first, and holds x.
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/packed.cuh"

namespace NIBBLE_CUDA {

enum { TILE = 64, TILE_BYTES = TILE * 128, PRODUCTS = PACKED_COLUMNS / 16 };

// [stages]
// A block's shared memory: a ring of stages, with two mbarriers each.
//     full:  the copies of the stage have come       arrives: the warp that asks, and the bytes
//     empty: all warps have used it                  arrives: each warp that multiplies
template <class L, unsigned T> struct stages {
    static constexpr unsigned WARPS = 4 * T, RECORDS = WARPS * L::BYTES;
    static constexpr unsigned X = T * TILE * PACKED_COLUMNS * 2; // bytes
    static constexpr unsigned FIT = (224 << 10) / (X + RECORDS), N = FIT < 8 ? FIT : 8;
    static constexpr unsigned BYTES = 1024 + N * (X + RECORDS + 2 * sizeof(mbarrier));

    unsigned char *x, *records;
    mbarrier *full, *empty;

    // Swizzled tiles start at multiples of 1024, which nobody promises of shared memory.
    __device__ __forceinline__ explicit stages(unsigned char *shared)
        : x(shared + (0u - shared_address(shared)) % 1024), records(x + N * X),
          full((mbarrier *)(records + N * RECORDS)), empty(full + N) {
    }

    __device__ __forceinline__ void init() {
        for (unsigned i = 0; i < N; i++) {
            barrier_init(full + i, 1);
            barrier_init(empty + i, WARPS);
        }
        barriers_visible();
    }

    // The copies of all steps, one thread's work. In the first round the stages are empty: the
    // phase before a barrier's first, of parity 1, counts as over.
    __device__ __forceinline__ void fill(const unsigned char *from_x, const packed_matrix &w,
                                         unsigned tile_row) {
        for (unsigned step = 0; step < w.per_tile; step++) {
            const unsigned i = step % N, round = step / N;
            barrier_wait(empty + i, (round + 1) % 2);
            barrier_expect(full + i, X + RECORDS);
            copy_bulk(x + i * X, from_x + (size_t)step * X, X, full + i);
            for (unsigned warp = 0; warp < WARPS; warp++) { // behind the last row: that one again
                const size_t row = min(tile_row + warp, w.tiles - 1);
                copy_bulk(records + i * RECORDS + warp * L::BYTES,
                          w.records + (row * w.per_tile + step) * L::BYTES, L::BYTES, full + i);
            }
        }
    }
};
// [/stages]

// scale: of the rows g and g + 8 of a fragment.
__device__ __forceinline__ void add_scaled(float (&sum)[8][4], float (&part)[8][4], float2 scale) {
    wgmma_result(part);
#pragma unroll
    for (unsigned j = 0; j < 8; j++)
#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            sum[j][i] += (i < 2 ? scale.x : scale.y) * part[j][i];
}

// [multiply]
// sum[i] += record · x for 64 rows of x each; x: the stage's, an address of shared memory.
template <class L, unsigned T>
__device__ __forceinline__ void multiply(const record<L> &r, unsigned x, float (&sum)[T][8][4]) {
    constexpr unsigned GROUP = PRODUCTS / (L::SETS ? L::SETS : 1); // products with one scale
    float part[T][8][4];
    unsigned a[2][4];
#pragma unroll
    for (unsigned p = 0; p < PRODUCTS; p++) {
        const unsigned set = p / GROUP, column = p / 4 * T * TILE_BYTES + p % 4 * 32;
        fragment(r, p, set, a[p % 2]); // while the tensor cores have product p - 1
        wgmma_fence();
#pragma unroll
        for (unsigned i = 0; i < T; i++)
            wgmma_64x64x16(L::SETS ? part[i] : sum[i], a[p % 2],
                           wgmma_tile(x + column + i * TILE_BYTES), !L::SETS || p % GROUP);
        wgmma_commit();
        if ((p + 1) % GROUP != 0) {
            wgmma_wait<1>(); // all but product p are done: a[(p + 1) % 2] is free
            continue;
        }
        wgmma_wait<0>(); // the group ends here, or the record
#pragma unroll
        for (unsigned i = 0; i < T; i++)
            if constexpr (L::SETS > 0)
                add_scaled(sum[i], part[i], __half22float2(r.scales[set]));
            else
                wgmma_result(sum[i]);
    }
}
// [/multiply]

template <class L, unsigned T>
__global__ void __launch_bounds__(32 * (stages<L, T>::WARPS + 1), 1)
    wgmma_batch(const packed_matrix w, const unsigned char *x, unsigned m, float *y,
                unsigned y_stride) {
#if HAS_HOPPER
    SHARED(unsigned char, shared);
    typedef stages<L, T> ring;
    ring s(shared);
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned row0 = blockIdx.x * T * TILE, tile_row = blockIdx.y * ring::WARPS;
    if (threadIdx.x == 0)
        s.init();
    __syncthreads();
    if (warp == ring::WARPS) {
        if (lane == 0)
            s.fill(x + (size_t)blockIdx.x * w.per_tile * ring::X, w, tile_row);
        return;
    }
    float sum[T][8][4] = {};
    for (unsigned step = 0; step < w.per_tile; step++) {
        const unsigned i = step % ring::N;
        barrier_wait(s.full + i, step / ring::N % 2);
        record<L> r;
        record_load<L, false>(r, s.records + i * ring::RECORDS + warp * L::BYTES, lane);
        multiply<L, T>(r, shared_address(s.x + i * ring::X), sum);
        __syncwarp(); // all lanes have read the record
        if (lane == 0)
            barrier_arrive(s.empty + i);
    }
#pragma unroll
    for (unsigned i = 0; i < T; i++)
        if (tile_row + warp < w.tiles)
            store_tile(w, tile_row + warp, lane, sum[i], y + (size_t)(row0 + i * TILE) * y_stride,
                       y_stride, m - min(m, row0 + i * TILE));
#else
    __trap(); // takes() keeps other GPUs out
#endif
}

// x as the stages want it. One block per stage, of `rows` rows; those from m on become 0.
__global__ void arrange(const __half *x, unsigned m, unsigned x_stride, unsigned rows, uint4 *out) {
    const unsigned row0 = blockIdx.y * rows;
    out += ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * rows * 16;
    for (unsigned i = threadIdx.x; i < rows * 16; i += blockDim.x) {
        const unsigned row = i / 16, piece = i % 16; // of 16 bytes: half of a product's columns
        uint4 v = make_uint4(0, 0, 0, 0);
        if (row0 + row < m) {
            const unsigned *from = (const unsigned *)(x + (size_t)(row0 + row) * x_stride) +
                                   blockIdx.x * PACKED_COLUMNS / 2 + piece / 4 * 16 + piece % 4;
            v = make_uint4(from[0], from[4], from[8], from[12]);
        }
        out[piece / 8 * rows * 8 + swizzled(row, piece % 8)] = v;
    }
}

// T: two, unless that left a half of the multiprocessors without a block, or of its x without a
// row.
static unsigned groups_of(const cuda_call *c) {
    const unsigned blocks = divide_up(c->w.n, 2 * TILE) * divide_up(c->m, 2 * TILE);
    return c->m > TILE && 2 * blocks > c->processors ? 2 : 1;
}

static size_t workspace(const cuda_call *c) {
    const size_t rows = groups_of(c) * TILE, columns = divide_up(c->w.k, PACKED_COLUMNS) * 128;
    return divide_up(c->m, rows) * rows * columns * sizeof(__half);
}

template <class L, unsigned T> static const char *run_groups(const cuda_call *c) {
    typedef stages<L, T> ring;
    packed_matrix w = packed_of(c->w);
    const unsigned rows = T * TILE, tiles = divide_up(c->m, rows);
    if (const char *why =
            LAUNCH(arrange, dim3(w.per_tile, tiles), dim3(256), 0, c, (const __half *)c->x, c->m,
                   c->x_stride, rows, (uint4 *)c->workspace))
        return why;
    auto *wgmma_kernel = wgmma_batch<L, T>;
    return LAUNCH(wgmma_kernel, dim3(tiles, divide_up(w.tiles, ring::WARPS)),
                  dim3(32 * ring::WARPS + 32), ring::BYTES, c, w,
                  (const unsigned char *)c->workspace, c->m, c->y, c->y_stride);
}

template <class L> struct run_wgmma {
    static const char *run(const cuda_call *c) {
        return groups_of(c) == 1 ? run_groups<L, 1>(c) : run_groups<L, 2>(c);
    }
};

static bool takes(const cuda_matrix *w, unsigned m) {
#ifdef __CUDACC__
    if (!BUILT_FOR_HOPPER || !cuda_is_hopper())
        return false;
#endif
    return takes_packed(w, m, ~0u);
}

const cuda_kernel kernel_wgmma = {10,
                                  "",
                                  "wgmma and bulk copies, for batches",
                                  1e-5,
                                  true,
                                  takes,
                                  workspace,
                                  with_layout<run_wgmma>};

} // namespace NIBBLE_CUDA
