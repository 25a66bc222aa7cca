#include "io/safetensors.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "io/json.h"

enum { HEADER_MAX = 100000000 }; // the format's own limit

static int compare_names(const void *a, const void *b) {
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

static int compare_data(const void *a, const void *b) {
    const struct tensor *x = *(const struct tensor *const *)a,
                        *y = *(const struct tensor *const *)b;
    if (x->data != y->data)
        return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

// Appends a tensor that has only a name yet; capacity is the next power of two.
static struct tensor *append_tensor(struct safetensors *s, const char *name, const char *path,
                                    struct error *err) {
    size_t n = s->n_tensors;
    if ((n & (n - 1)) == 0) {
        struct tensor *grown = realloc(s->tensors, (n ? 2 * n : 1) * sizeof *grown);
        if (!grown) {
            error_set(err, "%s: out of memory for %zu tensors", path, 2 * n);
            return NULL;
        }
        s->tensors = grown;
    }
    char *copy = memory_strdup(name, err);
    if (!copy)
        return NULL;
    s->tensors[n] = (struct tensor){.name = copy, .file = path};
    s->n_tensors++;
    return &s->tensors[n];
}

static bool parse_shape(const cJSON *shape, struct tensor *t, size_t *count, const char *path,
                        struct error *err) {
    *count = 1;
    const cJSON *dim;
    cJSON_ArrayForEach (dim, shape) {
        if (t->n_dims == TENSOR_MAX_DIMS)
            return error_set(err, "%s: tensor '%s' has more than %d dimensions", path, t->name,
                             TENSOR_MAX_DIMS);
        size_t *extent = &t->shape[t->n_dims++];
        if (!json_size(dim, extent) || !size_mul(*count, *extent, count))
            return error_set(err, "%s: tensor '%s' has a dimension that is no size", path, t->name);
    }
    return true;
}

// One entry: {"dtype": "BF16", "shape": [n, k], "data_offsets": [begin, end]}.
static bool parse_tensor(const cJSON *entry, struct tensor *t, const unsigned char *data,
                         size_t data_size, const char *path, struct error *err) {
    const cJSON *dtype = json_get(entry, "dtype"), *shape = json_get(entry, "shape");
    const cJSON *offsets = json_get(entry, "data_offsets");
    if (!cJSON_IsString(dtype) || !cJSON_IsArray(shape) || cJSON_GetArraySize(offsets) != 2)
        return error_set(err, "%s: tensor '%s' lacks a dtype, shape or data_offsets", path,
                         t->name);
    t->dtype = dtype_from_name(dtype->valuestring);
    if (t->dtype == DTYPE_COUNT)
        return error_set(err, "%s: tensor '%s' has dtype %s, expected F32, F16 or BF16", path,
                         t->name, dtype->valuestring);
    size_t count, begin, end, expected = SIZE_MAX;
    if (!parse_shape(shape, t, &count, path, err))
        return false;
    if (!json_size(cJSON_GetArrayItem(offsets, 0), &begin) ||
        !json_size(cJSON_GetArrayItem(offsets, 1), &end) || begin > end)
        return error_set(err, "%s: tensor '%s' has data_offsets that are no range", path, t->name);
    if (!size_mul(count, dtype_size(t->dtype), &expected) || expected != end - begin)
        return error_set(err, "%s: tensor '%s' has %zu bytes, expected %zu for its shape and %s",
                         path, t->name, end - begin, expected, dtype_name(t->dtype));
    if (end > data_size)
        return error_set(err, "%s: tensor '%s' ends at byte %zu of %zu bytes of data", path,
                         t->name, end, data_size);
    t->bytes = end - begin;
    t->data = (void *)(uintptr_t)(data + begin);
    return true;
}

// The format forbids holes and overlaps: the tensors, in order of their data, tile it exactly.
static bool check_tiling(const struct safetensors *s, size_t first, const unsigned char *data,
                         size_t data_size, const char *path, struct error *err) {
    size_t n = s->n_tensors - first;
    const struct tensor **order = memory_alloc(n, sizeof *order, path, err);
    if (!order)
        return false;
    for (size_t i = 0; i < n; i++)
        order[i] = &s->tensors[first + i];
    qsort(order, n, sizeof *order, compare_data);
    size_t at = 0;
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        size_t begin = (size_t)((const unsigned char *)order[i]->data - data);
        if (begin != at)
            ok = error_set(err, "%s: tensor '%s' begins at byte %zu of the data, expected %zu",
                           path, order[i]->name, begin, at);
        at = begin + order[i]->bytes;
    }
    if (ok && at != data_size)
        ok = error_set(err, "%s: the tensors end at byte %zu of %zu bytes of data", path, at,
                       data_size);
    free(order);
    return ok;
}

static bool append_note(struct safetensors *s, const char *key, const char *value,
                        struct error *err) {
    struct safetensors_note *grown = realloc(s->notes, (s->n_notes + 1) * sizeof *grown);
    if (grown)
        s->notes = grown;
    char *k = memory_strdup(key, err), *v = memory_strdup(value, err);
    if (!grown || !k || !v) {
        free(k);
        free(v);
        return error_set(err, "out of memory for %zu metadata entries", s->n_notes + 1);
    }
    s->notes[s->n_notes++] = (struct safetensors_note){k, v};
    return true;
}

// Entries that are no strings, which the format forbids, are passed over.
static bool parse_notes(struct safetensors *s, const cJSON *metadata, struct error *err) {
    const cJSON *note;
    cJSON_ArrayForEach (note, metadata)
        if (cJSON_IsString(note) && note->string &&
            !append_note(s, note->string, note->valuestring, err))
            return false;
    return true;
}

static bool parse_header(struct safetensors *s, const cJSON *header, const unsigned char *data,
                         size_t data_size, const char *path, struct error *err) {
    size_t first = s->n_tensors;
    const cJSON *entry;
    cJSON_ArrayForEach (entry, header) {
        if (strcmp(entry->string, "__metadata__") == 0) {
            if (!parse_notes(s, entry, err))
                return false;
            continue;
        }
        struct tensor *t = append_tensor(s, entry->string, path, err);
        if (!t || !parse_tensor(entry, t, data, data_size, path, err))
            return false;
    }
    return check_tiling(s, first, data, data_size, path, err);
}

bool safetensors_parse(struct safetensors *s, const void *bytes, size_t size, const char *path,
                       struct error *err) {
    const unsigned char *file = bytes;
    uint64_t header_size = 0;
    if (size < 8)
        return error_set(err, "%s: %zu bytes, too short for a safetensors file", path, size);
    for (int i = 0; i < 8; i++)
        header_size |= (uint64_t)file[i] << 8 * i;
    if (header_size > HEADER_MAX || header_size > size - 8)
        return error_set(err, "%s: the header ends at byte %" PRIu64 " of a %zu-byte file", path,
                         header_size > HEADER_MAX ? header_size : header_size + 8, size);
    cJSON *header = json_parse((const char *)file + 8, (size_t)header_size, path, err);
    if (!header)
        return false;
    const unsigned char *data = file + 8 + header_size;
    bool ok = cJSON_IsObject(header)
                  ? parse_header(s, header, data, size - 8 - (size_t)header_size, path, err)
                  : error_set(err, "%s: the header is not a JSON object", path);
    cJSON_Delete(header);
    return ok;
}

static bool add_file(struct safetensors *s, const char *path, struct error *err) {
    size_t n = s->n_mappings + 1;
    struct mapping *mappings = realloc(s->mappings, n * sizeof *mappings);
    if (mappings)
        s->mappings = mappings;
    char **paths = realloc(s->paths, n * sizeof *paths);
    if (paths)
        s->paths = paths;
    char *copy = memory_strdup(path, err);
    if (!mappings || !paths || !copy) {
        free(copy);
        return error_set(err, "%s: out of memory", path);
    }
    s->n_mappings = n;
    s->paths[n - 1] = copy;
    struct mapping *m = &s->mappings[n - 1];
    return mapping_open(m, copy, err) && safetensors_parse(s, m->data, m->size, copy, err);
}

// Sorts by name, for lookup, and refuses a name that occurs twice.
static bool sort_tensors(struct safetensors *s, struct error *err) {
    if (s->n_tensors)
        qsort(s->tensors, s->n_tensors, sizeof *s->tensors, compare_names);
    for (size_t i = 1; i < s->n_tensors; i++) {
        const struct tensor *a = &s->tensors[i - 1], *b = &s->tensors[i];
        if (strcmp(a->name, b->name) == 0)
            return error_set(err, "%s: tensor '%s' is also in %s", b->file, b->name, a->file);
    }
    return true;
}

static bool has_path(const struct safetensors *s, const char *path) {
    for (size_t i = 0; i < s->n_mappings; i++)
        if (strcmp(s->paths[i], path) == 0)
            return true;
    return false;
}

// A shard's name comes from a file: it must stay in the folder.
static bool add_shard(struct safetensors *s, const char *folder, const cJSON *shard,
                      const char *index_path, struct error *err) {
    if (!cJSON_IsString(shard) || !*shard->valuestring || strchr(shard->valuestring, '/'))
        return error_set(err, "%s: tensor '%s' is in no file of this folder", index_path,
                         shard->string);
    char *path = path_join(folder, shard->valuestring, err);
    bool ok = path && (has_path(s, path) || add_file(s, path, err));
    free(path);
    return ok;
}

static bool open_sharded(struct safetensors *s, const char *folder, const char *index_path,
                         struct error *err) {
    cJSON *index = json_parse_file(index_path, err);
    if (!index)
        return false;
    const cJSON *map = json_get(index, "weight_map"), *shard;
    bool ok = cJSON_IsObject(map) ? true : error_set(err, "%s: no object 'weight_map'", index_path);
    if (ok)
        cJSON_ArrayForEach (shard, map)
            if (!(ok = add_shard(s, folder, shard, index_path, err)))
                break;
    ok = ok && sort_tensors(s, err);
    if (ok)
        cJSON_ArrayForEach (shard, map)
            if (!safetensors_find(s, shard->string)) {
                ok = error_set(err, "%s: tensor '%s' is not in %s", index_path, shard->string,
                               shard->valuestring);
                break;
            }
    cJSON_Delete(index);
    return ok;
}

bool safetensors_open_file(struct safetensors *s, const char *path, struct error *err) {
    *s = (struct safetensors){0};
    if (add_file(s, path, err) && sort_tensors(s, err))
        return true;
    safetensors_close(s);
    return false;
}

bool safetensors_open(struct safetensors *s, const char *folder, struct error *err) {
    *s = (struct safetensors){0};
    char *single = path_join(folder, "model.safetensors", err);
    char *index = path_join(folder, "model.safetensors.index.json", err);
    bool ok = single && index;
    if (ok && file_exists(single))
        ok = add_file(s, single, err) && sort_tensors(s, err);
    else if (ok && file_exists(index))
        ok = open_sharded(s, folder, index, err);
    else if (ok)
        ok = error_set(err, "%s: no model.safetensors and no model.safetensors.index.json", folder);
    free(single);
    free(index);
    if (!ok)
        safetensors_close(s);
    return ok;
}

void safetensors_close(struct safetensors *s) {
    for (size_t i = 0; i < s->n_tensors; i++)
        free((void *)(uintptr_t)s->tensors[i].name);
    for (size_t i = 0; i < s->n_mappings; i++) {
        mapping_close(&s->mappings[i]);
        free(s->paths[i]);
    }
    for (size_t i = 0; i < s->n_notes; i++) {
        free((void *)(uintptr_t)s->notes[i].key);
        free((void *)(uintptr_t)s->notes[i].value);
    }
    free(s->notes);
    free(s->tensors);
    free(s->mappings);
    free(s->paths);
    *s = (struct safetensors){0};
}

const struct tensor *safetensors_find(const struct safetensors *s, const char *name) {
    struct tensor key = {.name = name};
    return s->n_tensors ? bsearch(&key, s->tensors, s->n_tensors, sizeof *s->tensors, compare_names)
                        : NULL;
}

const char *safetensors_note(const struct safetensors *s, const char *key) {
    for (size_t i = 0; i < s->n_notes; i++)
        if (strcmp(s->notes[i].key, key) == 0)
            return s->notes[i].value;
    return NULL;
}

void safetensors_drop(const struct safetensors *s, const void *p, size_t size) {
    uintptr_t at = (uintptr_t)p;
    for (size_t i = 0; i < s->n_mappings; i++) {
        uintptr_t begin = (uintptr_t)s->mappings[i].data;
        if (at >= begin && at - begin < s->mappings[i].size)
            mapping_drop(p, size);
    }
}

static cJSON *tensor_entry(const struct tensor *t, size_t begin) {
    cJSON *entry = cJSON_CreateObject(), *shape = cJSON_CreateArray(), *range = cJSON_CreateArray();
    for (int d = 0; d < t->n_dims; d++)
        cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->shape[d]));
    cJSON_AddItemToArray(range, cJSON_CreateNumber((double)begin));
    cJSON_AddItemToArray(range, cJSON_CreateNumber((double)(begin + t->bytes)));
    cJSON_AddStringToObject(entry, "dtype", dtype_name(t->dtype));
    cJSON_AddItemToObject(entry, "shape", shape);
    cJSON_AddItemToObject(entry, "data_offsets", range);
    return entry;
}

// The header's JSON, padded with spaces so that what follows it is aligned; the caller frees it.
static char *header_text(const struct tensor *tensors, size_t n,
                         const struct safetensors_note *notes, size_t n_notes, size_t align,
                         struct error *err) {
    cJSON *header = cJSON_CreateObject(),
          *metadata = cJSON_AddObjectToObject(header, "__metadata__");
    cJSON_AddStringToObject(metadata, "format", "pt");
    for (size_t i = 0; i < n_notes; i++)
        cJSON_AddStringToObject(metadata, notes[i].key, notes[i].value);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        cJSON_AddItemToObject(header, tensors[i].name, tensor_entry(&tensors[i], at));
        at += tensors[i].bytes;
    }
    char *text = cJSON_PrintUnformatted(header);
    cJSON_Delete(header);
    if (!text) {
        error_set(err, "out of memory for a safetensors header");
        return NULL;
    }
    size_t past = (8 + strlen(text)) % align;
    char *padded = memory_printf(err, "%s%*s", text, (int)(past ? align - past : 0), "");
    cJSON_free(text);
    return padded;
}

bool safetensors_writer_open(struct safetensors_writer *w, const char *path,
                             const struct tensor *tensors, size_t n,
                             const struct safetensors_note *notes, size_t n_notes, size_t align,
                             struct error *err) {
    *w = (struct safetensors_writer){0};
    for (size_t i = 0; i < n; i++)
        if (!size_add(w->missing, tensors[i].bytes, &w->missing))
            return error_set(err, "%s: the tensors overflow the address space", path);
    char *header = header_text(tensors, n, notes, n_notes, align, err);
    if (!header || !file_writer_open(&w->file, path, err)) {
        free(header);
        return false;
    }
    uint64_t size = strlen(header);
    unsigned char size_bytes[8];
    for (int i = 0; i < 8; i++)
        size_bytes[i] = (unsigned char)(size >> 8 * i);
    fwrite(size_bytes, 1, sizeof size_bytes, w->file.stream);
    fwrite(header, 1, (size_t)size, w->file.stream);
    free(header);
    return true;
}

void safetensors_writer_add(struct safetensors_writer *w, const void *data, size_t size) {
    if (size)
        fwrite(data, 1, size, w->file.stream);
    w->missing -= size; // beyond 0 it is huge, and commit refuses
}

bool safetensors_writer_commit(struct safetensors_writer *w, struct error *err) {
    if (w->missing) {
        error_set(err, "%s: %zu bytes of tensors are missing", w->file.path, w->missing);
        file_writer_abort(&w->file);
        return false;
    }
    return file_writer_commit(&w->file, err);
}

void safetensors_writer_abort(struct safetensors_writer *w) {
    file_writer_abort(&w->file);
}

bool safetensors_write(const char *path, const struct tensor *tensors, size_t n,
                       struct error *err) {
    struct safetensors_writer w;
    if (!safetensors_writer_open(&w, path, tensors, n, NULL, 0, 8, err))
        return false;
    for (size_t i = 0; i < n; i++)
        safetensors_writer_add(&w, tensors[i].data, tensors[i].bytes);
    return safetensors_writer_commit(&w, err);
}
