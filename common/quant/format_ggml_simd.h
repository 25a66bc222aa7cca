// What the block formats' vector code shares: bytes in and out, and 32 neighbours at a time.
#define vec_clamp SIMD(vec_clamp)
#define vec_round SIMD(vec_round)
#define byte_vec SIMD(byte_vec)
#define ints_of_bytes SIMD(ints_of_bytes)
#define bytes_of_ints SIMD(bytes_of_ints)
#define vec_of_ints SIMD(vec_of_ints)
#define lane_bits SIMD(lane_bits)
#define VECS SIMD(VECS)
#define HALF SIMD(HALF)
#define weights32 SIMD(weights32)
#define codes32 SIMD(codes32)
#define load32 SIMD(load32)
#define largest_of SIMD(largest_of)
#define largest_signed SIMD(largest_signed)
#define store_nibbles SIMD(store_nibbles)

INLINE vec vec_clamp(vec x, float lo, float hi) {
    return vec_min(vec_max(x, vec_set(lo)), vec_set(hi));
}

// To even; see round_even.
INLINE vec vec_round(vec x) {
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

typedef uint8_t byte_vec __attribute__((vector_size(LANES)));

// LANES bytes as integers 0 … 255. GCC 12's own conversion goes through scalar registers.
INLINE ivec ints_of_bytes(const uint8_t *p) {
#if LANES == 16
    return (ivec)_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p));
#elif LANES == 8
    return (ivec)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
#else
    byte_vec b;
    memcpy(&b, p, sizeof b);
    return __builtin_convertvector(b, ivec);
#endif
}

// The low bytes of integers.
INLINE void bytes_of_ints(ivec v, uint8_t *p) {
#if LANES == 16
    _mm_storeu_si128((void *)p, _mm512_cvtepi32_epi8((__m512i)v));
#elif LANES == 8
    v &= 255;
    __m128i words = _mm_packus_epi32(_mm256_castsi256_si128((__m256i)v),
                                     _mm256_extracti128_si256((__m256i)v, 1));
    _mm_storel_epi64((void *)p, _mm_packus_epi16(words, words));
#else
    byte_vec b = __builtin_convertvector(v, byte_vec);
    memcpy(p, &b, sizeof b);
#endif
}

INLINE vec vec_of_ints(ivec v) {
    return __builtin_convertvector(v, vec);
}

// Bit i is the sign of lane i. The lanes of a comparison are -1 or 0.
INLINE uint32_t lane_bits(ivec v) {
#if LANES == 16
    return _mm512_movepi32_mask((__m512i)v);
#elif LANES == 8
    return (uint32_t)_mm256_movemask_ps((__m256)v);
#elif defined(__x86_64__)
    return (uint32_t)_mm_movemask_ps((__m128)v);
#else
    uint32_t bits = 0;
    for (int i = 0; i < LANES; i++)
        bits |= (v[i] < 0 ? 1u : 0) << i;
    return bits;
#endif
}

enum { VECS = 32 / LANES, HALF = 16 / LANES };

struct weights32 {
    vec v[VECS];
};

struct codes32 {
    ivec v[VECS];
};

INLINE struct weights32 load32(const float *w) {
    struct weights32 x;
    for (int i = 0; i < VECS; i++)
        x.v[i] = vec_load(w + i * LANES);
    return x;
}

// The largest magnitude; not finite if a weight is not (see quant_absmax).
INLINE float largest_of(struct weights32 x) {
    typedef int32_t four __attribute__((vector_size(16)));
    four part[LANES / 4], all = {0};
    ivec largest = {0};
    for (int i = 0; i < VECS; i++) {
        ivec magnitude = (ivec)x.v[i] & 0x7fffffff, more = magnitude > largest;
        largest = (magnitude & more) | (largest & ~more);
    }
    memcpy(part, &largest, sizeof part);
    for (int i = 0; i < LANES / 4; i++)
        all = (part[i] & (part[i] > all)) | (all & ~(part[i] > all));
    int32_t a = all[0] > all[1] ? all[0] : all[1], b = all[2] > all[3] ? all[2] : all[3];
    return f32_from_bits((uint32_t)(a > b ? a : b));
}

// The weight of that magnitude, the first if there are several; 0, not -0, if all are zeros. w:
// where x was loaded from.
INLINE float largest_signed(struct weights32 x, const float *w) {
    float largest = largest_of(x);
    uint32_t where = 0;
    for (int i = 0; i < VECS; i++)
        where |= lane_bits((vec)((ivec)x.v[i] & 0x7fffffff) == largest) << i * LANES;
    return where && largest > 0 ? w[__builtin_ctz(where)] : largest; // a NaN equals nothing
}

// Codes j and j + 16 in byte j.
INLINE void store_nibbles(struct codes32 q, uint8_t *out) {
    for (int i = 0; i < HALF; i++)
        bytes_of_ints((q.v[i] & 15) | (q.v[i + HALF] & 15) << 4, out + i * LANES);
}
