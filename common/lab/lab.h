// What every experiment does: find the model, read the text, measure one row after another, print
// the table. A phase's main says which rows, in the order the story tells them.
//
//     lab_open         parses flags, loads the model and the text
//     lab_baseline     the row all others are compared with
//     lab_quantized    one row per configuration
//     lab_close        prints, writes, frees
// and lab_run, which is these four in this order. lab_start is what lab_open does first, for a
// phase whose flags can ask for something else: lab_configs goes on from there.
#ifndef NIBBLE_LAB_LAB_H
#define NIBBLE_LAB_LAB_H

#include "cli/cli.h"
#include "eval/choices.h"
#include "eval/perplexity.h"
#include "model/model.h"
#include "quant/quantize.h"
#include "report/progress.h"
#include "report/result.h"
#include "text/tokenizer.h"

struct cuda_backend;
struct lab {
    const struct cli_program *program;
    struct cli_options options;
    char *folder; // of the checkpoint, or the GGUF file
    struct model *model;
    struct tokenizer *tokenizer;
    struct token_list text, prompt;
    struct question_list questions;  // none: accuracy is not measured
    struct recipe recipe;            // of --recipe; without rules: none
    struct eval_reference reference; // set by lab_baseline
    struct model *reference_model;   // of --activations int8, else NULL
    struct result_table table;
    const struct cuda_backend *gpu; // of --device cuda, else NULL
    char gpu_name[160];
    bool save; // --out is for the row that --config names
    bool done; // the flags asked for something that needs no rows, and it is done
};

// Parses flags, sets threads and instruction set, checks that outputs can be written. False with a
// message on failure; a command line that is wrong ends the program (cli_usage_error).
bool lab_start(struct lab *lab, const struct cli_program *program, int argc, char **argv,
               struct error *err);
// The same and all inputs. Handles --tokenize, --detokenize and --limits itself (then lab->done).
bool lab_open(struct lab *lab, const struct cli_program *program, int argc, char **argv,
              struct error *err);
// Prints the table, or writes JSON and CSV where asked: after a failure the rows that there are.
// Frees everything in any case.
bool lab_close(struct lab *lab, bool ok, struct error *err);

// One configuration: a weight format, and whether activations become int8 on the fly.
struct lab_config {
    const char *format; // a name of quant/format.h
    bool int8_activations;
};

// The model as the checkpoint stores it: "fp32", or "fp16" for either 16-bit type (the format
// column says which); a quantized one's format, "mixed" if there are several. A checkpoint stored
// in float32 gets a second row, converted to float16, so that every table has its 16-bit row.
// --recipe adds its row behind them.
bool lab_baseline(struct lab *lab, struct error *err);
// The linear layers of the blocks in that format (or those of --only, without those of --skip); the
// embedding and the head stay in 16 bits.
bool lab_quantized(struct lab *lab, struct lab_config config, struct error *err);

// One row for the weights that a recipe makes of the checkpoint's; format: its column.
bool lab_recipe_row(struct lab *lab, const struct recipe *recipe, bool int8_activations,
                    const char *label, const char *format, struct error *err);
// Writes the model, before or after it is measured, to the folder --out and the bytes of its
// weights' file to the row. recipe: what it was made by, or NULL.
bool lab_save(const struct lab *lab, const struct model *m, const struct recipe *recipe,
              struct result_row *row, struct error *err);
// Ends the program (cli_usage_error), listing the rows there are, if --config names neither one of
// rows [n] nor one of lab_baseline's. Returns whether it names one of the latter.
bool lab_check_config(const struct lab *lab, const char *const *rows, size_t n);
// Whether --config asks for this row, or for none in particular.
bool lab_wanted(const struct lab *lab, const char *label);

// Where a file of this project is ("data/eval.txt"), from wherever the program was started; the
// caller frees it.
char *lab_project_path(const char *relative, struct error *err);

// After lab_start: the inputs, and a row for each of n configurations behind the baseline's.
bool lab_configs(struct lab *lab, const struct lab_config *configs, size_t n, struct error *err);
// The whole of a phase that measures a list of configurations; --out saves the one that --config
// names.
bool lab_run(const struct cli_program *program, const struct lab_config *configs, size_t n,
             int argc, char **argv, struct error *err);

#endif
