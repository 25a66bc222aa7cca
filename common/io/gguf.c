#include "io/gguf.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "io/gguf_internal.h"

// "-00001-of-00003.gguf", which ends the name of one part of a split.
enum { PART_SUFFIX = 20 };

// ---- lookup -------------------------------------------------------------------------------------

static int compare_names(const void *a, const void *b) {
    return strcmp((*(const struct gguf_tensor *const *)a)->view.name,
                  (*(const struct gguf_tensor *const *)b)->view.name);
}

bool gguf_sort_tensors(struct gguf *g, struct error *err) {
    g->by_name = memory_alloc(g->n_tensors, sizeof *g->by_name, g->path, err);
    if (!g->by_name)
        return false;
    for (size_t i = 0; i < g->n_tensors; i++)
        g->by_name[i] = &g->tensors[i];
    qsort(g->by_name, g->n_tensors, sizeof *g->by_name, compare_names);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const struct tensor *a = &g->by_name[i - 1]->view, *b = &g->by_name[i]->view;
        if (strcmp(a->name, b->name) == 0)
            return error_set(err, "%s: tensor '%s' occurs twice", b->file, b->name);
    }
    return true;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name) {
    size_t low = 0, high = g->n_tensors;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, g->by_name[middle]->view.name);
        if (order == 0)
            return g->by_name[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

// ---- opening -----------------------------------------------------------------------------------

bool gguf_parse(struct gguf *g, const void *data, size_t size, const char *path,
                struct error *err) {
    struct gguf_split split;
    *g = (struct gguf){0};
    if (gguf_add_file(g, data, size, path, &split, err) && gguf_sort_tensors(g, err))
        return true;
    gguf_close(g);
    return false;
}

static bool add_part(struct gguf *g, const char *path, struct gguf_split *split,
                     struct error *err) {
    struct gguf_part *parts = realloc(g->parts, (g->n_parts + 1) * sizeof *parts);
    char *copy = memory_strdup(path, err);
    if (parts)
        g->parts = parts;
    struct mapping mapping;
    if (!parts || !copy || !mapping_open(&mapping, path, err)) {
        free(copy);
        return parts && copy ? false : error_set(err, "%s: out of memory", path);
    }
    bool ok = gguf_add_file(g, mapping.data, mapping.size, copy, split, err);
    g->parts[g->n_parts++] = (struct gguf_part){copy, mapping};
    return ok;
}

// Whether the path ends as part `index` of `count` should; parts are counted from 1 in names.
static bool is_part_name(const char *path, int64_t index, int64_t count) {
    char suffix[64];
    size_t n = strlen(path);
    snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", (int)index + 1, (int)count);
    return n > PART_SUFFIX && strcmp(path + n - PART_SUFFIX, suffix) == 0;
}

static char *part_path(const char *path, int64_t index, int64_t count, struct error *err) {
    return memory_printf(err, "%.*s-%05d-of-%05d.gguf", (int)(strlen(path) - PART_SUFFIX), path,
                         (int)index + 1, (int)count);
}

static bool open_part(struct gguf *g, const char *any, int64_t index,
                      const struct gguf_split *wanted, struct error *err) {
    struct gguf_split found;
    char *path = part_path(any, index, wanted->count, err);
    bool ok = path && add_part(g, path, &found, err);
    if (ok && (found.index != index || found.count != wanted->count))
        ok = error_set(err, "%s: says that it is part %d of %d, expected part %d of %d", path,
                       (int)found.index + 1, (int)found.count, (int)index + 1, (int)wanted->count);
    free(path);
    return ok;
}

// g holds one part: opens all of them, the first first, because it has the keys.
static bool open_split(struct gguf *g, const char *path, const struct gguf_split *split,
                       struct error *err) {
    gguf_close(g);
    if (!is_part_name(path, split->index, split->count))
        return error_set(err,
                         "%s: is part %d of %d, but the name does not end in "
                         "-%05d-of-%05d.gguf",
                         path, (int)split->index + 1, (int)split->count, (int)split->index + 1,
                         (int)split->count);
    for (int64_t i = 0; i < split->count; i++)
        if (!open_part(g, path, i, split, err))
            return false;
    if (split->tensors >= 0 && (size_t)split->tensors != g->n_tensors)
        return error_set(err, "%s: the %d parts have %zu tensors, expected %d", g->path,
                         (int)split->count, g->n_tensors, (int)split->tensors);
    return true;
}

bool gguf_open(struct gguf *g, const char *path, struct error *err) {
    struct gguf_split split;
    *g = (struct gguf){0};
    if (add_part(g, path, &split, err) && (split.count < 2 || open_split(g, path, &split, err)) &&
        gguf_sort_tensors(g, err))
        return true;
    gguf_close(g);
    return false;
}

void gguf_close(struct gguf *g) {
    for (size_t i = 0; i < g->n_keys; i++)
        free(g->keys[i].name);
    for (size_t i = 0; i < g->n_tensors; i++)
        free((void *)(uintptr_t)g->tensors[i].view.name);
    for (size_t i = 0; i < g->n_parts; i++) {
        mapping_close(&g->parts[i].mapping);
        free(g->parts[i].path);
    }
    free(g->keys);
    free(g->tensors);
    free(g->by_name);
    free(g->parts);
    *g = (struct gguf){0};
}

void gguf_drop(const struct gguf *g, const void *p, size_t size) {
    uintptr_t at = (uintptr_t)p;
    for (size_t i = 0; i < g->n_parts; i++) {
        uintptr_t begin = (uintptr_t)g->parts[i].mapping.data;
        if (at >= begin && at - begin < g->parts[i].mapping.size)
            mapping_drop(p, size);
    }
}

// ---- finding files -----------------------------------------------------------------------------

bool gguf_is_file(const char *path) {
    char magic[4] = "";
    FILE *f = fopen(path, "rb");
    bool is = f && fread(magic, 1, sizeof magic, f) == sizeof magic &&
              memcmp(magic, "GGUF", sizeof magic) == 0;
    if (f)
        fclose(f);
    return is;
}

static bool has_suffix(const char *name, const char *suffix) {
    size_t n = strlen(name), m = strlen(suffix);
    return n > m && strcmp(name + n - m, suffix) == 0;
}

// "-00002-of-00003.gguf" at the end of a name: 2 and 3.
static bool part_numbers(const char *name, int *index, int *count) {
    size_t n = strlen(name);
    int end = 0;
    return n > PART_SUFFIX &&
           sscanf(name + n - PART_SUFFIX, "-%5d-of-%5d.gguf%n", index, count, &end) == 2 &&
           end == PART_SUFFIX;
}

static bool is_later_part(const char *name) {
    int index, count;
    return part_numbers(name, &index, &count) && index > 1;
}

bool gguf_has_part(const char *gguf, const char *path) {
    int index, count;
    bool found = file_same(gguf, path);
    if (found || !part_numbers(gguf, &index, &count))
        return found;
    for (int i = 0; !found && i < count; i++) {
        char *part = part_path(gguf, i, count, NULL);
        found = part && file_same(part, path);
        free(part);
    }
    return found;
}

static int is_model_file(const struct dirent *e) {
    return has_suffix(e->d_name, ".gguf") && !is_later_part(e->d_name);
}

// "a.gguf, b.gguf", as far as it fits a message.
static void list_names(struct dirent *const *files, int n, char *out, size_t size) {
    *out = '\0';
    for (int i = 0; i < n; i++)
        snprintf(out + strlen(out), size - strlen(out), "%s%s", i ? ", " : "", files[i]->d_name);
}

char *gguf_in_folder(const char *folder, struct error *err) {
    struct dirent **files = NULL;
    int n = scandir(folder, &files, is_model_file, alphasort);
    char *found = n == 1 ? path_join(folder, files[0]->d_name, err) : NULL, names[600];
    if (n > 1) {
        list_names(files, n, names, sizeof names);
        error_set(err, "%s: has %d GGUF files, choose one of them: %s", folder, n, names);
    }
    for (int i = 0; i < n; i++)
        free(files[i]);
    free(files);
    return found;
}
