// A quantized model is a model: same config, same shapes, linears in other formats.
#ifndef NIBBLE_QUANT_QUANTIZE_H
#define NIBBLE_QUANT_QUANTIZE_H

#include "model/model.h"
#include "quant/recipe.h"

// Of the weights that are now in block formats (DTYPE_BLOCK); where there are none, of those that
// became another float type.
struct quantize_stats {
    size_t weights;
    size_t bytes;   // that they take, scales and zero-points included
    double seconds; // of all conversions, without finding out what they cost
    double nmse;    // that cost: Σ (w - ŵ)² / Σ w²
};

typedef void quantize_progress(void *user, size_t done, size_t total); // linears

struct quantize_options {
    bool int8_activations; // quantize activations on the fly where the format is int8 per tensor or
                           // channel
    bool search;           // scales of least squared error, where the format knows how to find them
    // How much an error in each column of w matters (struct quant_hints), [K]; NULL: all alike.
    const float *(*importance)(void *user, const struct tensor *w); // NULL: all alike, everywhere
    quantize_progress *progress;                                    // NULL: none
    void *user;                                                     // for both
};

// A new model whose linears are in the recipe's formats; the rest is shared with `source`, which
// must outlive it. One tensor at a time: memory beyond the result is a few rows per thread, and
// pages of the source that were read are given back.
struct model *model_quantize_with(const struct model *source, const struct recipe *recipe,
                                  const struct quantize_options *options,
                                  struct quantize_stats *stats, struct error *err);
// The same, plainly rounded.
struct model *model_quantize(const struct model *source, const struct recipe *recipe,
                             bool int8_activations, struct quantize_stats *stats,
                             quantize_progress *progress, void *user, struct error *err);

#endif
