// Between the files of sensitivity.
#ifndef NIBBLE_EVAL_SENSITIVITY_PART_H
#define NIBBLE_EVAL_SENSITIVITY_PART_H

#include "eval/sensitivity.h"

// Goes into every row that is written. To be raised whenever the same question gets other numbers:
// a format that rounds differently, another estimate, another choice of what is measured.
enum { SENSITIVITY_METHOD = 1 };

// Where a linear is in a model, so that it is found in a quantized copy too.
enum linear_role {
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_O,
    ROLE_GATE,
    ROLE_UP,
    ROLE_DOWN,
    ROLE_LAYER_END,
    ROLE_EMBEDDING = ROLE_LAYER_END,
    ROLE_HEAD,
    ROLE_END
};

// A tensor is one or more neighbouring roles: three for GPT-2's c_attn.
struct linear_span {
    size_t layer;
    enum linear_role first;
    size_t n;
};

const struct linear *model_linear(const struct model *m, size_t layer, enum linear_role role);
// The tensors of a model that options ask for, cells without content, and where the tensors are:
// *spans [n_tensors], the caller's to free, as s is (sensitivity_free), whatever this returns.
bool sensitivity_list(const struct model *m, const struct quant_format *const *formats,
                      size_t n_formats, const struct sensitivity_options *options,
                      struct sensitivity *s, struct linear_span **spans, struct error *err);

// Row `row` of a matrix [N, K]: K floats.
void sensitivity_read_row(const struct tensor *w, size_t row, float *out);
// Of a tensor that is quantized in the second model: sets the weights' errors in *c, and its bytes.
// False for want of memory.
bool sensitivity_weight_errors(const struct model *m, const struct model *quantized,
                               const struct linear_span *span, struct sensitivity_cell *c,
                               struct error *err);
// Sets the outputs' errors in *c; exact, quantized [size].
void sensitivity_output_errors(const float *exact, const float *quantized, size_t size,
                               struct sensitivity_cell *c);
// E(w⁴) / E(w²)² about the mean, of all weights of a tensor.
bool sensitivity_weight_kurtosis(const struct model *m, const struct linear_span *span,
                                 double *kurtosis, struct error *err);

// How much to measure where the caller leaves it open; checks SIZE_MAX: every cell.
struct sensitivity_options sensitivity_choose_options(const struct sensitivity_options *given,
                                                      const struct model *m, size_t n_tensors,
                                                      size_t n_formats);
// Fills the first tensors of s, listed but not measured, with what is in the file `part` if that
// was measured for the same question; how many those are.
size_t sensitivity_take_up(struct sensitivity *s, const char *part);

// Which of a tensor's cells (errors known, damage not) to measure: the extremes of output_nmse, and
// between them those that leave the smallest gaps; at most n, true in chosen [n_formats].
void sensitivity_choose_anchors(const struct sensitivity_cell *cells, size_t n_formats, size_t n,
                                bool *chosen);
// Sets kld_estimated of the cells that are no anchors.
void sensitivity_estimate(struct sensitivity_cell *cells, size_t n_formats, const bool *anchors);
// Sets s->check.
bool sensitivity_judge(struct sensitivity *s, struct error *err);

#endif
