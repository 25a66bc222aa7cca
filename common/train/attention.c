#include "train/attention.h"

#include <math.h>
#include <omp.h>
#include <stdbool.h>

#include "train/attention_tile.h"
#include "train/vector.h"

static size_t score_stride(const struct attention_shape *s) {
    return (s->context + 31) / 32 * 32 + 16;
}

size_t train_attention_space(const struct attention_shape *s) {
    size_t T = s->context, D = s->head_dim;
    return 2 * gemm_packed_size(T, D) + 2 * gemm_packed_size(D, T) +
           2 * gemm_packed_size(D, ATTENTION_TILE) + 2 * ATTENTION_TILE * score_stride(s);
}

struct attention_space attention_space_of(const struct attention_shape *s, float *space,
                                          size_t thread) {
    size_t T = s->context, D = s->head_dim;
    struct attention_space a = {.stride = score_stride(s)};
    a.keys_t = space + thread * train_attention_space(s);
    a.values_t = a.keys_t + gemm_packed_size(T, D);
    a.keys = a.values_t + gemm_packed_size(T, D);
    a.values = a.keys + gemm_packed_size(D, T);
    a.query = a.values + gemm_packed_size(D, T);
    a.dout = a.query + gemm_packed_size(D, ATTENTION_TILE);
    a.p = a.dout + gemm_packed_size(D, ATTENTION_TILE);
    a.dp = a.p + ATTENTION_TILE * a.stride;
    return a;
}

struct attention_task attention_task_of(const struct attention_shape *s, const float *qkv, size_t w,
                                        size_t b) {
    size_t A = s->n_heads, B = s->n_kv_heads, D = s->head_dim;
    struct attention_task t = {.row = (A + 2 * B) * D, .group = A / B, .out_row = A * D};
    t.head = b * t.group;
    t.q = qkv + w * s->context * t.row + t.head * D;
    t.k = qkv + w * s->context * t.row + (A + b) * D;
    t.v = t.k + B * D;
    return t;
}

// p[0..visible) = e^(scale (p - max)), zero from there to n. Returns their sum; *log_sum gets
// log Σ e^(scale p).
TRAIN_ROW static float exponentials(float *p, size_t visible, size_t n, float scale,
                                    float *log_sum) {
    float max = max_fast(p, visible), sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < visible; j++) {
        p[j] = exp_fast(scale * (p[j] - max));
        sum += p[j];
    }
    for (size_t j = visible; j < n; j++)
        p[j] = 0.0f;
    *log_sum = scale * max + logf(sum);
    return sum;
}

static void attend_head(float *out, float *log_sum, const float *q, const struct attention_task *t,
                        const struct attention_shape *s, const struct attention_space *space) {
    size_t T = s->context, D = s->head_dim;
    float scale = 1.0f / sqrtf((float)D), sums[ATTENTION_TILE];
    for (size_t first = 0; first < T; first += ATTENTION_TILE) {
        size_t n = T - first < ATTENTION_TILE ? T - first : ATTENTION_TILE, keys = first + n;
        gemm_packed(n, keys, D, gemm_by_rows(q + first * t->row, t->row), space->keys_t, false,
                    space->p, space->stride);
        for (size_t i = 0; i < n; i++)
            sums[i] = exponentials(space->p + i * space->stride, first + i + 1, keys, scale,
                                   &log_sum[(first + i) * s->n_heads]);
        gemm_packed(n, D, keys, gemm_by_rows(space->p, space->stride), space->values, false,
                    out + first * t->out_row, t->out_row);
        for (size_t i = 0; i < n; i++) // dividing D outputs is less than dividing the probabilities
            for (size_t d = 0; d < D; d++)
                out[(first + i) * t->out_row + d] /= sums[i];
    }
}

void train_attention(float *out, float *log_sum, const float *qkv, const struct attention_shape *s,
                     float *space) {
    size_t T = s->context, D = s->head_dim;
    bool shared = s->n_windows * s->n_heads * T * T >= TRAIN_SHARED;
#pragma omp parallel for schedule(dynamic) num_threads(s->n_threads) if (shared)
    for (size_t task = 0; task < s->n_windows * s->n_kv_heads; task++) {
        size_t w = task / s->n_kv_heads, b = task % s->n_kv_heads;
        struct attention_space mine = attention_space_of(s, space, (size_t)omp_get_thread_num());
        struct attention_task t = attention_task_of(s, qkv, w, b);
        gemm_pack(T, D, gemm_by_columns(t.k, t.row), mine.keys_t);
        gemm_pack(D, T, gemm_by_rows(t.v, t.row), mine.values);
        for (size_t g = 0; g < t.group; g++) {
            size_t head = t.head + g;
            attend_head(out + w * T * t.out_row + head * D, log_sum + w * T * s->n_heads + head,
                        t.q + g * D, &t, s, &mine);
        }
    }
}
