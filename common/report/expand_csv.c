#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "report/expand_part.h"
#include "report/markdown.h"

enum { LARGEST_CSV = 16 << 20 };

// A parsed CSV file: fields point into its text.
struct csv {
    char *text, **fields; // [rows, cols]
    size_t rows, cols, n, capacity;
};

static void csv_free(struct csv *c) {
    free(c->text);
    free(c->fields);
}

static bool add_field(struct csv *c, char *field, const char *path, struct error *err) {
    if (c->n == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 64;
        char **fields = reallocarray(c->fields, capacity, sizeof *fields);
        if (!fields)
            return error_set(err, "%s: out of memory for %zu fields", path, capacity);
        c->fields = fields;
        c->capacity = capacity;
    }
    c->fields[c->n++] = field;
    return true;
}

// Reads one field at *at, unquotes it in place and steps behind its separator, which it returns
// ('\0' at the end of the text; '"' for a quote that nothing closes).
static char next_field(char **at, char **field) {
    char *in = *at, *out = in;
    *field = out;
    bool quoted = *in == '"';
    in += quoted;
    for (; *in && (quoted || !strchr(",\r\n", *in)); in++) {
        if (quoted && *in == '"' && *++in != '"') { // a doubled quote is a quote
            quoted = false;
            in--;
        } else {
            *out++ = *in;
        }
    }
    if (quoted)
        return '"';
    char separator = *in;
    if (separator == '\r' && in[1] == '\n')
        in++;
    *at = separator ? in + 1 : in;
    *out = '\0';
    return separator == '\r' ? '\n' : separator;
}

static bool csv_parse(struct csv *c, const char *path, struct error *err) {
    char *at = c->text;
    while (*at) {
        size_t start = c->n;
        char separator = ',';
        while (separator == ',') {
            char *field;
            separator = next_field(&at, &field);
            if (separator == '"')
                return error_set(err, "%s: row %zu: a quote is not closed", path, c->rows + 1);
            if (!add_field(c, field, path, err))
                return false;
        }
        c->rows++;
        if (c->rows == 1)
            c->cols = c->n;
        if (c->n - start != c->cols)
            return error_set(err, "%s: row %zu has %zu fields, expected %zu", path, c->rows,
                             c->n - start, c->cols);
    }
    return c->rows > 0 || error_set(err, "%s: is empty, expected a CSV header", path);
}

// Whether all cells of the column are numbers, or empty.
static bool is_numeric(const struct csv *c, size_t col) {
    for (size_t r = 1; r < c->rows; r++) {
        char *field = c->fields[r * c->cols + col], *end;
        strtod(field, &end);
        if (*end)
            return false;
    }
    return true;
}

static bool fill_column(const struct csv *c, size_t from, struct markdown_table *t, size_t to,
                        struct error *err) {
    t->left[to] = !is_numeric(c, from);
    for (size_t r = 0; r < c->rows; r++)
        if (!markdown_table_set(t, r, to, c->fields[r * c->cols + from], err))
            return false;
    return true;
}

static bool column_of(const struct csv *c, const char *path, const char *name, size_t length,
                      size_t *col, struct error *err) {
    for (*col = 0; *col < c->cols; ++*col)
        if (strlen(c->fields[*col]) == length && strncmp(c->fields[*col], name, length) == 0)
            return true;
    return error_set(err, "%s: has no column '%.*s'", path, (int)length, name);
}

static bool print_columns(const struct csv *c, const char *path, const char *columns, FILE *f,
                          struct error *err) {
    size_t n = columns ? 1 : c->cols;
    for (const char *s = columns; s && (s = strchr(s, ',')); s++)
        n++;
    struct markdown_table t;
    if (!markdown_table_init(&t, c->rows, n, err))
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        size_t from = i;
        if (columns) {
            size_t length = strcspn(columns, ",");
            ok = column_of(c, path, columns, length, &from, err);
            columns += length + 1;
        }
        ok = ok && fill_column(c, from, &t, i, err);
    }
    if (ok)
        markdown_table_print(&t, f);
    markdown_table_free(&t);
    return ok;
}

bool expand_print_csv(const char *path, const char *columns, FILE *f, struct error *err) {
    struct csv c = {.text = file_read(path, LARGEST_CSV, NULL, err)};
    bool ok = c.text && csv_parse(&c, path, err) && print_columns(&c, path, columns, f, err);
    csv_free(&c);
    return ok;
}
