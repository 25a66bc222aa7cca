// Where layers run: a device is the operations that a forward pass is made of, over activations
// that only it can see. forward.c tells the order; device_cpu.c and common/cuda/ are the two that
// exist. Same results within a tolerance: the CPU computes in float32, the GPU rounds what goes
// into a matrix product, and keys and values, to float16 (a relative error of 1e-3 in the logits).
#ifndef NIBBLE_MODEL_DEVICE_H
#define NIBBLE_MODEL_DEVICE_H

#include "model/model.h"
#include "text/sampler.h"

// Tokens that go through the layers together: enough to reuse each weight, few enough that the
// activations of a 3 B model (512 × 32,768 × 4 bytes) stay under 70 MB.
enum { PASS_TOKENS = 512 };

// Some tokens on their way through the layers.
struct pass {
    const struct model *m;
    struct kv_cache *kv;
    const struct batch *b;    // the part of the batch at work, at most PASS_TOKENS
    linear_observer *observe; // NULL: nobody watches
    void *user;
    void *state; // the device's: x, the residual stream [T, H], and everything between
};

struct device {
    const char *name; // "cpu", "cuda"
    // Memory for passes of up to `tokens` tokens. close also after a failed open.
    bool (*open)(struct pass *p, size_t tokens, struct error *err);
    void (*close)(struct pass *p);
    bool (*begin)(struct pass *p, struct error *err); // p->b is another part
    bool (*embed)(struct pass *p, struct error *err); // x = embedding[token] (+ position)
    bool (*put)(struct pass *p, const float *x, struct error *err); // x [T, H] from the host …
    bool (*get)(struct pass *p, float *x, struct error *err);       // … and back
    // A layer, in this order:
    bool (*norm)(struct pass *p, size_t layer, bool mlp, struct error *err); // normed = norm(x)
    bool (*project)(struct pass *p, size_t layer, struct error *err); // q, k, v of normed, turned;
                                                                      // k and v cached
    bool (*attend)(struct pass *p, size_t layer, struct error *err);
    bool (*output)(struct pass *p, size_t layer, struct error *err); // x += o(attention)
    // Either of the next two makes silu(gate) * up; without a gate, gelu(up).
    bool (*inner)(struct pass *p, size_t layer, struct error *err); // gate and up of normed
    bool (*down)(struct pass *p, size_t layer, struct error *err);  // x += down(silu(gate) * up)
    // hidden [T, H] = final norm of x
    bool (*finish)(struct pass *p, float *hidden, struct error *err);
    // logits [n, V] = head(hidden [n, H])
    bool (*logits)(const struct model *m, const float *hidden, size_t n, float *logits,
                   struct error *err);

    // What only a device beside the CPU has; NULL there.
    // All of a small batch at once, if this can be done: *done says whether it was.
    bool (*forward)(const struct model *m, struct kv_cache *kv, const struct batch *b,
                    float *logits, bool *done, struct error *err);
    // Decoding on its own: `history`, of which all but the last token have been through the layers,
    // is continued by decode_next, one token each, with the sampler on the device. *done: whether
    // it can be, for these options.
    bool (*decode_start)(const struct model *m, struct kv_cache *kv,
                         const struct sampler_options *o, const int32_t *history, size_t n,
                         size_t max_tokens, bool *done, struct error *err);
    bool (*decode_next)(const struct model *m, struct kv_cache *kv, int32_t *token,
                        struct error *err);
    void (*cache_copy)(struct kv_cache *kv, size_t from, size_t to, size_t n);
    void (*cache_free)(struct kv_cache *kv);
    void (*detach)(struct model *m);
};

extern const struct device device_cpu;

// What a model has when some of it is elsewhere: m->placed, the first member of the device's own.
struct placement {
    const struct device *device;
    size_t first_layer; // layers from here on, the final norm and the head; L: only the head
};

// What a device keeps of a cache: the first member of its own.
struct device_cache {
    const struct device *device;
};

// Takes what lies on a device off it; model_free does this too.
void model_detach(struct model *m);

// decode_start and decode_next of the device that all of m is on; without one, *done is false.
bool model_decode_start(const struct model *m, struct kv_cache *kv, const struct sampler_options *o,
                        const int32_t *history, size_t n, size_t max_tokens, bool *done,
                        struct error *err);
bool model_decode_next(const struct model *m, struct kv_cache *kv, int32_t *token,
                       struct error *err);

// One layer, for devices that run a pass on their own.
bool pass_layer(struct pass *p, const struct device *d, size_t layer, struct error *err);
// Token, position and sequence in range, else a message.
bool pass_check(const struct model *m, const struct kv_cache *kv, const struct batch *b,
                struct error *err);

#endif
