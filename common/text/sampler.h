// Choosing the next token from logits.
//
//     repeat penalty -> temperature -> top-k -> top-p -> one draw
// temperature 0 is greedy: the highest logit, the lowest id among equals.
// Repeat penalty: Keskar et al. 2019 (CTRL), over the last 64 tokens. Top-p: Holtzman et al. 2019.
#ifndef NIBBLE_TEXT_SAMPLER_H
#define NIBBLE_TEXT_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/random.h"

struct sampler_options {
    float temperature;    // 0: greedy
    int top_k;            // 0: all
    float top_p;          // 1: all
    float repeat_penalty; // 1: none
    uint64_t seed;
};

struct sampler_candidate {
    float logit;
    int32_t id;
};

struct sampler {
    struct sampler_options options;
    struct random random;
    struct sampler_candidate *candidates; // [V] work space
    size_t vocab;
};

bool sampler_init(struct sampler *s, struct sampler_options options, size_t vocab,
                  struct error *err);
void sampler_free(struct sampler *s);
// logits [V] are not changed. history: the tokens so far, of which the penalty sees the last 64.
// Fails only if a logit is NaN or all are -inf. An id of the history outside the vocabulary counts
// for nothing.
bool sampler_next(struct sampler *s, const float *logits, const int32_t *history, size_t n_history,
                  int32_t *token, struct error *err);

#endif
