// Mixes: a format for every tensor, chosen by what is known of each in each.
//
// The additive model: the damage of a mix is the sum of its tensors' damages, each measured with
// all others intact (sensitivity.h). Under it the best mix for a budget is a knapsack, which
// quant/solver.h solves exactly. Where it fails, mix_measure.h measures around the solution.
#ifndef NIBBLE_EVAL_MIX_H
#define NIBBLE_EVAL_MIX_H

#include "eval/sensitivity.h"
#include "quant/recipe.h"
#include "quant/solver.h"

// What may be chosen; zeroed: everything.
struct mix_rules {
    const char *only, *skip; // patterns or NULL, as --only and --skip: tensors to choose for.
                             // Without only: those of the blocks
    bool embeddings;         // the embedding and the head too, in formats of at least min_bits and
    double min_bits, max_bits; // at most max_bits a weight (0: any)
    bool share_kernels;        // q, k and v of a layer take one format, gate and up too
    bool search;               // scales of least error
};

// Formats for the tensors that are chosen for. Picks are arrays [n] of format indices.
struct mix {
    const struct sensitivity *s;
    size_t n, *tensors; // [n] indices into s->tensors
    size_t *group;      // [n] tensors of one group take one format: the number of its first tensor
    double *cost;       // [n, n_formats] nats; NaN: not allowed
    bool search;
};

// Fails if no tensor is left to choose for, or one has no format it may take.
bool mix_init(struct mix *x, const struct sensitivity *s, const struct mix_rules *rules,
              struct error *err);
void mix_free(struct mix *x);

static inline size_t mix_cell(const struct mix *x, size_t i, size_t format) {
    return i * x->s->n_formats + format;
}
// Bytes of tensor i in a format; 0: it has none.
static inline size_t mix_tensor_bytes(const struct mix *x, size_t i, size_t format) {
    return sensitivity_at(x->s, x->tensors[i], format)->bytes;
}
size_t mix_bytes(const struct mix *x, const size_t *picks);
double mix_cost(const struct mix *x, const size_t *picks); // the additive model's prediction
size_t mix_weights(const struct mix *x);
size_t mix_stored_bytes(const struct mix *x); // as the checkpoint has these tensors
// The least bytes a mix can have, and the most.
size_t mix_smallest(const struct mix *x);
size_t mix_largest(const struct mix *x);

// The mix of least cost within so many bytes. solution: bound and price, picks left out.
bool mix_solve(const struct mix *x, size_t budget, size_t *picks, struct solver_solution *solution,
               struct error *err);
// Two formats, one for the tensors that are raised[n], one for the rest: the `most` best pairs that
// fit, by predicted cost, best first; into picks [most + 1, n]. Returns how many there are.
size_t mix_pairs(const struct mix *x, const bool *raised, size_t budget, size_t most,
                 size_t *picks);

// As a recipe: one rule for each tensor.
bool mix_recipe(const struct mix *x, const size_t *picks, struct recipe *r, struct error *err);

#endif
