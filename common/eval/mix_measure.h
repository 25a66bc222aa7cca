// Whole mixes measured, and what the additive model misses.
//
// Damages add up only as long as errors don't know of each other. Around a solution that can be
// seen: change one tensor of the mix at a time, and measure the model again. The differences are
// costs that have the rest of the mix in them; solved with those, the mix may change once more.
// Whether that is better, tokens must say that took no part in it.
#ifndef NIBBLE_EVAL_MIX_MEASURE_H
#define NIBBLE_EVAL_MIX_MEASURE_H

#include "eval/mix.h"
#include "eval/probe.h"

// The model in these formats.
struct model *mix_model(const struct mix *x, const struct model *m, const size_t *picks,
                        struct error *err);
// Its divergence from the unquantized one on the probe's tokens (whose base is that one).
bool mix_measure(const struct mix *x, struct probe *probe, const size_t *picks, double *kld,
                 struct error *err);

typedef void mix_progress(void *user, size_t done, size_t total);

// Measures the mixes that differ from `picks` in one tensor: for each, the `around` formats that
// lose least at the price lambda of a byte. kld [n, n_formats]: NaN where nothing was measured, the
// divergence of `picks` itself in its own cells.
bool mix_measure_changes(const struct mix *x, const struct model *m, const int32_t *tokens,
                         size_t n_tokens, size_t want, size_t window, const size_t *picks,
                         double lambda, size_t around, double *kld, mix_progress *progress,
                         void *user, struct error *err);
// Solves with the costs of such changes, `weight` of them and 1 - weight of the additive model's;
// only what was measured may be chosen.
bool mix_solve_changes(const struct mix *x, const size_t *from, const double *kld, double weight,
                       size_t budget, size_t *picks, struct error *err);

// Mixes at random: each draws a level, then a format near it for every tensor, so that they differ
// in size as much as in what they damage. seed: the same mixes each time.
void mix_random(const struct mix *x, uint64_t seed, size_t *picks);

#endif
