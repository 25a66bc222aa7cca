// Phase 5's parts: what was measured once and serves all rows.
#ifndef NIBBLE_PHASE5_STUDY_H
#define NIBBLE_PHASE5_STUDY_H

#include "eval/mix_measure.h"
#include "lab/budget.h"
#include "lab/lab.h"

struct study_options {
    const char *formats; // candidates, names joined by ','
    bool gguf_only, share_kernels, plain;
    const char *embeddings; // "4-8", or NULL: they stay as they are
    size_t probe;           // tokens to measure damage on; 0: by the model's size
    size_t keep;            // layers in 16 bit; 0: an eighth of them
    int rounds;             // of measuring around the solution; -1: by the model's size
    int mixes;              // measured at random; -1: by the model's size
    struct budget_flags budget;
};

// A mix by name, with what is known of it before the evaluation text is opened.
struct found {
    char name[64];
    size_t *picks;             // [mix.n], owned
    double predicted, checked; // nats: the additive model; measured on the tokens kept for checks
};

// One format for all.
struct uniform {
    const struct quant_format *format;
    bool search;
    double checked;
};
enum { MAX_UNIFORMS = 6 };

struct study {
    struct lab *lab;
    const struct study_options *options;
    char *folder; // results/<model>
    struct token_list calib;
    size_t fit; // damage is measured on tokens [0, fit) of calib, mixes are checked on the
    size_t n_fit, n_check; // rest; so many of each
    struct sensitivity s;
    struct mix mix;
    struct budget budget;
    struct probe check;
    struct found *found; // what the solver's row was chosen from; the chosen one first
    size_t n_found;
    struct solver_solution solution; // of the additive model at the budget
};

// Measures sensitivities (or reads them again), and resolves the budget.
bool study_open(struct study *st, struct lab *lab, const struct study_options *options,
                struct error *err);
void study_close(struct study *st);

// Whether the options make sense together, before anything is measured.
bool study_check(const struct lab *lab, const struct study_options *o, struct error *err);
// The formats of --formats, and the 16 bits of the checkpoint; the caller frees it.
const struct quant_format **study_formats(const struct lab *lab, const struct study_options *o,
                                          size_t *n, struct error *err);
// Passes of the model over one token that can be afforded without being asked for, in thousands of
// millions of multiply-adds.
bool study_affords(const struct study *st, double passes, size_t tokens);

// Of all formats whose model is within 1 % of the budget's bytes, those worth a row: INT4 in groups
// of 128 and the three that measure best, and with searched scales INT4 again and the best.
bool study_uniforms(struct study *st, struct uniform rows[MAX_UNIFORMS], size_t *n,
                    struct error *err);
// The mix of a heuristic ("first-last", "k_m") within the budget with the best two formats: of the
// three best pairs by prediction, the one that measures best. *any is false if no pair fits.
bool study_heuristic(struct study *st, bool k_m, struct found *out, bool *any, struct error *err);
// The solver's mix and all it is compared with on the check tokens, best first, into st->found.
bool study_solve(struct study *st, struct error *err);
// Only the optimum of the additive model, for another budget.
bool study_solve_at(struct study *st, size_t bytes, size_t *picks, struct error *err);
// The mix's tensors all in one format, as a recipe; and their bytes, false if one cannot hold it.
bool study_uniform_recipe(const struct study *st, const struct quant_format *f, bool search,
                          struct recipe *r, struct error *err);
bool study_uniform_bytes(const struct study *st, const struct quant_format *f, size_t *bytes);

// mixed.md, pareto.png and mixes.png with their CSVs, and recipe.txt, into st->folder.
bool study_report(struct study *st, struct error *err);

#endif
