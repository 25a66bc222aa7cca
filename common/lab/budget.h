// How many bytes a mix may have: --bits, --size, --fit.
#ifndef NIBBLE_LAB_BUDGET_H
#define NIBBLE_LAB_BUDGET_H

#include "eval/mix.h"

// "2.4GB", "512 MiB", "1000000": a number without exponent and a unit of 1000 or 1024 (B, kB, MB,
// GB, TB; KiB, …). False, leaving *bytes alone, if it is none, or less than 1 or 2⁶² and more.
bool budget_parse_bytes(const char *text, size_t *bytes);

struct budget_flags {
    float bits; // a weight, of those that are chosen for; 0: not given
    const char *size, *fit;
};

// Whether at most one is given and the texts are bytes: what can be said of a command line alone.
bool budget_check(const struct budget_flags *flags, struct error *err);

struct budget {
    size_t bytes;    // of the mix
    size_t rest;     // of all other weights, as every row has them
    char words[160]; // what was asked for: "4.5 bits per weight"
};

// Of the weights that no mix chooses for. Where the checkpoint has 32 bits, matrices count as
// float16: no row has them otherwise.
size_t budget_rest(const struct model *m, const struct mix *x);
// What running the model takes beside its weights: keys and values of ctx positions, and a block of
// tokens on their way through a layer.
bool budget_running(const struct model_config *c, size_t ctx, size_t *cache, size_t *work);

// Of flags that budget_check has passed; without any, `standard` bytes. Fails where the budget
// cannot be met, naming the smallest that can.
bool budget_resolve(const struct budget_flags *flags, const struct model *m, const struct mix *x,
                    size_t ctx, size_t standard, struct budget *b, struct error *err);

#endif
