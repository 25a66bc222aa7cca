#include "report/gguf_inspect.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "quant/format.h"
#include "report/markdown.h"
#include "report/result.h"
#include "text/utf8.h"

enum {
    CELL = 160,
    TEXT_SHOWN = 60, // bytes of a string
    ITEM_SHOWN = 16, // bytes of a string in an array
    ITEMS_SHOWN = 4, // of an array
};

// One tensor of either kind of file.
struct line {
    const struct tensor *tensor;
    const char *type;
    bool computed; // we can compute with it
    bool counted;  // of RESULT_BITS_OF
};

struct inspection {
    struct line *lines;
    size_t n;
    const struct gguf *file; // NULL: safetensors
    FILE *out;
    struct error *err;
};

// ---- numbers -----------------------------------------------------------------------------------

static size_t weights_of(const struct tensor *t) {
    size_t n = 1;
    for (int d = 0; d < t->n_dims; d++)
        n *= t->shape[d];
    return n;
}

static void count_text(double n, char out[32]) {
    if (n >= 1e9)
        snprintf(out, 32, "%.2f B", n / 1e9);
    else if (n >= 1e6)
        snprintf(out, 32, "%.1f M", n / 1e6);
    else
        snprintf(out, 32, "%.0f", n);
}

static void bits_text(size_t bytes, size_t weights, char out[32]) {
    out[0] = '\0';
    if (weights)
        snprintf(out, 32, "%.3f", 8.0 * (double)bytes / (double)weights);
}

// "[151936, 2048]", outermost first.
static void shape_text(const struct tensor *t, char out[CELL]) {
    size_t at = (size_t)snprintf(out, CELL, "[");
    for (int d = 0; d < t->n_dims; d++)
        at += (size_t)snprintf(out + at, CELL - at, "%s%zu", d ? ", " : "", t->shape[d]);
    snprintf(out + at, CELL - at, "]");
}

// ---- values ------------------------------------------------------------------------------------

// Appends the beginning of a string in quotes, line ends as \n; returns the end of `out`.
static char *put_string(char *out, struct gguf_string s, size_t most) {
    size_t shown = s.size < most ? s.size : most;
    while (shown > 0 && shown < s.size && (s.text[shown] & 0xc0) == 0x80)
        shown--; // not half a character
    *out++ = '"';
    for (size_t i = 0; i < shown; i++) {
        char c = s.text[i];
        if (c == '\n' || c == '\t' || c == '\r') {
            *out++ = '\\';
            c = c == '\n' ? 'n' : c == '\t' ? 't' : 'r';
        }
        *out++ = c ? c : ' ';
    }
    *out++ = '"';
    *out = '\0';
    return out;
}

static void string_text(struct gguf_string s, char out[CELL]) {
    char *end = put_string(out, s, TEXT_SHOWN);
    if (s.size > TEXT_SHOWN)
        snprintf(end, (size_t)(out + CELL - end), " … (%zu bytes)", s.size);
}

static void number_text(const struct gguf_value *v, size_t i, char out[32]) {
    double number = gguf_item_number(v, i);
    if (v->type == GGUF_BOOL)
        strcpy(out, number != 0 ? "true" : "false");
    else if (v->type == GGUF_F32 || v->type == GGUF_F64)
        snprintf(out, 32, "%.7g", number);
    else
        snprintf(out, 32, "%.0f", number);
}

static void array_text(const struct gguf_value *v, char out[CELL]) {
    const unsigned char *at = v->data;
    char *end = out;
    *out = '\0';
    for (size_t i = 0; i < v->n && i < ITEMS_SHOWN && v->type != GGUF_ARRAY; i++) {
        char item[64];
        if (v->type == GGUF_STRING)
            put_string(item, gguf_next_string(&at), ITEM_SHOWN);
        else
            number_text(v, i, item);
        end += snprintf(end, (size_t)(out + CELL - end), "%s%s", i ? ", " : "", item);
    }
    if (v->n > ITEMS_SHOWN || v->type == GGUF_ARRAY)
        snprintf(end, (size_t)(out + CELL - end), "%s…", v->type == GGUF_ARRAY ? "" : ", ");
}

static void value_text(const struct gguf_value *v, char out[CELL]) {
    const unsigned char *at = v->data;
    if (v->is_array)
        array_text(v, out);
    else if (v->type == GGUF_STRING)
        string_text(gguf_next_string(&at), out);
    else
        number_text(v, 0, out);
}

static void value_type_text(const struct gguf_value *v, char out[CELL]) {
    const char *name = gguf_value_type_name(v->type);
    if (v->is_array)
        snprintf(out, CELL, "%s[%zu]", name, v->n);
    else
        snprintf(out, CELL, "%s", name);
}

// ---- tables ------------------------------------------------------------------------------------

// A table with that many rows below its titles; the first `left` columns are text.
static bool begin_table(struct markdown_table *t, size_t rows, const char *const *titles,
                        size_t cols, size_t left, struct error *err) {
    if (!markdown_table_init(t, rows + 1, cols, err))
        return false;
    bool ok = true;
    for (size_t c = 0; ok && c < cols; c++) {
        t->left[c] = c < left;
        ok = markdown_table_set(t, 0, c, titles[c], err);
    }
    return ok;
}

static bool set_row(struct markdown_table *t, size_t row, const char *const *cells,
                    struct error *err) {
    for (size_t c = 0; c < t->cols; c++)
        if (!markdown_table_set(t, row, c, cells[c], err))
            return false;
    return true;
}

static bool end_table(struct markdown_table *t, bool ok, FILE *out) {
    if (ok) {
        fputc('\n', out);
        markdown_table_print(t, out);
    }
    markdown_table_free(t);
    return ok;
}

static bool print_keys(const struct inspection *in) {
    static const char *const titles[] = {"Key", "Type", "Value"};
    struct markdown_table t = {0};
    bool ok = begin_table(&t, in->file->n_keys, titles, 3, 3, in->err);
    for (size_t i = 0; ok && i < in->file->n_keys; i++) {
        const struct gguf_key *key = &in->file->keys[i];
        char type[CELL], value[CELL];
        value_type_text(&key->value, type);
        value_text(&key->value, value);
        ok = set_row(&t, i + 1, (const char *const[]){key->name, type, value}, in->err);
    }
    return end_table(&t, ok, in->out);
}

static bool print_tensors(const struct inspection *in) {
    static const char *const titles[] = {"Tensor", "Shape", "Type", "Bytes", "Bits per weight"};
    struct markdown_table t = {0};
    bool ok = begin_table(&t, in->n, titles, 5, 3, in->err);
    for (size_t i = 0; ok && i < in->n; i++) {
        const struct tensor *tensor = in->lines[i].tensor;
        char shape[CELL], bytes[32], bits[32];
        shape_text(tensor, shape);
        snprintf(bytes, sizeof bytes, "%zu", tensor->bytes);
        bits_text(tensor->bytes, weights_of(tensor), bits);
        ok = set_row(&t, i + 1,
                     (const char *const[]){tensor->name, shape, in->lines[i].type, bytes, bits},
                     in->err);
    }
    return end_table(&t, ok, in->out);
}

// All tensors of one type; of all types where `type` is NULL.
struct total {
    const char *type;
    size_t tensors, weights, bytes;
    size_t counted_weights, counted_bytes;
    bool computed;
};

static struct total add_up(const struct inspection *in, const char *type) {
    struct total t = {.type = type ? type : "all", .computed = true};
    for (size_t i = 0; i < in->n; i++) {
        const struct line *l = &in->lines[i];
        if (type && strcmp(l->type, type) != 0)
            continue;
        t.tensors++;
        t.weights += weights_of(l->tensor);
        t.bytes += l->tensor->bytes;
        t.counted_weights += l->counted ? weights_of(l->tensor) : 0;
        t.counted_bytes += l->counted ? l->tensor->bytes : 0;
        t.computed &= l->computed;
    }
    return t;
}

static bool is_first_of_type(const struct inspection *in, size_t i) {
    for (size_t j = 0; j < i; j++)
        if (strcmp(in->lines[j].type, in->lines[i].type) == 0)
            return false;
    return true;
}

static int more_bytes_first(const void *a, const void *b) {
    size_t x = ((const struct total *)a)->bytes, y = ((const struct total *)b)->bytes;
    return (x < y) - (x > y);
}

enum { MAX_TYPES = 64 };

static bool print_totals(const struct inspection *in) {
    static const char *const titles[] = {"Type",    "Computed with", "Tensors",
                                         "Weights", "Bytes",         "Bits per weight"};
    struct total totals[MAX_TYPES + 1];
    size_t n = 0;
    for (size_t i = 0; i < in->n && n < MAX_TYPES; i++)
        if (is_first_of_type(in, i))
            totals[n++] = add_up(in, in->lines[i].type);
    qsort(totals, n, sizeof *totals, more_bytes_first);
    totals[n++] = add_up(in, NULL);
    struct markdown_table t = {0};
    bool ok = begin_table(&t, n, titles, 6, 2, in->err);
    for (size_t i = 0; ok && i < n; i++) {
        char tensors[32], weights[32], bytes[32], bits[32];
        snprintf(tensors, sizeof tensors, "%zu", totals[i].tensors);
        count_text((double)totals[i].weights, weights);
        markdown_bytes((double)totals[i].bytes, bytes);
        bits_text(totals[i].bytes, totals[i].weights, bits);
        ok = set_row(&t, i + 1,
                     (const char *const[]){totals[i].type, totals[i].computed ? "yes" : "no",
                                           tensors, weights, bytes, bits},
                     in->err);
    }
    return end_table(&t, ok, in->out);
}

// ---- the file ----------------------------------------------------------------------------------

// "3.21 B weights in 255 tensors, 1.88 GB, 4.687 bits per weight"; of a GGUF file, which weights
// those are, and a line of its own.
static void print_summary(const struct inspection *in) {
    struct total all = add_up(in, NULL);
    char weights[32], bytes[32], bits[32], counted[32];
    count_text((double)all.weights, weights);
    markdown_bytes((double)all.bytes, bytes);
    bits_text(all.bytes, all.weights, bits);
    bits_text(all.counted_bytes, all.counted_weights, counted);
    fprintf(in->out, "%s weights in %zu tensors, %s", weights, in->n, bytes);
    if (*counted)
        fprintf(in->out, "\n%s bits per weight, of " RESULT_BITS_OF "; %s of all tensors", counted,
                bits);
    else if (*bits)
        fprintf(in->out, ", %s bits per weight", bits);
    fputc('\n', in->out);
}

static void print_file(const struct gguf *g, FILE *out) {
    struct gguf_string arch = {"(none)", 6};
    struct error ignored;
    gguf_get_string(g, "general.architecture", &arch, &ignored);
    char text[CELL], *shown = NULL;
    string_text(arch, text);
    shown = utf8_clean(text, NULL);
    fprintf(out, "%s: GGUF version %" PRIu32 ", architecture %s", g->path, g->version,
            shown ? shown : "?");
    free(shown);
    if (g->n_parts > 1)
        fprintf(out, ", in %zu files", g->n_parts);
    fprintf(out, "\n");
}

static bool print_all(const struct inspection *in) {
    print_summary(in);
    return (!in->file || print_keys(in)) && (!in->n || (print_tensors(in) && print_totals(in)));
}

static struct line line_of(const struct gguf_tensor *t) {
    const struct gguf_type *type = gguf_type_of(t->type);
    bool quantized = type->block_weights > 1, in_block = strncmp(t->view.name, "blk.", 4) == 0;
    return (struct line){.tensor = &t->view,
                         .type = type->name,
                         .computed = t->view.format != NULL,
                         .counted = t->view.n_dims > 1 && (quantized || in_block)};
}

static bool inspect_gguf(const char *path, FILE *out, struct error *err) {
    struct gguf g;
    if (!gguf_open(&g, path, err))
        return false;
    struct inspection in = {.n = g.n_tensors, .file = &g, .out = out, .err = err};
    bool ok = (in.lines = memory_alloc(in.n, sizeof *in.lines, path, err));
    for (size_t i = 0; ok && i < in.n; i++)
        in.lines[i] = line_of(&g.tensors[i]);
    if (ok) {
        print_file(&g, out);
        ok = print_all(&in);
    }
    free(in.lines);
    gguf_close(&g);
    return ok;
}

static bool inspect_safetensors(const char *path, FILE *out, struct error *err) {
    struct safetensors s;
    if (!(folder_exists(path) ? safetensors_open(&s, path, err)
                              : safetensors_open_file(&s, path, err)))
        return false;
    struct inspection in = {.n = s.n_tensors, .out = out, .err = err};
    bool ok = (in.lines = memory_alloc(in.n, sizeof *in.lines, path, err));
    for (size_t i = 0; ok && i < in.n; i++)
        in.lines[i] = (struct line){.tensor = &s.tensors[i],
                                    .type = dtype_name(s.tensors[i].dtype),
                                    .computed = quant_format_of_dtype(s.tensors[i].dtype) != NULL};
    if (ok) {
        fprintf(out, "%s: safetensors", path);
        if (s.n_mappings > 1)
            fprintf(out, ", in %zu files", s.n_mappings);
        fprintf(out, "\n");
        ok = print_all(&in);
    }
    free(in.lines);
    safetensors_close(&s);
    return ok;
}

// What --model would take of it; where there is another choice, a line says so.
static bool inspect_folder(const char *folder, FILE *out, struct error *err) {
    struct error why = {0};
    char *config = path_join(folder, "config.json", err), *gguf = gguf_in_folder(folder, &why);
    bool ok = config, any = gguf || *why.message;
    if (ok && (file_exists(config) || !any)) {
        if (any)
            fprintf(out, "%s: this is the checkpoint; name the GGUF file beside it to see that\n",
                    folder);
        ok = inspect_safetensors(folder, out, err);
    } else if (ok && gguf) {
        fprintf(out, "%s: this is its only GGUF file\n", folder);
        ok = inspect_gguf(gguf, out, err);
    } else if (ok) {
        ok = error_set(err, "%s", why.message);
    }
    free(config);
    free(gguf);
    return ok;
}

bool gguf_inspect(const char *path, FILE *out, struct error *err) {
    const char *name = strrchr(path, '.');
    if (folder_exists(path))
        return inspect_folder(path, out, err);
    return (name && strcmp(name, ".safetensors") == 0 ? inspect_safetensors
                                                      : inspect_gguf)(path, out, err);
}
