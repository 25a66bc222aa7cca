#include "tools/stories/grammar.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

void story_init(struct story *s, struct random *r, const struct draw *script, size_t n) {
    memset(s->variables, 0, sizeof s->variables);
    s->random = r;
    s->text[0] = '\0';
    s->size = s->n_draws = 0;
    s->bits = 0;
    s->script = script;
    s->n_script = n;
    s->broken = NULL;
}

uint32_t story_draw(struct story *s, uint32_t n) {
    if (s->n_draws == STORY_MAX_DRAWS) {
        s->broken = "too many draws";
        return 0;
    }
    uint32_t value =
        s->n_draws < s->n_script ? s->script[s->n_draws].value % n : random_below(s->random, n);
    s->draws[s->n_draws++] = (struct draw){n, value};
    s->bits += log2(n);
    return value;
}

enum list_id variable_list(char name) {
    static const struct {
        const char *names;
        enum list_id list;
    } kinds[] = {
        {"ABCDEFGHQR", LIST_PERSON},
        {"xyzOI", LIST_PLACE},
        {"stu5", LIST_SPOT},
        {"oq", LIST_THING},
        {"ck", LIST_LOOK},
        {"1234", LIST_COLOUR},
        {"i", LIST_COAT},
        {"nmlr", LIST_NUMBER},
        {"de", LIST_DAY},
        {"w", LIST_WEATHER},
        {"jb", LIST_JOB},
        {"fgh", LIST_FOOD},
        {"p", LIST_ANIMAL},
        {"a", LIST_PET_NAME},
        {"v", LIST_TRAVEL},
        {"XYZ", LIST_TOWN},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (name && strchr(kinds[i].names, name))
            return kinds[i].list;
    return LIST_NONE;
}

bool value_equal(struct value a, struct value b) {
    return a.list == b.list && a.index == b.index;
}

// Whether variable `name` may have this value: things have materials that suit them (c is the look
// of o, k that of q), O is outdoors and I indoors, no number is one, no value of a kind is taken
// twice.
static bool value_free(const struct story *s, char name, struct value v) {
    for (int i = 0; i < STORY_VARIABLES; i++)
        if (value_equal(s->variables[i], v))
            return false;
    if (v.list == LIST_NUMBER)
        return v.index >= 1;
    if (name == 'O' || name == 'I')
        return (v.index < PLACE_OUTDOORS) == (name == 'O');
    if (v.list != LIST_LOOK || v.index < LOOK_COMMON)
        return true;
    struct value thing = s->variables[name == 'c' ? 'o' : 'q'];
    bool hard = world_lists[LIST_THING].words[thing.index].alt[0] == 'h';
    return (v.index < LOOK_COMMON + LOOK_MATERIALS) == hard;
}

static void set_one(struct story *s, char name) {
    int candidates[LIST_MAX_WORDS];
    uint32_t n = 0;
    struct value v = {.list = variable_list(name)};
    for (v.index = 0; v.index < (int)world_lists[v.list].n; v.index++)
        if (value_free(s, name, v))
            candidates[n++] = v.index;
    if (n == 0) {
        s->broken = "a variable that can have no value";
        return;
    }
    v.index = candidates[story_draw(s, n)];
    s->variables[(int)name] = v;
}

void story_set(struct story *s, const char *names) {
    for (; *names; names++)
        set_one(s, *names);
}

static void put(struct story *s, const char *text, size_t n) {
    if (n >= STORY_MAX_BYTES - s->size) {
        s->broken = "a story too long for its buffer";
        return;
    }
    memcpy(s->text + s->size, text, n);
    s->size += n;
    s->text[s->size] = '\0';
}

static void put_string(struct story *s, const char *text) {
    put(s, text, strlen(text));
}

static const char *pronoun(bool she, const char *form) {
    static const char *const forms[][3] = {
        {"he", "he", "she"},
        {"him", "him", "her"},
        {"his", "his", "her"},
        {"self", "himself", "herself"},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (strcmp(form, forms[i][0]) == 0)
            return forms[i][1 + she];
    return NULL;
}

static void put_word(struct story *s, const struct word *w, const char *form, const char *plan) {
    const char *p;
    if (!*form)
        put_string(s, w->base);
    else if (strcmp(form, "a") == 0) {
        // "umbrella" takes "an" too; no word of the lists begins with a u spoken "you".
        put_string(s, strchr("aeiou", w->base[0]) ? "an " : "a ");
        put_string(s, w->base);
    } else if (strcmp(form, "to") == 0 && w->alt) {
        put_string(s, "to ");
        put_string(s, w->alt);
    } else if (strcmp(form, "alt") == 0 && w->alt)
        put_string(s, w->alt);
    else if (w->alt && (p = pronoun(w->alt[0] == 'f', form)))
        put_string(s, p);
    else
        s->broken = plan;
}

// The slot whose text is [p, end), without its braces.
static void say_slot(struct story *s, const char *p, const char *end, const char *plan) {
    char name[16] = "";
    bool capital = *p == '^';
    p += capital;
    size_t start = s->size, n = (size_t)(end - p);
    if (n == 0 || n >= sizeof name) {
        s->broken = plan;
        return;
    }
    memcpy(name, p, n);
    char *form = strchr(name, '.');
    if (form)
        *form++ = '\0';
    struct value v = s->variables[name[0] & 127];
    if (name[0] == '~') {
        for (int i = 1; i < LIST_COUNT; i++)
            if (strcmp(world_lists[i].name, name + 1) == 0)
                v.list = (enum list_id)i;
        if (v.list != LIST_NONE)
            v.index = (int)story_draw(s, (uint32_t)world_lists[v.list].n);
    } else if (name[1])
        v.list = LIST_NONE;
    if (v.list == LIST_NONE)
        s->broken = plan;
    else
        put_word(s, &world_lists[v.list].words[v.index], form ? form : "", plan);
    if (capital)
        s->text[start] = (char)toupper((unsigned char)s->text[start]);
}

// The end of the alternative that begins at p: its '|' or ']', or NULL if there is none.
static const char *alternative_end(const char *p) {
    for (int depth = 0; *p; p++) {
        if (depth == 0 && (*p == '|' || *p == ']'))
            return p;
        depth += (*p == '[') - (*p == ']');
    }
    return NULL;
}

static void say(struct story *s, const char *p, const char *end, const char *plan);

// Draws among the alternatives behind a '[' and says one; returns what follows the ']'.
static const char *say_choice(struct story *s, const char *p, const char *plan) {
    uint32_t n = 1;
    const char *start = p, *end = p;
    while ((end = alternative_end(end)) && *end == '|') {
        n++;
        end++;
    }
    if (!end) {
        s->broken = plan;
        return p + strlen(p);
    }
    for (uint32_t skip = story_draw(s, n); skip > 0; skip--)
        start = alternative_end(start) + 1;
    say(s, start, alternative_end(start), plan);
    return end + 1;
}

static void say(struct story *s, const char *p, const char *end, const char *plan) {
    while (p < end) {
        size_t n = strcspn(p, "[{`");
        if (n > (size_t)(end - p))
            n = (size_t)(end - p);
        put(s, p, n);
        p += n;
        if (p == end)
            return;
        if (*p == '`') {
            put(s, "\"", 1);
            p++;
        } else if (*p == '[')
            p = say_choice(s, p + 1, plan);
        else {
            const char *close = strchr(p, '}');
            if (!close) {
                s->broken = plan;
                return;
            }
            say_slot(s, p + 1, close, plan);
            p = close + 1;
        }
    }
}

void story_say(struct story *s, const char *plan) {
    say(s, plan, plan + strlen(plan), plan);
}

void story_sentence(struct story *s, const char *plan) {
    size_t before = s->size;
    if (before > 0 && s->text[before - 1] != '\n')
        put(s, " ", 1);
    size_t start = s->size;
    story_say(s, plan);
    if (s->size == start)
        s->text[s->size = before] = '\0';
}
