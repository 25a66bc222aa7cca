// Woven weights (weave.h) times activations that are int8 in units of 16 to 128 columns.
#ifndef NIBBLE_MATMUL_WEAVE_H
#define NIBBLE_MATMUL_WEAVE_H

#include "core/error.h"
#include "kernels/cpu/weave.h"

// Rows of activations, x ≈ scale * q: made once, and shared by the matrices that read them.
struct weave_x {
    size_t m, k, q_stride, unit, units;
    int8_t *q;         // [weave_x_tokens(m), q_stride], zeros behind column k and row m
    float *scale;      // [weave_x_tokens(m), units] max |x| / 127
    int32_t *sum;      // likewise, of q
    float *scaled_sum; // likewise, scale * sum
    void *memory;
    size_t capacity;
};

// Three tokens are multiplied as four, seven as eight: a token of zeros costs less than another
// pass over the weights for the one or three that two and four leave over.
static inline size_t weave_x_tokens(size_t m) {
    return m % 4 == 3 ? m + 1 : m;
}

// Quantizes x [m, w->k] for w and for every matrix with its columns and unit. *out: zeroed, or used
// before, whose memory is used again. A NaN or infinity in x shows in the products of its row.
bool weave_x_make(struct weave_x *out, const struct weave *w, const float *x, size_t x_stride,
                  size_t m, struct error *err);
// The same of silu(gate) * up, to the bit; of up where gate is NULL. Nobody else needs these
// products: in a layer of a 3 B model with 512 tokens 45 MB that are neither written nor read
// again.
bool weave_x_make_gated(struct weave_x *out, const struct weave *w, const float *gate,
                        const float *up, size_t stride, size_t m, struct error *err);
void weave_x_make_ref(struct weave_x *out, const float *x, size_t x_stride);
void weave_x_free(struct weave_x *x);

struct weave_job {
    const struct weave *w;
    float *y; // [m, w->n]
    size_t y_stride;
    const float *bias; // [w->n] or NULL
};
// y = x wᵀ + bias for several matrices that share x. The threads divide the rows of all of them;
// each y is summed in one order, whatever their number and however many tokens come together.
void matmul_weave(const struct weave_job *jobs, size_t n_jobs, const struct weave_x *x);
void matmul_weave_ref(const struct weave_job *job, const struct weave_x *x);

#endif
