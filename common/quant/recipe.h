// Which tensor gets which format: lines of "pattern format", first match wins.
//
//     # comment
//     *.mlp.down_proj   int8
//     model.layers.0.*  keep        # stays as the checkpoint has it
//     *.v_proj          int4-g64 search
//     *                 int4-g128
//
// Patterns are shell globs (fnmatch) over tensor names, with or without ".weight"; '|' or ',' joins
// alternatives. A format is a name or a label of quant_formats ("int4 group 128"); "search" behind
// it: with scales of least error (struct quant_hints), for this rule's tensors.
#ifndef NIBBLE_QUANT_RECIPE_H
#define NIBBLE_QUANT_RECIPE_H

#include "quant/format.h"

struct recipe_rule {
    char *pattern;
    const struct quant_format *format; // NULL: keep
    bool search;
    size_t line; // of the text it was read from, the first being 1; 0: of none
};

struct recipe {
    struct recipe_rule *rules;
    size_t n_rules;
};

// From text; `name` (a path) and the line number begin every message. After a failure r is empty.
bool recipe_parse(struct recipe *r, const char *text, const char *name, struct error *err);
bool recipe_read(struct recipe *r, const char *path, struct error *err);
// One format for every linear of the blocks (names with a layer number: "model.layers.3.…",
// "h.3.…", "blk.3.…"), none for the embedding and the head. `only`: for these tensors instead,
// wherever they are. skip: not for these. Both: patterns or NULL.
bool recipe_uniform(struct recipe *r, const struct quant_format *f, const char *only,
                    const char *skip, struct error *err);
// Appends a rule to a recipe that is empty ({0}) or made by the functions above. The pattern is
// copied; it fails, leaving r as it was, if the pattern could not be read back from a line of text.
bool recipe_add(struct recipe *r, const char *pattern, const struct quant_format *f,
                struct error *err);
// As text that recipe_read understands.
bool recipe_write(const struct recipe *r, const char *path, struct error *err);
void recipe_free(struct recipe *r);

// The format for this tensor; NULL: keep it as it is.
const struct quant_format *recipe_format(const struct recipe *r, const char *tensor_name);
// The rule that decides it; NULL: none does.
const struct recipe_rule *recipe_find(const struct recipe *r, const char *tensor_name);
// Fails if a rule names none of these tensors (names may repeat), telling what is spelled like it.
// path: of the recipe, for the message, which has the line too.
bool recipe_check(const struct recipe *r, const char *const *names, size_t n, const char *path,
                  struct error *err);
// True if the name matches one of the patterns joined by '|' or ','.
bool pattern_match(const char *patterns, const char *tensor_name);

#endif
