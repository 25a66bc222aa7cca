// Muon: momentum whose every direction steps equally far, for matrices between hidden states.
//
// A gradient matrix is mostly a few large singular directions; AdamW follows these and the others
// hardly move. Muon replaces the momentum M = U S Vᵀ by U Vᵀ, found without a decomposition: the
// odd polynomial a x + b x³ + c x⁵, applied five times to a matrix of norm 1, takes every singular
// value to about 1 (between 0.7 and 1.2: more precision gains nothing) and is three matrix
// products.
//
// Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the step's size,
// 0.2 sqrt(max(rows, columns)) entries' root mean square as AdamW's have it, from Liu et al., "Muon
// is scalable for LLM training" (2025), so that both share one learning rate and decay.
#ifndef NIBBLE_TRAIN_MUON_H
#define NIBBLE_TRAIN_MUON_H

#include <stdbool.h>
#include <stddef.h>

struct muon {
    double lr, momentum, decay; // decay: w loses lr * decay of itself
    double gradient_scale;      // what the gradient is multiplied by (clipping)
    bool bf16;                  // products may be in bfloat16 (gemm.h)
};

enum { MUON_STEPS = 5 };

// Floats of scratch for a matrix of this shape, gemm's included.
size_t muon_space(size_t rows, size_t columns);
// w, g and the momentum m are [rows, columns]; space: muon_space floats.
void muon_update(float *w, const float *g, float *m, size_t rows, size_t columns,
                 const struct muon *muon, float *space);

// x [rows, columns] orthogonalized in place; the same in double, with 2 rows² + rows * columns of
// space.
void muon_orthogonalize(float *x, size_t rows, size_t columns, bool bf16, float *space);
void muon_orthogonalize_ref(double *x, size_t rows, size_t columns, double *space);

#endif
