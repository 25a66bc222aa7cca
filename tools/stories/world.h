// The world of the stories: who and what there is, as lists of words with their forms.
//
//     list     {x}             {x.alt}                      and
//     person   Mara            f or m                       .he .him .his .self
//     place    in the garden   the garden                   .to (to the garden)
//     job      baker           baked bread
//     weather  it was raining  the paths were wet
//     thing    scarf           whether it is hard or soft
//     food     apples          apple
// The other lists have one form. Any word takes .a, the indefinite article before it.
#ifndef NIBBLE_TOOLS_STORIES_WORLD_H
#define NIBBLE_TOOLS_STORIES_WORLD_H

#include <stddef.h>

enum list_id {
    LIST_NONE,
    LIST_PERSON,
    LIST_PLACE, // the first PLACE_OUTDOORS under the open sky
    LIST_TOWN,
    LIST_SPOT,
    LIST_THING,
    LIST_LOOK, // what a thing looks like: colours, patterns, then materials for hard and soft
               // things
    LIST_COLOUR,
    LIST_COAT,   // an animal's
    LIST_NUMBER, // index i is the number i + 1
    LIST_DAY,
    LIST_WEATHER,
    LIST_JOB,
    LIST_FOOD,
    LIST_ANIMAL,
    LIST_PET_NAME,
    LIST_RELATION,
    LIST_TRAVEL,
    LIST_BIRD,
    LIST_SMELL,
    LIST_SOUND,
    LIST_COUNT
};
enum { LIST_MAX_WORDS = 64 };

struct word {
    const char *base, *alt;
};

struct list {
    const char *name; // as in {~name}
    const struct word *words;
    size_t n;
};

struct value {
    enum list_id list;
    int index;
};

extern const struct list world_lists[LIST_COUNT];

// LIST_LOOK: the first LOOK_COMMON suit everything, then LOOK_MATERIALS suit hard things and as
// many after them soft ones.
enum { LOOK_COMMON = 18, LOOK_MATERIALS = 6, PLACE_OUTDOORS = 16 };

#endif
