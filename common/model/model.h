// A model: its config and its weights, in whatever formats they are; and one forward pass for all.
#ifndef NIBBLE_MODEL_MODEL_H
#define NIBBLE_MODEL_MODEL_H

#include "core/error.h"
#include "core/tensor.h"
#include "io/safetensors.h"
#include "model/config.h"
#include "model/model_gguf.h"
#include "kernels/cpu/weave.h"

// A weight matrix in any format, plus an optional bias. y = x wᵀ + bias.
struct linear {
    struct tensor w;       // [N, K]; quant_read (quant/format.h) reads it
    float *bias;           // [N] or NULL
    bool int8_activations; // quantize x to int8 on the fly (int8 formats only)
    bool owns_data;        // w.data is ours to free
    bool rounds_x;         // x may become int8 or bfloat16 on the way, where that is faster
    struct weave weave;    // where things lie in w.data, if w.woven
};

struct norm {
    float *gain; // [H]
    float *bias; // [H] or NULL
};

struct layer {
    struct norm attention_norm, mlp_norm;
    struct linear q, k, v, o;
    float *q_norm, *k_norm;       // [D] or NULL
    struct linear gate, up, down; // gate has no data where the MLP has none (GPT-2)
};

struct model {
    struct model_config config;
    struct linear embedding;          // [V, H]
    struct linear position_embedding; // [max_context, H], GPT-2 only
    struct layer *layers;             // [L]
    struct norm final_norm;
    struct linear head;         // [V, H]; a view of the embedding where tied
    float *inv_freq;            // [D/2] rotary frequencies, scaling applied
    struct safetensors *files;  // the mapped checkpoint; NULL in a model made from another …
    struct gguf_weights *gguf;  // … or from a GGUF file, which is then here
    const struct model *source; // what it was made from: everything it does not own is that one's
    struct placement *placed;   // model/device.h: what of it is on a GPU; NULL: nothing
};

// Loads a checkpoint folder or a GGUF file. Only norms and biases are copied (to float32), GPT-2's
// matrices where they are stored [K, N] and are turned, and what model_gguf.h says. Errors name
// file, tensor, expected and found.
struct model *model_load(const char *path, struct error *err);
// A model with source's weights, which must outlive it: its linears are its own to replace.
struct model *model_share(const struct model *source, struct error *err);
void model_free(struct model *m);
// Gives back the pages under these bytes, if they lie in one of the model's files.
void model_drop(const struct model *m, const void *p, size_t size);

// Calls visit for every linear (blocks in order, then the embedding, then the head if it is not the
// embedding); stops when it returns false.
typedef bool linear_visitor(void *user, struct linear *l);
bool model_visit_linears(struct model *m, linear_visitor *visit, void *user);
// Bytes of all weights as held (a tied head counts once), norms and biases included.
size_t model_bytes(const struct model *m);
size_t model_parameters(const struct model *m);

// Whether l's products may round x (rounds_x) and have a reason to: beside weights in float32 they
// never do, who has those wants their precision.
bool linear_rounds(const struct linear *l);
// y[m, N] = linear(x[m, K]). Every format, instruction set and device meets here.
bool linear_forward(float *y, const struct linear *l, const float *x, size_t m, struct error *err);
// The same for several that read the same x [m, K]: y[i] = l[i](x). What they share is done once.
bool linears_forward(float *const *y, const struct linear *const *l, size_t n, const float *x,
                     size_t m, struct error *err);
// y = linear(silu(gate) * up); up's contents are lost.
bool linear_forward_gated(float *y, const struct linear *l, const float *gate, float *up, size_t m,
                          struct error *err);

// ---- the cache of keys and values --------------------------------------------------------------

struct kv_cache {
    size_t n_layers, n_sequences, capacity; // capacity: positions per sequence
    size_t n_kv_heads, head_dim;
    float *k, *v;                // [L][sequence][B][capacity][D]
    size_t bytes;                // of each
    struct device_cache *placed; // what a device keeps of it, made when it is first used
};
bool kv_cache_init(struct kv_cache *kv, const struct model_config *c, size_t n_sequences,
                   size_t capacity, struct error *err);
void kv_cache_free(struct kv_cache *kv);
// The first n positions of one sequence, copied to another.
void kv_cache_copy(struct kv_cache *kv, size_t from, size_t to, size_t n);

// ---- the forward pass --------------------------------------------------------------------------

// Tokens to process: prefill, decode, several sequences at once. A token's position says where its
// key and value are stored; it sees every position up to its own in its sequence. Tokens of one
// sequence come in the order of their positions.
struct batch {
    size_t n;
    const int32_t *tokens, *positions, *sequences; // [n]; sequences NULL: all 0
    const uint8_t *wants_logits;                   // [n]; NULL: all
};

// logits [number of tokens that want them, V]. Fails on a token, position or sequence out of range.
bool model_forward(const struct model *m, struct kv_cache *kv, const struct batch *b, float *logits,
                   struct error *err);
// The two halves, for callers that cannot hold T × V logits: hidden [n, H] after the final norm …
bool model_hidden(const struct model *m, struct kv_cache *kv, const struct batch *b, float *hidden,
                  struct error *err);
// … and logits [n, V] of any of its rows.
bool model_logits(const struct model *m, const float *hidden, size_t n, float *logits,
                  struct error *err);

// The same in steps: model_hidden is model_embed, model_run_layers over all of them,
// model_final_norm. x [n, H] is the residual stream; the cache of the layers that run is written.
bool model_embed(const struct model *m, const struct kv_cache *kv, const struct batch *b, float *x,
                 struct error *err);
// Sees the input x [n, K] of every linear just before it is applied: the batch's tokens in order,
// a few hundred at a time.
typedef void linear_observer(void *user, const struct linear *l, const float *x, size_t n);
// Layers [first, end), in place; observe may be NULL.
bool model_run_layers(const struct model *m, struct kv_cache *kv, const struct batch *b,
                      size_t first, size_t end, float *x, linear_observer *observe, void *user,
                      struct error *err);
void model_final_norm(const struct model *m, const float *x, size_t n, float *hidden);

#endif
