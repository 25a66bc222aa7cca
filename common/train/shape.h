// The shape of a model that can be trained (Qwen2, or Qwen3 with its q/k norms), and the list of
// its parameters: one flat array of float32 holds them all, so that the optimizer, the checkpoint
// and the sum of gradients need no more than a pointer and a size.
//
//     offset 0: embedding [V, H] | layer 0: norm, q k v, biases, o, norm, gate up, down | layer 1 …
//
// q, k, v lie side by side, as do gate and up: what multiplies the same input is one matrix.
#ifndef NIBBLE_TRAIN_SHAPE_H
#define NIBBLE_TRAIN_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

struct train_shape {
    size_t hidden, intermediate, n_layers; // H, I, L
    size_t n_heads, n_kv_heads, head_dim;  // A, B, D
    size_t vocab, max_context;             // V
    double norm_eps, rope_theta;
    bool qkv_bias, qk_norm, tied;
    int64_t eos; // the id that ends a text, or -1; only carried along
};

// From a config.json; checks that the sizes make a model this trainer can train.
bool train_shape_read(struct train_shape *s, const char *path, struct error *err);
// A config.json that transformers (old and new), vLLM and llama.cpp's converter read.
bool train_shape_write(const struct train_shape *s, const char *path, struct error *err);

// The parameters of one layer, in the order they are stored.
enum train_kind {
    TRAIN_NORM1,
    TRAIN_Q,
    TRAIN_K,
    TRAIN_V,
    TRAIN_Q_BIAS,
    TRAIN_K_BIAS,
    TRAIN_V_BIAS,
    TRAIN_Q_NORM,
    TRAIN_K_NORM,
    TRAIN_O,
    TRAIN_NORM2,
    TRAIN_GATE,
    TRAIN_UP,
    TRAIN_DOWN,
    TRAIN_LAYER_KINDS
};

struct train_param {
    char name[80]; // as in the checkpoint: "model.layers.0.mlp.up_proj.weight"
    int n_dims;    // 2 for a matrix [N, K], 1 for a gain or bias
    size_t shape[2];
    size_t offset, size; // in floats; size 0: this model has none
    bool is_residual;    // its output is added to the residual stream: o, down
};

struct train_params {
    size_t n;
    struct train_param *list; // embedding, layers, final norm, head
    size_t total;             // floats of all
};

bool train_params_init(struct train_params *p, const struct train_shape *s, struct error *err);
void train_params_free(struct train_params *p);
// Indices into list. The head of a tied model is the embedding.
static inline size_t train_layer_param(size_t layer, enum train_kind kind) {
    return 1 + layer * TRAIN_LAYER_KINDS + kind;
}
static inline size_t train_final_norm(const struct train_params *p) {
    return p->n - 2;
}
static inline size_t train_head(const struct train_params *p) {
    return p->list[p->n - 1].size ? p->n - 1 : 0;
}

#endif
