// The model's loss in double, one token at a time, as the formulas are written down. Slow, and the
// measure of everything else here: its finite differences are the gradient's definition.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/network.h"

static const double *weight(const struct train_params *p, const double *values, size_t index) {
    return p->list[index].size ? values + p->list[index].offset : NULL;
}

static const double *layer_weight(const struct train_params *p, const double *values, size_t layer,
                                  enum train_kind kind) {
    return weight(p, values, train_layer_param(layer, kind));
}

static void norm_ref(double *y, const double *x, const double *gain, size_t n, double eps) {
    double sum = 0.0;
    for (size_t j = 0; j < n; j++)
        sum += x[j] * x[j];
    double r = 1.0 / sqrt(sum / (double)n + eps);
    for (size_t j = 0; j < n; j++)
        y[j] = x[j] * r * gain[j];
}

// y (+)= w x + bias
static void linear_ref(double *y, const double *x, const double *w, const double *bias, size_t N,
                       size_t K, bool add) {
    for (size_t i = 0; i < N; i++) {
        double sum = (add ? y[i] : 0.0) + (bias ? bias[i] : 0.0);
        for (size_t k = 0; k < K; k++)
            sum += w[i * K + k] * x[k];
        y[i] = sum;
    }
}

static void rotate_ref(double *x, size_t position, size_t D, double theta) {
    for (size_t i = 0; i < D / 2; i++) {
        double angle = (double)position * pow(theta, -2.0 * (double)i / (double)D);
        double a = x[i], b = x[i + D / 2];
        x[i] = a * cos(angle) - b * sin(angle);
        x[i + D / 2] = b * cos(angle) + a * sin(angle);
    }
}

// One query head at position t over keys and values [t + 1][stride].
static void attend_ref(double *out, const double *q, const double *k, const double *v,
                       size_t stride, size_t t, size_t D) {
    double sum = 0.0;
    memset(out, 0, D * sizeof *out);
    for (size_t j = 0; j <= t; j++) {
        double score = 0.0;
        for (size_t i = 0; i < D; i++)
            score += q[i] * k[j * stride + i];
        double p = exp(score / sqrt((double)D));
        sum += p;
        for (size_t i = 0; i < D; i++)
            out[i] += p * v[j * stride + i];
    }
    for (size_t i = 0; i < D; i++)
        out[i] /= sum;
}

// x [T, H], k and v [T, B D], the others one row.
struct ref_memory {
    double *x, *n, *q, *k, *v, *out, *gate, *up, *logits;
};

#define W(kind) layer_weight(p, values, layer, TRAIN_##kind)

static void attention_ref(const struct train_shape *s, const struct train_params *p,
                          const double *values, size_t layer, size_t t, struct ref_memory *m) {
    size_t H = s->hidden, A = s->n_heads, B = s->n_kv_heads, D = s->head_dim;
    double *x = m->x + t * H, *k = m->k + t * B * D, *v = m->v + t * B * D;
    norm_ref(m->n, x, W(NORM1), H, s->norm_eps);
    linear_ref(m->q, m->n, W(Q), W(Q_BIAS), A * D, H, false);
    linear_ref(k, m->n, W(K), W(K_BIAS), B * D, H, false);
    linear_ref(v, m->n, W(V), W(V_BIAS), B * D, H, false);
    for (size_t h = 0; h < A + B; h++) {
        double *head = h < A ? m->q + h * D : k + (h - A) * D;
        if (s->qk_norm)
            norm_ref(head, head, h < A ? W(Q_NORM) : W(K_NORM), D, s->norm_eps);
        rotate_ref(head, t, D, s->rope_theta);
    }
    for (size_t h = 0; h < A; h++) {
        size_t b = h / (A / B);
        attend_ref(m->out + h * D, m->q + h * D, m->k + b * D, m->v + b * D, B * D, t, D);
    }
    linear_ref(x, m->out, W(O), NULL, H, A * D, true);
}

static void mlp_ref(const struct train_shape *s, const struct train_params *p, const double *values,
                    size_t layer, size_t t, struct ref_memory *m) {
    size_t H = s->hidden, I = s->intermediate;
    norm_ref(m->n, m->x + t * H, W(NORM2), H, s->norm_eps);
    linear_ref(m->gate, m->n, W(GATE), NULL, I, H, false);
    linear_ref(m->up, m->n, W(UP), NULL, I, H, false);
    for (size_t i = 0; i < I; i++)
        m->up[i] *= m->gate[i] / (1.0 + exp(-m->gate[i]));
    linear_ref(m->x + t * H, m->up, W(DOWN), NULL, H, I, true);
}
#undef W

static double token_loss_ref(const struct train_shape *s, const struct train_params *p,
                             const double *values, const double *x, int32_t target,
                             struct ref_memory *m) {
    norm_ref(m->n, x, weight(p, values, train_final_norm(p)), s->hidden, s->norm_eps);
    linear_ref(m->logits, m->n, weight(p, values, train_head(p)), NULL, s->vocab, s->hidden, false);
    double sum = 0.0;
    for (size_t v = 0; v < s->vocab; v++)
        sum += exp(m->logits[v]);
    return log(sum) - m->logits[target];
}

double network_loss_ref(const struct train_shape *s, const struct train_params *params,
                        const double *values, const int32_t *tokens, const int32_t *targets,
                        size_t T) {
    size_t H = s->hidden, I = s->intermediate, Q = s->n_heads * s->head_dim;
    size_t K = s->n_kv_heads * s->head_dim;
    double *memory = malloc((T * (H + 2 * K) + H + 2 * Q + 2 * I + s->vocab) * sizeof *memory);
    if (!memory)
        return NAN;
    struct ref_memory m = {.x = memory};
    m.k = m.x + T * H, m.v = m.k + T * K, m.n = m.v + T * K, m.q = m.n + H, m.out = m.q + Q;
    m.gate = m.out + Q, m.up = m.gate + I, m.logits = m.up + I;
    for (size_t t = 0; t < T; t++)
        memcpy(m.x + t * H, values + (size_t)tokens[t] * H, H * sizeof *m.x);
    for (size_t layer = 0; layer < s->n_layers; layer++)
        for (size_t t = 0; t < T; t++) {
            attention_ref(s, params, values, layer, t, &m);
            mlp_ref(s, params, values, layer, t, &m);
        }
    double sum = 0.0;
    for (size_t t = 0; t < T; t++)
        sum += token_loss_ref(s, params, values, m.x + t * H, targets[t], &m);
    free(memory);
    return sum / (double)T;
}
