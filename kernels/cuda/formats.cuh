// Readers: what the bytes of each format mean, for kernels that take weights as they lie in the
// file. A reader is a struct of static functions, and a kernel is a template over it:
//
//     at(w, row, col)            one weight
//     LENGTH                     weights of a chunk, which lie together
//     load(w, row, chunk)        a chunk's bytes, in registers: 16-byte loads where rows are
//     aligned value(raw, i)              weight i of the chunk; i is a constant once loops are
//     unrolled aligned(w)                 whether `load` may be used
#ifndef NIBBLE_FORMATS_CUH
#define NIBBLE_FORMATS_CUH

#include "kernels/cuda/device.cuh"

namespace NIBBLE_CUDA {

__device__ __forceinline__ const unsigned char *row_of(const cuda_matrix &w, unsigned row) {
    return (const unsigned char *)w.codes + row * w.row_bytes;
}

__device__ __forceinline__ float half_at(const void *p, size_t i = 0) {
    return __half2float(((const __half *)p)[i]);
}

__device__ __forceinline__ float scale_at(const cuda_matrix &w, unsigned row, unsigned col) {
    size_t i = (size_t)row * w.groups + col / w.group;
    return w.wide_scales ? ((const float *)w.scales)[i] : half_at(w.scales, i);
}

__device__ __forceinline__ float zero_at(const cuda_matrix &w, unsigned row, unsigned col) {
    if (!w.zeros)
        return 8;
    unsigned g = col / w.group;
    return (float)(w.zeros[row * w.zero_bytes + g / 2] >> g % 2 * 4 & 15);
}

__device__ __forceinline__ unsigned word_of(const uint4 &v, unsigned i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

__device__ __forceinline__ unsigned byte_of(const uint4 &v, unsigned i) {
    return word_of(v, i / 4) >> i % 4 * 8 & 255;
}

inline bool rows_aligned(const cuda_matrix &w) {
    return w.row_bytes % 16 == 0 && (uintptr_t)w.codes % 16 == 0;
}

// ---- floats ------------------------------------------------------------------------------------

struct read_f16 {
    enum { LENGTH = 8 };
    struct raw {
        uint4 codes;
    };
    static bool aligned(const cuda_matrix &w) {
        return rows_aligned(w);
    }
    static __device__ float at(const cuda_matrix &w, unsigned row, unsigned col) {
        return half_at(row_of(w, row), col);
    }
    static __device__ raw load(const cuda_matrix &w, unsigned row, unsigned chunk) {
        return {load_once((const uint4 *)row_of(w, row) + chunk)};
    }
    static __device__ float value(const raw &r, unsigned i) {
        return __half2float(
            bits_as<__half>((unsigned short)(word_of(r.codes, i / 2) >> i % 2 * 16)));
    }
};

struct read_bf16 : read_f16 {
    static __device__ float at(const cuda_matrix &w, unsigned row, unsigned col) {
        return __bfloat162float(((const __nv_bfloat16 *)row_of(w, row))[col]);
    }
    static __device__ float value(const raw &r, unsigned i) {
        return bits_as<float>(word_of(r.codes, i / 2) >> i % 2 * 16 << 16);
    }
};

// ---- planes ------------------------------------------------------------------------------------

struct read_int8 {
    enum { LENGTH = 16 };
    struct raw {
        uint4 codes;
        float scale;
    };
    static bool aligned(const cuda_matrix &w) {
        return rows_aligned(w);
    }
    static __device__ float at(const cuda_matrix &w, unsigned row, unsigned col) {
        return scale_at(w, row, col) * (float)(signed char)row_of(w, row)[col];
    }
    static __device__ raw load(const cuda_matrix &w, unsigned row, unsigned chunk) {
        return {load_once((const uint4 *)row_of(w, row) + chunk), scale_at(w, row, chunk * LENGTH)};
    }
    static __device__ float value(const raw &r, unsigned i) {
        return r.scale * (float)(signed char)byte_of(r.codes, i);
    }
};

// Blocks of 32 weights: byte i has weight i below weight i + 16. A row's last block may be shorter,
// and is cut in half the same way.
__device__ __forceinline__ unsigned nibble_at(const unsigned char *row, unsigned k, unsigned col) {
    unsigned block = col / 32 * 32, length = min(32u, k - block), half = (length + 1) / 2;
    unsigned i = col - block;
    return i < half ? row[block / 2 + i] & 15 : row[block / 2 + i - half] >> 4;
}

__device__ __forceinline__ unsigned nibble_of(const uint4 &v, unsigned i) {
    return byte_of(v, i % 16) >> i / 16 * 4 & 15;
}

struct read_int4 {
    enum { LENGTH = 32 };
    struct raw {
        uint4 codes;
        float scale, zero;
    };
    static bool aligned(const cuda_matrix &w) {
        return rows_aligned(w);
    }
    static __device__ float at(const cuda_matrix &w, unsigned row, unsigned col) {
        float code = (float)nibble_at(row_of(w, row), w.k, col);
        return scale_at(w, row, col) * (code - zero_at(w, row, col));
    }
    static __device__ raw load(const cuda_matrix &w, unsigned row, unsigned chunk) {
        return {load_once((const uint4 *)row_of(w, row) + chunk), scale_at(w, row, chunk * LENGTH),
                zero_at(w, row, chunk * LENGTH)};
    }
    static __device__ float value(const raw &r, unsigned i) {
        return r.scale * ((float)nibble_of(r.codes, i) - r.zero);
    }
};

// The numbers of cuda_nf4 in ref.c. In global memory: 64 bytes that L1 keeps. An array in the
// function would be built in local memory by every thread.
static __device__ const float nf4_values[16] = {-1.0f,
                                                -0.6961928009986877f,
                                                -0.5250730514526367f,
                                                -0.39491748809814453f,
                                                -0.28444138169288635f,
                                                -0.18477343022823334f,
                                                -0.09105003625154495f,
                                                0.0f,
                                                0.07958029955625534f,
                                                0.16093020141124725f,
                                                0.24611230194568634f,
                                                0.33791524171829224f,
                                                0.44070982933044434f,
                                                0.5626170039176941f,
                                                0.7229568362236023f,
                                                1.0f};

struct read_nf4 : read_int4 {
    static __device__ float at(const cuda_matrix &w, unsigned row, unsigned col) {
        return scale_at(w, row, col) * nf4_values[nibble_at(row_of(w, row), w.k, col)];
    }
    static __device__ float value(const raw &r, unsigned i) {
        return r.scale * nf4_values[nibble_of(r.codes, i)];
    }
};

// ---- blocks as in GGUF files -------------------------------------------------------------------

// 16 bytes at an even address. Blocks of 18, 34 and 210 bytes leave no larger alignment.
__device__ __forceinline__ uint4 load_halves(const unsigned char *p) {
    const unsigned short *h = (const unsigned short *)p;
    return make_uint4(h[0] | (unsigned)h[1] << 16, h[2] | (unsigned)h[3] << 16,
                      h[4] | (unsigned)h[5] << 16, h[6] | (unsigned)h[7] << 16);
}

// Half a float16 scale, then 32 signed bytes.
struct read_q8_0 {
    enum { LENGTH = 32, BYTES = 34 };
    struct raw {
        uint4 low, high;
        float scale;
    };
    static bool aligned(const cuda_matrix &) {
        return true;
    }
    static __device__ float at(const cuda_matrix &w, unsigned row, unsigned col) {
        const unsigned char *b = row_of(w, row) + col / 32 * BYTES;
        return half_at(b) * (float)(signed char)b[2 + col % 32];
    }
    static __device__ raw load(const cuda_matrix &w, unsigned row, unsigned chunk) {
        const unsigned char *b = row_of(w, row) + chunk * BYTES;
        return {load_halves(b + 2), load_halves(b + 18), half_at(b)};
    }
    static __device__ float value(const raw &r, unsigned i) {
        return r.scale * (float)(signed char)byte_of(i < 16 ? r.low : r.high, i % 16);
    }
};

struct read_q4_0 {
    enum { LENGTH = 32, BYTES = 18 };
    struct raw {
        uint4 codes;
        float scale;
    };
    static bool aligned(const cuda_matrix &) {
        return true;
    }
    static __device__ float at(const cuda_matrix &w, unsigned row, unsigned col) {
        const unsigned char *b = row_of(w, row) + col / 32 * BYTES;
        return half_at(b) * ((float)(b[2 + col % 16] >> col % 32 / 16 * 4 & 15) - 8);
    }
    static __device__ raw load(const cuda_matrix &w, unsigned row, unsigned chunk) {
        const unsigned char *b = row_of(w, row) + chunk * BYTES;
        return {load_halves(b + 2), half_at(b)};
    }
    static __device__ float value(const raw &r, unsigned i) {
        return r.scale * ((float)nibble_of(r.codes, i) - 8);
    }
};

// 256 weights: d, dmin, 12 bytes with 8 scales and 8 minima of six bits, 128 bytes of codes. A
// chunk is a group of 32; two groups share 32 bytes.
struct read_q4_k {
    enum { LENGTH = 32, BYTES = 144 };
    struct raw {
        uint4 low, high;
        float scale, minimum;
        unsigned shift;
    };
    static bool aligned(const cuda_matrix &w) {
        return rows_aligned(w);
    }
    static __device__ float2 scales(const unsigned char *b, unsigned g) {
        const unsigned char *s = b + 4;
        unsigned scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
        unsigned minimum = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
        return make_float2(half_at(b) * (float)scale, half_at(b + 2) * (float)minimum);
    }
    static __device__ float at(const cuda_matrix &w, unsigned row, unsigned col) {
        const unsigned char *b = row_of(w, row) + col / 256 * BYTES;
        unsigned g = col % 256 / 32;
        float2 s = scales(b, g);
        return s.x * (float)(b[16 + g / 2 * 32 + col % 32] >> g % 2 * 4 & 15) - s.y;
    }
    static __device__ raw load(const cuda_matrix &w, unsigned row, unsigned chunk) {
        const unsigned char *b = row_of(w, row) + chunk / 8 * BYTES;
        const uint4 *codes = (const uint4 *)(b + 16 + chunk % 8 / 2 * 32);
        float2 s = scales(b, chunk % 8);
        return {codes[0], codes[1], s.x, s.y, chunk % 2 * 4};
    }
    static __device__ float value(const raw &r, unsigned i) {
        unsigned byte = byte_of(i < 16 ? r.low : r.high, i % 16);
        return r.scale * (float)(byte >> r.shift & 15) - r.minimum;
    }
};

// 256 weights: low four bits [128], high two bits [64], 16 signed scales, d. A chunk of 32 is a
// quarter of a half: 32 bytes of the low bits, which another quarter shares, 32 of the high ones.
struct read_q6_k {
    enum { LENGTH = 32, BYTES = 210 };
    struct raw {
        uint4 low[2], high[2];
        float scale[2];
        unsigned low_shift, high_shift;
    };
    static bool aligned(const cuda_matrix &) {
        return true;
    }
    static __device__ float at(const cuda_matrix &w, unsigned row, unsigned col) {
        const unsigned char *b = row_of(w, row) + col / 256 * BYTES;
        unsigned half = col % 256 / 128, quarter = col % 128 / 32, i = col % 32;
        int low = b[half * 64 + quarter % 2 * 32 + i] >> quarter / 2 * 4 & 15;
        int high = b[128 + half * 32 + i] >> 2 * quarter & 3;
        float scale = half_at(b + 208) * (float)(signed char)b[192 + col % 256 / 16];
        return scale * (float)((low | high << 4) - 32);
    }
    static __device__ raw load(const cuda_matrix &w, unsigned row, unsigned chunk) {
        const unsigned char *b = row_of(w, row) + chunk / 8 * BYTES;
        unsigned half = chunk % 8 / 4, quarter = chunk % 4;
        const unsigned char *low = b + half * 64 + quarter % 2 * 32, *high = b + 128 + half * 32;
        const signed char *scales = (const signed char *)b + 192 + chunk % 8 * 2;
        float d = half_at(b + 208);
        return {{load_halves(low), load_halves(low + 16)},
                {load_halves(high), load_halves(high + 16)},
                {d * (float)scales[0], d * (float)scales[1]},
                quarter / 2 * 4,
                2 * quarter};
    }
    static __device__ float value(const raw &r, unsigned i) {
        int low = byte_of(r.low[i / 16], i % 16) >> r.low_shift & 15;
        int high = byte_of(r.high[i / 16], i % 16) >> r.high_shift & 3;
        return r.scale[i / 16] * (float)((low | high << 4) - 32);
    }
};

// Calls run<Reader>() for the matrix's format.
template <template <class> class Run> const char *with_reader(const cuda_call *call) {
    switch (call->w.format) {
    case CUDA_F16:
        return Run<read_f16>::run(call);
    case CUDA_BF16:
        return Run<read_bf16>::run(call);
    case CUDA_INT8:
        return Run<read_int8>::run(call);
    case CUDA_INT4:
        return Run<read_int4>::run(call);
    case CUDA_NF4:
        return Run<read_nf4>::run(call);
    case CUDA_Q8_0:
        return Run<read_q8_0>::run(call);
    case CUDA_Q4_0:
        return Run<read_q4_0>::run(call);
    case CUDA_Q4_K:
        return Run<read_q4_k>::run(call);
    case CUDA_Q6_K:
        return Run<read_q6_k>::run(call);
    case CUDA_FORMATS:
        break;
    }
    return "no such format";
}

inline bool takes_any(const cuda_matrix *w, unsigned) {
    return w->format < CUDA_FORMATS;
}

} // namespace NIBBLE_CUDA

#endif
