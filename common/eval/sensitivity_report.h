// The analysis as a person reads it: lbl_analysis.md (what stands out, in words made from the
// numbers, then the tables), and charts beside it.
#ifndef NIBBLE_EVAL_SENSITIVITY_REPORT_H
#define NIBBLE_EVAL_SENSITIVITY_REPORT_H

#include "eval/sensitivity.h"

struct sensitivity_report {
    const struct sensitivity *s;
    const char *model, *text; // as the title and the first line name them
    size_t format;            // the one that tensors are ranked in
    const double *uniform; // [n_formats] kld measured with every block's tensors in the format, on
                           // the same tokens; NaN: not measured
};

// int4-g128 if it was measured, else the format of middling damage.
size_t sensitivity_main_format(const struct sensitivity *s);
// Tensor indices from the most to the least damaging in a format [n_tensors]; those that it cannot
// hold come last.
void sensitivity_rank(const struct sensitivity *s, size_t format, size_t *order);

// folder/lbl_analysis.md, and what stands out in it once more as lbl_findings.md, to be shown
// elsewhere.
bool sensitivity_write_report(const struct sensitivity_report *r, const char *folder,
                              struct error *err);
// folder/sensitivity-*.png: heat maps (layers × kinds) of damage and output error, and lines over
// the layers of damage per kind, damage per format, and the inputs' outliers.
bool sensitivity_write_charts(const struct sensitivity_report *r, const char *folder,
                              struct error *err);

// ---- between the report's files -----------------------------------------------------------------

// The tensors of the blocks by kind or by layer.
struct sensitivity_group {
    const char *kind; // NULL for a group by layer
    size_t layer;     // SENSITIVITY_NO_LAYER for a group by kind
    size_t tensors, weights;
    double kld; // Σ in r->format
};
// Fills groups, which has room for n_tensors of them, in order of appearance; returns how many.
size_t sensitivity_by_kind(const struct sensitivity_report *r, struct sensitivity_group *groups);
size_t sensitivity_by_layer(const struct sensitivity_report *r, struct sensitivity_group *groups);

#endif
