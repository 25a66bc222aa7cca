// The command line that all phases share: one table of flags gives parsing, ranges, defaults and
// --help. A phase adds rows of its own; a row named like a common one takes its place.
//
// Flags are given as --ctx 512 or --ctx=512, the last one of a name counts, and a name may be
// shortened as long as it stays unique. Numbers are read whole or refused.
#ifndef NIBBLE_CLI_CLI_H
#define NIBBLE_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/error.h"
#include "text/sampler.h"

#define NIBBLE_VERSION "0.1.0"

enum ppl_mode { PPL_FULL, PPL_HALF };

struct cli_options {
    const char *model; // NULL: the bundled one
    const char *text, *calib, *choices, *prompt, *system;
    const char *json, *csv, *out;
    const char *tokens, *logits, *config, *tokenize, *detokenize;
    const char *only, *skip, *recipe;
    size_t ctx;       // 0: 2048, or the model's own limit if smaller
    size_t limit;     // 0: all tokens
    size_t questions; // 0: all
    enum ppl_mode ppl_mode;
    bool int8_activations; // score what the fast kernels compute
    int isa; // 0: the best there is; else enum cpu_level + 1
    int threads, max_tokens;
    struct sampler_options sampling;
    bool bench, quiet, chat, limits, cuda, emulate;
    size_t gpu_layers; // 0: all
    bool search; // scales of least error, where formats are quantized
};

// What a row's target points at: bool, const char *, size_t, int, float, uint64_t, and an int that
// receives the index of the choice.
enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_SIZE, CLI_INT, CLI_FLOAT, CLI_U64, CLI_CHOICE };

struct cli_flag {
    const char *name;  // "ctx" for --ctx
    const char *value; // "N" in --help; NULL for CLI_FLAG; "full|half" for CLI_CHOICE
    enum cli_kind kind;
    void *target;
    double min, max; // numbers outside are refused (max INFINITY: no limit); a text needs min bytes
    const char *initial; // the default as it would be typed, shown in brackets; NULL: target stays
                         // as it is and `help` ends with the default, if there is one to tell
    const char *help;    // one line, wrapped where it is long
    const char *group;   // heading in --help
};

struct cli_program {
    const char *name; // "phase2"
    int phase;
    const char *summary;          // one sentence
    const char *examples;         // lines, each a command and what it does; NULL: none
    const struct cli_flag *flags; // the phase's own, beside the common ones
    size_t n_flags;
    const char *without; // common flags it has no use for, which are refused then: "calib out"
};

// libgomp's threads wait for each other by spinning for milliseconds. Where something else runs on
// one of the cores that is fatal: a thread that lost its core is waited for by one that will not
// lend its own. With this they go to sleep after 2,000 turns, some microseconds. The library reads
// the variable before main, so the program starts itself again with GOMP_SPINCOUNT set, once; not
// if that or OMP_WAIT_POLICY is set already. First call in main.
void cli_wait_briefly(char **argv);

// Parses argv into o (defaults first); fails if stdout is closed. Handles --help and --version
// (prints, exits 0); on a bad command line prints one line to stderr and exits 2.
void cli_parse(const struct cli_program *p, int argc, char **argv, struct cli_options *o);

enum cli_action { CLI_RUN, CLI_HELP, CLI_VERSION };
// The same without printing or exiting; false with a message without the program's name.
bool cli_parse_into(const struct cli_program *p, int argc, char **argv, struct cli_options *o,
                    enum cli_action *action, struct error *err);
// The text of --help, at most 100 columns wide.
bool cli_print_help(const struct cli_program *p, FILE *f, struct error *err);

// The token ids of "1,2,3" or "1 2 3" in a new array; NULL with a message that calls the text
// `what`. A blank text has none.
int32_t *cli_token_ids(const char *text, const char *what, size_t *n, struct error *err);

// Rows and columns of a matrix, "8192x8192"; false if the text is anything else, or one is 0.
bool cli_shape(const char *text, unsigned *n, unsigned *k);

// Prints "phase2: message" to stderr and exits 1: the work failed.
_Noreturn void cli_fail(const struct cli_program *p, const struct error *err);
// Prints "phase2: message; try './phase2 --help'" and exits 2: the command line is wrong.
_Noreturn void cli_usage_error(const struct cli_program *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
// Prints "phase2: message" to stderr and goes on: where results are.
void cli_note(const struct cli_program *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
// Prints "phase2: warning: message" and goes on.
void cli_warn(const struct cli_program *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
