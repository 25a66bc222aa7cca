// Perplexity, and how far a quantized model's predictions are from the unquantized one's.
//
//     perplexity = exp(mean over scored tokens of -log p(token | what came before))
//     KL(P || Q) = Σ p log(p / q), in nats, P the reference's next-token distribution, Q the
//     model's top-1 agreement = share of positions where both have the same most likely token
#ifndef NIBBLE_EVAL_PERPLEXITY_H
#define NIBBLE_EVAL_PERPLEXITY_H

#include "model/model.h"

enum ppl_protocol {
    PPL_PROTOCOL_FULL, // windows of ctx, no overlap, all but a window's first token scored
    PPL_PROTOCOL_HALF  // llama.cpp's: whole windows, BOS put first, positions ctx/2 + 1 … ctx - 1
};

struct eval_text {
    const int32_t *tokens;
    size_t n;
    size_t ctx;
    enum ppl_protocol protocol;
    int32_t bos; // -1: the model wants none
};

struct eval_result {
    double nll, ppl;
    size_t tokens;                        // scored
    double kld_mean, kld_p99, top1_agree; // NaN without a reference
    double forward_seconds;               // in the forward pass alone
    size_t forward_tokens;
};

// The reference's final hidden states over a text, in an unlinked temporary file: one forward pass
// of the unquantized model serves every row, and memory stays bounded (logits are made again, a few
// positions at a time, by the head).
struct eval_reference {
    const struct model *model;
    int fd;
    size_t n; // rows of hidden states
};

typedef void eval_progress(void *user, size_t done, size_t total, double nll_so_far);

// Scores the text. reference may be NULL. record, if not NULL, is filled for later rows (and is
// then m's own). Fails if the text is too short to score a token.
bool eval_perplexity(const struct model *m, const struct eval_text *text,
                     const struct eval_reference *reference, struct eval_reference *record,
                     struct eval_result *result, eval_progress *progress, void *user,
                     struct error *err);
void eval_reference_close(struct eval_reference *r);

// One position's metrics from two logit rows [V] (the definitions, used by the above and by tests).
double nll_of(const float *logits, size_t v, int32_t token);
double kl_divergence(const float *reference, const float *logits, size_t v);
size_t argmax(const float *x, size_t n);
// The p-quantile (0 … 1) of values by linear interpolation, as numpy.percentile; reorders values.
double quantile(float *values, size_t n, double p);

#endif
