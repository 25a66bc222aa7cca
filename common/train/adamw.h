// AdamW (Loshchilov and Hutter 2019) and the norm that gradients are clipped by. Both threaded; the
// results do not depend on the number of threads.
#ifndef NIBBLE_TRAIN_ADAMW_H
#define NIBBLE_TRAIN_ADAMW_H

#include <stddef.h>
#include <stdint.h>

struct adamw {
    double lr, beta1, beta2, eps, decay;
    double gradient_scale; // what gradients are multiplied by first (clipping)
    uint64_t step;         // 1 for the first: corrects the moments' start at zero
};

// For n weights:  w -= lr decay w
//                 m = β1 m + (1 - β1) g,  v = β2 v + (1 - β2) g²
//                 w -= lr m̂ / (√v̂ + eps),  m̂ = m / (1 - β1^step), v̂ = v / (1 - β2^step)
void adamw_update(float *w, const float *g, float *m, float *v, size_t n, const struct adamw *a);

// √(Σ g²), summed in double.
double adamw_norm(const float *g, size_t n);

#endif
