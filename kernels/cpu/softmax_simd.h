static float SIMD(row_largest)(const float *x, size_t n) {
    vec largest = vec_set(-INFINITY);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        largest = vec_max(vec_load(x + i), largest);
    float most = vec_largest(largest);
    for (; i < n; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

// Σ e^(x[i] - shift), in double from every 64 terms of a lane on.
static double SIMD(row_sum_exp)(const float *x, size_t n, float shift) {
    enum { BLOCK = 64 * LANES };
    double total = 0;
    for (size_t block = 0; block < n; block += BLOCK) {
        size_t end = min_size(n, block + BLOCK), i = block;
        vec sum = {0};
        for (; i + LANES <= end; i += LANES)
            sum += vec_exp(vec_load(x + i) - shift);
        if (i < end) {
            vec last = vec_set(-INFINITY); // adds e^-infinity = 0
            memcpy(&last, x + i, (end - i) * sizeof *x);
            sum += vec_exp(last - shift);
        }
        total += vec_sum(sum);
    }
    return total;
}
