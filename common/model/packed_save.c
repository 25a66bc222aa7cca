// A tensor of the new file is one of the old file's as it is, or a matrix that was quantized since:
// a linear of the model whose data are not those of the checkpoint. Matrices that kernels read are
// written in the kernels' order: one that is not yet is woven in memory of its own, written, and
// let go.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/file.h"
#include "core/folder.h"
#include "core/memory.h"
#include "model/arch.h"
#include "model/packed.h"
#include "quant/format.h"
#include "quant/woven.h"

enum { MAX_PARTS = 3 }; // of a stack: q, k and v

struct item {
    const struct tensor *stored;           // in the checkpoint
    const struct tensor *parts[MAX_PARTS]; // what is written instead; [0] is NULL: nothing
    size_t n_parts;
    bool packed; // as bytes that the metadata describe
    bool woven;  // in the kernels' order
};

struct plan {
    struct safetensors *files; // the checkpoint
    struct item *items;        // [files->n_tensors]
    const struct model *root;
    const struct linear **linears; // of the model that is saved, in the order of visiting
    size_t n_linears, at;
    bool int8_activations;
    struct safetensors_note *notes;
    size_t n_notes;
    struct tensor *tensors; // as the header has them
};

// ---- what to write ------------------------------------------------------------------------------

static bool collect_linear(void *user, struct linear *l) {
    struct plan *p = user;
    if (p->linears)
        p->linears[p->n_linears] = l;
    p->n_linears++;
    p->int8_activations |= l->int8_activations;
    return true;
}

// Compares a linear of the checkpoint with the model's.
static bool plan_linear(void *user, struct linear *original) {
    struct plan *p = user;
    const struct linear *l = p->linears[p->at++];
    if (l->w.data == original->w.data)
        return true;
    const struct tensor *stored = safetensors_find(p->files, original->w.name);
    struct item *item = stored ? &p->items[stored - p->files->tensors] : NULL;
    if (item && item->n_parts < MAX_PARTS)
        item->parts[item->n_parts++] = &l->w;
    return item;
}

// Matrix i of an item.
static struct tensor item_matrix(const struct item *item, size_t i) {
    return item->n_parts ? *item->parts[i] : packed_matrix(item->stored, i);
}

static size_t item_count(const struct item *item) {
    bool stack = item->stored->format && item->stored->n_dims == 3;
    return item->n_parts ? item->n_parts : stack ? item->stored->shape[0] : 1;
}

// What is multiplied by activations in int8, all of them that can be, is read in rows.
static bool is_written_woven(const struct plan *p, const struct item *item) {
    const struct tensor t = item_matrix(item, 0);
    struct weave weave;
    return woven_layout(&t, &weave) &&
           !(p->int8_activations && quant_takes_int8_activations(t.format));
}

// Packed tensors first, whose sizes are multiples of 64, then by the size of an element: so every
// tensor is aligned.
static int compare_items(const void *a, const void *b) {
    const struct item *x = a, *y = b;
    if (x->packed != y->packed)
        return x->packed ? -1 : 1;
    size_t dx = dtype_size(item_matrix(x, 0).dtype), dy = dtype_size(item_matrix(y, 0).dtype);
    if (dx != dy)
        return dx > dy ? -1 : 1;
    return strcmp(x->stored->name, y->stored->name);
}

static bool plan_items(struct plan *p, const struct model *m, struct error *err) {
    struct model *model = (struct model *)(uintptr_t)m;
    model_visit_linears(model, collect_linear, p);
    p->items = memory_alloc(p->files->n_tensors, sizeof *p->items, "tensors", err);
    p->linears = memory_alloc(p->n_linears, sizeof(void *), "linears", err);
    if (!p->items || !p->linears)
        return false;
    p->n_linears = 0;
    model_visit_linears(model, collect_linear, p);
    for (size_t i = 0; i < p->files->n_tensors; i++)
        p->items[i].stored = &p->files->tensors[i];
    if (!model_visit_linears((struct model *)(uintptr_t)p->root, plan_linear, p))
        return error_set(err, "%s: a weight is not from this checkpoint", p->files->paths[0]);
    for (size_t i = 0; i < p->files->n_tensors; i++) {
        struct item *item = &p->items[i];
        // A float matrix that is not transposed could not be told from one that the checkpoint has.
        item->packed = item->n_parts ? item->parts[0]->dtype == DTYPE_BLOCK || item->n_parts > 1 ||
                                           m->config.arch->transposed
                                     : item->stored->format != NULL;
    }
    for (size_t i = 0; i < p->files->n_tensors; i++)
        p->items[i].woven = p->items[i].packed && is_written_woven(p, &p->items[i]);
    qsort(p->items, p->files->n_tensors, sizeof *p->items, compare_items);
    return true;
}

static size_t padding(size_t bytes) {
    return (PACKED_ALIGN - bytes % PACKED_ALIGN) % PACKED_ALIGN;
}

static bool add_note(struct plan *p, const char *key, char *value) {
    if (value)
        p->notes[p->n_notes++] = (struct safetensors_note){key, value};
    return value;
}

// What the header says of an item, and a note on it if it is packed.
static bool describe_item(struct plan *p, const struct item *item, struct tensor *out,
                          struct error *err) {
    const struct tensor t = item_matrix(item, 0);
    size_t count = item_count(item), bytes = t.bytes;
    struct weave weave;
    *out = t;
    out->name = item->stored->name;
    if (!item->packed)
        return true;
    char stack[24] = "";
    if (count > 1)
        snprintf(stack, sizeof stack, "%zu, ", count);
    if (item->woven && woven_layout(&t, &weave))
        bytes = weave_bytes(&weave);
    *out = (struct tensor){.name = item->stored->name,
                           .dtype = DTYPE_U8,
                           .n_dims = 1,
                           .bytes = count * (bytes + padding(bytes))};
    out->shape[0] = out->bytes;
    return add_note(p, out->name,
                    memory_printf(err, "%s%s [%s%zu, %zu]", t.format->name,
                                  item->woven ? " " PACKED_WOVEN : "", stack, t.shape[0],
                                  t.shape[1]));
}

static bool plan_header(struct plan *p, struct error *err) {
    size_t n = p->files->n_tensors;
    p->tensors = memory_alloc(n, sizeof *p->tensors, "tensors", err);
    p->notes = memory_alloc(n + 2, sizeof *p->notes, "notes", err);
    if (!p->tensors || !p->notes || !add_note(p, "nibble", memory_strdup(PACKED_VERSION, err)) ||
        (p->int8_activations && !add_note(p, "activations", memory_strdup("int8", err))))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!describe_item(p, &p->items[i], &p->tensors[i], err))
            return false;
    return true;
}

static void plan_free(struct plan *p) {
    for (size_t i = 0; i < p->n_notes; i++)
        free((void *)(uintptr_t)p->notes[i].value);
    free(p->notes);
    free(p->tensors);
    free(p->linears);
    free(p->items);
}

// ---- writing it ---------------------------------------------------------------------------------

static void write_padded(struct safetensors_writer *w, const void *data, size_t bytes) {
    static const char zeros[PACKED_ALIGN];
    safetensors_writer_add(w, data, bytes);
    safetensors_writer_add(w, zeros, padding(bytes));
}

static bool write_woven(const struct tensor *t, struct safetensors_writer *w, struct error *err) {
    struct weave weave;
    if (!woven_make(t, false, &weave, err))
        return false;
    write_padded(w, weave.data, weave_bytes(&weave));
    woven_free(&weave);
    return true;
}

static bool write_in_rows(const struct tensor *t, struct safetensors_writer *w, struct error *err) {
    void *rows = woven_undo(t, err);
    if (!rows)
        return false;
    write_padded(w, rows, t->bytes);
    free(rows);
    return true;
}

static bool write_item(const struct plan *p, const struct item *item, struct safetensors_writer *w,
                       struct error *err) {
    bool ok = true;
    for (size_t i = 0; ok && i < item_count(item); i++) {
        const struct tensor t = item_matrix(item, i);
        if (!item->packed)
            safetensors_writer_add(w, t.data, t.bytes);
        else if (t.woven == item->woven)
            write_padded(w, t.data, woven_bytes(&t));
        else
            ok = (item->woven ? write_woven : write_in_rows)(&t, w, err);
        safetensors_drop(p->files, t.data, woven_bytes(&t));
    }
    return ok;
}

static bool write_weights(const struct plan *p, const char *folder, size_t *file_bytes,
                          struct error *err) {
    struct safetensors_writer w = {0};
    struct stat st;
    char *path = path_join(folder, "model.safetensors", err);
    bool ok = path && safetensors_writer_open(&w, path, p->tensors, p->files->n_tensors, p->notes,
                                              p->n_notes, PACKED_ALIGN, err);
    for (size_t i = 0; ok && i < p->files->n_tensors; i++)
        ok = write_item(p, &p->items[i], &w, err);
    if (ok)
        ok = safetensors_writer_commit(&w, err);
    else
        safetensors_writer_abort(&w);
    if (ok && file_bytes)
        *file_bytes = stat(path, &st) == 0 ? (size_t)st.st_size : 0;
    free(path);
    return ok;
}

// The config, the tokenizer's files, a licence; not the weights, whatever their kind, nor what
// belongs to them.
static bool is_copied(const char *name) {
    static const char *const ends[] = {".json", ".jinja", ".txt", ".model"};
    size_t length = strlen(name);
    if (strcmp(name, "model.safetensors.index.json") == 0 || strcmp(name, "recipe.txt") == 0)
        return false;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (length > strlen(ends[i]) && strcmp(name + length - strlen(ends[i]), ends[i]) == 0)
            return true;
    return strncmp(name, "LICENSE", 7) == 0;
}

static bool write_recipe(const struct recipe *recipe, const char *folder, struct error *err) {
    char *path = path_join(folder, "recipe.txt", err);
    bool ok = path && recipe_write(recipe, path, err);
    free(path);
    return ok;
}

bool packed_save(const struct model *m, const struct recipe *recipe, const char *from,
                 const char *folder, size_t *file_bytes, struct error *err) {
    struct plan p = {.root = m};
    struct folder_writer w;
    while (p.root->source)
        p.root = p.root->source;
    if (!(p.files = p.root->files))
        return error_set(err, "%s: only models from a folder of safetensors can be saved", from);
    bool ok = plan_items(&p, m, err) && plan_header(&p, err) && folder_writer_open(&w, folder, err);
    if (ok) {
        ok = folder_copy_files(from, w.temporary, is_copied, err) &&
             (!recipe || write_recipe(recipe, w.temporary, err)) &&
             write_weights(&p, w.temporary, file_bytes, err);
        if (ok)
            ok = folder_writer_commit(&w, err);
        else
            folder_writer_abort(&w);
    }
    plan_free(&p);
    return ok;
}
