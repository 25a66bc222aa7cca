#include <stdlib.h>
#include <string.h>

#include "report/csv.h"
#include "report/expand_part.h"
#include "report/markdown.h"

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
    struct csv c;
    if (!csv_read(&c, path, err))
        return false;
    bool ok = print_columns(&c, path, columns, f, err);
    csv_free(&c);
    return ok;
}
