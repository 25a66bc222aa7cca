// tools/stories: the grammar's bookkeeping, what the plots write, and the questions about it.
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/stories/tale.h"

static struct story s, other;

// The nth alternative of every choice on the way.
static const char *say_scripted(const char *plan, const struct draw *script, size_t n) {
    struct random r = {0};
    story_init(&s, &r, script, n);
    story_say(&s, plan);
    return s.text;
}

Test(grammar, a_choice_adds_log2_of_its_alternatives) {
    const struct draw script[] = {{3, 1}, {2, 0}};
    cr_assert_str_eq(say_scripted("a[b|c[d|e]|f]g", script, 2), "acdg");
    cr_assert_float_eq(s.bits, log2(3) + 1, 1e-12);
    cr_assert_eq(s.n_draws, 2);
    cr_assert_str_eq(say_scripted("a[b|c[d|e]|f]g", (struct draw[]){{3, 2}}, 1), "afg");
    cr_assert_float_eq(s.bits, log2(3), 1e-12, "the inner choice was not made");
    cr_assert_str_eq(say_scripted("[|very ]`x`", (struct draw[]){{2, 0}}, 1), "\"x\"");
}

// Over a toy grammar of 2 * 3 + 1 = 7 equally deep texts, the bits of each text's draws are its
// exact information: 2^-bits sums to one over the distinct texts.
Test(grammar, probabilities_of_a_toy_grammar_sum_to_one) {
    double sum = 0;
    char seen[16][8];
    int n = 0;
    struct random r = {7};
    for (int i = 0; i < 1000; i++) {
        story_init(&s, &r, NULL, 0);
        story_say(&s, "[[x|y][1|2|3]|z]");
        int k = 0;
        while (k < n && strcmp(seen[k], s.text) != 0)
            k++;
        if (k < n)
            continue;
        strcpy(seen[n++], s.text);
        sum += exp2(-s.bits);
    }
    cr_assert_eq(n, 7);
    cr_assert_float_eq(sum, 1, 1e-12);
}

Test(grammar, words_take_their_forms) {
    struct random r = {0};
    story_init(&s, &r, NULL, 0);
    s.variables['A'] = (struct value){LIST_PERSON, 0}; // Anna
    s.variables['c'] = (struct value){LIST_LOOK, 7};   // orange
    s.variables['x'] = (struct value){LIST_PLACE, 0};  // in the garden
    story_say(&s, "{A} {^A.he} {A.him} {A.his} {A.self} {c.a} {^c.a} {x.to} {x.alt} {^x}");
    cr_assert_str_eq(s.text, "Anna She her her herself an orange An orange to the garden "
                             "the garden In the garden");
    cr_assert_null(s.broken);
}

Test(grammar, a_broken_plan_is_named) {
    const char *const plans[] = {"{A}", "{~nothing}", "[a|b", "{A.age}", "{}", "{A", "{AB}"};
    for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++) {
        struct random r = {0};
        story_init(&s, &r, NULL, 0);
        story_set(&s, i == 3 ? "A" : "B");
        story_say(&s, plans[i]);
        cr_assert_eq(s.broken, plans[i]);
    }
}

Test(grammar, values_of_a_kind_are_distinct_and_suit) {
    struct random r = {5};
    for (int i = 0; i < 500; i++) {
        story_init(&s, &r, NULL, 0);
        story_set(&s, "ABCDocnO");
        for (const char *a = "ABC"; *a; a++)
            cr_assert_not(value_equal(s.variables[(int)*a], s.variables[*a + 1]));
        cr_assert_geq(s.variables['n'].index, 1, "'one coins' is not English");
        cr_assert_lt(s.variables['O'].index, PLACE_OUTDOORS);
        bool soft = world_lists[LIST_THING].words[s.variables['o'].index].alt[0] == 's';
        int look = s.variables['c'].index;
        cr_assert(look < LOOK_COMMON || (look >= LOOK_COMMON + LOOK_MATERIALS) == soft);
    }
    // 56 people, of whom none was drawn before: the first costs log2(56).
    story_init(&s, &r, NULL, 0);
    story_set(&s, "A");
    cr_assert_float_eq(s.bits, log2((double)world_lists[LIST_PERSON].n), 1e-12);
}

static void tell(struct tale *t, struct story *to, struct random *r) {
    story_init(to, r, NULL, 0);
    tale_tell(t, to);
    tale_end(t, to, 3);
    cr_assert_null(to->broken, "%s", to->broken);
}

Test(stories, the_same_seed_tells_the_same) {
    struct random a = {1}, b = {1};
    struct tale t;
    for (int i = 0; i < 50; i++) {
        tell(&t, &s, &a);
        tell(&t, &other, &b);
        cr_assert_str_eq(s.text, other.text);
        cr_assert_eq(s.bits, other.bits);
    }
    // Recorded: a change of the world or of a plan changes all committed text (data/README.md).
    a.state = 1;
    tell(&t, &s, &a);
    uint64_t hash = 14695981039346656037u; // FNV-1a
    for (size_t i = 0; i < s.size; i++)
        hash = (hash ^ (unsigned char)s.text[i]) * 1099511628211u;
    cr_assert_eq(hash, 4446968560523360895u, "%llu", (unsigned long long)hash);
}

Test(stories, are_clean_text_that_ends_in_a_full_stop) {
    struct random r = {2};
    struct tale t;
    for (int i = 0; i < 5000; i++) {
        tell(&t, &s, &r);
        cr_assert_eq(s.text[s.size - 1], '.');
        cr_assert_eq(s.size, strlen(s.text));
        const char *const never[] = {"  ",   " .",   " ,",        "..",   "\n\n", "{",
                                     "[",    "|",    "`",         " a a", " a e", " a i",
                                     " a o", " a u", "one coins", " \n",  "\n "};
        for (size_t k = 0; k < sizeof never / sizeof never[0]; k++)
            cr_assert_null(strstr(s.text, never[k]), "'%s' in: %s", never[k], s.text);
        size_t quotes = 0;
        for (const char *p = s.text; (p = strchr(p, '"')); p++)
            quotes++;
        cr_assert_eq(quotes % 2, 0, "%s", s.text);
        cr_assert(s.size > 250 && s.size < 1600, "%zu bytes: %s", s.size, s.text);
    }
}

// Variables are drawn once: an opening's day is not overwritten by the plot's.
// Half of them by an opening or an introduction alone; none with more than its own facts.
Test(stories, parts_are_short_and_have_facts) {
    struct random r = {3};
    struct tale t;
    size_t with_plot = 0, bytes = 0, most = 0;
    for (int i = 0; i < 400; i++) {
        story_init(&s, &r, NULL, 0);
        tale_tell_part(&t, &s);
        cr_assert(!s.broken && t.n_facts > 0 && s.size > 0, "%s", s.text);
        cr_assert(t.plot || !tale_held_out(&t, &s));
        with_plot += t.plot != NULL;
        bytes += s.size;
        most = !t.plot && s.size > most ? s.size : most;
    }
    cr_assert(with_plot > 150 && with_plot < 250);
    cr_assert(most < 150 && bytes < 400 * 350);
}

// Unbalanced, one kind of facts is told several times as often as the average, another hardly.
Test(stories, balanced_facts_are_of_all_kinds) {
    for (int balanced = 0; balanced < 2; balanced++) {
        struct random r = {5};
        struct tale t;
        size_t told[LIST_COUNT] = {0}, kept[LIST_COUNT] = {0}, all = 0, kinds = 0, most = 0;
        for (int i = 0; i < 3000; i++) {
            story_init(&s, &r, NULL, 0);
            tale_tell(&t, &s);
            if (balanced && !tale_balance(&t, &s, kept))
                continue;
            cr_assert_gt(t.n_facts, 0);
            for (size_t f = 0; f < t.n_facts; f++)
                told[s.variables[(int)t.facts[f]->variable].list]++;
        }
        for (size_t k = 0; k < LIST_COUNT; k++) {
            all += told[k];
            kinds += told[k] > 0;
            most = told[k] > most ? told[k] : most;
        }
        cr_assert(balanced ? most * kinds <= 2 * all + kinds : most * kinds > 3 * all,
                  "%zu of %zu in %zu kinds", most, all, kinds);
        cr_assert(!balanced || memcmp(told, kept, sizeof told) == 0);
    }
}

static size_t count(const char *text, const char *what) {
    size_t n = 0;
    for (; (text = strstr(text, what)); text += strlen(what))
        n++;
    return n;
}

// A fact is asked, or told behind one of these.
Test(stories, all_facts_can_be_told) {
    static const char *const marks[] = {
        "?\"",           "One thing is certain:", "Everyone knew",  "People still say",
        "Nobody forgot", "It is also true",       "And it is said", "Besides,"};
    struct random r = {6};
    struct tale t;
    for (int i = 0; i < 200; i++) {
        size_t told = 0;
        story_init(&s, &r, NULL, 0);
        tale_tell(&t, &s);
        tale_end(&t, &s, TALE_ALL_FACTS);
        for (size_t m = 0; m < sizeof marks / sizeof *marks; m++)
            told += count(strchr(s.text, '\n'), marks[m]);
        cr_assert_eq(told, t.n_facts, "%s", s.text);
    }
}

Test(stories, no_variable_is_drawn_twice) {
    const struct plot *parts[64];
    size_t n = 0, openings_end;
    for (size_t i = 0; i < plot_openings_count; i++)
        parts[n++] = &plot_openings[i];
    for (size_t i = 0; i < plot_introductions_count; i++)
        parts[n++] = &plot_introductions[i];
    openings_end = n;
    for (size_t i = 0; i < plots_count; i++) {
        cr_assert_null(strpbrk(plots[i].variables, "AQR"), "%s", plots[i].name);
        for (size_t k = 0; k < openings_end; k++) {
            bool skipped = plots[i].introduces_itself && k >= plot_openings_count;
            const char *again = strpbrk(plots[i].variables, parts[k]->variables);
            cr_assert(skipped || !again, "%s draws '%c' again", plots[i].name, again ? *again : 0);
        }
    }
}

// The bits are exact only if every draw shows: replay each story with one draw changed and all
// others kept, and the text must differ.
Test(stories, every_draw_changes_the_text) {
    struct random r = {3};
    struct tale t;
    struct draw script[STORY_MAX_DRAWS];
    for (int i = 0; i < 60; i++) {
        tell(&t, &s, &r);
        memcpy(script, s.draws, s.n_draws * sizeof *script);
        for (size_t k = 0; k < s.n_draws; k++) {
            for (uint32_t v = 0; v < script[k].n; v++) {
                struct random rest = {9};
                script[k].value = v;
                story_init(&other, &rest, script, s.n_draws);
                tale_tell(&t, &other);
                tale_end(&t, &other, 3);
                cr_assert_eq(strcmp(other.text, s.text) == 0, v == s.draws[k].value,
                             "draw %zu as %u: %s", k, v, s.text);
            }
            script[k].value = s.draws[k].value;
        }
    }
}

// Draws stories until one is, or is not, held out, as tools/make_stories.c does.
static void tell_next(struct tale *t, struct random *r, bool held_out) {
    do {
        story_init(&s, r, NULL, 0);
        tale_tell(t, &s);
    } while (tale_held_out(t, &s) != held_out);
    tale_end(t, &s, 3);
}

Test(stories, held_out_pairs_are_a_tenth_and_never_trained_on) {
    static bool trained[64][LIST_COUNT][64];
    struct random r = {1};
    struct tale t;
    int held = 0;
    for (int i = 0; i < 20000; i++) {
        tell(&t, &s, &r);
        struct value a = s.variables['A'], b = s.variables[(int)t.plot->key];
        held += tale_held_out(&t, &s);
        trained[a.index][b.list][b.index] |= !tale_held_out(&t, &s);
    }
    cr_assert(held > 1700 && held < 2300, "%d of 20000", held);
    r.state = 2;
    for (int i = 0; i < 400; i++) {
        tell_next(&t, &r, true);
        struct value a = s.variables['A'], b = s.variables[(int)t.plot->key];
        cr_assert_not(trained[a.index][b.list][b.index], "%s", s.text);
    }
}

Test(stories, the_committed_evaluation_text_is_what_is_written) {
    FILE *f = fopen("data/eval.txt", "rb");
    cr_assert_not_null(f);
    static char line[STORY_MAX_BYTES];
    struct random r = {2};
    struct tale t;
    int stories = 0;
    for (int c; (c = getc(f)) != EOF; stories++) {
        ungetc(c, f);
        tell_next(&t, &r, true);
        cr_assert_eq(fread(line, 1, s.size + 2, f), s.size + 2);
        cr_assert(memcmp(line, s.text, s.size) == 0 && memcmp(line + s.size, "\n\n", 2) == 0,
                  "story %d is not: %s", stories, s.text);
    }
    fclose(f);
    cr_assert_gt(stories, 300);
}

// The word as any of its forms has it: "the garden" is in "in the garden" and "to the garden".
static const char *form_of(struct value v) {
    return world_lists[v.list].words[v.index].base + (v.list == LIST_PLACE ? 3 : 0);
}

// A question's right choice names the value the story recorded, the story says that value (or, for
// what is left of a number, what it is the difference of), and the wrong ones name others.
Test(questions, answers_follow_from_the_story) {
    struct random r = {5};
    struct tale t;
    static struct question q;
    int answers[QUESTION_CHOICES] = {0};
    for (int i = 0; i < 4000; i++) {
        story_init(&s, &r, NULL, 0);
        tale_tell(&t, &s);
        tale_ask(&t, &s, &q);
        cr_assert_null(s.broken);
        char variable = q.fact->variable;
        struct value right = s.variables[(int)variable];
        cr_assert(value_equal(q.values[q.answer], right));
        for (int k = 0; k < QUESTION_CHOICES; k++) {
            cr_assert_eq(k == q.answer, value_equal(q.values[k], right));
            for (int l = 0; l < k; l++)
                cr_assert_str_neq(q.choices[l], q.choices[k]);
            cr_assert_not_null(strcasestr(q.choices[k], form_of(q.values[k])), "%s not in %s",
                               form_of(q.values[k]), q.choices[k]);
        }
        if (variable == 'r')
            cr_assert_eq(s.variables['n'].index - s.variables['m'].index - 1, right.index);
        else
            cr_assert_not_null(strcasestr(q.context, form_of(right)), "%s not in %s",
                               form_of(right), q.context);
        int rivals = 0;
        for (int k = 0; k < QUESTION_CHOICES; k++)
            rivals += k != q.answer && strcasestr(q.context, form_of(q.values[k])) != NULL;
        cr_assert_geq(rivals, 1, "%s", q.context);
        answers[q.answer]++;
    }
    for (int k = 0; k < QUESTION_CHOICES; k++)
        cr_assert(answers[k] > 870 && answers[k] < 1130, "answer %d: %d of 4000", k, answers[k]);
}
