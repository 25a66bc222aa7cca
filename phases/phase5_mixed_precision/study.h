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
    size_t probe;           // tokens to measure damage on; 0: by the model's size, at most
                            // half of --limit
    size_t keep;            // layers in 16 bit; 0: an eighth of them
    const char *base;       // the format of the others
    int rounds;             // of measuring around the solution; -1: by the model's size
    int mixes;              // measured at random; -1: by the model's size
    float sweep;            // bits between the budgets of the front; 0: none
    const char *folder;     // for what is written; NULL: lab_results_folder
    struct budget_flags budget;
};

// A mix by name, with what is known of it before the evaluation text is opened.
struct found {
    char name[64];
    size_t *picks;             // [mix.n], owned
    double predicted, checked; // nats: the additive model; measured on the tokens kept for checks
};

// What a solver's row is chosen from, the best first.
struct shortlist {
    struct found *list;
    size_t n;
    struct solver_solution solution; // of the additive model; its picks left out
};

// One format for all.
struct uniform {
    const struct quant_format *format;
    bool search;
    size_t bytes;   // of the mix's tensors
    double checked; // nats, on the probe it was measured with
};
enum { MAX_UNIFORMS = 8 };

struct study {
    struct lab *lab;
    const struct study_options *options;
    const struct quant_format *base;
    char *folder;
    struct token_list calib;
    size_t fit; // damage is measured on tokens [0, fit) of calib, mixes are checked on the
    size_t n_fit, n_check; // rest; so many of each
    struct sensitivity s;
    struct mix mix;
    struct budget budget;
    struct probe check;
    struct progress checking; // of a search's candidates,
    size_t checks;            // so many so far
    struct shortlist found;   // at the budget
};

// Before anything is measured: fails if the budget is below the smallest mix there is, or the
// folder for what is written cannot be written in. study_close frees, whatever this returns.
bool study_open(struct study *st, struct lab *lab, const struct study_options *options,
                struct error *err);
// Whether the budget holds every tensor in the best format it may have.
bool study_holds_all(const struct study *st);
// Measures sensitivities (or reads them again), and resolves the budget.
bool study_measure(struct study *st, struct error *err);
void study_close(struct study *st);

// Whether the options make sense together, and for this model, before anything is measured.
bool study_check(const struct lab *lab, const struct study_options *o, struct error *err);
// The same for the whole command line: ends the program if it is wrong. Returns whether --config
// names a row of lab_baseline's, beside which there is nothing to measure.
bool study_check_line(const struct lab *lab, const struct study_options *o);
// --out, which is for the row 'solver': ends the program, or fails where nothing can be written.
bool study_check_out(const struct lab *lab, struct error *err);
// Ends the program if --recipe is the file that the report writes its own to.
bool study_check_recipe(const struct study *st, struct error *err);
// The format that --config 'uniform int4-g128 search' names; NULL if it names no uniform row, with
// a message if that format does not exist.
const struct quant_format *study_uniform_named(const char *config, bool *search, struct error *err);
// Its row alone, for which nothing need be analysed.
bool study_uniform_alone(struct lab *lab, const struct quant_format *f, bool search,
                         struct error *err);
// N of the row 'keep N'.
size_t study_keep(const struct lab *lab, const struct study_options *o);
// All rows but lab_baseline's, those that --config does not name left out: measures, solves, and
// says in a note which are over the budget.
bool study_rows(struct study *st, struct error *err);
// The formats of --formats, and the 16 bits of the checkpoint; the caller frees it.
const struct quant_format **study_formats(const struct lab *lab, const struct study_options *o,
                                          size_t *n, struct error *err);
// Whether so many passes of the model over so many tokens take at most about two minutes on two
// cores: what may be done without being asked for.
bool study_affords(const struct study *st, double passes, size_t tokens);

// Of all formats whose model is within 1 % of the budget's bytes, those worth a row: the three that
// measure best, and with searched scales the best; INT4 in groups of 128 and --base in any case.
bool study_uniforms(struct study *st, struct uniform rows[MAX_UNIFORMS], size_t *n,
                    struct error *err);
// Measures u's format on a probe, plainly and with searched scales, and appends both to a growing
// list (memory_grow); what a search does not change is there once.
bool study_uniform_try(struct study *st, struct probe *probe, struct uniform *u,
                       struct uniform **all, size_t *n, size_t *capacity, struct error *err);
// The solver's mix within so many bytes, and all it is compared with on the check tokens, which
// decide: the additive optimum, what rounds of measuring around it found, the best formats for all
// that are not hopeless, and the mixes of heuristics ("first-last", "k_m") with the best two
// formats: of up to three pairs that are predicted to be nearly equal, the one that measures best.
// rounds -1: one, unless the additive optimum is clearly below all others anyway.
bool study_search(struct study *st, size_t bytes, int rounds, struct shortlist *out,
                  struct error *err);
void shortlist_free(struct shortlist *l);
// The candidate of that name; NULL if there is none.
const struct found *shortlist_find(const struct shortlist *l, const char *name);
// The same at the study's budget, into st->found.
bool study_solve(struct study *st, struct error *err);
// Only the optimum of the additive model, for another budget.
bool study_solve_at(struct study *st, size_t bytes, size_t *picks, struct error *err);
// The mix's tensors all in one format, as a recipe; and their bytes, false if one cannot hold it.
bool study_uniform_recipe(const struct study *st, const struct quant_format *f, bool search,
                          struct recipe *r, struct error *err);
bool study_uniform_bytes(const struct study *st, const struct quant_format *f, size_t *bytes);

// The model as titles name it: the last part of what --model says.
const char *study_name(const struct study *st);
// mixed.md, mixes.png with its CSV, recipe.txt, and the sweep, into st->folder.
bool study_report(struct study *st, struct error *err);
// Other budgets: the solver, the best format for all and the heuristics at each, measured on the
// evaluation text: sweep.md, pareto.csv and pareto.png, into st->folder. *any is false if no budget
// was asked for.
bool study_sweep(struct study *st, bool *any, struct error *err);

#endif
