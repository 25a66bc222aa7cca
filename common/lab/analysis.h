// The sensitivity analysis as phases use it: the text to probe on, where results lie, and an
// analysis that is done once and read again afterwards.
#ifndef NIBBLE_LAB_ANALYSIS_H
#define NIBBLE_LAB_ANALYSIS_H

#include "eval/sensitivity.h"
#include "lab/lab.h"

// The tokens of --calib, or of the bundled calibration text; begins like lab->text.
bool lab_calibration(const struct lab *lab, struct token_list *out, struct error *err);
// Where what was found is written unless a flag says otherwise: "results/<model>", <model> being
// the last part of what --model says, but "out/bundled" for the bundled model: results/bundled has
// the tables that the write-ups show, and only tools/results.sh replaces those. The caller frees
// it.
char *lab_results_folder(const struct lab *lab, struct error *err);
// The folder `given` (--lbl-dump-dir), or that one if it is NULL; made, if it is not there yet.
// Fails where no file can be written in it. The caller frees it.
char *lab_analysis_folder(const struct lab *lab, const char *given, struct error *err);
// The formats of a list of names joined by ','; the caller frees it. NULL on a name that is no
// weight format, or one named twice.
const struct quant_format **lab_formats(const char *names, size_t *n, struct error *err);

// Measures on these tokens and writes options->path, saying so, how long it will take, and how far
// it is. Stopping it loses one matrix's work: the next run of the same analysis goes on from there.
bool lab_sensitivity_measure(const struct lab *lab, const struct token_list *text,
                             const struct quant_format *const *formats, size_t n_formats,
                             const struct sensitivity_options *options, struct sensitivity *s,
                             struct error *err);
// The same on the calibration text; writes folder/sensitivity.csv.
bool lab_sensitivity(const struct lab *lab, const struct quant_format *const *formats,
                     size_t n_formats, const struct sensitivity_options *options,
                     const char *folder, struct sensitivity *s, struct error *err);
// Reads folder/sensitivity.csv if it belongs to this model and calibration text, has all these
// formats (then s may have more of them, in another order), all tensors and the scales that options
// ask for; else as lab_sensitivity.
bool lab_sensitivity_reuse(const struct lab *lab, const struct quant_format *const *formats,
                           size_t n_formats, const struct sensitivity_options *options,
                           const char *folder, struct sensitivity *s, struct error *err);

#endif
