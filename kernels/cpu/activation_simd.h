static void SIMD(silu_mul_part)(float *y, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i += LANES) {
        vec g = vec_load_part(gate + i, n - i), u = vec_load_part(up + i, n - i);
        vec_store_part(y + i, vec_silu(g) * u, n - i);
    }
}

// 0.5 (1 + tanh z) = 1 / (1 + e^-2z), which does not cancel where tanh comes close to -1.
static void SIMD(gelu_tanh_part)(float *y, const float *x, size_t n) {
    const float twice_sqrt_2_over_pi = 1.5957691216f;
    for (size_t i = 0; i < n; i += LANES) {
        vec v = vec_load_part(x + i, n - i);
        vec twice_z = twice_sqrt_2_over_pi * v * (1.0f + 0.044715f * v * v);
        vec_store_part(y + i, v / (1.0f + vec_exp(-twice_z)), n - i);
    }
}

static void SIMD(add_to_part)(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i += LANES)
        vec_store_part(y + i, vec_load_part(y + i, n - i) + vec_load_part(x + i, n - i), n - i);
}
