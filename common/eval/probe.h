// How far a model that differs from another in a few layers is from it, at the price of only those
// layers and what follows them.
//
//     tokens ─ layer 0 ─ layer 1 ─ … ─ layer L-1 ─ norm, head ─ logits
//             x[0]      x[1]          x[L-1]      x[L]
//
// The residual streams x[l] of the base model are kept for a few hundred tokens. A model that
// differs from the base in layer l and later starts at x[l]; on average half the work is saved.
#ifndef NIBBLE_EVAL_PROBE_H
#define NIBBLE_EVAL_PROBE_H

#include "model/model.h"

struct probe {
    const struct model *reference;           // whose distribution is the right one
    const struct model *base;                // where x comes from; usually the same
    size_t n, window;                        // tokens, cut into windows that begin at position 0
    int32_t *tokens, *positions, *sequences; // [n]
    float *x;                                // [L + 1, n, H]
    float *reference_hidden;                 // [n, H] after the final norm
    float *logits, *p; // [n, V] the reference's, and its probabilities; NULL where they would take
                       // more than 512 MB and are made again each time
    float *scratch;    // [2, n, H]
    struct kv_cache kv;
};

// Takes up to `want` tokens of the text in windows of up to `window`, spread evenly over it.
bool probe_open(struct probe *p, const struct model *reference, const struct model *base,
                const int32_t *tokens, size_t n_tokens, size_t want, size_t window,
                struct error *err);
void probe_close(struct probe *p);

// KL(reference || m) at each of the probe's tokens, klds [n]. m equals the base before layer
// `first`; with first 0 its embedding may be another too, and with first L only the head.
bool probe_klds(struct probe *p, const struct model *m, size_t first, double *klds,
                struct error *err);
// Their mean; infinite where a logit is no number, so that no comparison takes it for the less.
bool probe_kld(struct probe *p, const struct model *m, size_t first, double *kld,
               struct error *err);

// Runs one layer of the base on the probe's tokens; observe sees its linears' inputs.
bool probe_watch(struct probe *p, size_t layer, linear_observer *observe, void *user,
                 struct error *err);

#endif
