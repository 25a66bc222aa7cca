// Kernel 8: stream-K. As many blocks as the GPU holds at once, and every warp gets the same share
// of the matrix's records, in one piece, wherever rows of tiles begin and end.
//
//     records   | tile row 0        | tile row 1        | tile row 2        |
//     warps     |  warp 0  |  warp 1  |  warp 2  |  warp 3  |  warp 4  | …
//
// With a block per tile row, 512 of them on 132 multiprocessors are four rounds, the last one 88 %
// full, each with a beginning and an end without work. Here there is one beginning and one end, and
// the ring never runs dry in between (Osama et al. 2023).
//
// A tile row's sums may lie with several warps. Each writes its part to the workspace and counts
// itself in; the last one to come adds all parts in the order of the warps, so that the result does
// not depend on who was last. No block waits for another one.
//
//     workspace   counter per tile row | per warp: part of its first row, part of its last row
#include "kernels/cuda/ring.cuh"

namespace NIBBLE_CUDA {

enum { WARPS = 8, BLOCKS = 2 }; // of a multiprocessor

// Who does what: total records over `workers` warps, at least one for each.
struct shares {
    unsigned total, workers;
    __device__ unsigned start(unsigned worker) const {
        return (unsigned)((unsigned long long)worker * total / workers);
    }
    __device__ unsigned worker_of(unsigned record) const {
        return (unsigned)((((unsigned long long)record + 1) * workers - 1) / total);
    }
};

// Part of a tile row that a warp has, in the order of the fragments.
template <unsigned TILES>
__device__ __forceinline__ float4 *part_of(float4 *parts, unsigned worker, bool last,
                                           unsigned lane) {
    return parts + ((size_t)worker * 2 + last) * TILES * 32 + lane;
}

// Leaves this warp's part of a tile row. True, with the whole row's sums, for the last of the
// `parts` of warps first … last to come.
template <unsigned TILES>
__device__ __forceinline__ bool
meet_others(unsigned *counter, float4 *parts, const shares &s, unsigned worker, unsigned first,
            unsigned last, unsigned row_start, unsigned lane, float (&sum)[TILES][4]) {
    float4 *mine = part_of<TILES>(parts, worker, s.start(worker) < row_start, lane);
#pragma unroll
    for (unsigned tile = 0; tile < TILES; tile++)
        mine[tile * 32] = {sum[tile][0], sum[tile][1], sum[tile][2], sum[tile][3]};
    __threadfence(); // the part is visible before the count
    __syncwarp();
    unsigned before = lane == 0 ? atomicAdd(counter, 1u) : 0;
    before = __shfl_sync(~0u, before, 0);
    if (before != last - first)
        return false;
    __threadfence();
#pragma unroll
    for (unsigned tile = 0; tile < TILES; tile++)
        sum[tile][0] = sum[tile][1] = sum[tile][2] = sum[tile][3] = 0;
    for (unsigned other = first; other <= last; other++) {
        const float4 *theirs = part_of<TILES>(parts, other, s.start(other) < row_start, lane);
#pragma unroll
        for (unsigned tile = 0; tile < TILES; tile++) {
            const float4 v = __ldcg(theirs + tile * 32);
            sum[tile][0] += v.x, sum[tile][1] += v.y, sum[tile][2] += v.z, sum[tile][3] += v.w;
        }
    }
    if (lane == 0)
        *counter = 0; // for the next launch
    return true;
}

template <class L, unsigned TILES>
__global__ void __launch_bounds__(32 * WARPS, TILES == 1 ? BLOCKS : 1)
    stream_k(const packed_matrix w, const __half *x, unsigned m, unsigned x_stride, float *y,
             unsigned y_stride, unsigned *counters, float4 *parts) {
    SHARED(unsigned char, shared);
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned worker = blockIdx.x * WARPS + warp;
    const unsigned total = w.tiles * w.per_tile;
    const shares s = {total, min(total, gridDim.x * WARPS)};
    if (worker >= s.workers) // a small matrix: not a record for everyone
        return;
    const unsigned end = s.start(worker + 1);
    ring<L> stages(shared, warp, lane);
    unsigned ahead = s.start(worker);
    for (unsigned i = 0; i < ring<L>::STAGES - 1; i++, ahead++)
        stages.push(ahead < end ? w.records + (size_t)ahead * L::BYTES : nullptr);
    for (unsigned i = s.start(worker); i < end;) {
        const unsigned row = i / w.per_tile, row_start = row * w.per_tile;
        const unsigned row_end = row_start + w.per_tile, stop = min(end, row_end);
        float sum[TILES][4] = {};
        for (; i < stop; i++, ahead++) {
            record<L> r;
            stages.pop(r);
            stages.push(ahead < end ? w.records + (size_t)ahead * L::BYTES : nullptr);
            const __half *column = x + (i - row_start) * PACKED_COLUMNS;
            record_multiply(r, global_x{column, m, x_stride, lane}, sum);
        }
        const unsigned first = s.worker_of(row_start), last = s.worker_of(row_end - 1);
        if (first == last ||
            meet_others(counters + row, parts, s, worker, first, last, row_start, lane, sum))
            store_tile(w, row, lane, sum, y, y_stride, m);
    }
    copy_wait<0>();
}

static unsigned blocks_of(const cuda_call *c) {
    return c->processors * BLOCKS;
}

static size_t counter_bytes(const cuda_call *c) {
    return (size_t)divide_up(divide_up(c->w.n, PACKED_ROWS) * sizeof(unsigned), 256) * 256;
}

static unsigned tiles_of(const cuda_call *c) {
    return c->m <= 8 ? 1 : c->m <= 32 ? 4 : 8;
}

static size_t workspace(const cuda_call *c) {
    size_t part = tiles_of(c) * 32 * sizeof(float4);
    return counter_bytes(c) + (size_t)blocks_of(c) * WARPS * 2 * part;
}

template <class L, unsigned TILES> static const char *run_tiles(const cuda_call *c) {
    auto *stream_kernel = stream_k<L, TILES>;
    return LAUNCH(stream_kernel, dim3(blocks_of(c)), dim3(32 * WARPS), WARPS * ring<L>::BYTES, c,
                  packed_of(c->w), (const __half *)c->x, c->m, c->x_stride, c->y, c->y_stride,
                  (unsigned *)c->workspace, (float4 *)((char *)c->workspace + counter_bytes(c)));
}

// More than eight rows of x: only for layouts without zero points, to keep the build short.
template <class L> struct run_stream {
    static const char *run(const cuda_call *c) {
        if constexpr (!L::ZEROS && (L::BITS == 4 || L::SETS == 0))
            switch (tiles_of(c)) {
            case 4:
                return run_tiles<L, 4>(c);
            case 8:
                return run_tiles<L, 8>(c);
            }
        return run_tiles<L, 1>(c);
    }
};

static bool takes(const cuda_matrix *w, unsigned m) {
    bool many = !w->zeros && (w->format == CUDA_INT4 || w->wide_scales || !w->scales);
    return takes_packed(w, m, many ? 64 : 8);
}

const cuda_kernel kernel_stream = {8,
                                   "",
                                   "stream-K, sums in a fixed order",
                                   1e-5,
                                   true,
                                   takes,
                                   workspace,
                                   with_layout<run_stream>};

} // namespace NIBBLE_CUDA
