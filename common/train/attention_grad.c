// The gradient of attention, tile by tile. P is computed again from Q, K and the log-sums.
//
// Where dS = P (dP - δ) comes from: softmax has dP_j/dS_k = P_j (1[j = k] - P_k), so
// dS_k = P_k (dP_k - Σ_j P_j dP_j); and Σ_j P_j dP_j = Σ_j P_j Σ_d dout_d V_jd = Σ_d dout_d out_d =
// δ, which needs no pass over the keys.
#include "train/attention.h"

#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <string.h>

#include "train/attention_tile.h"
#include "train/vector.h"

// p: scores in, probabilities out. dp: dP in, dS / √D out.
TRAIN_ROW static void softmax_grad_row(float *p, float *dp, size_t visible, size_t n, float scale,
                                       float log_sum, float delta) {
    for (size_t j = 0; j < visible; j++) {
        p[j] = exp_fast(scale * p[j] - log_sum);
        dp[j] = p[j] * (dp[j] - delta) * scale;
    }
    for (size_t j = visible; j < n; j++)
        p[j] = dp[j] = 0.0f;
}

static float dot(const float *a, const float *b, size_t n) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

// One query head: writes its dQ, adds to dK and dV.
static void attend_head_grad(float *dq, float *dk, float *dv, const float *dout, const float *out,
                             const float *log_sum, const float *q, const struct attention_task *t,
                             const struct attention_shape *s, const struct attention_space *space) {
    size_t T = s->context, D = s->head_dim, stride = space->stride;
    float scale = 1.0f / sqrtf((float)D);
    for (size_t first = 0; first < T; first += ATTENTION_TILE) {
        size_t n = T - first < ATTENTION_TILE ? T - first : ATTENTION_TILE, keys = first + n;
        struct gemm_view q_tile = gemm_by_rows(q + first * t->row, t->row);
        struct gemm_view dout_tile = gemm_by_rows(dout + first * t->out_row, t->out_row);
        gemm_packed(n, keys, D, q_tile, space->keys_t, false, space->p, stride);
        gemm_packed(n, keys, D, dout_tile, space->values_t, false, space->dp, stride);
        for (size_t i = 0; i < n; i++) {
            size_t row = (first + i) * t->out_row;
            softmax_grad_row(space->p + i * stride, space->dp + i * stride, first + i + 1, keys,
                             scale, log_sum[(first + i) * s->n_heads],
                             dot(dout + row, out + row, D));
        }
        gemm_pack(D, n, q_tile, space->query);
        gemm_pack(D, n, dout_tile, space->dout);
        gemm_packed(n, D, keys, gemm_by_rows(space->dp, stride), space->keys, false,
                    dq + first * t->row, t->row);
        gemm_packed(keys, D, n, gemm_by_columns(space->dp, stride), space->query, true, dk, t->row);
        gemm_packed(keys, D, n, gemm_by_columns(space->p, stride), space->dout, true, dv, t->row);
    }
}

void train_attention_grad(float *dqkv, const float *dout, const float *out, const float *log_sum,
                          const float *qkv, const struct attention_shape *s, float *space) {
    size_t T = s->context, D = s->head_dim;
    bool shared = s->n_windows * s->n_heads * T * T >= TRAIN_SHARED;
#pragma omp parallel for schedule(dynamic) num_threads(s->n_threads) if (shared)
    for (size_t task = 0; task < s->n_windows * s->n_kv_heads; task++) {
        size_t w = task / s->n_kv_heads, b = task % s->n_kv_heads;
        struct attention_space mine = attention_space_of(s, space, (size_t)omp_get_thread_num());
        struct attention_task t = attention_task_of(s, qkv, w, b);
        gemm_pack(T, D, gemm_by_columns(t.k, t.row), mine.keys_t);
        gemm_pack(T, D, gemm_by_columns(t.v, t.row), mine.values_t);
        gemm_pack(D, T, gemm_by_rows(t.k, t.row), mine.keys);
        float *dq = dqkv + (t.q - qkv), *dk = dqkv + (t.k - qkv), *dv = dqkv + (t.v - qkv);
        for (size_t i = 0; i < T; i++) {
            memset(dk + i * t.row, 0, D * sizeof *dk);
            memset(dv + i * t.row, 0, D * sizeof *dv);
        }
        for (size_t g = 0; g < t.group; g++) {
            size_t at = w * T * t.out_row + (t.head + g) * D;
            attend_head_grad(dq + g * D, dk, dv, dout + at, out + at,
                             log_sum + w * T * s->n_heads + t.head + g, t.q + g * D, &t, s, &mine);
        }
    }
}
