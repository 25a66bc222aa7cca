// The file: "\x93NUMPY", two version bytes, the header's length (2 bytes in version 1, 4 in 2 and
// 3, little-endian), the header, the numbers. The header is a Python dict in ASCII, padded with
// spaces and one newline so that the numbers start at a multiple of 64:
//     {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
#include "io/npy.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

#define MAGIC "\x93NUMPY"
enum { MAGIC_SIZE = 6, ALIGN = 64 };

static void print_f32(FILE *f, const float *data, size_t rows, size_t cols) {
    char header[2 * ALIGN];
    int length =
        snprintf(header, sizeof header,
                 "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }", rows, cols);
    size_t prefix = MAGIC_SIZE + 4;
    size_t padded = (prefix + (size_t)length + 1 + ALIGN - 1) / ALIGN * ALIGN - prefix;
    memset(header + length, ' ', padded - (size_t)length);
    header[padded - 1] = '\n';
    unsigned char lead[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)padded, 0};
    fwrite(lead, 1, sizeof lead, f);
    fwrite(header, 1, padded, f);
    if (rows && cols) // else data may be NULL
        fwrite(data, sizeof *data, rows * cols, f);
}

bool npy_write_f32(const char *path, const float *data, size_t rows, size_t cols,
                   struct error *err) {
    size_t count;
    struct file_writer w;
    if (!size_mul(rows, cols, &count) || !size_mul(count, sizeof *data, &(size_t){0}))
        return error_set(err, "%s: %zu x %zu floats overflow the address space", path, rows, cols);
    if (strcmp(path, "-") == 0) {
        print_f32(stdout, data, rows, cols);
        return (fflush(stdout) == 0 && !ferror(stdout)) ||
               error_set(err, "stdout: cannot write: %s", strerror(errno));
    }
    if (!file_writer_open(&w, path, err))
        return false;
    print_f32(w.stream, data, rows, cols);
    return file_writer_commit(&w, err); // which looks at ferror
}

// What is left of the header, and the path for messages.
struct reader {
    const char *at, *end, *path;
    struct error *err;
};

static void skip_spaces(struct reader *r) {
    while (r->at < r->end && strchr(" \t\n", *r->at) && *r->at)
        r->at++;
}

static bool take(struct reader *r, const char *text) {
    skip_spaces(r);
    size_t n = strlen(text);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, text, n) != 0)
        return false;
    r->at += n;
    return true;
}

static bool expect(struct reader *r, const char *text) {
    if (take(r, text))
        return true;
    return error_set(r->err, "%s: the .npy header has '%.*s', expected '%s'", r->path,
                     (int)(r->end - r->at < 20 ? r->end - r->at : 20), r->at, text);
}

// 'text' or "text", without escapes.
struct text {
    const char *at;
    int length;
};

static bool quoted(struct reader *r, struct text *out) {
    char quote = take(r, "'") ? '\'' : '"';
    if (quote == '"' && !expect(r, "\""))
        return false;
    const char *close = memchr(r->at, quote, (size_t)(r->end - r->at));
    if (!close || close - r->at > 64)
        return error_set(r->err, "%s: a string of the .npy header does not end", r->path);
    *out = (struct text){r->at, (int)(close - r->at)};
    r->at = close + 1;
    return true;
}

static bool text_is(struct text t, const char *s) {
    return strlen(s) == (size_t)t.length && memcmp(t.at, s, (size_t)t.length) == 0;
}

static bool number(struct reader *r, size_t *out) {
    skip_spaces(r);
    const char *start = r->at;
    size_t n = 0;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++)
        if (!size_mul(n, 10, &n) || !size_add(n, (size_t)(*r->at - '0'), &n))
            return error_set(r->err, "%s: a dimension overflows the address space", r->path);
    *out = n;
    return r->at > start || expect(r, "a dimension");
}

// (rows, cols), or (cols,) which is one row.
static bool shape(struct reader *r, size_t *rows, size_t *cols) {
    *rows = 1;
    if (!expect(r, "(") || !number(r, cols) || !expect(r, ","))
        return false;
    if (take(r, ")"))
        return true;
    *rows = *cols;
    if (!number(r, cols))
        return false;
    take(r, ",");
    if (take(r, ")"))
        return true;
    return error_set(r->err, "%s: an array of more than two dimensions, expected one or two",
                     r->path);
}

static bool descr(struct reader *r) {
    struct text type = {0};
    if (!quoted(r, &type) || text_is(type, "<f4"))
        return type.at != NULL;
    return error_set(r->err, "%s: numbers of type '%.*s', expected '<f4' (float32)", r->path,
                     type.length, type.at);
}

static bool c_order(struct reader *r) {
    if (take(r, "False"))
        return true;
    if (take(r, "True"))
        return error_set(r->err, "%s: in Fortran order, expected C order", r->path);
    return expect(r, "False");
}

enum { DESCR = 1, ORDER = 2, SHAPE = 4 };

// One key and its value.
static bool entry(struct reader *r, unsigned *seen, size_t *rows, size_t *cols) {
    struct text key = {0};
    if (!quoted(r, &key) || !expect(r, ":"))
        return false;
    unsigned field = text_is(key, "descr")           ? DESCR
                     : text_is(key, "fortran_order") ? ORDER
                     : text_is(key, "shape")         ? SHAPE
                                                     : 0;
    if (!field || *seen & field)
        return error_set(r->err, "%s: unexpected key '%.*s' in the .npy header", r->path,
                         key.length, key.at);
    *seen |= field;
    return field == DESCR ? descr(r) : field == ORDER ? c_order(r) : shape(r, rows, cols);
}

// The dict has three keys, each once, in any order.
static bool header(struct reader *r, size_t *rows, size_t *cols) {
    unsigned seen = 0;
    if (!expect(r, "{"))
        return false;
    bool more = true;
    while (more && !take(r, "}")) {
        if (!entry(r, &seen, rows, cols))
            return false;
        more = take(r, ",");
        if (!more && !expect(r, "}"))
            return false;
    }
    skip_spaces(r);
    if (seen == (DESCR | ORDER | SHAPE) && r->at == r->end)
        return true;
    return error_set(r->err, "%s: the .npy header is not a dict of descr, fortran_order and shape",
                     r->path);
}

// Where the numbers start.
static bool lead(const struct mapping *m, const char *path, size_t *start, size_t *length,
                 struct error *err) {
    const unsigned char *d = m->data;
    if (m->size < MAGIC_SIZE + 6 || memcmp(d, MAGIC, MAGIC_SIZE) != 0)
        return error_set(err, "%s: not a .npy file", path);
    if (d[6] < 1 || d[6] > 3)
        return error_set(err, "%s: .npy version %d.%d, expected 1 to 3", path, d[6], d[7]);
    *start = MAGIC_SIZE + (d[6] == 1 ? 4 : 6);
    *length = d[8] | (size_t)d[9] << 8;
    if (d[6] > 1)
        *length |= (size_t)d[10] << 16 | (size_t)d[11] << 24;
    if (*length > m->size - *start)
        return error_set(err, "%s: a header of %zu bytes in a file of %zu", path, *length, m->size);
    return true;
}

static float *parse(const struct mapping *m, const char *path, size_t *rows, size_t *cols,
                    struct error *err) {
    size_t start = 0, length = 0, r = 0, c = 0, count, bytes;
    if (!lead(m, path, &start, &length, err))
        return NULL;
    const char *text = (const char *)m->data + start;
    struct reader reader = {text, text + length, path, err};
    if (!header(&reader, &r, &c))
        return NULL;
    size_t left = m->size - start - length;
    if (!size_mul(r, c, &count) || !size_mul(count, sizeof(float), &bytes) || bytes != left) {
        error_set(err, "%s: %zu bytes of numbers, expected %zu x %zu float32", path, left, r, c);
        return NULL;
    }
    float *data = memory_alloc(count, sizeof *data, path, err);
    if (data) {
        memcpy(data, m->data + start + length, bytes);
        *rows = r;
        *cols = c;
    }
    return data;
}

float *npy_read_f32(const char *path, size_t *rows, size_t *cols, struct error *err) {
    struct mapping m;
    if (!mapping_open(&m, path, err))
        return NULL;
    float *data = parse(&m, path, rows, cols, err);
    mapping_close(&m);
    return data;
}
