// Generation, and the speed of it.
#ifndef NIBBLE_EVAL_GENERATE_H
#define NIBBLE_EVAL_GENERATE_H

#include "model/model.h"
#include "text/sampler.h"
#include "text/tokenizer.h"

struct generation {
    struct token_list tokens; // what was generated, the stop token left out
    char *text;               // its bytes
    double ttft_ms;           // prompt in, first token out; NaN if there was no room for one
    double tpot_ms;           // mean time per later token; NaN if there is none
};

// Called with each piece of text as it is complete; returns false to stop.
typedef bool generate_sink(void *user, const char *text);

// Whether the prompt has at least one token, and no more than the model's context.
bool generate_takes(const struct model *m, const struct token_list *prompt, struct error *err);
// Continues the prompt's tokens by at most max_tokens, stopping at the model's end tokens (and at
// `stop`, if not -1), or where the context is full.
bool generate(const struct model *m, const struct tokenizer *t, const struct token_list *prompt,
              int32_t stop, size_t max_tokens, struct sampler_options sampling, generate_sink *sink,
              void *user, struct generation *out, struct error *err);
void generation_free(struct generation *g);

struct speed {
    double prefill_tps, ttft_ms; // medians over runs
    double decode_tps;
    double tpot_ms, tpot_sd_ms; // mean and standard deviation over all timed tokens
};
// Prefill of n_prefill random tokens and decode of n_decode from there: one warm-up, then `runs`
// timed ones.
bool speed_measure(const struct model *m, size_t n_prefill, size_t n_decode, int runs,
                   struct speed *s, struct error *err);

#endif
