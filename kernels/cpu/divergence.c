// How far two distributions over a vocabulary are apart, when they may be nearly the same: one
// tensor in eight bits moves a model by 1e-7 nats, where a difference of logarithms is all noise.
#include "kernels.h"

#define SIMD_BODY "divergence_simd.h"
#include "simd.h"

// e^x - 1 - x without cancellation: below 1/8 by its series, which seven terms give to 1e-15.
static double exp_beyond_linear(double x) {
    if (fabs(x) >= 0.125)
        return expm1(x) - x;
    double tail = 1 + x / 6 * (1 + x / 7 * (1 + x / 8 * (1 + x / 9)));
    return x * x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * tail)));
}

double kl_of_change_ref(const float *p, const float *reference, const float *logits, size_t v) {
    double total = 0, mean = 0, sum = 0;
    for (size_t i = 0; i < v; i++) {
        total += (double)p[i];
        mean += (double)p[i] * ((double)logits[i] - reference[i]);
    }
    mean /= total;
    for (size_t i = 0; i < v; i++)
        sum += (double)p[i] * exp_beyond_linear((double)logits[i] - reference[i] - mean);
    return log1p(sum / total);
}

// The mean's rounding to float32 moves all x by a constant, which changes the result by as little
// of itself. A logit that grew by 88 or more overflows a float32: then the plain way.
double kl_of_change(const float *p, const float *reference, const float *logits, size_t v) {
    double total, mean = SIMD_CALL(mean_change, p, reference, logits, v, &total);
    double sum = SIMD_CALL(sum_beyond_linear, p, reference, logits, v, (float)mean);
    return isfinite(sum) ? log1p(sum / total) : kl_of_change_ref(p, reference, logits, v);
}

void probabilities_ref(const float *logits, size_t v, float *p) {
    double norm = log_sum_exp_ref(logits, v);
    for (size_t i = 0; i < v; i++)
        p[i] = (float)exp(logits[i] - norm);
}

void probabilities(const float *logits, size_t v, float *p) {
    SIMD_CALL(probabilities, logits, v, (float)log_sum_exp(logits, v), p);
}
