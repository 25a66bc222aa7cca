// The whole model as training sees it: weights, gradients, and the memory of one batch.
//
// network_loss runs forward and, if asked, backward, adding to the gradients: call it for several
// batches, then step the optimizer (gradient accumulation). Results do not depend on the number of
// threads. Memory per token: about 4 L (4 H + 2 (A + 2B) D + A D + 2 I) bytes, or with `recompute`
// (gradient checkpointing) 4 L H plus one layer's: the forward pass of a layer runs a second time.
#ifndef NIBBLE_TRAIN_NETWORK_H
#define NIBBLE_TRAIN_NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "train/block.h"
#include "train/loss.h"
#include "train/shape.h"

// What a weight goes through before it is used: used[i] from values[i], param->size floats. The
// gradient with respect to `used` is taken for that of the value (straight through), which is what
// quantization-aware training wants of fake quantization.
typedef void weight_transform(const void *context, const struct train_param *param,
                              const float *values, float *used);

struct network {
    struct train_shape shape;
    struct train_params params;
    float *values; // [params.total] what the optimizer changes
    float *grads;  // [params.total]
    float *used;   // values, or what the transform made of them
    weight_transform *transform;
    const void *transform_context;
    size_t max_windows, context; // the largest batch
    bool recompute;
    struct block_state *states; // [L]
    struct block_scratch scratch;
    float *x;       // [M, H] after the last layer
    float *xn, *rn; // [M, H], [M] the final norm's output and 1 / rms
    float *dx;      // [M, H]
    float *logits;  // [a part of M, V]
    float *losses;  // [M]
    float *memory;  // all of the above but values, grads, used
    float *cosine, *sine;
};

// Room for batches of at most n_windows * context tokens. Weights are zero.
bool network_init(struct network *net, const struct train_shape *shape, size_t n_windows,
                  size_t context, bool recompute, struct error *err);
void network_free(struct network *net);
// From now on products may be in bfloat16 (gemm.h), where the CPU has tiles of it.
void network_allow_bf16(struct network *net);
// Random weights, with attention that already matches and copies (initialize.c says why).
void network_randomize(struct network *net, uint64_t seed);
// From now on weights are used as transform makes them; NULL: as they are.
bool network_set_transform(struct network *net, weight_transform *transform, const void *context,
                           struct error *err);

// The one way to a weight: what the model uses for parameter number `index` now.
const float *network_weight(const struct network *net, size_t index);

void network_clear_grads(struct network *net);
// Σ weight * loss over tokens [n_windows, context] (loss.h says how a loss and its context look);
// weight is 1 / the number of scored tokens where the mean is wanted. Adds gradients if asked.
// context may be smaller than the network's. Token ids must be below the vocabulary's size.
double network_loss(struct network *net, const int32_t *tokens, size_t n_windows, size_t context,
                    loss_function *loss, const void *loss_context, float weight, bool gradients);

// The same loss for one window of T tokens with float64 weights (params.total of them), in plain
// loops: mean cross-entropy with targets [T]. What the gradients are checked against.
double network_loss_ref(const struct train_shape *shape, const struct train_params *params,
                        const double *values, const int32_t *tokens, const int32_t *targets,
                        size_t T);

#endif
