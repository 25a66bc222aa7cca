#include "report/expand.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "report/expand_part.h"

static const char *const kinds[] = {"code", "table", "output"};
enum { CODE, TABLE, OUTPUT, N_KINDS, NO_MARKER, END_MARKER };

struct marker {
    int kind;
    char *copy;       // owned; the rest points into it
    char *file;       // "common/quant/absmax.c"
    char *part;       // behind '#', or NULL
    char *columns;    // behind "columns=", or NULL
    const char *more; // a word that is none of these, or NULL
};

// "<!-- kind: words -->" in a line of its own; anything else is NO_MARKER.
static int marker_kind(const char *line, const char **words, size_t *length) {
    size_t size = strlen(line);
    while (size && strchr(" \t\r", line[size - 1]))
        size--;
    if (size < 8 || strncmp(line, "<!--", 4) != 0 || strncmp(line + size - 3, "-->", 3) != 0)
        return NO_MARKER;
    const char *c = line + 4, *end = line + size - 3;
    c += strspn(c, " ");
    while (end > c && end[-1] == ' ')
        end--;
    if (end - c == 3 && strncmp(c, "end", 3) == 0)
        return END_MARKER;
    for (int k = 0; k < N_KINDS; k++) {
        size_t n = strlen(kinds[k]);
        if (strncmp(c, kinds[k], n) != 0 || c[n] != ':' || c + n + 1 > end)
            continue;
        *words = c + n + 1;
        *length = (size_t)(end - *words);
        return k;
    }
    return NO_MARKER;
}

static bool marker_parse(struct marker *m, const char *line, struct error *err) {
    const char *words;
    size_t length;
    *m = (struct marker){.kind = marker_kind(line, &words, &length)};
    if (m->kind >= N_KINDS)
        return true;
    m->copy = memory_printf(err, "%.*s", (int)length, words);
    if (!m->copy)
        return false;
    char *rest = m->copy;
    for (char *word; (word = strsep(&rest, " "));) {
        if (!*word)
            continue;
        if (!m->file)
            m->file = word;
        else if (strncmp(word, "columns=", 8) == 0)
            m->columns = word + 8;
        else
            m->more = word;
    }
    if (m->kind == CODE && m->file && (m->part = strchr(m->file, '#')))
        *m->part++ = '\0';
    return true;
}

// How far a line indents, tabs counting as one; blank lines do not count at all.
static size_t indent_of(const char *line) {
    size_t n = strspn(line, " \t");
    return line[n] && line[n] != '\r' ? n : SIZE_MAX;
}

static size_t longest_backticks(const struct text_lines *t, size_t first, size_t end) {
    size_t longest = 0;
    for (size_t i = first; i < end; i++)
        for (const char *c = t->lines[i]; (c = strchr(c, '`'));) {
            size_t n = strspn(c, "`");
            longest = n > longest ? n : longest;
            c += n;
        }
    return longest;
}

// Lines [first, end) between fences that are longer than any run of backticks inside, without
// their common indentation and without the comments that mark anchors.
static void print_fenced(const struct text_lines *t, size_t first, size_t end, const char *language,
                         FILE *f) {
    size_t indent = SIZE_MAX, fence = longest_backticks(t, first, end) + 1;
    fence = fence > 3 ? fence : 3;
    for (size_t i = first; i < end; i++)
        if (!expand_is_anchor(t->lines[i]) && indent_of(t->lines[i]) < indent)
            indent = indent_of(t->lines[i]);
    for (size_t i = 0; i < fence; i++)
        fputc('`', f);
    fprintf(f, "%s\n", language);
    for (size_t i = first; i < end; i++)
        if (!expand_is_anchor(t->lines[i]))
            fprintf(f, "%s\n", indent_of(t->lines[i]) == SIZE_MAX ? "" : t->lines[i] + indent);
    for (size_t i = 0; i < fence; i++)
        fputc('`', f);
    fputc('\n', f);
}

static const char *language_of(const char *path) {
    static const char *const languages[][2] = {
        {".c", "c"},   {".h", "c"},       {".cu", "cuda"},   {".cuh", "cuda"},
        {".sh", "sh"}, {".py", "python"}, {".json", "json"}, {".md", "markdown"}};
    const char *dot = strrchr(path, '.'), *slash = strrchr(path, '/');
    for (size_t i = 0; dot && i < sizeof languages / sizeof *languages; i++)
        if (strcmp(dot, languages[i][0]) == 0)
            return languages[i][1];
    return strcmp(slash ? slash + 1 : path, "Makefile") == 0 ? "make" : "";
}

// A link to the source, from the folder that the Markdown file lies in. Without line numbers: prose
// should not go stale because something moved.
static void print_caption(const char *file, const char *from, FILE *f) {
    fprintf(f, "\n[%s](", file);
    for (const char *c = from; (c = strchr(c, '/')); c++)
        fputs("../", f);
    fprintf(f, "%s)\n", file);
}

static bool print_code(const struct marker *m, const char *from, FILE *f, struct error *err) {
    struct text_lines t;
    size_t first, end;
    if (!text_lines_read(&t, m->file, err))
        return false;
    bool ok = expand_find_part(&t, m->file, m->part, &first, &end, err);
    if (ok && first == end)
        ok = error_set(err, "%s: nothing stands at '%s'", m->file, m->part ? m->part : "");
    if (ok) {
        print_fenced(&t, first, end, language_of(m->file), f);
        print_caption(m->file, from, f);
    }
    text_lines_free(&t);
    return ok;
}

static bool print_file(const struct marker *m, FILE *f, struct error *err) {
    struct text_lines t;
    if (!text_lines_read(&t, m->file, err))
        return false;
    size_t end = t.n;
    while (end && indent_of(t.lines[end - 1]) == SIZE_MAX)
        end--;
    if (m->kind == OUTPUT)
        print_fenced(&t, 0, end, "text", f);
    for (size_t i = 0; m->kind == TABLE && i < end; i++)
        fprintf(f, "%s\n", t.lines[i]);
    text_lines_free(&t);
    return true;
}

static bool print_marked(const struct marker *m, const char *from, FILE *f, struct error *err) {
    const char *dot = m->file ? strrchr(m->file, '.') : NULL;
    bool csv = m->kind == TABLE && dot && strcmp(dot, ".csv") == 0;
    if (!m->file)
        return error_set(err, "'%s:' names no file", kinds[m->kind]);
    if (m->more || (m->columns && !csv))
        return error_set(err, "'%s' is not understood here", m->more ? m->more : "columns=");
    if (m->kind == CODE)
        return print_code(m, from, f, err);
    return csv ? expand_print_csv(m->file, m->columns, f, err) : print_file(m, f, err);
}

// Text that contained markers itself could not be found again the next time.
static bool check_for_markers(const char *text, struct error *err) {
    const char *words;
    size_t length;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        char *copy = strndup(line, strcspn(line, "\n"));
        bool marker = copy && marker_kind(copy, &words, &length) != NO_MARKER;
        free(copy);
        if (marker)
            return error_set(err, "the text to be shown contains a marker itself");
    }
    return true;
}

static bool print_place(const struct marker *m, const char *from, FILE *f, struct error *err) {
    char *text = NULL;
    size_t size;
    FILE *place = open_memstream(&text, &size);
    bool ok = place && print_marked(m, from, place, err);
    if (!place || fclose(place) != 0)
        ok = error_set(err, "out of memory");
    ok = ok && check_for_markers(text, err);
    if (ok)
        fprintf(f, "\n%s\n", text);
    free(text);
    return ok;
}

// The line of the "end" that closes the marker in line `at`; 0 if another marker comes first.
static size_t end_of(const struct text_lines *t, size_t at) {
    const char *words;
    size_t length;
    for (size_t i = at + 1; i < t->n; i++) {
        int kind = marker_kind(t->lines[i], &words, &length);
        if (kind != NO_MARKER)
            return kind == END_MARKER ? i : 0;
    }
    return 0;
}

// Handles line *at, and all lines up to its end if it is a marker.
static bool expand_line(const struct text_lines *t, const char *path, size_t *at, bool fenced,
                        FILE *f, struct error *err) {
    struct marker m = {.kind = NO_MARKER};
    if (!fenced && !marker_parse(&m, t->lines[*at], err))
        return false;
    fprintf(f, "%s\n", t->lines[*at]);
    bool ok = m.kind != END_MARKER || error_set(err, "an end without its beginning");
    if (m.kind < N_KINDS) {
        size_t end = end_of(t, *at);
        ok = end > 0 || error_set(err, "no '<!-- end -->' closes this marker");
        ok = ok && print_place(&m, path, f, err);
        if (ok) {
            fprintf(f, "%s\n", t->lines[end]);
            *at = end;
        }
    }
    free(m.copy);
    return ok;
}

// The backticks of the fence that is open behind this line, given that before it; 0 for none. What
// follows the backticks names a language, so such a line closes nothing.
static size_t fence_after(const char *line, size_t open) {
    size_t ticks = strspn(line, "`");
    if (!open)
        return ticks >= 3 ? ticks : 0;
    return ticks >= open && indent_of(line + ticks) == SIZE_MAX ? 0 : open;
}

static bool expand_lines(const struct text_lines *t, const char *path, FILE *f, struct error *err) {
    size_t fence = 0; // backticks of the open fence
    for (size_t i = 0; i < t->n; i++) {
        size_t begin = i;
        struct error cause;
        fence = fence_after(t->lines[i], fence);
        if (!expand_line(t, path, &i, fence > 0, f, &cause))
            return error_set(err, "%s:%zu: %s", path, begin + 1, cause.message);
    }
    return true;
}

static size_t first_difference(const struct text_lines *now, const char *wanted) {
    for (size_t i = 0; i < now->n; i++) {
        size_t length = strlen(now->lines[i]);
        if (strncmp(wanted, now->lines[i], length) != 0 || wanted[length] != '\n')
            return i + 1;
        wanted += length + 1;
    }
    return *wanted ? now->n + 1 : 0;
}

char *expand_file(const char *path, size_t *drifted_line, struct error *err) {
    struct text_lines t;
    char *text = NULL;
    size_t size;
    if (!text_lines_read(&t, path, err))
        return NULL;
    FILE *f = open_memstream(&text, &size);
    bool ok = f && expand_lines(&t, path, f, err);
    if (!f || fclose(f) != 0)
        ok = error_set(err, "%s: out of memory", path);
    if (ok && drifted_line)
        *drifted_line = first_difference(&t, text);
    text_lines_free(&t);
    if (ok)
        return text;
    free(text);
    return NULL;
}
