#include "quant/recipe.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

enum { MAX_RECIPE_BYTES = 16 << 20, MAX_PATTERN = 500 };

static const char SPACES[] = " \t\r\v\f";
static const char JOINTS[] = "|,";

// The linears of the blocks: what has a layer number (up to 9999) and is not one of these.
static const char NOT_LINEAR[] = "*norm*|*ln_*|*bias|*inv_freq";
static const char IN_BLOCKS[] = "*.[0-9].*|*.[0-9][0-9].*|*.[0-9][0-9][0-9].*|"
                                "*.[0-9][0-9][0-9][0-9].*";

// "int4" of "int4-g128" and of "int4 group 128".
static size_t family_length(const char *name) {
    return strcspn(name, "- ");
}

static bool same_family(const char *a, const char *b) {
    size_t n = family_length(a);
    return n == family_length(b) && strncmp(a, b, n) == 0;
}

static bool first_of_family(size_t i) {
    for (size_t j = 0; j < i; j++)
        if (same_family(quant_formats[j]->name, quant_formats[i]->name))
            return false;
    return true;
}

// For messages: the formats of the word's family, "int4 int4-g16 …"; where there is no such family,
// "f32 f16 bf16 int8 …": all of them.
static void list_formats(const char *word, char *text, size_t size) {
    size_t used = 0;
    bool known = false;
    for (size_t i = 0; quant_formats[i]; i++)
        known |= same_family(word, quant_formats[i]->name);
    for (size_t i = 0; quant_formats[i] && used < size; i++) {
        const char *name = quant_formats[i]->name;
        size_t length = known ? strlen(name) : family_length(name);
        if (known ? same_family(word, name) : first_of_family(i))
            used += (size_t)snprintf(text + used, size - used, "%s%.*s", used ? " " : "",
                                     (int)length, name);
    }
}

// The first of the alternatives into out; false if it is too long. *rest: what follows, or NULL.
static bool first_alternative(const char *patterns, char out[MAX_PATTERN + 1], const char **rest) {
    size_t length = strcspn(patterns, JOINTS);
    *rest = patterns[length] ? patterns + length + 1 : NULL;
    if (length > MAX_PATTERN)
        return false;
    memcpy(out, patterns, length);
    out[length] = '\0';
    return true;
}

bool pattern_match(const char *patterns, const char *tensor_name) {
    char pattern[MAX_PATTERN + sizeof ".weight"];
    for (const char *rest; patterns; patterns = rest) {
        if (!first_alternative(patterns, pattern, &rest) || !*pattern)
            continue;
        if (fnmatch(pattern, tensor_name, 0) == 0)
            return true;
        if (fnmatch(strcat(pattern, ".weight"), tensor_name, 0) == 0)
            return true;
    }
    return false;
}

static bool check_pattern(const char *pattern, struct error *err) {
    if (!*pattern || *pattern == '#' || strpbrk(pattern, SPACES) || strchr(pattern, '\n'))
        return error_set(err, "pattern '%.100s', expected one without spaces, not beginning with #",
                         pattern);
    char alternative[MAX_PATTERN + 1];
    for (const char *rest; pattern; pattern = rest)
        if (!first_alternative(pattern, alternative, &rest))
            return error_set(err, "pattern '%.100s…', expected at most %d characters", pattern,
                             MAX_PATTERN);
    return true;
}

bool recipe_add(struct recipe *r, const char *pattern, const struct quant_format *f,
                struct error *err) {
    if (!check_pattern(pattern, err))
        return false;
    size_t bytes;
    if (!size_mul(r->n_rules + 1, sizeof *r->rules, &bytes))
        return error_set(err, "too many rules");
    struct recipe_rule *rules = realloc(r->rules, bytes);
    if (!rules)
        return error_set(err, "out of memory for %zu rules", r->n_rules + 1);
    r->rules = rules;
    char *copy = memory_strdup(pattern, err);
    if (!copy)
        return false;
    r->rules[r->n_rules++] = (struct recipe_rule){.pattern = copy, .format = f};
    return true;
}

void recipe_free(struct recipe *r) {
    for (size_t i = 0; i < r->n_rules; i++)
        free(r->rules[i].pattern);
    free(r->rules);
    *r = (struct recipe){0};
}

// Ends a line where its comment begins: at a '#' that comes first or after a space.
static void cut_comment(char *line) {
    for (char *c = strchr(line, '#'); c; c = strchr(c + 1, '#')) {
        if (c == line || strchr(SPACES, c[-1])) {
            *c = '\0';
            return;
        }
    }
}

static void cut_trailing_spaces(char *line) {
    size_t length = strlen(line);
    while (length > 0 && strchr(SPACES, line[length - 1]))
        line[--length] = '\0';
}

// Cuts " search" off the end of what stands behind a pattern.
static bool cut_search(char *word) {
    static const char search[] = "search";
    size_t length = strlen(word), n = sizeof search - 1;
    if (length <= n || strcmp(word + length - n, search) != 0 ||
        !strchr(SPACES, word[length - n - 1]))
        return false;
    word[length - n] = '\0';
    cut_trailing_spaces(word);
    return true;
}

// What stands behind a pattern is no format: perhaps one with something behind it that is no
// "search".
static bool unknown_word(const char *word, bool search, struct error *err) {
    char known[512], format[256];
    size_t last = strlen(word);
    if (search && strcmp(word, "keep") == 0)
        return error_set(err, "'search' behind keep, expected nothing");
    while (last && !strchr(SPACES, word[last - 1]))
        last--;
    snprintf(format, sizeof format, "%.*s", (int)last, word);
    cut_trailing_spaces(format);
    if (quant_format_find(format))
        return error_set(err, "unknown option '%.100s' behind %s, expected search or nothing",
                         word + last, format);
    list_formats(word, known, sizeof known);
    return error_set(err, "unknown format '%.100s', expected keep or one of %s", word, known);
}

static bool parse_line(struct recipe *r, char *line, const char *name, size_t number,
                       struct error *err) {
    cut_comment(line);
    cut_trailing_spaces(line);
    char *pattern = line + strspn(line, SPACES);
    if (!*pattern)
        return true;
    char *word = pattern + strcspn(pattern, SPACES);
    if (!*word)
        return error_set(err, "%s:%zu: '%.100s' alone, expected a pattern and a format", name,
                         number, pattern);
    *word++ = '\0';
    word += strspn(word, SPACES);
    bool search = cut_search(word);
    const struct quant_format *f = quant_format_find(word);
    struct error reason;
    bool known = f || (!search && strcmp(word, "keep") == 0) || unknown_word(word, search, &reason);
    if (!known || !recipe_add(r, pattern, f, &reason))
        return error_set(err, "%s:%zu: %s", name, number, reason.message);
    r->rules[r->n_rules - 1].search = search;
    r->rules[r->n_rules - 1].line = number;
    return true;
}

bool recipe_parse(struct recipe *r, const char *text, const char *name, struct error *err) {
    *r = (struct recipe){0};
    if (strncmp(text, "\xef\xbb\xbf", 3) == 0) // a byte order mark, as some editors write
        text += 3;
    char *copy = memory_strdup(text, err);
    if (!copy)
        return false;
    bool ok = true;
    size_t number = 1;
    for (char *line = copy; ok && line; number++) {
        char *end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        ok = parse_line(r, line, name, number, err);
        line = end;
    }
    free(copy);
    if (!ok)
        recipe_free(r);
    return ok;
}

bool recipe_read(struct recipe *r, const char *path, struct error *err) {
    *r = (struct recipe){0};
    size_t size;
    char *text = file_read(path, MAX_RECIPE_BYTES, &size, err);
    if (!text)
        return false;
    bool ok = strlen(text) == size
                  ? recipe_parse(r, text, path, err)
                  : error_set(err, "%s: a NUL at byte %zu, expected text", path, strlen(text));
    free(text);
    return ok;
}

bool recipe_uniform(struct recipe *r, const struct quant_format *f, const char *only,
                    const char *skip, struct error *err) {
    *r = (struct recipe){0};
    bool ok = !skip || recipe_add(r, skip, NULL, err);
    if (only)
        ok = ok && recipe_add(r, only, f, err);
    else
        ok = ok && recipe_add(r, NOT_LINEAR, NULL, err) && recipe_add(r, IN_BLOCKS, f, err);
    if (!ok)
        recipe_free(r);
    return ok;
}

bool recipe_write(const struct recipe *r, const char *path, struct error *err) {
    struct file_writer w;
    if (!file_writer_open(&w, path, err))
        return false;
    for (size_t i = 0; i < r->n_rules; i++)
        fprintf(w.stream, "%-40s %s%s\n", r->rules[i].pattern,
                r->rules[i].format ? r->rules[i].format->name : "keep",
                r->rules[i].format && r->rules[i].search ? " search" : "");
    return file_writer_commit(&w, err);
}

const struct recipe_rule *recipe_find(const struct recipe *r, const char *tensor_name) {
    for (size_t i = 0; i < r->n_rules; i++)
        if (pattern_match(r->rules[i].pattern, tensor_name))
            return &r->rules[i];
    return NULL;
}

const struct quant_format *recipe_format(const struct recipe *r, const char *tensor_name) {
    const struct recipe_rule *rule = recipe_find(r, tensor_name);
    return rule ? rule->format : NULL;
}
