// Rows of mixed formats: --recipe, and what phases mix themselves.
#ifndef NIBBLE_LAB_MIXED_H
#define NIBBLE_LAB_MIXED_H

#include "lab/lab.h"

// Reads --recipe into lab->recipe; fails if it has no rule, or one that names no tensor.
bool lab_read_recipe(struct lab *lab, struct error *err);
// The name of its row: that of the file, without folders. NULL without --recipe.
const char *lab_recipe_label(const struct lab *lab);

// What a recipe means for this checkpoint: a rule for each linear, without those that --only and
// --skip exclude; where the checkpoint has 32 bits, all others become float16, as in every row.
bool lab_resolve_recipe(const struct lab *lab, const struct recipe *recipe, struct recipe *out,
                        struct error *err);
// A row in those formats, its format column being "mixed", or the format if it is but one.
bool lab_mixed(struct lab *lab, const struct recipe *recipe, const char *label, struct error *err);

#endif
