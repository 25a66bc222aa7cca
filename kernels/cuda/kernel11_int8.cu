// Kernel 11: batches with int8 activations. Kernels 9 and 10 make halves of the weights; this one
// makes bytes of x, as kernel 5's variant does, and the tensor cores multiply bytes by bytes: one
// instruction has twice the products, m16n8k32, and its sums are integers, exact.
//
// As long as neither scale changes, Σ w x = scale of w · scale of x · Σ codes of w · codes of x. So
// x has a scale wherever w has one:
//
//     w: a scale per row      x: one per row (token). The integers add up over all of k: k is at
//                             most 131072, since 131072 · 127 · 128 < 2^31.
//     w: a scale per group    x: one per row and group, or 128 columns if the group is longer. At
//                             its end the integers become floats and the next ones start at 0.
//
// A first launch quantizes x and writes it as w lies already, in records, each in the order in
// which a warp reads it (pack.c):
//
//     record of x   8 rows, 128 columns: for products p = 0 … 3, lanes 0 … 31: 8 codes
//                   | scales of group 0: 8 floats | group 1 …
//     lane 4g + t   row g, columns 32p + 8t + {0, 2, 1, 3, 4, 6, 5, 7}: the order in which INT4's
//                   nibbles become bytes for nothing
//     all of x      128 rows, columns 0 … 127: 16 records | the same rows, columns 128 … 255 | …
//                   scales per row, if that is what they are
//
// Then blocks of 128 rows of w by 128 rows of x, in steps of 128 columns: 8 records of w and 16 of
// x, which come by cp.async into a ring of stages.
//
//                   x   0 … 63    64 … 127
//     w    0 …  31     warp 0     warp 4       a warp has 32 rows of w by 64 of x: it reads
//         32 …  63     warp 1     warp 5       2 and 8 records per step, for 64 products; what
//         64 …  95     warp 2     warp 6       a lane has loaded of x serves two of them
//         96 … 127     warp 3     warp 7
//
// Traffic: the weights once for every 128 rows of x; x to quantize it, once (twice where a row has one
// scale: its maximum comes first), then half of that for every 128 rows of w. Blocks with the same weights run side by side.
#include "kernels/cuda/packed.cuh"

namespace NIBBLE_CUDA {

enum { WARPS = 8, BLOCK = 128, TILES = 8, PRODUCTS = PACKED_COLUMNS / 32, MAX_K = 131072 };

static_assert(127LL * 128 * MAX_K < 1LL << 31, "a sum over all of k is an int");

// A record of x with as many sets of scales as one of w, and the 16 that a block needs in a step.
template <unsigned SETS> struct x_record {
    static constexpr unsigned SCALES = 8 * PACKED_COLUMNS; // where they start
    static constexpr unsigned BYTES = SCALES + SETS * 8 * sizeof(float), BLOCK_BYTES = 16 * BYTES;
};

// ---- quantizing x -------------------------------------------------------------------------------

__device__ __forceinline__ float larger_or_nan(float a, float b) {
    return a > b || isnan(a) ? a : b;
}

// The largest of `lanes` neighbouring lanes, in each of them.
__device__ __forceinline__ float largest_of(float v, int lanes) {
    for (int step = 1; step < lanes; step *= 2)
        v = larger_or_nan(v, __shfl_xor_sync(~0u, v, step));
    return v;
}

// Four neighbouring columns of a row of x; row m and those behind it are 0.
struct four_of_x {
    float v[4];

    __device__ __forceinline__ four_of_x(const __half *x, bool inside) {
        const uint2 halves = inside ? *(const uint2 *)x : make_uint2(0, 0);
        const float2 low = __half22float2(bits_as<__half2>(halves.x)),
                     high = __half22float2(bits_as<__half2>(halves.y));
        v[0] = low.x, v[1] = low.y, v[2] = high.x, v[3] = high.y;
    }
    __device__ __forceinline__ float largest() const {
        return larger_or_nan(larger_or_nan(fabsf(v[0]), fabsf(v[1])),
                             larger_or_nan(fabsf(v[2]), fabsf(v[3])));
    }
    // If the scale is 0, infinite or NaN, all codes are 0: the products are then 0 or NaN, so that
    // what has overflowed does not look like a number afterwards.
    __device__ __forceinline__ unsigned codes(float scale) const {
        unsigned word = 0;
        if (scale > 0 && scale < INFINITY)
            for (unsigned i = 0; i < 4; i++) // column 1 is byte 2, column 2 is byte 1
                word |= ((unsigned)__float2int_rn(v[i] / scale) & 255) << (i % 2 * 2 + i / 2) * 8;
        return word;
    }
};

// A block per row of x, a warp per record, four columns per lane. SETS: scales of x per record; 0:
// one per row, in row_scales.
template <unsigned SETS>
__global__ void __launch_bounds__(32 * WARPS)
    quantize_rows(const __half *x, unsigned m, unsigned x_stride, unsigned steps,
                  unsigned char *records, float *row_scales) {
    constexpr unsigned LANES = 32 / (SETS ? SETS : 1); // that have a group's columns
    typedef x_record<SETS> layout_x;
    SHARED(float, of_warps);
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = blockIdx.x;
    const bool inside = row < m;
    float largest = 0;
    x += (size_t)(inside ? row : 0) * x_stride + lane * 4;
    records +=
        (size_t)(row / BLOCK) * steps * layout_x::BLOCK_BYTES + row % BLOCK / 8 * layout_x::BYTES;
    if constexpr (SETS == 0) {
        for (unsigned step = warp; step < steps; step += WARPS)
            largest =
                larger_or_nan(largest, four_of_x(x + step * PACKED_COLUMNS, inside).largest());
        largest = largest_of(largest, LANES);
        if (lane == 0)
            of_warps[warp] = largest;
        __syncthreads();
        for (unsigned i = 0; i < WARPS; i++)
            largest = larger_or_nan(largest, of_warps[i]);
        if (threadIdx.x == 0)
            row_scales[row] = largest / 127;
    }
    for (unsigned step = warp; step < steps; step += WARPS) {
        const four_of_x four(x + step * PACKED_COLUMNS, inside);
        unsigned char *record = records + (size_t)step * layout_x::BLOCK_BYTES;
        if constexpr (SETS > 0)
            largest = largest_of(four.largest(), LANES);
        const float scale = largest / 127;
        ((unsigned *)record)[lane / 8 * 64 + row % 8 * 8 + lane % 8] = four.codes(scale);
        if (SETS > 0 && lane % LANES == 0)
            ((float *)(record + layout_x::SCALES))[lane / LANES * 8 + row % 8] = scale;
    }
}

// ---- the product --------------------------------------------------------------------------------

// [fragment]
// The weights of product p less their zero points, as bytes: a[0] and a[2] of row g, a[1] and a[3]
// of row g + 8. Each has four columns in the order 0, 2, 1, 3.
template <class L>
__device__ __forceinline__ void fragment_i8(const record<L> &r, unsigned p, unsigned set,
                                            unsigned (&a)[4]) {
    const unsigned high = 0x80808080; // of each byte, the highest bit
#pragma unroll
    for (unsigned i = 0; i < 2; i++)
        if constexpr (L::BITS == 8) { // packed as code + 128
            const unsigned w0 = word_of(r.codes[p], 2 * i), w1 = word_of(r.codes[p], 2 * i + 1);
            a[2 * i] = __byte_perm(w0, w1, 0x6240) ^ high;
            a[2 * i + 1] = __byte_perm(w0, w1, 0x7351) ^ high;
        } else { // 128 + code - zero point needs no borrow from the next byte
            unsigned zero = 0x08080808, zero_8 = zero,
                     word = word_of(r.codes[p / 2], p % 2 * 2 + i);
            if constexpr (L::ZEROS) { // halves 1024 + zero point: the zero point is the low byte
                zero = __byte_perm(bits_as<unsigned>(r.zeros[set]), 0, 0x0000);
                zero_8 = __byte_perm(bits_as<unsigned>(r.zeros[set]), 0, 0x2222);
            }
            a[2 * i] = (and_or(word, 0x0f0f0f0f, high) - zero) ^ high;
            a[2 * i + 1] = (and_or(word >> 4, 0x0f0f0f0f, high) - zero_8) ^ high;
        }
}
// [/fragment]

// sum += scales · part, and part starts again. of_w: of rows g and g + 8; of_x: of this lane's two.
__device__ __forceinline__ void add_scaled(float (&sum)[4], int (&part)[4], float2 of_w,
                                           float2 of_x) {
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        sum[i] += (i < 2 ? of_w.x : of_w.y) * (i % 2 ? of_x.y : of_x.x) * (float)part[i];
        part[i] = 0;
    }
}

// [multiply]
// part += records · x, and at the end of each group sum += scales · part. r: 32 rows of w; x: the
// first of 8 records.
template <class L>
__device__ __forceinline__ void multiply(const record<L> (&r)[2], const unsigned char *x,
                                         unsigned lane, int (&part)[2][TILES][4],
                                         float (&sum)[2][TILES][4]) {
#pragma unroll
    for (unsigned p = 0; p < PRODUCTS; p++) {
        const unsigned set = p * L::SETS / PRODUCTS;
        unsigned a[2][4];
        fragment_i8(r[0], p, set, a[0]);
        fragment_i8(r[1], p, set, a[1]);
#pragma unroll
        for (unsigned tile = 0; tile < TILES; tile++) {
            const unsigned char *record = x + tile * x_record<L::SETS>::BYTES;
            const uint2 v = ((const uint2 *)record)[p * 32 + lane];
            const unsigned b[2] = {v.x, v.y};
            mma_16x8x32(part[0][tile], a[0], b);
            mma_16x8x32(part[1][tile], a[1], b);
            if (L::SETS == 0 || (p + 1) * L::SETS % PRODUCTS != 0)
                continue;
            const float2 of_x = // the group ends here
                ((const float2 *)(record + x_record<L::SETS>::SCALES))[set * 4 + lane % 4];
            add_scaled(sum[0][tile], part[0][tile], __half22float2(r[0].scales[set]), of_x);
            add_scaled(sum[1][tile], part[1][tile], __half22float2(r[1].scales[set]), of_x);
        }
    }
}
// [/multiply]

// A stage: the block's records of x, then those of w. Up to four stages, of 99 KB in all: the most
// that a block can have on sm_86 and sm_89, less than elsewhere.
template <class L> struct int8_stages {
    static constexpr unsigned X = x_record<L::SETS>::BLOCK_BYTES, BYTES = X + WARPS * L::BYTES;
    static constexpr unsigned FIT = (99 << 10) / BYTES, N = FIT < 4 ? FIT : 4;
    static_assert(N >= 2, "one to multiply, one on its way");
};

// Starts a copy by `threads` threads, of which this is number `thread`.
__device__ __forceinline__ void fetch(unsigned char *to, const unsigned char *from, unsigned bytes,
                                      unsigned thread, unsigned threads) {
    for (unsigned i = thread * 16; i < bytes; i += threads * 16)
        copy_async<false>(to + i, from + i);
}

// [block]
template <class L>
__global__ void __launch_bounds__(32 * WARPS, 1)
    int8_batch(const packed_matrix w, const unsigned char *x, const float *x_scales, unsigned m,
               float *y, unsigned y_stride) {
    typedef int8_stages<L> stages;
    SHARED(unsigned char, shared);
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned tile_row = blockIdx.y * WARPS;             // 128 rows of w
    const unsigned row0 = blockIdx.x * BLOCK + warp / 4 * 64; // of x
    // Each warp asks for a record of w; behind the last row of tiles, for that one again.
    const unsigned char *from_w =
        w.records + (size_t)min(tile_row + warp, w.tiles - 1) * w.per_tile * L::BYTES;
    const unsigned char *from_x = x + (size_t)blockIdx.x * w.per_tile * stages::X;
    auto fetch_step = [&](unsigned step) {
        unsigned char *stage = shared + step % stages::N * stages::BYTES;
        if (step < w.per_tile) {
            fetch(stage, from_x + (size_t)step * stages::X, stages::X, threadIdx.x, 32 * WARPS);
            fetch(stage + stages::X + warp * L::BYTES, from_w + (size_t)step * L::BYTES, L::BYTES,
                  lane, 32);
        }
        copy_commit(); // a group for each step, if an empty one: copy_wait counts groups
    };
    int part[2][TILES][4] = {};
    float sum[2][TILES][4] = {};
    for (unsigned step = 0; step < stages::N - 1; step++)
        fetch_step(step);
    for (unsigned step = 0; step < w.per_tile; step++) {
        copy_wait<stages::N - 2>();
        __syncthreads(); // this step is here, whoever copied it, and nobody reads the one before
        fetch_step(step + stages::N - 1); // into the stage of the one before
        if (row0 >= m)
            continue; // no rows of x for this warp: it only copies
        const unsigned char *stage = shared + step % stages::N * stages::BYTES;
        record<L> r[2];
        for (unsigned i = 0; i < 2; i++)
            record_load<L, false>(r[i], stage + stages::X + (warp % 4 * 2 + i) * L::BYTES, lane);
        multiply(r, stage + warp / 4 * (stages::X / 2), lane, part, sum);
    }
    if (row0 >= m)
        return;
    // The scales of w's rows come with store_tile. The braces of this `if` must stay: without them
    // nvcc 13.0 also leaves out the loop below that stores.
    if constexpr (L::SETS == 0) {
#pragma unroll
        for (unsigned tile = 0; tile < TILES; tile++) {
            const float2 of_x = ((const float2 *)(x_scales + row0 + tile * 8))[lane % 4];
            add_scaled(sum[0][tile], part[0][tile], make_float2(1, 1), of_x);
            add_scaled(sum[1][tile], part[1][tile], make_float2(1, 1), of_x);
        }
    }
#pragma unroll
    for (unsigned i = 0; i < 2; i++)
        store_tile(w, tile_row + warp % 4 * 2 + i, lane, sum[i], y + (size_t)row0 * y_stride,
                   y_stride, m - row0);
}
// [/block]

// ---- launches -----------------------------------------------------------------------------------

// Bytes of x's records.
static size_t records_bytes(const cuda_call *c, unsigned sets) {
    const size_t bytes = x_record<0>::BYTES + sets * (x_record<1>::BYTES - x_record<0>::BYTES);
    return 16 * bytes * divide_up(c->m, BLOCK) * divide_up(c->w.k, PACKED_COLUMNS);
}

static size_t workspace(const cuda_call *c) {
    packed_shape s;
    if (!cuda_packed_shape(&c->w, &s))
        return 0;
    return records_bytes(c, s.sets) + (s.sets ? 0 : divide_up(c->m, BLOCK) * BLOCK * sizeof(float));
}

template <class L> static const char *start(const cuda_call *c) {
    typedef int8_stages<L> stages;
    const packed_matrix w = packed_of(c->w);
    const unsigned blocks = divide_up(c->m, BLOCK);
    unsigned char *x = (unsigned char *)c->workspace;
    float *x_scales = (float *)(x + records_bytes(c, L::SETS));
    if (const char *why = LAUNCH(quantize_rows<L::SETS>, dim3(blocks * BLOCK), dim3(32 * WARPS),
                                 WARPS * sizeof(float), c, (const __half *)c->x, c->m, c->x_stride,
                                 w.per_tile, x, x_scales))
        return why;
    return LAUNCH(int8_batch<L>, dim3(blocks, divide_up(w.tiles, WARPS)), dim3(32 * WARPS),
                  stages::N * stages::BYTES, c, w, (const unsigned char *)x,
                  (const float *)x_scales, c->m, c->y, c->y_stride);
}

template <class L> struct run_int8 {
    static const char *run(const cuda_call *c) {
        if constexpr (L::BITS == 16)
            return "int8 activations need weights of 4 or 8 bits";
        else
            return start<L>(c);
    }
};

static bool takes(const cuda_matrix *w, unsigned m) {
    packed_shape s;
    return takes_packed(w, m, ~0u) && cuda_packed_shape(w, &s) && s.bits < 16 &&
           (s.sets || w->k <= MAX_K);
}

const cuda_kernel kernel_int8 = {11,
                                 "",
                                 "int8 activations on tensor cores, for batches",
                                 1.5e-2,
                                 true,
                                 takes,
                                 workspace,
                                 with_layout<run_int8>};

} // namespace NIBBLE_CUDA
