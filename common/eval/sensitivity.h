// What quantizing costs, tensor by tensor and format by format: the question "which mix of formats
// is best in the memory I have" starts here.
//
// A cell is one tensor in one format with everything else as it was. It has three errors, each
// closer to what matters and dearer than the one before:
//
//     weight   ŵ against w                                  one pass over the weights
//     output   ŵx against wx, x real activations            one matrix product
//     kld      the model's next-token distribution, in nats the layers from the tensor's to the end
//
// kld is measured in full for a few formats per tensor (anchors). The others lie between: damage
// grows as a power of the output's error, so log kld is interpolated over log output_nmse (outside
// the anchors with slope 1: half the error energy, half the damage). A sample of cells is measured
// both ways to say how well estimates rank.
#ifndef NIBBLE_EVAL_SENSITIVITY_H
#define NIBBLE_EVAL_SENSITIVITY_H

#include "model/model.h"

#define SENSITIVITY_NO_LAYER SIZE_MAX // the embedding and the head

// One tensor of the checkpoint (GPT-2's c_attn is one, though the model holds it as q, k and v).
struct sensitivity_tensor {
    char *name; // "model.layers.0.mlp.down_proj.weight"
    char *kind; // "mlp.down_proj": what is behind the layer's number
    size_t layer, n, k;
    size_t bytes;           // as the model has it
    double weight_kurtosis; // E(w⁴) / E(w²)² about the mean: 3 for a normal distribution
    // Of the activations it multiplies. An outlier channel's largest magnitude is at least 6 times
    // that of the median channel.
    double input_kurtosis, input_outlier_ratio; // largest channel's maximum / median channel's
    size_t input_outliers, input_worst_channel;
};

struct sensitivity_cell {
    size_t bytes; // 0: this format cannot hold the tensor, and nothing below is a number
    double weight_mse, weight_nmse, weight_snr_db, weight_cosine;
    double output_nmse, output_cosine;
    double kld_estimated; // NaN where it is an anchor
    double kld_measured;  // NaN where it was not
    double kld_error;     // the measurement's standard error, tokens taken for independent
};

// Estimates against measurements, over the cells that have both.
struct sensitivity_check {
    size_t cells;
    double rank_correlation; // Spearman's, over all of them
    double typical_factor;   // exp(mean |log(estimated / measured)|): 1.1 is 10 % off
};

struct sensitivity {
    uint64_t model;        // sensitivity_fingerprint of the model it belongs to
    uint64_t text;         // sensitivity_text of what it was given to probe on
    size_t tokens, window; // of them, what it was measured on
    bool search;           // with scales of least error
    size_t n_tensors, n_formats;
    size_t kept; // of the tensors, those that a run before this one had finished
    struct sensitivity_tensor *tensors; // blocks in order, then the embedding and the head
    const struct quant_format **formats;
    struct sensitivity_cell *cells; // [n_tensors, n_formats]
    struct sensitivity_check check;
};

struct sensitivity_options {
    size_t tokens, window; // probe tokens (0: by the model's size), in windows of at most so many
                           // tokens (0: 512), spread evenly over the text
    size_t anchors;        // formats measured per tensor; 0: all if that is quick, else 3 or 1
    size_t checks;         // other cells measured to check the estimates; 0: 32 (or all there are)
    bool blocks_only;      // leave out the embedding and the head
    const char *only, *skip; // patterns or NULL: these tensors, without those
    bool search;             // round with scales of least error (struct quant_hints)
    const char *path;        // where it is written (sensitivity_write); NULL: nowhere
};

// done and total count the cells of this run; seconds_left: about, 0 while it cannot be told; what:
// the tensor at hand.
typedef void sensitivity_progress(void *user, size_t done, size_t total, double seconds_left,
                                  const char *what);

// Fills s, which sensitivity_free frees. Memory beyond the model: the residual stream of the probe
// tokens between all layers, one layer's activations, and logits. Until it is complete, the tensors
// that are finished are in "<path>.part"; what a run that was stopped has left there of the same
// model, tokens, formats and rounding is not measured again.
bool sensitivity_measure(const struct model *m, const struct quant_format *const *formats,
                         size_t n_formats, const int32_t *tokens, size_t n_tokens,
                         const struct sensitivity_options *options, struct sensitivity *s,
                         sensitivity_progress *progress, void *user, struct error *err);
void sensitivity_free(struct sensitivity *s);
// What shapes tell alone: the tensors, and their bytes in each format. No cell has any damage, and
// no error is known.
bool sensitivity_shapes(const struct model *m, const struct quant_format *const *formats,
                        size_t n_formats, bool blocks_only, struct sensitivity *s,
                        struct error *err);

static inline struct sensitivity_cell *sensitivity_at(const struct sensitivity *s, size_t tensor,
                                                      size_t format) {
    return &s->cells[tensor * s->n_formats + format];
}
// Whether the embedding and the head are left out.
static inline bool sensitivity_blocks_only(const struct sensitivity *s) {
    return s->tensors[s->n_tensors - 1].layer != SENSITIVITY_NO_LAYER;
}
// The damage of a cell: measured if it was, else estimated, never below 0; NaN without bytes.
double sensitivity_kld(const struct sensitivity_cell *c);
// How many cells a format can hold, and how many of those were measured.
size_t sensitivity_cells(const struct sensitivity *s, size_t *measured);
// The damage that the additive model predicts for one format in every block: Σ kld. NaN if it
// cannot hold all of them.
double sensitivity_sum(const struct sensitivity *s, size_t format);

// A hash of shapes, names and bytes of every matrix; and one of a text's tokens.
uint64_t sensitivity_fingerprint(const struct model *m);
uint64_t sensitivity_text(const int32_t *tokens, size_t n);

// As CSV: a row per cell, its tensor's columns in each. Reading fails, naming file and row, on
// anything that sensitivity_write cannot have written, and if the file belongs to another model
// than `model` (a fingerprint).
bool sensitivity_write(const struct sensitivity *s, const char *path, struct error *err);
bool sensitivity_read(struct sensitivity *s, const char *path, uint64_t model, struct error *err);
// The same, and fails if a tensor or its bytes in a format are not those of the model.
bool sensitivity_read_for(struct sensitivity *s, const char *path, const struct model *m,
                          struct error *err);

// Spearman's rank correlation of n pairs, ties sharing their mean rank; NaN for less than two
// pairs, or where all of one side are equal. Fails only for want of memory.
bool spearman(const double *a, const double *b, size_t n, double *out, struct error *err);

#endif
