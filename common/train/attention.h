// Causal attention with grouped key/value heads, and its gradient, in tiles of queries: no matrix
// of context × context is ever whole in memory, and the probabilities are computed a second time in
// the backward pass instead of being kept (Dao et al., "FlashAttention", 2022).
//
// M = n_windows * context tokens; windows do not see each other. A row of qkv is A query heads, B
// key heads and B value heads of D floats. Query head a reads key/value head a / (A / B).
#ifndef NIBBLE_TRAIN_ATTENTION_H
#define NIBBLE_TRAIN_ATTENTION_H

#include <stddef.h>

struct attention_shape {
    size_t n_windows, context;
    size_t n_heads, n_kv_heads, head_dim; // A, B, D
    int n_threads;                        // at most this many work, each with its own scratch
};

// Floats of scratch that each thread needs.
size_t train_attention_space(const struct attention_shape *s);

// out [M, A D] = P V with P = softmax(Q Kᵀ / √D) over the keys up to the query's own position.
// log_sum [M, A] = log Σ_keys e^(score), which is all the gradient needs of P.
// space: train_attention_space floats for each thread.
void train_attention(float *out, float *log_sum, const float *qkv, const struct attention_shape *s,
                     float *space);

// From dout and what the forward pass left: dqkv [M, (A + 2B) D], overwritten. With S the scaled
// scores and δ_i = Σ_d dout_id out_id:
//     dV = Pᵀ dout    dP = dout Vᵀ    dS = P (dP - δ)    dQ = dS K / √D    dK = dSᵀ Q / √D
void train_attention_grad(float *dqkv, const float *dout, const float *out, const float *log_sum,
                          const float *qkv, const struct attention_shape *s, float *space);

#endif
