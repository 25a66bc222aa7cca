// One transformer block, forward and backward:
//
//     x ─┬─ norm1 ─ q k v ─ bias, norm, rotate ─ attention ─ o ─ + ─ mid
//        └───────────────────────────────────────────────────────┘
//     mid ─┬─ norm2 ─ gate up ─ swiglu ─ down ─ + ─ out
//          └────────────────────────────────────┘
//
// Backward walks the same line from the right: each part takes the gradient of its output, adds the
// gradients of its weights, and gives the gradient of its input. The residual lines carry the
// gradient past a branch unchanged, and what comes out of the branch is added to it.
#ifndef NIBBLE_TRAIN_BLOCK_H
#define NIBBLE_TRAIN_BLOCK_H

#include "train/attention.h"
#include "train/gemm.h"
#include "train/ops.h"
#include "train/shape.h"

// The weights of one layer, or their gradients (then written to). Absent ones are NULL.
struct block_weights {
    float *norm1;           // [H]
    float *qkv, *qkv_bias;  // [(A + 2B) D, H], [(A + 2B) D]
    float *q_norm, *k_norm; // [D]
    float *o;               // [H, A D]
    float *norm2;           // [H]
    float *gate_up, *down;  // [2I, H], [H, I]
};
struct block_weights block_weights_of(const struct train_params *p, float *values, size_t layer);

// What one layer's forward pass leaves for its backward pass; M = tokens of the batch.
struct block_state {
    float *x;             // [M, H] the input
    float *n1, *r1;       // [M, H], [M] norm1's output and 1 / rms
    float *raw;           // [M, (A + 2B) D] q k v before norms; shared by layers without q/k norms
    float *qkv;           // [M, (A + 2B) D] as attention reads them
    float *out, *log_sum; // [M, A D], [M, A] attention's
    float *mid;           // [M, H] after the first residual
    float *n2, *r2;       // [M, H], [M]
    float *gate_up;       // [M, 2I]
};

// What all layers share.
struct block_scratch {
    struct train_shape shape;
    struct attention_shape attention; // n_windows, context of the current batch
    const float *cosine, *sine;       // [context, D/2]
    float *act, *dact;                // [M, I]
    float *dn;                        // [M, H]
    float *dout;                      // [M, A D]
    float *dqkv;                      // [M, (A + 2B) D]
    float *attend;                    // train_attention_space per thread
    struct gemm_work gemm;
};

// out [M, H]
void block_forward(float *out, const struct block_weights *w, const struct block_state *state,
                   const struct block_scratch *scratch);
// dx [M, H]: the gradient of the block's output in, of its input out. Uses up state.
void block_backward(float *dx, const struct block_weights *w, const struct block_weights *grads,
                    const struct block_state *state, const struct block_scratch *scratch);

#endif
