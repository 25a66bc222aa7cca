#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "eval/sensitivity_part.h"
#include "quant/format.h"
#include "report/csv.h"

// The numbers of a row: of its tensor, then of its cell.
#define TENSOR_NUMBERS(X)                                                                          \
    X(weight_kurtosis)                                                                             \
    X(input_kurtosis)                                                                              \
    X(input_outlier_ratio)
#define TENSOR_SIZES(X)                                                                            \
    X(n)                                                                                           \
    X(k)                                                                                           \
    X(input_outliers)                                                                              \
    X(input_worst_channel)
#define CELL_NUMBERS(X)                                                                            \
    X(weight_mse)                                                                                  \
    X(weight_nmse)                                                                                 \
    X(weight_snr_db)                                                                               \
    X(weight_cosine)                                                                               \
    X(output_nmse)                                                                                 \
    X(output_cosine)                                                                               \
    X(kld_estimated)                                                                               \
    X(kld_measured)                                                                                \
    X(kld_error)

static void print_text(const char *s, FILE *f) { // RFC 4180
    bool quoted = s[strcspn(s, ",\"\r\n")];
    fputs(quoted ? "\"" : "", f);
    for (; *s; s++)
        fprintf(f, *s == '"' ? "\"%c" : "%c", *s);
    fputs(quoted ? "\"," : ",", f);
}

// Enough digits to read back the same double; nothing for NaN.
static void print_number(double value, FILE *f) {
    fputc(',', f);
    if (!isnan(value))
        fprintf(f, "%.17g", value);
}

static void print_header(FILE *f) {
    fputs("tensor,kind,format,layer,model,text,tokens,window,search,model_bytes,bytes", f);
#define X(key) fputs("," #key, f);
    TENSOR_SIZES(X)
    TENSOR_NUMBERS(X)
    CELL_NUMBERS(X)
#undef X
    fputs(",method\n", f);
}

static void print_row(const struct sensitivity *s, size_t tensor, size_t format, FILE *f) {
    const struct sensitivity_tensor *t = &s->tensors[tensor];
    const struct sensitivity_cell *c = sensitivity_at(s, tensor, format);
    print_text(t->name, f);
    print_text(t->kind, f);
    print_text(s->formats[format]->name, f);
    if (t->layer != SENSITIVITY_NO_LAYER)
        fprintf(f, "%zu", t->layer);
    fprintf(f, ",%016" PRIx64 ",%016" PRIx64 ",%zu,%zu,%d,%zu,%zu", s->model, s->text, s->tokens,
            s->window, s->search, t->bytes, c->bytes);
#define X(key) fprintf(f, ",%zu", t->key);
    TENSOR_SIZES(X)
#undef X
#define X(key) print_number(t->key, f);
    TENSOR_NUMBERS(X)
#undef X
#define X(key) print_number(c->key, f);
    CELL_NUMBERS(X)
#undef X
    fprintf(f, ",%d\n", SENSITIVITY_METHOD);
}

bool sensitivity_write(const struct sensitivity *s, const char *path, struct error *err) {
    struct file_writer w;
    if (!folder_create_for(path, err) || !file_writer_open(&w, path, err))
        return false;
    print_header(w.stream);
    for (size_t t = 0; t < s->n_tensors; t++)
        for (size_t f = 0; f < s->n_formats; f++)
            print_row(s, t, f, w.stream);
    return file_writer_commit(&w, err);
}

// ---- reading ----------------------------------------------------------------------------------

struct reader {
    const struct csv *csv;
    const char *path;
    struct error *err;
};

static bool fail(const struct reader *r, size_t row, const char *column, const char *expected) {
    return error_set(r->err, "%s: line %zu: %s is '%.60s', expected %s", r->path, row + 2, column,
                     csv_text(r->csv, row, column), expected);
}

static bool read_u64(const struct reader *r, size_t row, const char *column, int base,
                     uint64_t *out) {
    const char *text = csv_text(r->csv, row, column);
    char *end;
    errno = 0;
    *out = strtoull(text, &end, base);
    bool plain = *text && strspn(text, "0123456789abcdef") == strlen(text);
    return (plain && !*end && !errno) || fail(r, row, column, "a whole number");
}

static bool read_size(const struct reader *r, size_t row, const char *column, size_t *out) {
    uint64_t value;
    if (!read_u64(r, row, column, 10, &value))
        return false;
    *out = (size_t)value;
    return true;
}

// Nothing reads as NaN; infinity is a number, "nan" and words are not.
static bool read_number(const struct reader *r, size_t row, const char *column, double *out) {
    const char *text = csv_text(r->csv, row, column);
    char *end;
    *out = NAN;
    if (!*text)
        return true;
    *out = strtod(text, &end);
    return (!*end && !isnan(*out)) || fail(r, row, column, "a number");
}

static bool has_columns(const struct reader *r) {
    static const char *const names[] = {"tensor",
                                        "kind",
                                        "format",
                                        "layer",
                                        "model",
                                        "text",
                                        "tokens",
                                        "window",
                                        "search",
                                        "model_bytes",
                                        "bytes",
#define X(key) #key,
                                        TENSOR_SIZES(X) TENSOR_NUMBERS(X) CELL_NUMBERS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool found = false;
        for (size_t c = 0; c < r->csv->cols; c++)
            found |= strcmp(r->csv->fields[c], names[i]) == 0;
        if (!found)
            return error_set(r->err, "%s: column '%s' is missing", r->path, names[i]);
    }
    return true;
}

static bool read_tensor(const struct reader *r, size_t row, struct sensitivity_tensor *t) {
    const char *layer = csv_text(r->csv, row, "layer");
    t->layer = SENSITIVITY_NO_LAYER;
    if (!(t->name = memory_strdup(csv_text(r->csv, row, "tensor"), r->err)) ||
        !(t->kind = memory_strdup(csv_text(r->csv, row, "kind"), r->err)) ||
        (*layer && !read_size(r, row, "layer", &t->layer)) ||
        !read_size(r, row, "model_bytes", &t->bytes))
        return false;
#define X(key)                                                                                     \
    if (!read_size(r, row, #key, &t->key))                                                         \
        return false;
    TENSOR_SIZES(X)
#undef X
#define X(key)                                                                                     \
    if (!read_number(r, row, #key, &t->key))                                                       \
        return false;
    TENSOR_NUMBERS(X)
#undef X
    return true;
}

static bool read_cell(const struct reader *r, size_t row, struct sensitivity_cell *c) {
    if (!read_size(r, row, "bytes", &c->bytes))
        return false;
#define X(key)                                                                                     \
    if (!read_number(r, row, #key, &c->key))                                                       \
        return false;
    CELL_NUMBERS(X)
#undef X
    bool damage = sensitivity_kld(c) >= 0;
    return !c->bytes || damage || fail(r, row, "kld_estimated", "a number of at least 0");
}

// The formats are those of the first tensor's rows; every tensor has them in this order.
static bool read_formats(const struct reader *r, struct sensitivity *s) {
    const char *first = csv_text(r->csv, 0, "tensor");
    size_t rows = r->csv->rows - 1;
    while (s->n_formats < rows && strcmp(csv_text(r->csv, s->n_formats, "tensor"), first) == 0)
        s->n_formats++;
    if (rows % s->n_formats)
        return error_set(r->err, "%s: %zu rows, expected %zu for every tensor", r->path, rows,
                         s->n_formats);
    s->formats = memory_alloc(s->n_formats, sizeof(void *), r->path, r->err);
    for (size_t f = 0; s->formats && f < s->n_formats; f++)
        if (!(s->formats[f] = quant_format_find(csv_text(r->csv, f, "format"))))
            return fail(r, f, "format", "the name of a weight format");
    return s->formats != NULL;
}

static bool read_rows(const struct reader *r, struct sensitivity *s) {
    size_t rows = r->csv->rows - 1, n = rows / s->n_formats;
    s->tensors = memory_alloc(n, sizeof *s->tensors, r->path, r->err);
    s->cells = memory_alloc(rows, sizeof *s->cells, r->path, r->err);
    if (!s->tensors || !s->cells)
        return false;
    for (size_t row = 0; row < rows; row++) {
        size_t t = row / s->n_formats, f = row % s->n_formats;
        if (f == 0) {
            s->n_tensors++;
            if (!read_tensor(r, row, &s->tensors[t]))
                return false;
        }
        if (strcmp(csv_text(r->csv, row, "tensor"), s->tensors[t].name) != 0)
            return fail(r, row, "tensor", s->tensors[t].name);
        if (strcmp(csv_text(r->csv, row, "format"), s->formats[f]->name) != 0)
            return fail(r, row, "format", s->formats[f]->name);
        if (!read_cell(r, row, &s->cells[row]))
            return false;
    }
    return true;
}

static bool read_flag(const struct reader *r, size_t row, const char *column, bool *out) {
    const char *text = csv_text(r->csv, row, column);
    *out = strcmp(text, "1") == 0;
    return *out || strcmp(text, "0") == 0 || fail(r, row, column, "0 or 1");
}

// What two programs measured differently cannot be compared. Files older than the column are of
// method 1.
static bool check_method(const struct reader *r) {
    double method = csv_number(r->csv, 0, "method");
    return (isnan(method) ? 1 : method) == SENSITIVITY_METHOD ||
           error_set(r->err, "%s: measured by another version of this program", r->path);
}

static bool read_all(const struct reader *r, uint64_t model, struct sensitivity *s) {
    if (r->csv->rows < 2)
        return error_set(r->err, "%s: no rows", r->path);
    if (!has_columns(r) || !check_method(r) || !read_u64(r, 0, "model", 16, &s->model) ||
        !read_u64(r, 0, "text", 16, &s->text) || !read_size(r, 0, "tokens", &s->tokens) ||
        !read_size(r, 0, "window", &s->window) || !read_flag(r, 0, "search", &s->search))
        return false;
    if (s->model != model)
        return error_set(r->err,
                         "%s: belongs to another model (%016" PRIx64 ", expected %016" PRIx64 ")",
                         r->path, s->model, model);
    return read_formats(r, s) && read_rows(r, s) && sensitivity_judge(s, r->err);
}

bool sensitivity_read(struct sensitivity *s, const char *path, uint64_t model, struct error *err) {
    struct csv csv;
    *s = (struct sensitivity){0};
    if (!csv_read(&csv, path, err))
        return false;
    bool ok = read_all(&(struct reader){&csv, path, err}, model, s);
    csv_free(&csv);
    if (!ok)
        sensitivity_free(s);
    return ok;
}

static bool same_tensor(const struct sensitivity_tensor *a, const struct sensitivity_tensor *b) {
    return strcmp(a->name, b->name) == 0 && strcmp(a->kind, b->kind) == 0 && a->layer == b->layer &&
           a->n == b->n && a->k == b->k && a->bytes == b->bytes;
}

static bool check_tensors(const struct sensitivity *s, const struct sensitivity *shapes,
                          const char *path, struct error *err) {
    bool same = s->n_tensors == shapes->n_tensors;
    for (size_t t = 0; same && t < s->n_tensors; t++) {
        same = same_tensor(&s->tensors[t], &shapes->tensors[t]);
        for (size_t f = 0; same && f < s->n_formats; f++)
            same = sensitivity_at(s, t, f)->bytes == sensitivity_at(shapes, t, f)->bytes;
        if (!same)
            return error_set(err, "%s: '%.100s' is not the model's '%.100s'", path,
                             s->tensors[t].name, shapes->tensors[t].name);
    }
    return same ||
           error_set(err, "%s: %zu tensors, expected %zu", path, s->n_tensors, shapes->n_tensors);
}

bool sensitivity_read_for(struct sensitivity *s, const char *path, const struct model *m,
                          struct error *err) {
    struct sensitivity shapes = {0};
    if (!sensitivity_read(s, path, sensitivity_fingerprint(m), err))
        return false;
    bool ok =
        sensitivity_shapes(m, s->formats, s->n_formats, sensitivity_blocks_only(s), &shapes, err) &&
        check_tensors(s, &shapes, path, err);
    sensitivity_free(&shapes);
    if (!ok)
        sensitivity_free(s);
    return ok;
}

// ---- an analysis that was stopped ---------------------------------------------------------------

static bool is_beginning(const struct sensitivity *begun, const struct sensitivity *s) {
    bool same = begun->text == s->text && begun->search == s->search &&
                begun->tokens == s->tokens && begun->window == s->window &&
                begun->n_formats == s->n_formats && begun->n_tensors <= s->n_tensors;
    for (size_t f = 0; same && f < s->n_formats; f++)
        same = begun->formats[f] == s->formats[f];
    for (size_t t = 0; same && t < begun->n_tensors; t++)
        same = same_tensor(&begun->tensors[t], &s->tensors[t]);
    return same;
}

size_t sensitivity_take_up(struct sensitivity *s, const char *part) {
    struct sensitivity begun;
    struct error ignored;
    if (!file_exists(part) || !sensitivity_read(&begun, part, s->model, &ignored))
        return 0;
    size_t n = is_beginning(&begun, s) ? begun.n_tensors : 0;
    for (size_t t = 0; t < n; t++) {
        struct sensitivity_tensor listed = s->tensors[t];
        s->tensors[t] = begun.tensors[t];
        begun.tensors[t] = listed;
        memcpy(sensitivity_at(s, t, 0), sensitivity_at(&begun, t, 0),
               s->n_formats * sizeof *s->cells);
    }
    sensitivity_free(&begun);
    return n;
}
