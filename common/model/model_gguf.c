#include "model/model_gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "model/arch.h"

// ---- names --------------------------------------------------------------------------------------

static const struct {
    const char *name;
    enum layer_part part;
    bool fused;       // stands for q, k and v
    bool interleaved; // in architecture "llama"
} layer_parts[] = {
    {"attn_norm", PART_ATTENTION_NORM, false, false},
    {"attn_q", PART_Q, false, true},
    {"attn_k", PART_K, false, true},
    {"attn_v", PART_V, false, false},
    {"attn_qkv", PART_Q, true, false},
    {"attn_q_norm", PART_Q_NORM, false, false},
    {"attn_k_norm", PART_K_NORM, false, false},
    {"attn_output", PART_O, false, false},
    {"ffn_norm", PART_MLP_NORM, false, false},
    {"ffn_gate", PART_GATE, false, false},
    {"ffn_up", PART_UP, false, false},
    {"ffn_down", PART_DOWN, false, false},
};

// "attn_q.bias" -> "attn_q" and ".bias".
static bool cut_suffix(const char *name, char base[64], const char **suffix) {
    *suffix = strchr(name, '.');
    size_t n = *suffix ? (size_t)(*suffix - name) : 64;
    if (n >= 64 || (strcmp(*suffix, ".weight") != 0 && strcmp(*suffix, ".bias") != 0))
        return false;
    memcpy(base, name, n);
    base[n] = '\0';
    return true;
}

static bool layer_name(const struct model_config *c, const char *rest, char *out,
                       bool *interleaved) {
    char base[64], *end;
    const char *suffix;
    size_t layer = strtoul(rest, &end, 10);
    if (layer >= c->n_layers || *rest < '0' || *rest > '9' || (*rest == '0' && end != rest + 1) ||
        *end != '.' || !cut_suffix(end + 1, base, &suffix))
        return false;
    const struct arch *arch = c->arch;
    for (size_t i = 0; i < sizeof layer_parts / sizeof *layer_parts; i++) {
        const char *part = arch->parts[layer_parts[i].part];
        bool qkv = layer_parts[i].part == PART_Q;
        if (strcmp(layer_parts[i].name, base) != 0 || !part ||
            (qkv && layer_parts[i].fused != arch->fused_qkv))
            continue;
        *interleaved = layer_parts[i].interleaved && strcmp(arch->name, "llama") == 0;
        snprintf(out, GGUF_SOURCE_NAME, "%s%s.%zu.%s%s", arch->prefixes[0], arch->layer, layer,
                 part, suffix);
        return true;
    }
    return false;
}

bool gguf_source_name(const struct model_config *c, const char *name, char out[GGUF_SOURCE_NAME],
                      bool *interleaved) {
    const struct arch *arch = c->arch;
    const struct {
        const char *name, *prefix, *source;
    } others[] = {{"token_embd", arch->prefixes[0], arch->embedding},
                  {"position_embd", arch->prefixes[0], arch->position_embedding},
                  {"output_norm", arch->prefixes[0], arch->final_norm},
                  {"output", "", arch->head}};
    char base[64];
    const char *suffix;
    *interleaved = false;
    if (strncmp(name, "blk.", 4) == 0)
        return layer_name(c, name + 4, out, interleaved);
    if (!cut_suffix(name, base, &suffix))
        return false;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(others[i].name, base) == 0 && others[i].source) {
            snprintf(out, GGUF_SOURCE_NAME, "%s%s%s", others[i].prefix, others[i].source, suffix);
            return true;
        }
    return false;
}

// ---- weights ------------------------------------------------------------------------------------

static int compare_names(const void *a, const void *b) {
    return strcmp(((const struct gguf_weight *)a)->tensor.name,
                  ((const struct gguf_weight *)b)->tensor.name);
}

// Copies the rows of a matrix (the elements of a vector) to where a checkpoint has them.
static bool separate_halves(struct gguf_weight *w, size_t head_dim, struct error *err) {
    struct tensor *t = &w->tensor;
    size_t rows = t->n_dims ? t->shape[0] : 0, half = head_dim / 2;
    if (!rows || rows % head_dim)
        return error_set(err, "%s: tensor '%s' has %zu rows, expected a multiple of %zu", t->file,
                         t->name, rows, head_dim);
    size_t size = t->bytes / rows;
    char *copy = memory_alloc(rows, size, t->name, err);
    if (!copy)
        return false;
    for (size_t i = 0; i < rows; i++) {
        size_t head = i / head_dim * head_dim, in_head = i % head_dim;
        size_t from = head + in_head % half * 2 + in_head / half;
        memcpy(copy + i * size, (const char *)t->data + from * size, size);
    }
    t->data = copy;
    w->owns_data = true;
    return true;
}

static bool add_weight(struct gguf_weights *w, const struct gguf_tensor *from,
                       const struct model_config *c, struct error *err) {
    const struct tensor *t = &from->view;
    char name[GGUF_SOURCE_NAME];
    bool interleaved;
    if (strcmp(t->name, "rope_freqs.weight") == 0) // part of the config
        return true;
    if (!gguf_source_name(c, t->name, name, &interleaved))
        return error_set(err, "%s: tensor '%s' is none of a %s model's with %zu layers", t->file,
                         t->name, c->arch->name, c->n_layers);
    if (!t->format)
        return error_set(err, "%s: tensor '%s' is of type %s, which is not supported", t->file,
                         t->name, gguf_type_of(from->type)->name);
    if (!t->bytes) // of any number of rows, which would be moved one by one
        return error_set(err, "%s: tensor '%s' has no weights", t->file, t->name);
    struct gguf_weight *weight = &w->weights[w->n];
    weight->tensor = *t;
    if (!(weight->tensor.name = memory_strdup(name, err)))
        return false;
    w->n++;
    bool ok = !interleaved || separate_halves(weight, c->head_dim, err);
    if (interleaved)
        gguf_drop(&w->file, t->data, t->bytes);
    return ok;
}

static bool add_weights(struct gguf_weights *w, const struct model_config *c, struct error *err) {
    w->weights = memory_alloc(w->file.n_tensors, sizeof *w->weights, w->file.path, err);
    if (!w->weights)
        return false;
    for (size_t i = 0; i < w->file.n_tensors; i++)
        if (!add_weight(w, &w->file.tensors[i], c, err))
            return false;
    qsort(w->weights, w->n, sizeof *w->weights, compare_names);
    return true;
}

bool gguf_weights_open(struct gguf_weights *w, const char *path, struct model_config *c,
                       struct error *err) {
    *w = (struct gguf_weights){0};
    if (!gguf_open(&w->file, path, err))
        return false;
    if (model_config_from_gguf(c, &w->file, err) && add_weights(w, c, err))
        return true;
    gguf_weights_close(w);
    return false;
}

void gguf_weights_close(struct gguf_weights *w) {
    for (size_t i = 0; i < w->n; i++) {
        free((void *)(uintptr_t)w->weights[i].tensor.name);
        if (w->weights[i].owns_data)
            free(w->weights[i].tensor.data);
    }
    free(w->weights);
    gguf_close(&w->file);
    *w = (struct gguf_weights){0};
}

const struct tensor *gguf_weights_find(const struct gguf_weights *w, const char *name) {
    struct gguf_weight key = {.tensor = {.name = name}};
    struct gguf_weight *found =
        w->n ? bsearch(&key, w->weights, w->n, sizeof *w->weights, compare_names) : NULL;
    if (!found)
        return NULL;
    found->used = true;
    return &found->tensor;
}

bool gguf_weights_check_used(const struct gguf_weights *w, struct error *err) {
    for (size_t i = 0; i < w->n; i++)
        if (!w->weights[i].used)
            return error_set(err,
                             "%s: tensor '%s' would be ignored: this model computes without it",
                             w->weights[i].tensor.file, w->weights[i].tensor.name);
    return true;
}
