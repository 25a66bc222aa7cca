// The table of flags of one program, and where their values go. For cli/ alone.
#ifndef NIBBLE_CLI_TABLE_H
#define NIBBLE_CLI_TABLE_H

#include "cli/cli.h"

// What the common rows fill: the options, and what is not handed on as it is.
struct cli_values {
    struct cli_options options;
    int ppl_mode, device, activations;
    bool help, version;
};

struct cli_table {
    struct cli_flag *flags; // the program's own rows, then the common ones
    size_t n;
    const char *without;
};

// Whether one of the words of a list, NULL for none, is the first n bytes of name.
bool cli_listed(const char *words, const char *name, size_t n);
// Common rows point into v, which must stay where it is. Free t->flags.
bool cli_table_init(struct cli_table *t, const struct cli_program *p, struct cli_values *v,
                    struct error *err);

#endif
