// Exact int32 sums of a few rows of q times 4 rows of w, as in dot_simd.h.
//
// AVX-512 VNNI multiplies unsigned by signed bytes, four at a time, into int32: w + 128 is
// unsigned, and Σ q (w + 128) = Σ q w + 128 Σ q, whose last term is the same for every row of w.
// AVX2 widens both to 16 bits and adds pairs of products.
#define uvec SIMD(uvec)
#define i8_bytes SIMD(i8_bytes)
#define i8_load SIMD(i8_load)
#define i8_dot SIMD(i8_dot)
#define i8_start SIMD(i8_start)
#define i8_sum4 SIMD(i8_sum4)
#define i8_step SIMD(i8_step)
#define i8_tile_of SIMD(i8_tile_of)
#define i8_tile SIMD(i8_tile)
#undef I8_TARGET
#undef I8_STEP
#undef I8_Q

// Sums are unsigned, because those of w + 128 may wrap around, and back.
typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));
typedef uint32_t u4 __attribute__((vector_size(16)));

#if LANES == 16
#define I8_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define I8_STEP 64
#define I8_Q I8_TILE
typedef __m512i i8_bytes;

I8_TARGET INLINE i8_bytes i8_load(const int8_t *p, size_t n) {
    if (n >= I8_STEP)
        return _mm512_loadu_si512(p);
    return _mm512_maskz_loadu_epi8(~0ull >> (I8_STEP - n), p);
}

I8_TARGET INLINE uvec i8_dot(uvec acc, i8_bytes q, i8_bytes w) {
    __m512i unsigned_w = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
    return (uvec)_mm512_dpbusd_epi32((__m512i)acc, unsigned_w, q);
}

// What the sums of row q start at, so that they end without 128 Σ q.
I8_TARGET INLINE uint32_t i8_start(const int8_t *q, size_t k) {
    uvec acc = {0};
    for (size_t c = 0; c < k; c += I8_STEP)
        acc = (uvec)_mm512_dpbusd_epi32((__m512i)acc, _mm512_set1_epi8(1), i8_load(q + c, k - c));
    uint32_t sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += acc[i];
    return -128 * sum;
}
#elif LANES == 8
#define I8_TARGET
#define I8_STEP 16
#define I8_Q 3
typedef __m256i i8_bytes;

INLINE i8_bytes i8_load(const int8_t *p, size_t n) {
    __m128i bytes = {0};
    if (n >= I8_STEP)
        bytes = _mm_loadu_si128((const __m128i *)p);
    else
        memcpy(&bytes, p, n);
    return _mm256_cvtepi8_epi16(bytes);
}

INLINE uvec i8_dot(uvec acc, i8_bytes q, i8_bytes w) {
    return acc + (uvec)_mm256_madd_epi16(q, w);
}
#elif SIMD_NEON
#define I8_TARGET
#define I8_STEP 16
#define I8_Q (SIMD_NEON == 1 ? 4 : I8_TILE)
typedef int8x16_t i8_bytes;

INLINE i8_bytes i8_load(const int8_t *p, size_t n) {
    i8_bytes bytes = {0};
    memcpy(&bytes, p, n < I8_STEP ? n : I8_STEP);
    return bytes;
}

// Without sdot, two products at a time are added in 16 bits: 2 * 127 * 128 < 2^15.
INLINE uvec i8_dot(uvec acc, i8_bytes q, i8_bytes w) {
#if SIMD_NEON >= 2
    return (uvec)vdotq_s32((int32x4_t)acc, q, w);
#else
    int16x8_t products = vmull_s8(vget_low_s8(q), vget_low_s8(w));
    products = vmlal_high_s8(products, q, w);
    return (uvec)vpadalq_s16((int32x4_t)acc, products);
#endif
}
#else
#define I8_TARGET
#define I8_Q 1
#endif

#if LANES != 16
INLINE uint32_t i8_start(const int8_t *q, size_t k) {
    (void)q, (void)k;
    return 0;
}
#endif

#if LANES == 4 && !SIMD_NEON
// sums[0][j] += q · w_j; the compiler makes vectors of it.
INLINE void i8_tile_of(const int m, uint32_t (*sums)[I8_PANEL], const int8_t *q,
                       const int8_t *const w[4], size_t stride, size_t columns) {
    (void)m, (void)stride;
    for (int j = 0; j < 4; j++) {
        int32_t sum = 0;
        for (size_t c = 0; c < columns; c++)
            sum += q[c] * w[j][c];
        sums[0][j] += (uint32_t)sum;
    }
}
#else
// sums[0 … 3] += the sums of four vectors.
I8_TARGET INLINE void i8_sum4(uint32_t *sums, uvec a, uvec b, uvec c, uvec d) {
    uvec ab = VEC_SHUFFLE(a, b, 0, 4, 1, 5) + VEC_SHUFFLE(a, b, 2, 6, 3, 7);
    uvec cd = VEC_SHUFFLE(c, d, 0, 4, 1, 5) + VEC_SHUFFLE(c, d, 2, 6, 3, 7);
    uvec abcd = VEC_SHUFFLE(ab, cd, 0, 1, 4, 5) + VEC_SHUFFLE(ab, cd, 2, 3, 6, 7);
    u4 before, part[LANES / 4];
    memcpy(&before, sums, sizeof before);
    memcpy(part, &abcd, sizeof abcd);
    for (int i = 0; i < LANES / 4; i++)
        before += part[i];
    memcpy(sums, &before, sizeof before);
}

// The next n (at most I8_STEP) columns.
I8_TARGET INLINE void i8_step(const int m, uvec acc[I8_Q][4], const int8_t *q,
                              const int8_t *const w[4], size_t stride, size_t c, size_t n) {
    i8_bytes wc[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++)
        wc[j] = i8_load(w[j] + c, n);
#pragma GCC unroll 6
    for (int i = 0; i < m; i++) {
        i8_bytes qc = i8_load(q + (size_t)i * stride + c, n);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            acc[i][j] = i8_dot(acc[i][j], qc, wc[j]);
    }
}

// sums[i][j] += q_i · w_j.
I8_TARGET INLINE void i8_tile_of(const int m, uint32_t (*sums)[I8_PANEL], const int8_t *q,
                                 const int8_t *const w[4], size_t stride, size_t columns) {
    uvec acc[I8_Q][4] = {0};
    size_t c = 0;
    for (; c + I8_STEP <= columns; c += I8_STEP)
        i8_step(m, acc, q, w, stride, c, I8_STEP);
    if (c < columns)
        i8_step(m, acc, q, w, stride, c, columns - c);
    for (int i = 0; i < m; i++)
        i8_sum4(sums[i], acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
}
#endif

I8_TARGET INLINE void i8_tile(size_t m, uint32_t (*sums)[I8_PANEL], const int8_t *q,
                              const int8_t *const w[4], size_t stride, size_t columns) {
    size_t i = 0;
    for (; i + I8_Q <= m; i += I8_Q)
        i8_tile_of(I8_Q, sums + i, q + i * stride, w, stride, columns);
    for (; i < m; i++)
        i8_tile_of(1, sums + i, q + i * stride, w, stride, columns);
}

// sums[i][j] = q_i · w_j for m <= I8_TILE rows of q and n <= I8_PANEL rows of w.
I8_TARGET static void SIMD(dot_panel_i8)(uint32_t (*sums)[I8_PANEL], const int8_t *q, size_t m,
                                         const int8_t *w, size_t n, size_t k) {
    for (size_t i = 0; i < m; i++) {
        uint32_t start = i8_start(q + i * k, k);
        for (size_t j = 0; j < I8_PANEL; j++)
            sums[i][j] = start;
    }
    for (size_t col = 0; col < k; col += I8_CHUNK)
        for (size_t j = 0; j < n; j += 4) {
            const int8_t *rows[4]; // past the last row: that row again, and the sum is not used
            for (size_t r = 0; r < 4; r++)
                rows[r] = w + min_size(j + r, n - 1) * k + col;
            i8_tile(m, (void *)&sums[0][j], q + col, rows, k, min_size(I8_CHUNK, k - col));
        }
}

// The row's largest |x|; a NaN is larger than all. |x| compares like its bits.
INLINE float SIMD(largest_magnitude)(const float *x, size_t k) {
    int32_t largest = 0;
    for (size_t c = 0; c < k; c++) {
        int32_t bits;
        memcpy(&bits, x + c, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    float f;
    memcpy(&f, &largest, sizeof f);
    return f;
}

static float SIMD(quantize_row_i8)(const float *x, size_t k, int8_t *q) {
    float scale = SIMD(largest_magnitude)(x, k) / 127.0f;
    memset(q, 0, k);
    if (scale == 0.0f || !isfinite(scale))
        return scale;
    for (size_t c = 0; c < k; c++) {
        float steps = x[c] / scale;
        steps = steps > 127.0f ? 127.0f : steps < -127.0f ? -127.0f : steps;
        q[c] =
            (int8_t)(int32_t)(steps + 0x1.8p23f - 0x1.8p23f); // rounds to the nearest, ties to even
    }
    return scale;
}
