// What happens in the stories: each plot draws its people, places and things, tells them in steps,
// and lists the facts that can be asked afterwards.
#ifndef NIBBLE_TOOLS_STORIES_PLOTS_H
#define NIBBLE_TOOLS_STORIES_PLOTS_H

#include "tools/stories/grammar.h"

enum { PLOT_MAX_STEPS = 10, PLOT_MAX_FACTS = 8 };

// A fact is the value of one variable. The plans below contain it and no brackets, so that with
// another value in its place they give a wrong answer in the same words.
struct fact {
    char variable;
    const char *question;  // "Where was the {o}?"
    const char *answer;    // "{^t}", to be put between quotes
    const char *statement; // "the {o} was found {t}", to stand in a sentence
};

struct plot {
    const char *name;
    const char *variables;             // drawn first, in this order
    void (*prepare)(struct story *);   // then this, if not NULL, sets what follows from them
    const char *steps[PLOT_MAX_STEPS]; // a step that begins with '%' may have a filler before it
    struct fact facts[PLOT_MAX_FACTS];
    char key;               // with A, the pair that is held out
    bool introduces_itself; // says what A does or where A lives; the introduction must not
};

extern const struct plot plots[];
extern const size_t plots_count;

// What may come before a plot (the day and weather; who A is) and between its steps. One
// without steps leaves nothing in the text.
extern const struct plot plot_openings[], plot_introductions[];
extern const size_t plot_openings_count, plot_introductions_count;
extern const char plot_filler[];

#endif
