// Which files phase 7 writes: one for each type, one of a recipe, or one of a mix found for a
// budget.
#ifndef NIBBLE_PHASE7_TARGETS_H
#define NIBBLE_PHASE7_TARGETS_H

#include "export/gguf_export.h"
#include "lab/mixed.h"

enum { MAX_TARGETS = 64 };

struct target_flags {
    const char *types;   // names joined by ',', "all", or NULL
    float bits;          // 0: not given
    const char *size;    // or NULL
    const char *formats; // names joined by ','
};

struct target {
    const struct gguf_preset *preset; // NULL: a recipe
    const struct recipe *recipe;
    char *name; // the row's, and in the file's name
    char *path;
};

struct targets {
    struct target items[MAX_TARGETS];
    size_t n;
    char *model;       // the model's name in files
    struct recipe mix; // the recipe of --recipe or of a budget, with a rule for every matrix
};

// A command line that makes no sense ends the program. --bits and --size measure and solve here.
bool targets_choose(struct targets *t, const struct lab *lab, const struct target_flags *flags,
                    struct error *err);
void targets_free(struct targets *t);
bool target_plan(const struct lab *lab, const struct target *t, struct gguf_plan *plan,
                 struct error *err);

#endif
