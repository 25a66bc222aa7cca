// What the linears of a layer see: their inputs on real text, and which channels stand out.
//
// A large model has a few input channels that are tens of times larger than the rest (Dettmers et
// al. 2022). They are why rounding a weight costs more in one column than in another.
#ifndef NIBBLE_EVAL_ACTIVATIONS_H
#define NIBBLE_EVAL_ACTIVATIONS_H

#include "eval/probe.h"

// The first four moments, summed as values come.
struct moments {
    double n, sum[4]; // Σ x, Σ x², Σ x³, Σ x⁴
};
void moments_add(struct moments *m, const float *x, size_t n);
// E(x - mean)⁴ / (E(x - mean)²)²: 3 for a normal distribution, 1.8 for a uniform one; NaN if all
// values are equal.
double moments_kurtosis(const struct moments *m);

enum { OUTLIER_RATIO = 6 }; // an outlier channel's maximum is so many times the median channel's

struct activation_stats {
    double kurtosis;
    double outlier_ratio;   // the largest channel's maximum / the median channel's; NaN without one
    size_t outliers, worst; // channels beyond OUTLIER_RATIO; the largest channel
};
// x [n, k]
bool activation_stats(const float *x, size_t n, size_t k, struct activation_stats *out,
                      struct error *err);

// A layer's four different inputs: q, k and v share one, as do gate and up.
enum input_slot { INPUT_ATTENTION, INPUT_O, INPUT_MLP, INPUT_DOWN, INPUT_SLOTS };

struct layer_inputs {
    size_t n, width[INPUT_SLOTS];
    float *x[INPUT_SLOTS]; // [n, width]
};
bool layer_inputs_init(struct layer_inputs *in, const struct probe *p, struct error *err);
void layer_inputs_free(struct layer_inputs *in);
// Runs one layer of the probe's base on what it has stored of the layer before.
bool layer_inputs_capture(struct layer_inputs *in, struct probe *p, size_t layer,
                          struct error *err);

#endif
