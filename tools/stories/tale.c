#include "tools/stories/tale.h"

#include <stdio.h>
#include <string.h>

#define FIRST_QUESTION                                                                             \
    "[When the story was over|Later|That evening|The next day|At bedtime|Before supper], {Q} "     \
    "asked[| {R}], `"
#define FIRST_LEAD                                                                                 \
    "[Everyone knew that|People still say that|Nobody forgot that|One thing is certain:] "
#define NEXT_LEAD "[It is also true that|And it is said that|Besides,] "
static const char *const answered[] = {"said {R}.", "answered {R}.", "replied {R}."};

static void add_facts(struct tale *t, const struct plot *p) {
    for (int i = 0; i < PLOT_MAX_FACTS && p->facts[i].variable; i++)
        t->facts[t->n_facts++] = &p->facts[i];
}

static void tell_part(struct tale *t, struct story *s, const struct plot *p, bool fill) {
    story_set(s, p->variables);
    if (p->prepare)
        p->prepare(s);
    add_facts(t, p);
    for (int i = 0; i < PLOT_MAX_STEPS && p->steps[i]; i++) {
        bool may_fill = p->steps[i][0] == '%';
        if (fill && may_fill && story_draw(s, 2))
            story_sentence(s, plot_filler);
        story_sentence(s, p->steps[i] + may_fill);
    }
}

void tale_tell(struct tale *t, struct story *s) {
    t->n_facts = 0;
    t->plot = &plots[story_draw(s, (uint32_t)plots_count)];
    story_set(s, "A");
    tell_part(t, s, &plot_openings[story_draw(s, (uint32_t)plot_openings_count)], true);
    if (!t->plot->introduces_itself)
        tell_part(t, s, &plot_introductions[story_draw(s, (uint32_t)plot_introductions_count)],
                  true);
    tell_part(t, s, t->plot, true);
}

// One of the parts that have facts.
static const struct plot *draw_with_facts(struct story *s, const struct plot *parts, size_t n) {
    const struct plot *p;
    do
        p = &parts[story_draw(s, (uint32_t)n)];
    while (!p->facts[0].variable);
    return p;
}

void tale_tell_part(struct tale *t, struct story *s) {
    t->n_facts = 0;
    t->plot = NULL;
    story_set(s, "A");
    switch (story_draw(s, 4)) {
    case 0:
        tell_part(t, s, draw_with_facts(s, plot_openings, plot_openings_count), false);
        return;
    case 1:
        tell_part(t, s, draw_with_facts(s, plot_introductions, plot_introductions_count), false);
        return;
    default:
        t->plot = &plots[story_draw(s, (uint32_t)plots_count)];
        tell_part(t, s, t->plot, false);
    }
}

bool tale_held_out(const struct tale *t, const struct story *s) {
    if (!t->plot)
        return false;
    struct value a = s->variables['A'], b = s->variables[(int)t->plot->key];
    struct random hash = {(uint64_t)a.index << 32 | (uint64_t)b.list << 16 | (uint64_t)b.index};
    return random_below(&hash, 10) == 0;
}

// "Where …" -> "where …" from `start` on; no question begins with a name.
static void lower(struct story *s, size_t start) {
    s->text[start] = (char)(s->text[start] | 0x20);
}

// The nth question and its answer, between two listeners.
static void tell_dialogue(struct story *s, const struct fact *f, bool first) {
    if (first) {
        story_set(s, "QR");
        story_sentence(s, FIRST_QUESTION);
        story_say(s, f->question);
        story_say(s, "`");
    } else {
        story_sentence(s, "`And ");
        size_t start = s->size;
        story_say(s, f->question);
        lower(s, start);
        story_say(s, "` [asked {Q}|{Q} asked|{Q} went on].");
    }
    story_sentence(s, "`");
    story_say(s, f->answer);
    story_say(s, ",`");
    story_sentence(s, answered[story_draw(s, 3)]);
}

void tale_end(const struct tale *t, struct story *s, uint32_t most) {
    bool told[TALE_MAX_FACTS] = {false}, asked = false, stated = false;
    uint32_t all = (uint32_t)t->n_facts;
    uint32_t n = most == TALE_ALL_FACTS ? all : 1 + story_draw(s, most < all ? most : all);
    story_say(s, "\n");
    for (uint32_t i = 0; i < n; i++) {
        bool dialogue = story_draw(s, 2);
        uint32_t skip = story_draw(s, (uint32_t)t->n_facts - i), k = 0;
        for (; told[k] || skip > 0; k++)
            skip -= !told[k];
        told[k] = true;
        if (dialogue) {
            tell_dialogue(s, t->facts[k], !asked);
            asked = true;
        } else {
            story_sentence(s, stated ? NEXT_LEAD : FIRST_LEAD);
            story_say(s, t->facts[k]->statement);
            story_say(s, ".");
            stated = true;
        }
    }
}

bool tale_balance(struct tale *t, const struct story *s, size_t *kept) {
    size_t n = 0, all = 0, kinds = 0;
    for (size_t k = 0; k < LIST_COUNT; k++) {
        all += kept[k];
        kinds += kept[k] > 0;
    }
    for (size_t i = 0; i < t->n_facts; i++) {
        enum list_id kind = s->variables[(int)t->facts[i]->variable].list;
        if (kept[kind] * kinds > 2 * all)
            continue;
        kept[kind]++;
        t->facts[n++] = t->facts[i];
    }
    t->n_facts = n;
    return n > 0;
}

// Whether a plan has a slot with this value: nobody is asked whether Kurt helped Kurt.
static bool mentions(const struct story *s, const char *plan, struct value v) {
    for (const char *p = plan; (p = strchr(p, '{')); p++) {
        char name = p[1] == '^' ? p[2] : p[1];
        if (value_equal(s->variables[name & 127], v))
            return true;
    }
    return false;
}

// Puts the values that the story has of the fact's kind behind the right one, v[0], looking at the
// variables from `start` on; returns how many values v has then.
static int find_rivals(const struct story *s, const struct fact *f, uint32_t start,
                       struct value *v) {
    int n = 1;
    v[0] = s->variables[(int)f->variable];
    for (uint32_t i = 0; i < STORY_VARIABLES && n < QUESTION_CHOICES; i++) {
        uint32_t key = (start + i) % STORY_VARIABLES;
        struct value other = s->variables[key];
        bool usable = other.list == v[0].list && key != 'Q' && key != 'R' &&
                      !mentions(s, f->question, other) && !mentions(s, f->statement, other);
        for (int k = 0; k < n; k++)
            usable = usable && !value_equal(other, v[k]);
        if (usable)
            v[n++] = other;
    }
    return n;
}

// Values for the choices, the right one first: the story's own, then any.
static void draw_values(struct story *s, const struct fact *f, struct value *v) {
    char variable = f->variable;
    int n = find_rivals(s, f, story_draw(s, STORY_VARIABLES), v);
    // Kept in a variable that no plan uses, a value is not drawn again.
    for (s->variables['0'] = v[0]; n < QUESTION_CHOICES; n++) {
        story_set(s, (char[]){variable, '\0'});
        v[n] = s->variables['6' + n] = s->variables[(int)variable];
    }
    s->variables[(int)variable] = v[0];
}

void tale_ask(const struct tale *t, struct story *s, struct question *q) {
    struct value v[QUESTION_CHOICES];
    // A fact without a rival in the story would be answered by counting words.
    do
        q->fact = t->facts[story_draw(s, (uint32_t)t->n_facts)];
    while (find_rivals(s, q->fact, 0, v) < 2 && !s->broken);
    const struct fact *f = q->fact;
    story_say(s, "\n");
    bool dialogue = story_draw(s, 2);
    if (dialogue) {
        story_set(s, "QR");
        story_sentence(s, FIRST_QUESTION);
        story_say(s, f->question);
        story_say(s, "`");
    } else
        story_sentence(s, FIRST_LEAD);
    while (s->size > 0 && s->text[s->size - 1] == ' ')
        s->text[--s->size] = '\0';
    memcpy(q->context, s->text, s->size + 1);

    draw_values(s, f, v);
    const char *verb = answered[story_draw(s, 3)];
    q->answer = (int)story_draw(s, QUESTION_CHOICES);
    size_t mark = s->size;
    for (int i = 0; i < QUESTION_CHOICES; i++) {
        int slot = (q->answer + i) % QUESTION_CHOICES;
        q->values[slot] = s->variables[(int)f->variable] = v[i];
        story_say(s, dialogue ? "`" : "");
        story_say(s, dialogue ? f->answer : f->statement);
        story_say(s, dialogue ? ",` " : ".");
        if (dialogue)
            story_say(s, verb);
        snprintf(q->choices[slot], sizeof q->choices[slot], "%s", s->text + mark);
        s->size = mark;
        s->text[mark] = '\0';
    }
    s->variables[(int)f->variable] = v[0];
}
