#include "report/markdown.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "text/utf8.h"

bool markdown_table_init(struct markdown_table *t, size_t rows, size_t cols, struct error *err) {
    *t = (struct markdown_table){.rows = rows, .cols = cols};
    size_t n;
    if (!size_mul(rows, cols, &n))
        return error_set(err, "table: %zu x %zu cells overflow the address space", rows, cols);
    t->cells = memory_alloc(n, sizeof *t->cells, "table", err);
    t->left = memory_alloc(cols, sizeof *t->left, "table", err);
    if (t->cells && t->left)
        return true;
    markdown_table_free(t);
    return false;
}

void markdown_table_free(struct markdown_table *t) {
    for (size_t i = 0; t->cells && i < t->rows * t->cols; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t->left);
    *t = (struct markdown_table){0};
}

bool markdown_table_set(struct markdown_table *t, size_t row, size_t col, const char *text,
                        struct error *err) {
    char *clean = utf8_clean(text, err);
    char *cell = clean ? memory_alloc(2 * strlen(clean) + 1, 1, "table cell", err) : NULL;
    char *end = cell;
    for (const char *c = clean; cell && *c; c++) {
        if (*c == '|')
            *end++ = '\\';
        *end++ = (unsigned char)*c < ' ' || *c == 127 ? ' ' : *c;
    }
    free(clean);
    if (!cell)
        return false;
    free(t->cells[row * t->cols + col]);
    t->cells[row * t->cols + col] = cell;
    return true;
}

static const char *cell_text(const struct markdown_table *t, size_t row, size_t col) {
    const char *cell = t->cells[row * t->cols + col];
    return cell ? cell : "";
}

static size_t column_width(const struct markdown_table *t, size_t col) {
    size_t width = 3;
    for (size_t r = 0; r < t->rows; r++) {
        size_t w = utf8_width(cell_text(t, r, col));
        width = w > width ? w : width;
    }
    return width;
}

static void repeat(char c, size_t n, FILE *f) {
    while (n--)
        fputc(c, f);
}

static void print_rule(const struct markdown_table *t, FILE *f) {
    for (size_t c = 0; c < t->cols; c++) {
        fputs(t->left[c] ? "|:" : "|-", f);
        repeat('-', column_width(t, c), f);
        fputc(t->left[c] ? '-' : ':', f);
    }
    fputs("|\n", f);
}

void markdown_table_print(const struct markdown_table *t, FILE *f) {
    for (size_t r = 0; r < t->rows; r++) {
        for (size_t c = 0; c < t->cols; c++) {
            const char *cell = cell_text(t, r, c);
            size_t pad = column_width(t, c) - utf8_width(cell);
            fputs("| ", f);
            repeat(' ', t->left[c] ? 0 : pad, f);
            fputs(cell, f);
            repeat(' ', t->left[c] ? pad + 1 : 1, f);
        }
        fputs("|\n", f);
        if (r == 0)
            print_rule(t, f);
    }
}

void markdown_bytes(double bytes, char out[MARKDOWN_BYTES]) {
    if (bytes >= 1e9)
        snprintf(out, MARKDOWN_BYTES, "%.2f GB", bytes / 1e9);
    else if (bytes >= 1e6)
        snprintf(out, MARKDOWN_BYTES, "%.1f MB", bytes / 1e6);
    else if (bytes >= 1e3)
        snprintf(out, MARKDOWN_BYTES, "%.1f kB", bytes / 1e3);
    else
        snprintf(out, MARKDOWN_BYTES, "%.0f B", bytes);
}
