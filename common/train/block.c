#include "train/block.h"

#include "train/gemm.h"

struct block_weights block_weights_of(const struct train_params *p, float *values, size_t layer) {
    float *at[TRAIN_LAYER_KINDS];
    for (int k = 0; k < TRAIN_LAYER_KINDS; k++) {
        const struct train_param *param = &p->list[train_layer_param(layer, (enum train_kind)k)];
        at[k] = param->size ? values + param->offset : NULL;
    }
    return (struct block_weights){at[TRAIN_NORM1],  at[TRAIN_Q],      at[TRAIN_Q_BIAS],
                                  at[TRAIN_Q_NORM], at[TRAIN_K_NORM], at[TRAIN_O],
                                  at[TRAIN_NORM2],  at[TRAIN_GATE],   at[TRAIN_DOWN]};
}

static size_t tokens(const struct block_scratch *s) {
    return s->attention.n_windows * s->attention.context;
}

// y [M, N] = x [M, K] wᵀ
static void linear(float *y, const float *x, const float *w, size_t N, size_t K,
                   const struct block_scratch *s) {
    gemm(tokens(s), N, K, gemm_by_rows(x, K), gemm_by_columns(w, K), false, y, N, s->gemm);
}

// Of y = x wᵀ:  dw += dyᵀ x,  dx = dy w.
static void linear_grad(float *dx, float *dw, const float *dy, const float *x, const float *w,
                        size_t N, size_t K, const struct block_scratch *s) {
    size_t M = tokens(s);
    gemm(N, K, M, gemm_by_columns(dy, N), gemm_by_rows(x, K), true, dw, K, s->gemm);
    gemm(M, K, N, gemm_by_rows(dy, N), gemm_by_rows(w, K), false, dx, K, s->gemm);
}

static struct head_shape heads_of(const struct block_weights *w, const struct block_scratch *s) {
    const struct train_shape *t = &s->shape;
    return (struct head_shape){t->n_heads,         t->n_kv_heads, t->head_dim,
                               (float)t->norm_eps, w->qkv_bias,   w->q_norm,
                               w->k_norm,          s->cosine,     s->sine};
}

void block_forward(float *out, const struct block_weights *w, const struct block_state *state,
                   const struct block_scratch *s) {
    const struct train_shape *t = &s->shape;
    size_t M = tokens(s), H = t->hidden, I = t->intermediate;
    size_t Q = t->n_heads * t->head_dim, QKV = Q + 2 * t->n_kv_heads * t->head_dim;
    struct head_shape heads = heads_of(w, s);
    float eps = (float)t->norm_eps;

    train_rmsnorm(state->n1, state->r1, state->x, w->norm1, M, H, eps);
    linear(state->raw, state->n1, w->qkv, QKV, H, s);
    train_heads(state->qkv, state->raw, &heads, M, s->attention.context);
    train_attention(state->out, state->log_sum, state->qkv, &s->attention, s->attend);
    linear(state->mid, state->out, w->o, H, Q, s);
    train_add(state->mid, state->x, M * H);

    train_rmsnorm(state->n2, state->r2, state->mid, w->norm2, M, H, eps);
    linear(state->gate_up, state->n2, w->gate_up, 2 * I, H, s);
    train_swiglu(s->act, state->gate_up, M, I);
    linear(out, s->act, w->down, H, I, s);
    train_add(out, state->mid, M * H);
}

void block_backward(float *dx, const struct block_weights *w, const struct block_weights *grads,
                    const struct block_state *state, const struct block_scratch *s) {
    const struct train_shape *t = &s->shape;
    size_t M = tokens(s), H = t->hidden, I = t->intermediate;
    size_t Q = t->n_heads * t->head_dim, QKV = Q + 2 * t->n_kv_heads * t->head_dim;
    struct head_shape heads = heads_of(w, s);

    // The MLP. Its activations (a third of all) are computed again rather than kept.
    train_swiglu(s->act, state->gate_up, M, I);
    linear_grad(s->dact, grads->down, dx, s->act, w->down, H, I, s);
    train_swiglu_grad(state->gate_up, s->dact, M, I);
    linear_grad(s->dn, grads->gate_up, state->gate_up, state->n2, w->gate_up, 2 * I, H, s);
    train_rmsnorm_grad(dx, grads->norm2, s->dn, state->mid, state->r2, w->norm2, M, H, true);

    // Attention.
    linear_grad(s->dout, grads->o, dx, state->out, w->o, H, Q, s);
    train_attention_grad(s->dqkv, s->dout, state->out, state->log_sum, state->qkv, &s->attention,
                         s->attend);
    train_heads_grad(s->dqkv, state->raw, &heads, M, s->attention.context, grads->qkv_bias,
                     grads->q_norm, grads->k_norm);
    linear_grad(s->dn, grads->qkv, s->dqkv, state->n1, w->qkv, QKV, H, s);
    train_rmsnorm_grad(dx, grads->norm1, s->dn, state->x, state->r1, w->norm1, M, H, true);
}
