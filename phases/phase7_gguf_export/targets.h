// Which files phase 7 writes: one for each type, one of a recipe, or one of a mix found for a
// budget.
#ifndef NIBBLE_PHASE7_TARGETS_H
#define NIBBLE_PHASE7_TARGETS_H

#include "file_budget.h"
#include "export/gguf_export.h"
#include "lab/mixed.h"

enum { MAX_TARGETS = 64 };

struct target_flags {
    const char *types; // names joined by ',', "all", or NULL
    struct file_budget_flags budget;
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
    char *model;               // the model's name in files
    char *folder;              // of results
    struct file_budget budget; // of --bits or --size, else zeroed
    struct recipe mix; // the recipe of --recipe or of a budget, with a rule for every matrix
};

// All that can be said before anything is measured or written: names, paths, and whether a budget
// can be met. A command line that makes no sense ends the program.
bool targets_choose(struct targets *t, const struct lab *lab, const struct target_flags *flags,
                    struct error *err);
// Whether the files that --config leaves can be written where they shall be. None may be what a
// flag reads; what --out names must be new, results under results/ are made again.
bool targets_check_paths(const struct targets *t, const struct lab *lab, struct error *err);
// Finds the mix of --bits or --size, which is what takes time; nothing for others.
bool targets_solve(struct targets *t, const struct lab *lab, struct error *err);
void targets_free(struct targets *t);
bool target_plan(const struct lab *lab, const struct target *t, struct gguf_plan *plan,
                 struct error *err);

#endif
