// Multiplying with the packed layout (pack.c), which kernels 6 to 11 share: what a lane holds of a
// record, how its codes become a fragment of halves, and the products with x.
#ifndef NIBBLE_PACKED_CUH
#define NIBBLE_PACKED_CUH

#include "kernels/cuda/formats.cuh"
#include "kernels/cuda/packed.h"

namespace NIBBLE_CUDA {

// bits of a code; groups of scales in a record, 0: none; whether they bring zero points.
template <unsigned BITS_, unsigned SETS_, bool ZEROS_> struct layout {
    static constexpr unsigned BITS = BITS_, SETS = SETS_;
    static constexpr bool ZEROS = ZEROS_;
    static constexpr unsigned LOADS = BITS / 2; // of 16 bytes per lane
    static constexpr unsigned SCALES = PACKED_ROWS * PACKED_COLUMNS / 8 * BITS;
    static constexpr unsigned ZERO_POINTS = SCALES + SETS * PACKED_ROWS * 2;
    static constexpr unsigned BYTES = SCALES + SETS * PACKED_ROWS * 2 * (ZEROS ? 2 : 1);
};

// A lane's part of a record, in registers.
template <class L> struct record {
    uint4 codes[L::LOADS];
    __half2 scales[L::SETS ? L::SETS : 1]; // (row g, row g + 8)
    __half2 zeros[L::ZEROS ? L::SETS : 1]; // 1024 + zero point
};

// From global memory or from shared.
template <class L, bool global>
__device__ __forceinline__ void record_load(record<L> &r, const unsigned char *p, unsigned lane) {
#pragma unroll
    for (unsigned i = 0; i < L::LOADS; i++) {
        const uint4 *codes = (const uint4 *)p + i * 32 + lane;
        r.codes[i] = global ? load_once(codes) : *codes;
    }
    if constexpr (L::SETS > 0) {
#pragma unroll
        for (unsigned s = 0; s < L::SETS; s++) {
            r.scales[s] = ((const __half2 *)(p + L::SCALES))[s * 8 + lane / 4];
            if constexpr (L::ZEROS)
                r.zeros[s] = ((const __half2 *)(p + L::ZERO_POINTS))[s * 8 + lane / 4];
        }
    }
}

// The weights of product p as halves: a[0] and a[2] of row g, a[1] and a[3] of row g + 8.
template <class L>
__device__ __forceinline__ void fragment(const record<L> &r, unsigned p, unsigned set,
                                         unsigned (&a)[4]) {
    if constexpr (L::BITS == 16) {
        const uint4 &v = r.codes[p];
        a[0] = v.x, a[1] = v.y, a[2] = v.z, a[3] = v.w;
    } else if constexpr (L::BITS == 8) {
        const __half2 zero = bits_as<__half2>(0x64806480u); // 1024 + 128
#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            unsigned word = word_of(r.codes[p / 2], p % 2 * 2 + i);
            unsigned low = __byte_perm(word, 0x64646464, 0x4240);
            unsigned high = __byte_perm(word, 0x64646464, 0x4341);
            a[2 * i] = bits_as<unsigned>(__hsub2(bits_as<__half2>(low), zero));
            a[2 * i + 1] = bits_as<unsigned>(__hsub2(bits_as<__half2>(high), zero));
        }
    } else {
        const __half2 sixteenth = bits_as<__half2>(0x2c002c00u),
                      c960 = bits_as<__half2>(0x63806380u);
        __half2 low_zero = bits_as<__half2>(0x64086408u);  // 1024 + 8
        __half2 high_zero = bits_as<__half2>(0xd480d480u); // -(64 + 8)
        if constexpr (L::ZEROS) {
            unsigned both = bits_as<unsigned>(r.zeros[set]);
            low_zero = bits_as<__half2>(__byte_perm(both, 0, 0x1010));
            high_zero = __hsub2(c960, bits_as<__half2>(__byte_perm(both, 0, 0x3232)));
        }
        unsigned word = word_of(r.codes[p / 4], p % 4);
#pragma unroll
        for (unsigned i = 0; i < 2; i++, word >>= 8) {
            unsigned low = and_or(word, 0x000f000f, 0x64006400);  // 1024 + q
            unsigned high = and_or(word, 0x00f000f0, 0x64006400); // 1024 + 16 q
            a[2 * i] = bits_as<unsigned>(__hsub2(bits_as<__half2>(low), low_zero));
            a[2 * i + 1] = bits_as<unsigned>(__hfma2(bits_as<__half2>(high), sixteenth, high_zero));
        }
    }
}

// sum += record · x for TILES tiles of eight rows of x. x(tile, pair): the lane's 16 bytes of x for
// products 2·pair and 2·pair + 1. sum: a C fragment per tile (device.cuh), rows of w by rows of x.
template <class L, unsigned TILES, class X>
__device__ __forceinline__ void record_multiply(const record<L> &r, X x, float (&sum)[TILES][4]) {
    float part[TILES][4] = {};
#pragma unroll
    for (unsigned pair = 0; pair < 4; pair++) {
        const unsigned set = pair * L::SETS / 4;
        unsigned a[2][4];
        fragment(r, 2 * pair, set, a[0]);
        fragment(r, 2 * pair + 1, set, a[1]);
#pragma unroll
        for (unsigned tile = 0; tile < TILES; tile++) {
            const uint4 v = x(tile, pair);
            const unsigned b[2][2] = {{v.x, v.y}, {v.z, v.w}};
            mma_16x8x16(L::SETS ? part[tile] : sum[tile], a[0], b[0]);
            mma_16x8x16(L::SETS ? part[tile] : sum[tile], a[1], b[1]);
        }
        if (!L::SETS || (pair + 1) * L::SETS % 4 != 0)
            continue;
        const float2 scale = __half22float2(r.scales[set]); // the group ends here
#pragma unroll
        for (unsigned tile = 0; tile < TILES; tile++)
#pragma unroll
            for (unsigned i = 0; i < 4; i++) {
                sum[tile][i] += (i < 2 ? scale.x : scale.y) * part[tile][i];
                part[tile][i] = 0;
            }
    }
}

// Row g of every tile of x, straight from memory: x stays in L1 and L2. Rows from m on are 0.
struct global_x {
    const __half *x; // at the record's first column
    unsigned m, x_stride, lane;
    __device__ __forceinline__ uint4 operator()(unsigned tile, unsigned pair) const {
        const unsigned row = tile * 8 + lane / 4;
        if (row >= m)
            return make_uint4(0, 0, 0, 0);
        return __ldg((const uint4 *)(x + (size_t)row * x_stride + pair * 32) + lane % 4);
    }
};

// Where a kernel finds what it reads, by value.
struct packed_matrix {
    const unsigned char *records;
    const float *row_scales;     // NULL: none
    unsigned n, tiles, per_tile; // rows; rows of tiles; records of one
};

inline packed_matrix packed_of(const cuda_matrix &w) {
    packed_shape s;
    if (!cuda_packed_shape(&w, &s))
        return {};
    const unsigned char *p = (const unsigned char *)w.packed;
    return {p, s.row_scales ? (const float *)(p + s.scales) : nullptr, w.n, s.tiles, s.records};
}

// Element i of lane's C fragment: row of w within the tile of 16, row of x within the tile of 8.
__device__ __forceinline__ unsigned fragment_row(unsigned lane, unsigned i) {
    return lane / 4 + i / 2 * 8;
}
__device__ __forceinline__ unsigned fragment_col(unsigned lane, unsigned i) {
    return lane % 4 * 2 + i % 2;
}

// y gets one tile's sums.
template <unsigned TILES>
__device__ __forceinline__ void store_tile(const packed_matrix &w, unsigned tile_row, unsigned lane,
                                           const float (&sum)[TILES][4], float *y,
                                           unsigned y_stride, unsigned m) {
#pragma unroll
    for (unsigned tile = 0; tile < TILES; tile++)
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            const unsigned row = tile_row * PACKED_ROWS + fragment_row(lane, i);
            const unsigned col = tile * 8 + fragment_col(lane, i);
            if (row < w.n && col < m)
                y[(size_t)col * y_stride + row] =
                    sum[tile][i] * (w.row_scales ? w.row_scales[row] : 1.0f);
        }
}

// Calls Run<layout>::run(call) for the matrix's layout.
template <template <class> class Run> const char *with_layout(const cuda_call *c) {
    packed_shape s;
    if (!cuda_packed_shape(&c->w, &s))
        return "no packed layout for this format";
    switch (s.bits * 10 + s.sets + (s.zeros ? 5 : 0)) {
    case 160:
        return Run<layout<16, 0, false>>::run(c);
    case 80:
        return Run<layout<8, 0, false>>::run(c);
    case 81:
        return Run<layout<8, 1, false>>::run(c);
    case 82:
        return Run<layout<8, 2, false>>::run(c);
    case 84:
        return Run<layout<8, 4, false>>::run(c);
    case 40:
        return Run<layout<4, 0, false>>::run(c);
    case 41:
        return Run<layout<4, 1, false>>::run(c);
    case 42:
        return Run<layout<4, 2, false>>::run(c);
    case 44:
        return Run<layout<4, 4, false>>::run(c);
    case 46:
        return Run<layout<4, 1, true>>::run(c);
    case 47:
        return Run<layout<4, 2, true>>::run(c);
    case 49:
        return Run<layout<4, 4, true>>::run(c);
    }
    return "no kernel for this layout";
}

inline bool takes_packed(const cuda_matrix *w, unsigned m, unsigned largest) {
    packed_shape s;
    return m <= largest && cuda_packed_shape(w, &s);
}

} // namespace NIBBLE_CUDA

#endif
