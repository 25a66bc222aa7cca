#include "train/loss.h"

#include <math.h>
#include <string.h>

#include "train/vector.h"

// z = e^(scale z - log Σ e^(scale z)), a distribution; returns the log-sum.
TRAIN_ROW static float softmax(float *z, size_t V, float scale) {
    float max = max_fast(z, V), sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (size_t v = 0; v < V; v++) {
        z[v] = exp_fast(scale * (z[v] - max));
        sum += z[v];
    }
    float inverse = 1.0f / sum;
    for (size_t v = 0; v < V; v++)
        z[v] *= inverse;
    return scale * max + logf(sum);
}

TRAIN_ROW static void scale_row(float *z, size_t V, float by) {
    for (size_t v = 0; v < V; v++)
        z[v] *= by;
}

void loss_tokens(const void *context, size_t first, size_t n, size_t V, float weight, float *logits,
                 float *losses) {
    const int32_t *targets = (const int32_t *)context + first;
#pragma omp parallel for schedule(static) if (n * V >= TRAIN_SHARED)
    for (size_t i = 0; i < n; i++) {
        float *z = logits + i * V;
        if (targets[i] < 0) {
            memset(z, 0, V * sizeof *z);
            losses[i] = 0.0f;
            continue;
        }
        float right = z[targets[i]];
        losses[i] = softmax(z, V, 1.0f) - right;
        z[targets[i]] -= 1.0f;
        scale_row(z, V, weight);
    }
}

// Σ_v p (log p - log q), both from logits; accumulated in double, since the terms cancel.
static double divergence(const float *teacher, float teacher_sum, const float *z, float z_sum,
                         size_t V, float scale) {
    double sum = 0.0;
    for (size_t v = 0; v < V; v++) {
        float log_p = scale * teacher[v] - teacher_sum, log_q = scale * z[v] - z_sum;
        sum += (double)exp_fast(log_p) * (log_p - log_q);
    }
    return sum;
}

static float log_sum(const float *z, size_t V, float scale) {
    float max = max_fast(z, V);
    double sum = 0.0;
    for (size_t v = 0; v < V; v++)
        sum += exp_fast(scale * (z[v] - max));
    return scale * max + (float)log(sum);
}

void loss_teacher(const void *context, size_t first, size_t n, size_t V, float weight,
                  float *logits, float *losses) {
    const struct loss_teacher *teacher = context;
    float tau = teacher->temperature, scale = 1.0f / tau;
#pragma omp parallel for schedule(static) if (n * V >= TRAIN_SHARED)
    for (size_t i = 0; i < n; i++) {
        const float *t = teacher->logits + (first + i) * V;
        float *z = logits + i * V, t_sum = log_sum(t, V, scale), z_sum = log_sum(z, V, scale);
        losses[i] = tau * tau * (float)divergence(t, t_sum, z, z_sum, V, scale);
        for (size_t v = 0; v < V; v++)
            z[v] = weight * tau * (exp_fast(scale * z[v] - z_sum) - exp_fast(scale * t[v] - t_sum));
    }
}
