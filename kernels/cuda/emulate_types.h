// The types and arithmetic intrinsics of CUDA that the kernels use, in C++: what the hardware's
// instruction gives, bit for bit, except that a half-precision fused multiply-add is rounded from
// double. Included by emulate.h.
#ifndef NIBBLE_EMULATE_TYPES_H
#define NIBBLE_EMULATE_TYPES_H

#include <math.h>
#include <stdint.h>

struct uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
inline float2 make_float2(float x, float y) {
    return {x, y};
}

struct __half {
    uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};
struct __nv_bfloat16 {
    uint16_t bits;
};

namespace emulate {

inline float from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

inline float half_to_float(uint16_t h) {
    unsigned exponent = h >> 10 & 31, fraction = h & 1023;
    float sign = h >> 15 ? -1.0f : 1.0f;
    if (exponent == 31)
        return fraction ? from_bits(0x7fc00000) : sign * from_bits(0x7f800000);
    return sign * (exponent ? ldexpf((float)(1024 + fraction), (int)exponent - 25)
                            : ldexpf((float)fraction, -24));
}

// Nearest, ties to even, in one step from the double.
inline uint16_t half_from_double(double d) {
    uint16_t sign = signbit(d) ? 0x8000 : 0;
    d = fabs(d);
    if (d == 0)
        return sign;
    if (isnan(d))
        return 0x7fff;
    if (d >= 65520)
        return (uint16_t)(sign | 0x7c00);
    int exponent = 0;
    frexp(d, &exponent);                                  // d < 2^exponent
    int step = exponent - 11 > -24 ? exponent - 11 : -24; // of halves this large: 2^step
    double steps = nearbyint(ldexp(d, -step));            // up to 2048, which is the next exponent
    unsigned magnitude =
        step == -24 ? (unsigned)steps : ((unsigned)(step + 24) << 10) + (unsigned)steps;
    return (uint16_t)(sign | magnitude);
}

inline __half half(double d) {
    return {half_from_double(d)};
}

} // namespace emulate

inline float __half2float(__half h) {
    return emulate::half_to_float(h.bits);
}
inline __half __float2half_rn(float f) {
    return emulate::half(f);
}
inline __half2 __halves2half2(__half x, __half y) {
    return {x, y};
}
inline __half2 __half2half2(__half x) {
    return {x, x};
}
inline __half2 __floats2half2_rn(float x, float y) {
    return {emulate::half(x), emulate::half(y)};
}
inline float2 __half22float2(__half2 h) {
    return {__half2float(h.x), __half2float(h.y)};
}
inline __half2 __hadd2(__half2 a, __half2 b) {
    return {emulate::half((double)__half2float(a.x) + __half2float(b.x)),
            emulate::half((double)__half2float(a.y) + __half2float(b.y))};
}
inline __half2 __hsub2(__half2 a, __half2 b) {
    return {emulate::half((double)__half2float(a.x) - __half2float(b.x)),
            emulate::half((double)__half2float(a.y) - __half2float(b.y))};
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
    return {emulate::half((double)__half2float(a.x) * __half2float(b.x) + __half2float(c.x)),
            emulate::half((double)__half2float(a.y) * __half2float(b.y) + __half2float(c.y))};
}
inline float __bfloat162float(__nv_bfloat16 b) {
    return emulate::from_bits((uint32_t)b.bits << 16);
}

template <class T> inline T __ldg(const T *p) {
    return *p;
}
template <class T> inline T __ldcg(const T *p) {
    return *p;
}
inline float __int_as_float(int bits) {
    return emulate::from_bits((uint32_t)bits);
}

// Bytes of a (0 … 3) and b (4 … 7), one chosen by each nibble of `pick`.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned pick) {
    uint64_t bytes = (uint64_t)b << 32 | a;
    unsigned out = 0;
    for (int i = 0; i < 4; i++)
        out |= (unsigned)(bytes >> 8 * (pick >> 4 * i & 7) & 255) << 8 * i;
    return out;
}

// sum + Σ of four products of signed bytes.
inline int __dp4a(int a, int b, int sum) {
    for (int i = 0; i < 4; i++)
        sum += (int8_t)((unsigned)a >> 8 * i) * (int8_t)((unsigned)b >> 8 * i);
    return sum;
}

inline int __float2int_rn(float f) {
    return (int)nearbyintf(f);
}
template <class T> inline T min(T a, T b) {
    return a < b ? a : b;
}
template <class T> inline T max(T a, T b) {
    return a > b ? a : b;
}

#endif
