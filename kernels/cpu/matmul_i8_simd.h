// Exact int32 sums of a few rows of q times 4 rows of w, as in dot_simd.h.
//
// AVX-512 VNNI multiplies unsigned by signed bytes, four at a time, into int32: w + 128 is
// unsigned, and Σ q (w + 128) = Σ q w + 128 Σ q, whose last term is the same for every row of w.
// AVX2 widens both to 16 bits and adds pairs of products.
#define i8_bytes SIMD(i8_bytes)
#define i8_acc SIMD(i8_acc)
#define i8_load SIMD(i8_load)
#define i8_dot SIMD(i8_dot)
#define i8_total SIMD(i8_total)
#define i8_tile_of SIMD(i8_tile_of)
#define i8_tile SIMD(i8_tile)
#undef I8_TARGET
#undef I8_STEP
#undef I8_Q
#undef I8_OFFSET

#if LANES == 16
#define I8_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define I8_STEP 64
#define I8_Q I8_TILE
#define I8_OFFSET 128
typedef __m512i i8_bytes, i8_acc;

I8_TARGET INLINE i8_bytes i8_load(const int8_t *p, size_t left) {
    if (left >= I8_STEP)
        return _mm512_loadu_si512(p);
    return _mm512_maskz_loadu_epi8(~0ull >> (I8_STEP - left), p);
}

I8_TARGET INLINE i8_acc i8_dot(i8_acc acc, i8_bytes q, i8_bytes w) {
    return _mm512_dpbusd_epi32(acc, _mm512_xor_si512(w, _mm512_set1_epi8(-128)), q);
}

I8_TARGET INLINE uint32_t i8_total(i8_acc acc) {
    return (uint32_t)_mm512_reduce_add_epi32(acc);
}
#elif LANES == 8
#define I8_TARGET
#define I8_STEP 16
#define I8_Q 2
#define I8_OFFSET 0
typedef __m256i i8_bytes, i8_acc;

INLINE i8_bytes i8_load(const int8_t *p, size_t left) {
    __m128i bytes = {0};
    if (left >= I8_STEP)
        bytes = _mm_loadu_si128((const __m128i *)p);
    else
        memcpy(&bytes, p, left);
    return _mm256_cvtepi8_epi16(bytes);
}

INLINE i8_acc i8_dot(i8_acc acc, i8_bytes q, i8_bytes w) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(q, w));
}

INLINE uint32_t i8_total(i8_acc acc) {
    ivec lanes = (ivec)acc;
    uint32_t sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += (uint32_t)lanes[i];
    return sum;
}
#else
#define I8_TARGET
#define I8_STEP 1
#define I8_Q 1
#define I8_OFFSET 0
typedef int32_t i8_bytes, i8_acc;

INLINE i8_bytes i8_load(const int8_t *p, size_t left) {
    (void)left;
    return *p;
}

INLINE i8_acc i8_dot(i8_acc acc, i8_bytes q, i8_bytes w) {
    return acc + q * w;
}

INLINE uint32_t i8_total(i8_acc acc) {
    return (uint32_t)acc;
}
#endif

// sums[i][j] += q_i · w_j. Unsigned, because sums of w + 128 may wrap around and back.
I8_TARGET INLINE void i8_tile_of(const int m, uint32_t (*sums)[I8_PANEL], const int8_t *q,
                                 const int8_t *const w[4], size_t stride, size_t columns) {
    i8_acc acc[I8_Q][4] = {0};
    for (size_t c = 0; c < columns; c += I8_STEP) {
        i8_bytes wc[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            wc[j] = i8_load(w[j] + c, columns - c);
#pragma GCC unroll 6
        for (int i = 0; i < m; i++) {
            i8_bytes qc = i8_load(q + (size_t)i * stride + c, columns - c);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                acc[i][j] = i8_dot(acc[i][j], qc, wc[j]);
        }
    }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < 4; j++)
            sums[i][j] += i8_total(acc[i][j]);
}

I8_TARGET INLINE void i8_tile(size_t m, uint32_t (*sums)[I8_PANEL], const int8_t *q,
                              const int8_t *const w[4], size_t stride, size_t columns) {
    size_t i = 0;
    for (; i + I8_Q <= m; i += I8_Q)
        i8_tile_of(I8_Q, sums + i, q + i * stride, w, stride, columns);
    for (; i < m; i++)
        i8_tile_of(1, sums + i, q + i * stride, w, stride, columns);
}

static int32_t SIMD(sum_i8)(const int8_t *q, size_t k) {
    int32_t sum = 0;
    for (size_t c = 0; c < k; c++)
        sum += q[c];
    return sum;
}

// sums[i][j] = q_i · w_j for m <= I8_TILE rows of q and n <= I8_PANEL rows of w.
I8_TARGET static void SIMD(dot_panel_i8)(uint32_t (*sums)[I8_PANEL], const int8_t *q, size_t m,
                                         const int8_t *w, size_t n, size_t k) {
    for (size_t i = 0; i < m; i++) {
        uint32_t offset = I8_OFFSET ? (uint32_t)SIMD(sum_i8)(q + i * k, k) * I8_OFFSET : 0;
        for (size_t j = 0; j < I8_PANEL; j++)
            sums[i][j] = -offset;
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
