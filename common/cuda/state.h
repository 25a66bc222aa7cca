// What a model's placement on a GPU consists of. For this folder.
#ifndef NIBBLE_CUDA_STATE_H
#define NIBBLE_CUDA_STATE_H

#include "cuda/placement.h"
#include "cuda/weights.h"
#include "text/sampler.h"

// Rows of logits made together, and the largest batch that is one graph.
enum { CUDA_LOGIT_ROWS = 32, CUDA_GRAPH_TOKENS = 8 };

struct cuda_layer {
    struct cuda_linear qkv, o, gate_up, down;
    float *gains[2], *biases[2]; // of the norms before attention and before the MLP
    float *q_gain, *k_gain;      // [D] or NULL
};

// Activations of a pass, T = up to PASS_TOKENS tokens.
struct cuda_buffers {
    float *x;                                       // [T, H]
    float *qkv;                                     // [T, (A + 2 B) D]
    float *gate_up;                                 // [T, 2 I], or [T, I]
    float *sum;                                     // [T, H]
    float *hidden;                                  // [T, H]
    float *angles;                                  // [T, D]
    float *logits;                                  // [CUDA_LOGIT_ROWS, V]
    float *parts;                                   // of attention
    uint16_t *normed, *attention, *inner, *rounded; // [T, stride of H, A D, I, the largest]
    int32_t *batch;                                 // [3, T]: tokens, positions, sequences
    void *scratch;                                  // of matrix products that need no zeros in it
    float *host;                                    // pinned: rows of x, hidden or logits
    int32_t *host_batch;                            // pinned, as batch
};

// Counters of stream-K by the number of outputs: zero whenever no product is under way.
struct cuda_workspace {
    unsigned n;
    void *memory;
};

struct cuda_model {
    struct placement place; // first
    const struct model *m;
    const struct cuda_backend *b;
    struct cuda_launch at;
    struct cuda_arena layer_memory, head_memory, pass_memory;
    struct cuda_layer *layers; // [L], those before first_layer empty
    struct cuda_linear head;
    struct cuda_matrix table, places; // of the embedding, where the first layer is here
    float *final_gain, *final_bias, *inv_freq;
    struct cuda_buffers at_work;
    struct cuda_workspace *workspaces;
    size_t n_workspaces;
    struct cuda_tokens batch; // of the pass
    // x += pending (+ pending_bias) is still to be done: the next norm does it on the way.
    const float *pending, *pending_bias;
    size_t free_before, peak_bytes; // of the GPU
};

static inline struct cuda_model *cuda_model_of(const struct model *m) {
    return (struct cuda_model *)m->placed;
}
// Looks at how much is in use now.
void cuda_note_peak(struct cuda_model *cm);
// `failed`, if there is one, becomes the error.
bool cuda_ok(const char *failed, struct error *err);

// Keys and values of the layers that are on the GPU, and what belongs to a sequence of steps.
struct cuda_cache {
    struct device_cache base; // first
    struct cuda_model *owner;
    struct cuda_arena memory;
    size_t sequences;
    uint16_t *keys, *values; // [layer][sequence][B][capacity][D]
    void *graphs[CUDA_GRAPH_TOKENS + 1];
    bool warm[CUDA_GRAPH_TOKENS + 1]; // such a batch has run once, not captured
    // Decoding with the sampler on the device (decode.c).
    void *step_graph;
    struct cuda_sample_next sample;
    struct cuda_tokens step;
    size_t length, limit; // tokens in its history; how many it has room for
    bool step_warm;
};
// The cache's part on the GPU, made when it is first asked for.
struct cuda_cache *cuda_cache_of(struct cuda_model *cm, struct kv_cache *kv, struct error *err);
void cuda_cache_copy(struct kv_cache *kv, size_t from, size_t to, size_t n);
void cuda_cache_free(struct kv_cache *kv);
void cuda_detach(struct model *m);

extern const struct device device_cuda;
// In pass.c: everything from the embedding to the logits of `rows` tokens, started and not waited
// for.
bool cuda_start_all(struct cuda_model *cm, struct cuda_cache *cache,
                    const struct cuda_tokens *batch, size_t capacity, struct error *err);
bool cuda_forward(const struct model *m, struct kv_cache *kv, const struct batch *b, float *logits,
                  bool *done, struct error *err);
bool cuda_decode_start(const struct model *m, struct kv_cache *kv, const struct sampler_options *o,
                       const int32_t *history, size_t n, size_t max_tokens, bool *done,
                       struct error *err);
bool cuda_decode_next(const struct model *m, struct kv_cache *kv, int32_t *token,
                      struct error *err);
// y [m, linear.n] of x [m, stride]; bias is left to whoever reads y.
bool cuda_multiply(struct cuda_model *cm, const struct cuda_linear *l, const uint16_t *x,
                   unsigned x_stride, unsigned m, float *y, struct error *err);

#endif
