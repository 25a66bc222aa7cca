// Sums over a vocabulary: in float32 for 64 terms of a lane, in double from there on.
#define changes SIMD(changes)
#define beyond_linear SIMD(beyond_linear)
#define SUM_BLOCK (64 * LANES)

// logits - reference of up to LANES entries.
INLINE vec changes(const float *reference, const float *logits, size_t n) {
    return vec_load_part(logits, n) - vec_load_part(reference, n);
}

// Σ p d / Σ p, d = logits - reference; *total: Σ p.
static double SIMD(mean_change)(const float *p, const float *reference, const float *logits,
                                size_t v, double *total) {
    double mean = 0;
    *total = 0;
    for (size_t block = 0; block < v; block += SUM_BLOCK) {
        vec sum = {0}, weight = {0};
        for (size_t i = block, end = min_size(v, block + SUM_BLOCK); i < end; i += LANES) {
            vec w = vec_load_part(p + i, end - i);
            weight += w;
            sum += w * changes(reference + i, logits + i, end - i);
        }
        *total += vec_sum(weight);
        mean += vec_sum(sum);
    }
    return mean / *total;
}

// e^x - 1 - x. Below 1/2 by its series, where nine terms leave 1e-8; above that cancellation costs
// a digit at most.
INLINE vec beyond_linear(vec x) {
    vec tail = x * (1 / 10.0f) + 1.0f;
    for (int k = 9; k >= 3; k--)
        tail = tail * x * (1.0f / (float)k) + 1.0f;
    vec near = x * x * 0.5f * tail, far = vec_exp(x) - 1.0f - x;
    return vec_select((x < 0.5f) & (x > -0.5f), near, far);
}

// Σ p (eˣ - 1 - x), x = logits - reference - mean.
static double SIMD(sum_beyond_linear)(const float *p, const float *reference, const float *logits,
                                      size_t v, float mean) {
    double total = 0;
    for (size_t block = 0; block < v; block += SUM_BLOCK) {
        vec sum = {0};
        for (size_t i = block, end = min_size(v, block + SUM_BLOCK); i < end; i += LANES) {
            vec x = vec_keep(changes(reference + i, logits + i, end - i) - mean, end - i);
            sum += vec_load_part(p + i, end - i) * beyond_linear(x);
        }
        total += vec_sum(sum);
    }
    return total;
}

static void SIMD(probabilities)(const float *logits, size_t v, float norm, float *p) {
    for (size_t i = 0; i < v; i += LANES)
        vec_store_part(p + i, vec_exp(vec_load_part(logits + i, v - i) - norm), v - i);
}
