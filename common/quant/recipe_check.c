// A pattern that names no tensor is a mistake of spelling: what was meant is near in the sense of
// Levenshtein's distance, with a '*' that may stand for anything and a '?' for any character.
#include "quant/recipe.h"

#include <stdint.h>
#include <stdio.h>

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

enum { MAX_NAME = 255, MATCHES = 3 };

struct near {
    const char *name;
    size_t distance;
};

// Insertions, deletions and changes that make a name match the pattern. row[j]: from what was read
// of the pattern so far to the first j characters of the name.
static size_t edit_distance(const char *pattern, size_t length, const char *name) {
    size_t row[MAX_NAME + 1], n = strlen(name);
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; i < length; i++) {
        bool any = pattern[i] == '*';
        size_t diagonal = row[0];
        row[0] += !any;
        for (size_t j = 1; j <= n; j++) {
            bool same = pattern[i] == name[j - 1] || pattern[i] == '?';
            size_t change = diagonal + !same, insert = row[j - 1] + !any, drop = row[j] + !any;
            diagonal = row[j];
            row[j] = change < insert ? change : insert;
            row[j] = drop < row[j] ? drop : row[j];
        }
    }
    return row[n];
}

// From the nearest of the pattern's alternatives, to the name with or without ".weight".
static size_t distance_to(const char *patterns, const char *name) {
    char stem[MAX_NAME + 1];
    size_t length = strlen(name), suffix = sizeof ".weight" - 1, least = SIZE_MAX;
    if (length > MAX_NAME)
        return SIZE_MAX;
    memcpy(stem, name, length + 1);
    if (length > suffix && strcmp(name + length - suffix, ".weight") == 0)
        stem[length - suffix] = '\0';
    for (const char *p = patterns; *p; p += strspn(p, "|,")) {
        size_t n = strcspn(p, "|,"), a = edit_distance(p, n, name), b = edit_distance(p, n, stem);
        least = a < least ? a : least;
        least = b < least ? b : least;
        p += n;
    }
    return least;
}

static void insert(struct near best[MATCHES], struct near candidate) {
    for (size_t i = 0; i < MATCHES; i++)
        if (best[i].name && strcmp(best[i].name, candidate.name) == 0)
            return;
    for (size_t i = 0; i < MATCHES; i++)
        if (candidate.distance < best[i].distance) {
            struct near pushed = best[i];
            best[i] = candidate;
            candidate = pushed;
        }
}

static bool fail(const struct recipe_rule *rule, const char *const *names, size_t n,
                 const char *path, struct error *err) {
    struct near best[MATCHES] = {{NULL, SIZE_MAX}, {NULL, SIZE_MAX}, {NULL, SIZE_MAX}};
    char list[3 * (MAX_NAME + 8)] = "", line[32] = "";
    size_t used = 0, worst = strlen(rule->pattern) / 3 + 1;
    for (size_t i = 0; i < n; i++)
        insert(best, (struct near){names[i], distance_to(rule->pattern, names[i])});
    if (best[0].distance < worst)
        worst = best[0].distance + 1; // the third best may be far behind
    for (size_t i = 0; i < MATCHES && best[i].name && best[i].distance <= worst; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s'%s'", used ? ", " : "",
                                 best[i].name);
    if (!used)
        snprintf(list, sizeof list, "'%.200s'", n ? names[0] : "");
    if (rule->line)
        snprintf(line, sizeof line, ":%zu", rule->line);
    return error_set(err, "%s%s: '%.200s' names no tensor; %s %s", path, line, rule->pattern,
                     used ? "near it are" : "there is", list);
}

static bool names_any(const char *pattern, const char *const *names, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (pattern_match(pattern, names[i]))
            return true;
    return false;
}

bool recipe_check(const struct recipe *r, const char *const *names, size_t n, const char *path,
                  struct error *err) {
    for (size_t i = 0; i < r->n_rules; i++)
        if (!names_any(r->rules[i].pattern, names, n))
            return fail(&r->rules[i], names, n, path, err);
    return true;
}
