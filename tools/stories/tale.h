// A whole story: perhaps an opening and an introduction, a plot, and an ending in which one to
// three of its facts are asked or told again in other words.
//
// One hero (A) and thing in ten is held out by a hash of the pair: no training text puts the two
// together, and every evaluation story and question does.
#ifndef NIBBLE_TOOLS_STORIES_TALE_H
#define NIBBLE_TOOLS_STORIES_TALE_H

#include "tools/stories/plots.h"

enum { TALE_MAX_FACTS = 16, TALE_ALL_FACTS = 0, QUESTION_CHOICES = 4 };

struct tale {
    const struct plot *plot;
    const struct fact *facts[TALE_MAX_FACTS];
    size_t n_facts;
};

// The story up to its ending, and the ending: one to `most` of its facts, or all (on a line of its
// own; the text ends in a full stop).
void tale_tell(struct tale *t, struct story *s);
// A story that is an opening, an introduction or a plot alone, with nothing beside the point.
void tale_tell_part(struct tale *t, struct story *s);
void tale_end(const struct tale *t, struct story *s, uint32_t most);
bool tale_held_out(const struct tale *t, const struct story *s);

// Leaves out the facts of a kind (a person, a day …) that was kept more than twice as often as the
// average kind so far; counts those that it keeps in kept [LIST_COUNT]. So rare kinds are learned
// too: of 600 questions, 241 ask for persons, 20 for towns. False where no fact is left.
bool tale_balance(struct tale *t, const struct story *s, size_t *kept);

struct question {
    char context[STORY_MAX_BYTES]; // the story so far; a space joins it to a choice
    char choices[QUESTION_CHOICES][512];
    int answer;
    const struct fact *fact;               // what was asked
    struct value values[QUESTION_CHOICES]; // of its variable, in the choices
};

// Asks for a fact of a story that was told but not ended. Wrong choices name others of the same
// kind, from the same story as far as it has them: at least one.
void tale_ask(const struct tale *t, struct story *s, struct question *q);

#endif
