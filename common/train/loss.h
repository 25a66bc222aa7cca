// What the model is taught: a function from rows of logits to losses and the logits' gradients.
//
// The seam for later: training on text uses loss_tokens, distillation loss_teacher. The network
// calls it for a few rows at a time, so that the logits of a whole batch never exist at once.
#ifndef NIBBLE_TRAIN_LOSS_H
#define NIBBLE_TRAIN_LOSS_H

#include <stddef.h>
#include <stdint.h>

// Rows [first, first + n) of the batch. losses[i] gets the loss of row first + i in nats, and
// logits [n, V] is replaced by weight * d losses[i] / d logits.
typedef void loss_function(const void *context, size_t first, size_t n, size_t V, float weight,
                           float *logits, float *losses);

// Cross-entropy with the next token: loss = log Σ e^z - z[target], gradient softmax(z) - 1[target].
// context is const int32_t targets[]; a negative target is not scored (loss and gradient 0).
loss_function loss_tokens;

// Soft targets: the KL divergence from a teacher's distribution at temperature τ,
//     loss = τ² Σ_v p log(p / q),  p = softmax(teacher / τ), q = softmax(z / τ)
// with gradient τ (q - p). (τ² keeps gradients the same size at any τ: Hinton et al. 2015.)
struct loss_teacher {
    const float *logits; // [M, V], rows as in the batch
    float temperature;
};
loss_function loss_teacher; // context is const struct loss_teacher *

#endif
