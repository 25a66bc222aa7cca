// One row of n. Sums are kept in LANES parts of float32: with n in the thousands each part adds a
// few hundred terms, an error of about 1e-6, far below what the weights' 16 bits leave.
static void SIMD(rmsnorm_row)(float *y, const float *x, size_t n, const float *gain, float eps) {
    vec squares = {0};
    for (size_t i = 0; i < n; i += LANES) {
        vec v = vec_load_part(x + i, n - i);
        squares += v * v;
    }
    float inverse = 1.0f / sqrtf(vec_sum(squares) / (float)n + eps);
    for (size_t i = 0; i < n; i += LANES) {
        vec v = vec_load_part(x + i, n - i) * inverse * vec_load_part(gain + i, n - i);
        vec_store_part(y + i, v, n - i);
    }
}

static void SIMD(layernorm_row)(float *y, const float *x, size_t n, const float *gain,
                                const float *bias, float eps) {
    vec sum = {0}, rest = {0}, squares = {0};
    for (size_t i = 0; i < n; i += LANES)
        sum += vec_load_part(x + i, n - i);
    float mean = vec_sum(sum) / (float)n;
    // The distances are summed after the mean is known: E[x²] - mean² would cancel. What float32
    // rounded off the mean shows in their sum.
    for (size_t i = 0; i < n; i += LANES) {
        vec v = vec_keep(vec_load_part(x + i, n - i) - mean, n - i);
        rest += v;
        squares += v * v;
    }
    float correction = vec_sum(rest) / (float)n;
    float variance = vec_sum(squares) / (float)n - correction * correction;
    float inverse = 1.0f / sqrtf(variance + eps);
    for (size_t i = 0; i < n; i += LANES) {
        vec v = vec_load_part(x + i, n - i) - mean - correction;
        v = v * inverse * vec_load_part(gain + i, n - i);
        if (bias)
            v += vec_load_part(bias + i, n - i);
        vec_store_part(y + i, v, n - i);
    }
}
