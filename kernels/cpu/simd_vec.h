// `vec` and what can be done with it, for the instruction set that simd.h is compiling for.
// Included once per instruction set, so it has no guard.
#define vec SIMD(vec)
#define ivec SIMD(ivec)
#define vec_unaligned SIMD(vec_unaligned)
#define vec_load SIMD(vec_load)
#define vec_store SIMD(vec_store)
#define vec_load_part SIMD(vec_load_part)
#define vec_store_part SIMD(vec_store_part)
#define vec_keep SIMD(vec_keep)
#define vec_set SIMD(vec_set)
#define vec_select SIMD(vec_select)
#define vec_max SIMD(vec_max)
#define vec_min SIMD(vec_min)
#define vec_fold SIMD(vec_fold)
#define vec_sum SIMD(vec_sum)
#define vec_sum4 SIMD(vec_sum4)
#define vec_largest SIMD(vec_largest)
#define vec_exp SIMD(vec_exp)
#define vec_silu SIMD(vec_silu)

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef float vec_unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// Every group of four lanes of the result takes lanes i, j, k, l of the same groups of a (0 … 3)
// and b (4 … 7). GCC 11 has only the older spelling.
#undef LANE
#undef FOUR_LANES
#undef ALL_LANES
#define LANE(i, group) ((i) % 4 + 4 * (group) + ((i) < 4 ? 0 : LANES))
#define FOUR_LANES(i, j, k, l, g) LANE(i, g), LANE(j, g), LANE(k, g), LANE(l, g)
#if LANES == 16
#define ALL_LANES(i, j, k, l)                                                                      \
    FOUR_LANES(i, j, k, l, 0), FOUR_LANES(i, j, k, l, 1), FOUR_LANES(i, j, k, l, 2),               \
        FOUR_LANES(i, j, k, l, 3)
#elif LANES == 8
#define ALL_LANES(i, j, k, l) FOUR_LANES(i, j, k, l, 0), FOUR_LANES(i, j, k, l, 1)
#else
#define ALL_LANES(i, j, k, l) FOUR_LANES(i, j, k, l, 0)
#endif
#undef VEC_SHUFFLE
#if defined(__clang__) || __GNUC__ >= 12
#define VEC_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, ALL_LANES(i, j, k, l))
#else
#define VEC_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (ivec){ALL_LANES(i, j, k, l)})
#endif

INLINE vec vec_load(const float *p) {
    return *(const vec_unaligned *)p;
}

INLINE void vec_store(float *p, vec v) {
    *(vec_unaligned *)p = v;
}

// The first n floats at p (all of them if n >= LANES), zeros after them.
INLINE vec vec_load_part(const float *p, size_t n) {
    if (n >= LANES)
        return vec_load(p);
    vec v = {0};
    memcpy(&v, p, n * sizeof *p);
    return v;
}

INLINE void vec_store_part(float *p, vec v, size_t n) {
    if (n >= LANES)
        vec_store(p, v);
    else
        memcpy(p, &v, n * sizeof *p);
}

// v with zeros from lane n on.
INLINE vec vec_keep(vec v, size_t n) {
    vec kept = {0};
    memcpy(&kept, &v, n < LANES ? n * sizeof(float) : sizeof v);
    return kept;
}

INLINE vec vec_set(float f) {
    return f - (vec){0};
}

// Lane by lane: mask (all ones, or zero) ? a : b.
INLINE vec vec_select(ivec mask, vec a, vec b) {
    return (vec)(((ivec)a & mask) | ((ivec)b & ~mask));
}

// a > b ? a : b: a NaN in a is passed over, one in b stays. One instruction on x86, for which GCC
// takes three to select.
INLINE vec vec_max(vec a, vec b) {
#if LANES == 16
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return vec_select(a > b, a, b);
#endif
}

// a < b ? a : b, likewise.
INLINE vec vec_min(vec a, vec b) {
#if LANES == 16
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return vec_select(a < b, a, b);
#endif
}

// Four partial sums of the LANES lanes: lane i is the sum of lanes i, i + 4, i + 8 …
INLINE v4 vec_fold(vec v) {
    v4 part[LANES / 4];
    memcpy(part, &v, sizeof v);
#if LANES == 16
    return (part[0] + part[2]) + (part[1] + part[3]);
#elif LANES == 8
    return part[0] + part[1];
#else
    return part[0];
#endif
}

// The sums of four vectors. A vector's sum has the same bits whichever of the four it is.
INLINE v4 vec_sum4(vec a, vec b, vec c, vec d) {
    vec ab = VEC_SHUFFLE(a, b, 0, 4, 1, 5) + VEC_SHUFFLE(a, b, 2, 6, 3, 7);
    vec cd = VEC_SHUFFLE(c, d, 0, 4, 1, 5) + VEC_SHUFFLE(c, d, 2, 6, 3, 7);
    return vec_fold(VEC_SHUFFLE(ab, cd, 0, 1, 4, 5) + VEC_SHUFFLE(ab, cd, 2, 3, 6, 7));
}

INLINE float vec_sum(vec v) {
    v4 f = vec_fold(v);
    return (f[0] + f[2]) + (f[1] + f[3]);
}

INLINE float vec_largest(vec v) {
    v = vec_max(v, VEC_SHUFFLE(v, v, 2, 3, 0, 1));
    v = vec_max(v, VEC_SHUFFLE(v, v, 1, 0, 3, 2));
    float largest = v[0]; // each group of four lanes now agrees
    for (int i = 4; i < LANES; i += 4)
        largest = v[i] > largest ? v[i] : largest;
    return largest;
}

// e^x, relative error below 1e-7 (8.4e-8 measured); infinity above 88.73, NaN for NaN; 0 below
// -87.33, where floats become denormal: each of these would cost 150 cycles, and softmax makes many.
// x = n ln 2 + r with |r| <= ln 2 / 2; e^r is a polynomial of degree 7, 2^n is made of exponent
// bits, in two halves so that both are normal numbers (AVX-512 has an instruction for it).
INLINE vec vec_exp(vec x) {
    const float least = -87.33f;
    ivec small = x < least;
    x = vec_min(vec_set(89.0f), vec_max(vec_set(least), x));
    const float round = 0x1.8p23f; // adding it leaves the nearest integer in the low mantissa bits
    vec biased = x * 1.44269504f + round;
    vec n = biased - round;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    vec e = p * (r * r) + r + 1.0f;
#if LANES == 16
    e = (vec)_mm512_scalef_ps((__m512)e, (__m512)n);
#else
    ivec exponent = (ivec)biased - 0x4b400000;
    ivec half = exponent >> 1;
    e = e * (vec)((half + 127) << 23) * (vec)((exponent - half + 127) << 23);
#endif
    return vec_select(small, vec_set(0), e);
}

INLINE vec vec_silu(vec x) {
    return x / (1.0f + vec_exp(-x));
}
