// Loops that keep the arithmetic units or the memory busy and do nothing else.

// Twelve independent chains: more than latency (4) times units (2). Two operations per lane a step.
static double SIMD(f32_operations)(size_t steps, float factor, float *sink) {
    vec acc[12];
    for (int i = 0; i < 12; i++)
        acc[i] = vec_set((float)i);
    for (size_t s = 0; s < steps; s++)
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++)
            acc[i] = acc[i] * factor + factor;
    for (int i = 0; i < 12; i++)
        *sink += vec_sum(acc[i]);
    return 2.0 * 12 * LANES * (double)steps;
}

// The sum of four streams of n floats each, one behind the other; whole cache lines, asked for 1 KB
// before they are read.
static float SIMD(read_streams)(const float *p, size_t n) {
    vec acc[4] = {0};
    for (size_t i = 0; i + LANES <= n; i += LANES)
#pragma GCC unroll 4
        for (size_t s = 0; s < 4; s++) {
            if (i % 16 == 0)
                __builtin_prefetch(p + s * n + i + 256);
            acc[s] += vec_load(p + s * n + i);
        }
    return vec_sum(acc[0] + acc[1] + acc[2] + acc[3]);
}

#if LANES == 16
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))) static double
SIMD(i8_operations)(size_t steps, int factor, float *sink) {
    __m512i acc[12], a = _mm512_set1_epi8((char)factor);
    for (int i = 0; i < 12; i++)
        acc[i] = _mm512_set1_epi32(i);
    for (size_t s = 0; s < steps; s++)
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++)
            acc[i] = _mm512_dpbusd_epi32(acc[i], acc[i], a);
    for (int i = 0; i < 12; i++)
        *sink += (float)((ivec)acc[i])[0];
    return 2.0 * 12 * 64 * (double)steps;
}
#elif LANES == 8
static double SIMD(i8_operations)(size_t steps, int factor, float *sink) {
    __m256i acc[12], a = _mm256_set1_epi16((short)factor);
    for (int i = 0; i < 12; i++)
        acc[i] = _mm256_set1_epi32(i);
    for (size_t s = 0; s < steps; s++)
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++)
            acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(acc[i], a));
    for (int i = 0; i < 12; i++)
        *sink += (float)((ivec)acc[i])[0];
    return 2.0 * 12 * 16 * (double)steps;
}
#else
static double SIMD(i8_operations)(size_t steps, int factor, float *sink) {
    (void)steps, (void)factor, (void)sink;
    return 0;
}
#endif
