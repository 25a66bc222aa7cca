#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "report/expand_part.h"

enum { LARGEST_TEXT = 16 << 20 };

bool text_lines_read(struct text_lines *t, const char *path, struct error *err) {
    *t = (struct text_lines){0};
    size_t size, n = 1;
    t->text = file_read(path, LARGEST_TEXT, &size, err);
    if (!t->text)
        return false;
    if (strlen(t->text) != size) {
        error_set(err, "%s: has a NUL at byte %zu, expected text", path, strlen(t->text));
        text_lines_free(t);
        return false;
    }
    for (const char *c = t->text; (c = strchr(c, '\n')); c++)
        n++;
    t->lines = memory_alloc(n, sizeof *t->lines, path, err);
    if (!t->lines) {
        text_lines_free(t);
        return false;
    }
    for (char *rest = t->text; rest && *rest;)
        t->lines[t->n++] = strsep(&rest, "\n");
    return true;
}

void text_lines_free(struct text_lines *t) {
    free(t->text);
    free(t->lines);
    *t = (struct text_lines){0};
}

// The name of the anchor that the line opens ("// [name]", "# [name]") or closes ("// [/name]").
static bool anchor_name(const char *line, const char **name, size_t *length) {
    line += strspn(line, " \t");
    size_t sign = strncmp(line, "//", 2) == 0 ? 2 : *line == '#' ? 1 : 0;
    const char *open = line + sign + strspn(line + sign, " ");
    const char *close = strchr(open, ']');
    if (!sign || *open != '[' || !close || close[1 + strspn(close + 1, " \t\r")])
        return false;
    *name = open + 1;
    *length = (size_t)(close - open) - 1;
    return *length > 0;
}

bool expand_is_anchor(const char *line) {
    const char *name;
    size_t length;
    return anchor_name(line, &name, &length);
}

static bool is_anchor_of(const char *line, const char *wanted, bool closing) {
    const char *name;
    size_t length;
    if (!anchor_name(line, &name, &length) || (*name == '/') != closing)
        return false;
    name += closing;
    length -= closing;
    return length == strlen(wanted) && strncmp(name, wanted, length) == 0;
}

static bool find_anchor(const struct text_lines *t, const char *path, const char *name,
                        size_t *first, size_t *end, struct error *err) {
    size_t opened = 0, closed = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (is_anchor_of(t->lines[i], name, false) && opened++ == 0)
            *first = i + 1;
        if (is_anchor_of(t->lines[i], name, true) && closed++ == 0)
            *end = i;
    }
    if (opened != 1 || closed != 1 || *first > *end)
        return error_set(err,
                         "%s: '// [%s]' occurs %zu and '// [/%s]' %zu times, expected one pair",
                         path, name, opened, name, closed);
    return true;
}

static bool is_word(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

// Where the line has name as a whole word followed by `after`, NULL if it has not.
static const char *find_word(const char *line, const char *name, char after) {
    size_t length = strlen(name);
    for (const char *c = line; (c = strstr(c, name)); c++)
        if ((c == line || !is_word(c[-1])) && c[length] == after)
            return c + length;
    return NULL;
}

// A definition's head starts in column 0, and its first ';' or '{' is a '{'; a declaration's or a
// call's is not.
static bool opens_body(const struct text_lines *t, size_t line, const char *from) {
    for (size_t i = line; i < t->n; from = t->lines[++i]) {
        size_t n = strcspn(from, ";{");
        if (from[n])
            return from[n] == '{';
        if (i + 1 == t->n)
            break;
    }
    return false;
}

static bool is_head(const struct text_lines *t, size_t i, const char *kind, const char *name) {
    const char *line = t->lines[i];
    if (!is_word(*line) && *line != '*') // indented, a comment, a '#', a '}'
        return false;
    bool function = strcmp(kind, "fn") == 0;
    size_t length = strlen(kind);
    if (!function && (strncmp(line, kind, length) != 0 || line[length] != ' '))
        return false;
    const char *after = find_word(line, name, function ? '(' : ' ');
    return after && (function ? opens_body(t, i, after) : after[1] == '{');
}

// A head may start on an earlier line (its type, an attribute), below a comment.
static size_t first_line(const struct text_lines *t, size_t head) {
    while (head > 0) {
        const char *line = t->lines[head - 1];
        size_t length = strlen(line);
        bool comment = strncmp(line, "//", 2) == 0 && !expand_is_anchor(line);
        bool ends = !length || strchr(";}{", line[length - 1]) || strchr("#}/ ", *line);
        if (!comment && ends)
            break;
        head--;
    }
    return head;
}

// In this house's layout the brace that closes a definition stands in column 0.
static bool find_definition(const struct text_lines *t, const char *path, const char *kind,
                            const char *name, size_t *first, size_t *end, struct error *err) {
    for (size_t i = 0; *name && i < t->n; i++) {
        if (!is_head(t, i, kind, name))
            continue;
        for (size_t j = i; j < t->n; j++)
            if (*t->lines[j] == '}') {
                *first = first_line(t, i);
                *end = j + 1;
                return true;
            }
    }
    return error_set(err, "%s: has no definition of %s '%s'", path,
                     strcmp(kind, "fn") == 0 ? "function" : kind, name);
}

bool expand_find_part(const struct text_lines *t, const char *path, const char *part, size_t *first,
                      size_t *end, struct error *err) {
    static const char *const kinds[] = {"fn", "struct", "enum"};
    *first = 0;
    *end = t->n;
    if (!part)
        return true;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t length = strlen(kinds[i]);
        if (strncmp(part, kinds[i], length) == 0 && part[length] == ':')
            return find_definition(t, path, kinds[i], part + length + 1, first, end, err);
    }
    return find_anchor(t, path, part, first, end, err);
}
