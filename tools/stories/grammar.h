// A grammar that writes text and counts how surprising it was.
//
// A plan is a string in which
//     [a|b|]      draws one of the alternatives, which may hold further brackets
//     {x} {x.to}  is the value of variable x, in one of its forms (see world.h); {^x} capitalises
//     it
//     {~bird}     draws any member of that list
//     `           writes a double quote
// and everything else stands for itself. A story is a deterministic function of its draws. Draw i
// is uniform over n_i outcomes and adds log2(n_i) to `bits`, so that the sum is the exact
// information of the draws: an upper bound on that of the text, and equal to it as far as no two
// sequences of draws write the same text (tests/test_stories.c changes draws one by one and
// compares).
#ifndef NIBBLE_TOOLS_STORIES_GRAMMAR_H
#define NIBBLE_TOOLS_STORIES_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/random.h"
#include "tools/stories/world.h"

enum { STORY_MAX_BYTES = 8192, STORY_MAX_DRAWS = 512, STORY_VARIABLES = 128 };

struct draw {
    uint32_t n, value; // outcomes, and the one drawn
};

struct story {
    struct random *random;
    struct value variables[STORY_VARIABLES]; // by the character that names them
    char text[STORY_MAX_BYTES];              // NUL-terminated
    size_t size;
    double bits;
    struct draw draws[STORY_MAX_DRAWS];
    size_t n_draws;
    const struct draw *script; // replayed before anything is drawn at random; outcomes modulo n
    size_t n_script;
    const char *broken; // the first plan that could not be carried out; NULL if all is well
};

// An empty story that draws from r, after the n draws of script (NULL, 0 for none).
void story_init(struct story *s, struct random *r, const struct draw *script, size_t n);

// One of 0 … n-1; n > 0.
uint32_t story_draw(struct story *s, uint32_t n);
// Draws a value for each variable named in `names`, different from those of its kind drawn before.
void story_set(struct story *s, const char *names);
// Carries out a plan at the end of the text. A broken plan sets s->broken and writes what it can.
void story_say(struct story *s, const char *plan);
// The same after a space, if there is text on both sides of it.
void story_sentence(struct story *s, const char *plan);

// The list that a variable's name belongs to, or LIST_NONE.
enum list_id variable_list(char name);
bool value_equal(struct value a, struct value b);

#endif
