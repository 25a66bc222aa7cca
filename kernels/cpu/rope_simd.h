// Turns pairs (low[i], high[i]) by the angles whose cosines and sines are given.
static void SIMD(rope_pairs)(float *low, float *high, const float *cosine, const float *sine,
                             size_t n) {
    for (size_t i = 0; i < n; i += LANES) {
        vec c = vec_load_part(cosine + i, n - i), s = vec_load_part(sine + i, n - i);
        vec a = vec_load_part(low + i, n - i), b = vec_load_part(high + i, n - i);
        vec_store_part(low + i, a * c - b * s, n - i);
        vec_store_part(high + i, b * c + a * s, n - i);
    }
}
