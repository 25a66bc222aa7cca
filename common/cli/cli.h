// The command line that all phases share: one table of flags gives parsing, defaults, environment
// variables and --help. A phase adds rows of its own.
#ifndef NIBBLE_CLI_CLI_H
#define NIBBLE_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "text/sampler.h"

enum ppl_mode { PPL_FULL, PPL_HALF };

struct cli_options {
    const char *model; // NULL: the bundled one
    const char *text, *calib, *prompt, *system;
    const char *json, *csv, *out;
    const char *tokens, *logits, *config, *tokenize, *detokenize;
    const char *only, *skip;
    size_t ctx, limit;
    enum ppl_mode ppl_mode;
    int threads, max_tokens;
    struct sampler_options sampling;
    bool bench, quiet, chat, limits, cuda;
};

enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_SIZE, CLI_INT, CLI_FLOAT, CLI_U64, CLI_CHOICE };

struct cli_flag {
    const char *name;      // "ctx" for --ctx
    const char *value;     // "N" in --help; NULL for CLI_FLAG; "full|half" for CLI_CHOICE
    enum cli_kind kind;
    void *target;          // where the value goes; an int (the index) for CLI_CHOICE
    double min, max;       // numbers outside are refused
    const char *help;      // one line; the default in brackets at its end
    const char *group;     // heading in --help
};

struct cli_program {
    const char *name;        // "phase2"
    int phase;
    const char *summary;     // one sentence
    const char *examples;    // lines, each a command and what it does
    const struct cli_flag *flags; // the phase's own, beside the common ones
    size_t n_flags;
};

// Parses argv into o (defaults first). Handles --help and --version (prints, exits 0); on a bad
// command line prints one line to stderr and exits 2.
void cli_parse(const struct cli_program *p, int argc, char **argv, struct cli_options *o);
// Prints "phase2: message" to stderr and exits 1 (or 2 for the command line's fault).
_Noreturn void cli_fail(const struct cli_program *p, const struct error *err);
_Noreturn void cli_usage_error(const struct cli_program *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void cli_warn(const struct cli_program *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
