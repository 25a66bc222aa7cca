// 16-bit floats, LANES at a time.
#define bf16_vec SIMD(bf16_vec)
#define f16_vec SIMD(f16_vec)
#define halves SIMD(halves)
#define halves_load SIMD(halves_load)

typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

INLINE vec bf16_vec(halves h) {
    return (vec)(__builtin_convertvector(h, ivec) << 16);
}

INLINE vec f16_vec(halves h) {
#if LANES == 16
    return (vec)_mm512_cvtph_ps((__m256i)h);
#elif LANES == 8
    return (vec)_mm256_cvtph_ps((__m128i)h);
#elif SIMD_NEON
    return (vec)vcvt_f32_f16((float16x4_t)h);
#else
    // Exponent and mantissa, moved into place, are the value times 2^-112, subnormals included;
    // exponent 31 (infinity and NaN) must become 255.
    ivec bits = __builtin_convertvector(h, ivec);
    vec magnitude = (vec)((bits & 0x7fff) << 13) * 0x1p112f;
    ivec special = (magnitude >= 65536.0f) & 0x7f800000;
    return (vec)((ivec)magnitude | special | (bits & 0x8000) << 16);
#endif
}

INLINE halves halves_load(const uint16_t *p, size_t n) {
    halves h = {0};
    memcpy(&h, p, n < LANES ? n * sizeof *p : sizeof h);
    return h;
}
