// One file from its bytes. Every number is read through take(), which knows where the file ends;
// counts are not believed: arrays grow with what is really there.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "io/gguf_internal.h"
#include "quant/format.h"

enum { MAX_DEPTH = 4 }; // arrays of arrays of …

struct reader {
    const unsigned char *data;
    size_t size, at;
    const char *path;
    char what[32]; // "key 12": what is being read, for messages
    struct error *err;
};

// The next n bytes, or NULL with a message where the file ends first.
static const unsigned char *take(struct reader *r, uint64_t n) {
    if (n > r->size - r->at) {
        error_set(r->err, "%s: %s needs %" PRIu64 " bytes at byte %zu of a %zu-byte file", r->path,
                  r->what, n, r->at, r->size);
        return NULL;
    }
    const unsigned char *p = r->data + r->at;
    r->at += (size_t)n;
    return p;
}

static bool take_number(struct reader *r, size_t size, uint64_t *out) {
    const unsigned char *p = take(r, size);
    if (p)
        *out = gguf_load(p, size);
    return p;
}

// A name in a new string: not empty, and without NULs within.
static char *take_name(struct reader *r) {
    uint64_t n;
    const unsigned char *p = take_number(r, 8, &n) ? take(r, n) : NULL;
    if (!p)
        return NULL;
    if (!n || memchr(p, 0, (size_t)n)) {
        error_set(r->err, "%s: %s has a name that is %s", r->path, r->what,
                  n ? "cut by a NUL" : "empty");
        return NULL;
    }
    char *name = memory_alloc((size_t)n + 1, 1, "a name", r->err);
    if (name)
        memcpy(name, p, (size_t)n);
    return name;
}

// ---- metadata -----------------------------------------------------------------------------------

static bool skip_array(struct reader *r, int depth, struct gguf_value *array);

static bool skip_value(struct reader *r, enum gguf_value_type type, int depth) {
    uint64_t n;
    struct gguf_value array;
    if (type == GGUF_STRING)
        return take_number(r, 8, &n) && take(r, n);
    if (type == GGUF_ARRAY)
        return skip_array(r, depth + 1, &array);
    return take(r, gguf_value_size(type));
}

static bool take_type(struct reader *r, enum gguf_value_type *type) {
    uint64_t number;
    if (!take_number(r, 4, &number))
        return false;
    *type = (enum gguf_value_type)number;
    return number < GGUF_VALUE_TYPES ||
           error_set(r->err, "%s: %s has a value of type %" PRIu64 ", expected 0 to %d", r->path,
                     r->what, number, GGUF_VALUE_TYPES - 1);
}

// Behind an array's items; the array says where they are.
static bool skip_array(struct reader *r, int depth, struct gguf_value *array) {
    enum gguf_value_type type;
    uint64_t n;
    if (depth > MAX_DEPTH)
        return error_set(r->err, "%s: %s has arrays in arrays more than %d deep", r->path, r->what,
                         MAX_DEPTH);
    if (!take_type(r, &type) || !take_number(r, 8, &n))
        return false;
    size_t start = r->at, item = gguf_value_size(type);
    if (item && n > (r->size - r->at) / item)
        return error_set(r->err, "%s: %s has %" PRIu64 " items at byte %zu of a %zu-byte file",
                         r->path, r->what, n, r->at, r->size);
    if (item)
        r->at += (size_t)n * item;
    else
        for (uint64_t i = 0; i < n; i++)
            if (!skip_value(r, type, depth))
                return false;
    *array = (struct gguf_value){type, true, (size_t)n, r->data + start, r->at - start};
    return true;
}

static bool read_value(struct reader *r, struct gguf_value *value) {
    enum gguf_value_type type;
    if (!take_type(r, &type))
        return false;
    if (type == GGUF_ARRAY)
        return skip_array(r, 1, value);
    size_t start = r->at;
    if (!skip_value(r, type, 0))
        return false;
    *value = (struct gguf_value){type, false, 1, r->data + start, r->at - start};
    return true;
}

static int compare_keys(const void *a, const void *b) {
    return strcmp((*(const struct gguf_key *const *)a)->name,
                  (*(const struct gguf_key *const *)b)->name);
}

static bool check_keys(const struct gguf *g, const char *path, struct error *err) {
    const struct gguf_key **order = memory_alloc(g->n_keys, sizeof *order, path, err);
    if (!order)
        return false;
    for (size_t i = 0; i < g->n_keys; i++)
        order[i] = &g->keys[i];
    qsort(order, g->n_keys, sizeof *order, compare_keys);
    bool ok = true;
    for (size_t i = 1; i < g->n_keys && ok; i++)
        if (compare_keys(&order[i - 1], &order[i]) == 0)
            ok = error_set(err, "%s: key '%s' occurs twice", path, order[i]->name);
    free(order);
    return ok;
}

static bool read_keys(struct gguf *g, struct reader *r, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        snprintf(r->what, sizeof r->what, "key %" PRIu64, i);
        struct gguf_key *keys =
            memory_grow(g->keys, g->n_keys, &g->key_capacity, sizeof *keys, "keys", r->err);
        if (!keys)
            return false;
        g->keys = keys;
        char *name = take_name(r);
        if (!name)
            return false;
        g->keys[g->n_keys] = (struct gguf_key){.name = name};
        if (!read_value(r, &g->keys[g->n_keys++].value))
            return false;
    }
    return check_keys(g, r->path, r->err);
}

// ---- tensors ------------------------------------------------------------------------------------

static enum dtype dtype_of(uint32_t type) {
    static const enum dtype plain[] = {
        [0] = DTYPE_F32,  [1] = DTYPE_F16,  [24] = DTYPE_I8,  [25] = DTYPE_I16,
        [26] = DTYPE_I32, [27] = DTYPE_I64, [28] = DTYPE_F64, [30] = DTYPE_BF16};
    bool is_plain = type == 0 || (type < sizeof plain / sizeof *plain && plain[type]);
    return is_plain ? plain[type] : DTYPE_BLOCK;
}

// Extents, innermost first in the file, outermost first in the tensor.
static bool read_shape(struct reader *r, struct tensor *t, size_t *count) {
    uint64_t n_dims, extents[TENSOR_MAX_DIMS];
    if (!take_number(r, 4, &n_dims))
        return false;
    if (n_dims > TENSOR_MAX_DIMS)
        return error_set(r->err, "%s: tensor '%s' has %" PRIu64 " dimensions, expected at most %d",
                         r->path, t->name, n_dims, TENSOR_MAX_DIMS);
    t->n_dims = (int)n_dims;
    *count = 1;
    for (size_t d = 0; d < n_dims; d++)
        if (!take_number(r, 8, &extents[d]))
            return false;
        else if (extents[d] > INT64_MAX || !size_mul(*count, (size_t)extents[d], count))
            return error_set(r->err, "%s: tensor '%s' has a dimension of %" PRIu64, r->path,
                             t->name, extents[d]);
    for (size_t d = 0; d < n_dims; d++)
        t->shape[d] = (size_t)extents[n_dims - 1 - d];
    return true;
}

static bool read_type(struct reader *r, struct gguf_tensor *t, size_t count) {
    uint64_t number;
    if (!take_number(r, 4, &number))
        return false;
    const struct gguf_type *type = gguf_type_of((uint32_t)number);
    struct tensor *v = &t->view;
    if (!type)
        return error_set(r->err, "%s: tensor '%s' is of type %" PRIu64 ", which is not known",
                         r->path, v->name, number);
    size_t row = v->n_dims ? v->shape[v->n_dims - 1] : 1;
    if (row % type->block_weights)
        return error_set(r->err,
                         "%s: tensor '%s' has rows of %zu weights, expected a multiple of "
                         "%zu for %s",
                         r->path, v->name, row, type->block_weights, type->name);
    t->type = (uint32_t)number;
    v->dtype = dtype_of(t->type);
    v->format =
        v->dtype == DTYPE_BLOCK ? quant_format_of_gguf(t->type) : quant_format_of_dtype(v->dtype);
    return size_mul(count / type->block_weights, type->block_bytes, &v->bytes) ||
           error_set(r->err, "%s: tensor '%s' overflows the address space", r->path, v->name);
}

// *offset counts from where the data will turn out to begin.
static bool read_tensor(struct gguf *g, struct reader *r, uint64_t *offset) {
    struct gguf_tensor *tensors = memory_grow(g->tensors, g->n_tensors, &g->tensor_capacity,
                                              sizeof *tensors, "tensors", r->err);
    if (!tensors)
        return false;
    g->tensors = tensors;
    char *name = take_name(r);
    if (!name)
        return false;
    struct gguf_tensor *t = &g->tensors[g->n_tensors++];
    *t = (struct gguf_tensor){.view = {.name = name, .file = r->path}, .part = g->n_parts};
    size_t count;
    return read_shape(r, &t->view, &count) && read_type(r, t, count) && take_number(r, 8, offset);
}

// Until the place of the data is known, a tensor's `data` is its offset.
static bool read_tensors(struct gguf *g, struct reader *r, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        uint64_t offset;
        snprintf(r->what, sizeof r->what, "tensor %" PRIu64, i);
        if (!read_tensor(g, r, &offset))
            return false;
        struct tensor *t = &g->tensors[g->n_tensors - 1].view;
        if (offset > SIZE_MAX || offset % g->alignment)
            return error_set(r->err,
                             "%s: tensor '%s' begins at byte %" PRIu64
                             " of the data, expected a multiple of %zu",
                             r->path, t->name, offset, g->alignment);
        t->data = (void *)(uintptr_t)offset;
    }
    return true;
}

static int compare_data(const void *a, const void *b) {
    const struct tensor *x = *(const struct tensor *const *)a,
                        *y = *(const struct tensor *const *)b;
    if (x->data != y->data)
        return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static bool check_overlaps(const struct gguf *g, size_t first, const char *path,
                           struct error *err) {
    size_t n = g->n_tensors - first;
    const struct tensor **order = memory_alloc(n, sizeof *order, path, err);
    if (!order)
        return false;
    for (size_t i = 0; i < n; i++)
        order[i] = &g->tensors[first + i].view;
    qsort(order, n, sizeof *order, compare_data);
    bool ok = true;
    for (size_t i = 1; i < n && ok; i++) {
        uintptr_t end = (uintptr_t)order[i - 1]->data + order[i - 1]->bytes;
        if (end > (uintptr_t)order[i]->data)
            ok = error_set(err, "%s: tensors '%s' and '%s' overlap", path, order[i - 1]->name,
                           order[i]->name);
    }
    free(order);
    return ok;
}

// The data begins at the next multiple of the alignment.
static bool place_tensors(struct gguf *g, size_t first, const struct reader *r) {
    size_t mask = g->alignment - 1, begin;
    if (!size_add(r->at, mask, &begin))
        return error_set(r->err, "%s: an alignment of %zu overflows", r->path, g->alignment);
    begin &= ~mask;
    size_t room = begin < r->size ? r->size - begin : 0;
    for (size_t i = first; i < g->n_tensors; i++) {
        struct tensor *t = &g->tensors[i].view;
        size_t offset = (size_t)(uintptr_t)t->data;
        if (offset > room || t->bytes > room - offset)
            return error_set(r->err,
                             "%s: tensor '%s' of %zu bytes begins at byte %zu of %zu bytes "
                             "of data",
                             r->path, t->name, t->bytes, offset, room);
        t->data = t->bytes ? (void *)(uintptr_t)(r->data + begin + offset) : NULL;
    }
    return check_overlaps(g, first, r->path, r->err);
}

// ---- the file -----------------------------------------------------------------------------------

// What came before GGUF, and what is not read.
static bool check_version(struct gguf *g, struct reader *r) {
    uint64_t version;
    strcpy(r->what, "the header");
    if (!r->size)
        return error_set(r->err, "%s: an empty file, expected a GGUF file", r->path);
    const unsigned char *magic = take(r, 4);
    if (!magic)
        return false;
    if (memcmp(magic, "GGUF", 4) != 0) {
        bool old = memcmp(magic, "tjgg", 4) == 0 || memcmp(magic, "fmgg", 4) == 0 ||
                   memcmp(magic, "lmgg", 4) == 0;
        return error_set(r->err,
                         old ? "%s: a file of the formats before GGUF, which are not read"
                             : "%s: does not begin with GGUF",
                         r->path);
    }
    if (!take_number(r, 4, &version))
        return false;
    if (version && !(version & 0xffff))
        return error_set(r->err, "%s: a big-endian GGUF file, which is not read", r->path);
    if (version < 2 || version > GGUF_VERSION)
        return error_set(r->err, "%s: GGUF version %" PRIu64 ", expected 2 or 3", r->path, version);
    g->version = (uint32_t)version;
    return true;
}

static bool read_alignment(struct gguf *g, struct error *err) {
    int64_t alignment = GGUF_ALIGNMENT;
    if (!gguf_get_int(g, "general.alignment", 1, 1 << 30, &alignment, err))
        return false;
    g->alignment = (size_t)alignment;
    return (alignment & (alignment - 1)) == 0 ||
           error_set(err, "%s: an alignment of %zu, expected a power of two", g->path,
                     g->alignment);
}

static bool read_split(const struct gguf *g, struct gguf_split *split, struct error *err) {
    *split = (struct gguf_split){.tensors = -1};
    return gguf_get_int(g, "split.count", 0, 99999, &split->count, err) &&
           gguf_get_int(g, "split.no", 0, 99998, &split->index, err) &&
           gguf_get_int(g, "split.tensors.count", 0, INT32_MAX, &split->tensors, err);
}

// Every one of them takes bytes.
static bool check_count(const struct reader *r, uint64_t n, const char *of) {
    return n <= r->size ||
           error_set(r->err, "%s: the header has %" PRIu64 " %s, in a %zu-byte file", r->path, n,
                     of, r->size);
}

static bool read_file(struct gguf *g, struct reader *r, struct gguf_split *split) {
    uint64_t n_tensors, n_keys;
    size_t first = g->n_tensors;
    return check_version(g, r) && take_number(r, 8, &n_tensors) && take_number(r, 8, &n_keys) &&
           check_count(r, n_tensors, "tensors") && check_count(r, n_keys, "keys") &&
           read_keys(g, r, n_keys) && read_alignment(g, r->err) && read_split(g, split, r->err) &&
           read_tensors(g, r, n_tensors) && place_tensors(g, first, r);
}

static void free_keys(struct gguf *g) {
    for (size_t i = 0; i < g->n_keys; i++)
        free(g->keys[i].name);
    free(g->keys);
}

bool gguf_add_file(struct gguf *g, const unsigned char *data, size_t size, const char *path,
                   struct gguf_split *split, struct error *err) {
    struct reader r = {.data = data, .size = size, .path = path, .err = err};
    // A later part's keys only say which part it is.
    struct gguf first = *g;
    g->keys = NULL;
    g->n_keys = g->key_capacity = 0;
    g->path = path;
    bool ok = read_file(g, &r, split);
    if (first.path) {
        free_keys(g);
        g->keys = first.keys;
        g->n_keys = first.n_keys;
        g->key_capacity = first.key_capacity;
        g->path = first.path;
        g->version = first.version;
        g->alignment = first.alignment;
    }
    return ok;
}
