#include "report/csv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

enum { LARGEST_CSV = 16 << 20 };

void csv_free(struct csv *c) {
    free(c->text);
    free(c->fields);
    *c = (struct csv){0};
}

static bool add_field(struct csv *c, char *field, const char *path, struct error *err) {
    char **fields = memory_grow(c->fields, c->n, &c->capacity, sizeof *fields, path, err);
    if (!fields)
        return false;
    c->fields = fields;
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

bool csv_read(struct csv *c, const char *path, struct error *err) {
    *c = (struct csv){.text = file_read(path, LARGEST_CSV, NULL, err)};
    if (c->text && csv_parse(c, path, err))
        return true;
    csv_free(c);
    return false;
}

const char *csv_text(const struct csv *c, size_t row, const char *column) {
    for (size_t col = 0; col < c->cols; col++)
        if (strcmp(c->fields[col], column) == 0)
            return c->fields[(row + 1) * c->cols + col];
    return "";
}

double csv_number(const struct csv *c, size_t row, const char *column) {
    const char *text = csv_text(c, row, column);
    char *end;
    double value = strtod(text, &end);
    return *text && !*end ? value : NAN;
}
