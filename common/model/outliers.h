// Outlier columns for small models, and their removal. What the model computes stays the same:
//
//     a norm's gain[c] / s    and column c of the matrices that read it * s    q k v, gate up
//     row c of up / s         and column c of down * s
//
// Every s is a power of two, so the stored weights change in their exponents alone and undoing it
// restores their bits. The norm's columns are the same dimensions of the residual stream in every
// layer; those of down are drawn anew in each.
//
// Like large models: some 0.1 to 1 % of the columns stand out, 20 times and more, in the same
// dimensions of the residual stream in every layer (Dettmers et al. 2022, LLM.int8(), arXiv
// 2208.07339; Sun et al. 2024, Massive Activations, 2402.17762); the norms' gains make them (Wei et
// al. 2022, Outlier Suppression, 2209.13325); the largest are at down's input (Yu et al. 2024, The
// Super Weight, 2411.07191; Yang et al. 2024, Activation Spikes, 2405.14428).
//
// Arranged: those outliers are in activations first, and weights vary less. Here they are in the
// weights, where SmoothQuant's migration would take them with all its strength (Xiao et al. 2023,
// 2211.10438). A real row has 16 to 150 groups of 128 weights, and an outlier costs one of them; a
// row of 256 or 768 has 2 or 6. So down's outliers lie in one run of 32; the rest of its group of
// 128, the shoulder, is made somewhat larger too, so that it does not round away beside them; and
// the columns behind the norms, whose rows have only 2 groups, stay mild.
#ifndef NIBBLE_MODEL_OUTLIERS_H
#define NIBBLE_MODEL_OUTLIERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "model/arch.h"

enum { OUTLIER_MAX_LOG2 = 10 };

struct outlier_range {
    unsigned lo, hi; // powers of two, as exponents: {4, 6} draws from 16, 32 and 64
};

struct outlier_options {
    uint64_t seed;
    double columns;                // share of the columns, in (0, 0.25]; at least one
    size_t layers;                 // the first so many layers get columns in down; 0: all
    struct outlier_range down;     // scales of down's columns
    struct outlier_range norm;     // of the columns behind norms; {0, 0}: none
    struct outlier_range shoulder; // of the rest of the group of 128 in down; {0, 0}: none
};
extern const struct outlier_options outlier_defaults;

// Which columns are scaled, as exponents; 0: left alone.
struct outlier_plan {
    size_t hidden, intermediate, n_layers;
    uint8_t *residual; // [H], the same behind every norm
    uint8_t *mlp;      // [L, I]
};

// Nothing scaled. Refuses architectures without RMSNorm and a gated MLP.
bool outlier_plan_init(struct outlier_plan *p, const struct model_config *c, struct error *err);
bool outlier_plan_make(struct outlier_plan *p, const struct model_config *c,
                       const struct outlier_options *o, struct error *err);
// The record kept beside the model, JSON. `name` (a path) begins every message; a record for
// another shape is refused. After a failure p is empty.
bool outlier_plan_parse(struct outlier_plan *p, const struct model_config *c, const char *json,
                        size_t size, const char *name, struct error *err);
bool outlier_plan_write(const struct outlier_plan *p, const char *path, struct error *err);
void outlier_plan_free(struct outlier_plan *p);

// Multiplies (undo: divides) in place the weights of the checkpoint files in `folder`.
// *rounded: weights that are not exactly restored by undoing, which f16's short range can cause.
bool outlier_plan_apply(const struct outlier_plan *p, const struct model_config *c,
                        const char *folder, bool undo, size_t *rounded, struct error *err);

// A copy of the checkpoint folder `in`, its weights transformed and outliers.json added (removed).
// `out` must not exist, or be empty, and appears only when it is complete. Files in subfolders are
// not copied. Llama's architecture and its kin; GPT-2 is refused.
bool outliers_add(const char *in, const char *out, const struct outlier_options *o, size_t *rounded,
                  struct error *err);
bool outliers_undo(const char *in, const char *out, size_t *rounded, struct error *err);

// How much the columns of one kind of matrix differ.
struct outlier_row {
    const char *name; // "mlp.down_proj"
    size_t matrices;
    double peak;          // the largest column's max |w| over the median column's; worst matrix
    double columns;       // columns over 6 times the median, mean
    double kurtosis;      // mean; 3 for a normal distribution
    double lost, lost128; // share of weights that INT4 per channel (group 128) rounds to 0, mean
};
enum { OUTLIER_ROWS = 7 };
bool outliers_measure(const char *folder, struct outlier_row rows[OUTLIER_ROWS], struct error *err);

#endif
