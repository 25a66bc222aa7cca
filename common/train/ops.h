// The parts of a transformer block that are not matrix products: each forward function with, below
// it, its gradient. The letters are those of core/tensor.h; M is the number of tokens.
//
// A gradient function takes dy, the derivative of the loss with respect to its output, and gives
// dx, the derivative with respect to its input. Gradients of weights are added to what is there, so
// that batches add up.
#ifndef NIBBLE_TRAIN_OPS_H
#define NIBBLE_TRAIN_OPS_H

#include <stdbool.h>
#include <stddef.h>

// y = x r g, r = 1 / sqrt(mean(x²) + eps) per row, g the gain. Keeps r [M] for the gradient.
void train_rmsnorm(float *y, float *r, const float *x, const float *gain, size_t M, size_t H,
                   float eps);
// dx (+)= r (g dy - x̂ mean(g dy x̂)), x̂ = x r;  dgain += Σ_rows dy x̂.
// If add, dx is added to (the residual stream's gradient flows past the norm).
void train_rmsnorm_grad(float *dx, float *dgain, const float *dy, const float *x, const float *r,
                        const float *gain, size_t M, size_t H, bool add);

// y = silu(gate) up, silu(g) = g σ(g). gate_up [M, 2I]: a row is gate, then up.
void train_swiglu(float *y, const float *gate_up, size_t M, size_t I);
// dup = dy g σ(g);  dgate = dy up σ(g) (1 + g (1 - σ(g))). Overwrites gate_up with its gradient.
void train_swiglu_grad(float *gate_up, const float *dy, size_t M, size_t I);

// What happens to a row of queries, keys and values [(A + 2B) D] on its way to attention: bias
// (Qwen2), RMSNorm of each query and key head (Qwen3), rotation by the position.
struct head_shape {
    size_t n_heads, n_kv_heads, head_dim; // A, B, D
    float eps;
    const float *bias;            // [(A + 2B) D] or NULL
    const float *q_norm, *k_norm; // [D] or NULL
    const float *cosine, *sine;   // [context, D/2]: the angle of pair i at position p, p θ^(-2i/D)
};
// y = rotate(norm(x + bias)); x and y may be the same. Rows are tokens; the position of row m is
// m % context.
void train_heads(float *y, const float *x, const struct head_shape *s, size_t M, size_t context);
// Turns dy into dx in place (the transpose of a rotation is the rotation back) and adds the
// gradients of bias and norms. x: what train_heads was given (only needed with norms).
void train_heads_grad(float *dy, const float *x, const struct head_shape *s, size_t M,
                      size_t context, float *dbias, float *dq_norm, float *dk_norm);

// y += x, n elements.
void train_add(float *y, const float *x, size_t n);
// sums[j] += Σ_rows x[m][j], in the order of the rows.
void train_column_sums(float *sums, const float *x, size_t M, size_t columns);

#endif
