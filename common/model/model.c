#include "model/model.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "model/arch.h"
#include "model/device.h"
#include "model/packed.h"
#include "model/rope_scaling.h"
#include "quant/format.h"
#include "quant/woven.h"
#include "kernels/cpu/huge.h"

// ---- finding tensors --------------------------------------------------------------------------

struct loader {
    struct model *m;
    const struct arch *arch;
    const char *path;
    const char *prefix; // the one of arch->prefixes that this file uses
    struct error *err;
};

static void shape_text(const struct tensor *t, char *out, size_t size) {
    size_t at = 0;
    out[0] = '\0';
    for (int d = 0; d < t->n_dims && at < size; d++)
        at += (size_t)snprintf(out + at, size - at, "%s%zu", d ? ", " : "", t->shape[d]);
}

static const struct tensor *find_by_name(const struct loader *l, const char *name) {
    return l->m->gguf ? gguf_weights_find(l->m->gguf, name) : safetensors_find(l->m->files, name);
}

// The tensor of that name with exactly this shape (k = 0: a vector of n), in a type we compute
// with; matrices may be packed.
static const struct tensor *find_tensor(const struct loader *l, const char *name, size_t n,
                                        size_t k) {
    const struct tensor *t = find_by_name(l, name);
    if (!t) {
        error_set(l->err, "%s: tensor '%s' is missing, expected [%zu%s%.0zu]", l->path, name, n,
                  k ? ", " : "", k);
        return NULL;
    }
    if (t->n_dims != (k ? 2 : 1) || t->shape[0] != n || (k && t->shape[1] != k)) {
        char found[128];
        shape_text(t, found, sizeof found);
        error_set(l->err, "%s: tensor '%s' is [%s], expected [%zu%s%.0zu]", t->file, name, found, n,
                  k ? ", " : "", k);
        return NULL;
    }
    bool is_float = t->dtype == DTYPE_F32 || t->dtype == DTYPE_F16 || t->dtype == DTYPE_BF16;
    if (!is_float && (!k || !t->format)) {
        error_set(l->err, "%s: tensor '%s' is %s, expected F32, F16 or BF16", t->file, name,
                  t->format ? t->format->name : dtype_name(t->dtype));
        return NULL;
    }
    return t;
}

static bool load_vector(const struct loader *l, const char *name, size_t n, float **out) {
    const struct tensor *t = find_tensor(l, name, n, 0);
    if (!t || !(*out = memory_alloc(n, sizeof **out, name, l->err)))
        return false;
    dtype_to_f32(t->dtype, t->data, n, *out);
    return true;
}

// ---- matrices ---------------------------------------------------------------------------------

// src [k, n] -> dst [n, k], in tiles that fit the L1 cache.
static void transpose(char *dst, const char *src, size_t n, size_t k, size_t size) {
    enum { TILE = 32 };
#pragma omp parallel for schedule(static)
    for (size_t i0 = 0; i0 < n; i0 += TILE)
        for (size_t j0 = 0; j0 < k; j0 += TILE)
            for (size_t i = i0; i < n && i < i0 + TILE; i++)
                for (size_t j = j0; j < k && j < j0 + TILE; j++)
                    memcpy(dst + (i * k + j) * size, src + (j * n + i) * size, size);
}

// A view of the file's matrix t, or a copy where the file has it at an address no such type may
// have (files written before headers were padded, or by others).
static bool view_matrix(const struct loader *l, const struct tensor *t, struct linear *out) {
    size_t align = dtype_size(t->dtype), bytes = woven_bytes(t);
    if (t->dtype == DTYPE_BLOCK) // blocks hold float16s, planes and woven ones begin at cache lines
        align = t->format->block_weights && !t->woven ? sizeof(uint16_t) : PACKED_ALIGN;
    out->w = *t;
    if (!out->w.format)
        out->w.format = quant_format_of_dtype(t->dtype);
    if ((uintptr_t)t->data % align) {
        out->w.data =
            t->woven ? huge_alloc(bytes, t->name, l->err) : memory_alloc(bytes, 1, t->name, l->err);
        if (!out->w.data)
            return false;
        out->owns_data = true;
        memcpy(out->w.data, t->data, bytes);
    }
    return !t->woven || woven_layout(&out->w, &out->weave);
}

// A matrix [n, k]: a view, or a copy of our own where the file has it turned. Packed ones never
// are: they have a format before we give them one.
static bool load_matrix(const struct loader *l, const char *name, size_t n, size_t k,
                        bool transposed, struct linear *out) {
    const struct tensor *stored = find_by_name(l, name);
    bool turned = transposed && !(stored && stored->format);
    const struct tensor *t = turned ? find_tensor(l, name, k, n) : find_tensor(l, name, n, k);
    if (!t || !turned)
        return t && view_matrix(l, t, out);
    out->w = *t;
    out->w.format = quant_format_of_dtype(t->dtype);
    out->w.shape[0] = n;
    out->w.shape[1] = k;
    if (!(out->w.data = memory_alloc(t->bytes, 1, name, l->err)))
        return false;
    out->owns_data = true;
    transpose(out->w.data, t->data, n, k, dtype_size(t->dtype));
    return true;
}

// "<prefix><layer i><part><suffix>"; part may be a name outside the layers (layer == SIZE_MAX).
static const char *part_name(const struct loader *l, size_t layer, const char *part,
                             const char *suffix, char buffer[256]) {
    char layer_text[64] = "";
    if (layer != SIZE_MAX)
        snprintf(layer_text, sizeof layer_text, "%s.%zu.", l->arch->layer, layer);
    snprintf(buffer, 256, "%s%s%s%s", l->prefix, layer_text, part, suffix);
    return buffer;
}

static bool load_linear(const struct loader *l, size_t layer, enum layer_part part, size_t n,
                        size_t k, bool bias, struct linear *out) {
    char name[256];
    const char *base = l->arch->parts[part];
    bool transposed = l->arch->transposed && !l->m->gguf;
    if (!load_matrix(l, part_name(l, layer, base, ".weight", name), n, k, transposed, out))
        return false;
    return !bias || load_vector(l, part_name(l, layer, base, ".bias", name), n, &out->bias);
}

static bool load_norm(const struct loader *l, size_t layer, const char *part, size_t n,
                      struct norm *out) {
    char name[256];
    if (!load_vector(l, part_name(l, layer, part, ".weight", name), n, &out->gain))
        return false;
    return !l->arch->layernorm ||
           load_vector(l, part_name(l, layer, part, ".bias", name), n, &out->bias);
}

// Packed, they are a stack of three.
static bool load_qkv_stack(const struct loader *l, const struct tensor *stack,
                           struct linear *const parts[3], size_t rows, size_t hidden) {
    if (stack->shape[0] != 3 || stack->shape[1] != rows || stack->shape[2] != hidden)
        return error_set(l->err, "%s: tensor '%s' is [%zu, %zu, %zu], expected [3, %zu, %zu]",
                         stack->file, stack->name, stack->shape[0], stack->shape[1],
                         stack->shape[2], rows, hidden);
    for (size_t i = 0; i < 3; i++) {
        struct tensor t = packed_matrix(stack, i);
        if (!view_matrix(l, &t, parts[i]))
            return false;
    }
    return true;
}

// One matrix: k and v become views of the rows behind q's.
static bool load_qkv_rows(const struct loader *l, const char *name, struct linear *const parts[3],
                          size_t rows, size_t hidden) {
    struct linear all = {0};
    bool ok = load_matrix(l, name, 3 * rows, hidden, l->arch->transposed && !l->m->gguf, &all);
    if (ok && all.w.dtype == DTYPE_BLOCK && (!all.w.format->block_weights || all.w.woven))
        ok = error_set(l->err, "%s: tensor '%s' is packed as one matrix, expected a stack of three",
                       all.w.file, all.w.name);
    for (size_t i = 0; i < 3; i++) {
        *parts[i] = all;
        parts[i]->owns_data = all.owns_data && i == 0;
        parts[i]->w.shape[0] = rows;
        parts[i]->w.bytes = all.w.bytes / 3;
        if (ok)
            parts[i]->w.data = (char *)all.w.data + i * (all.w.bytes / 3);
    }
    return ok;
}

// GPT-2 stores q, k and v as one matrix and one bias.
static bool load_fused_qkv(const struct loader *l, size_t layer, struct layer *out) {
    const struct model_config *c = &l->m->config;
    const char *base = l->arch->parts[PART_Q];
    size_t rows = c->n_heads * c->head_dim;
    struct linear *const parts[3] = {&out->q, &out->k, &out->v};
    char name[256];
    const struct tensor *t = find_by_name(l, part_name(l, layer, base, ".weight", name));
    if (!(t && t->n_dims == 3 && t->format && !l->m->gguf
              ? load_qkv_stack(l, t, parts, rows, c->hidden)
              : load_qkv_rows(l, name, parts, rows, c->hidden)))
        return false;
    if (!c->attention_bias)
        return true;
    if (!load_vector(l, part_name(l, layer, base, ".bias", name), 3 * rows, &out->q.bias))
        return false;
    for (size_t i = 1; i < 3; i++) {
        if (!(parts[i]->bias = memory_alloc(rows, sizeof(float), "bias", l->err)))
            return false;
        memcpy(parts[i]->bias, out->q.bias + i * rows, rows * sizeof(float));
    }
    return true;
}

static bool load_qkv(const struct loader *l, size_t i, struct layer *out) {
    const struct model_config *c = &l->m->config;
    size_t q_rows = c->n_heads * c->head_dim, kv_rows = c->n_kv_heads * c->head_dim;
    if (l->arch->fused_qkv)
        return load_fused_qkv(l, i, out);
    return load_linear(l, i, PART_Q, q_rows, c->hidden, c->attention_bias, &out->q) &&
           load_linear(l, i, PART_K, kv_rows, c->hidden, c->attention_bias, &out->k) &&
           load_linear(l, i, PART_V, kv_rows, c->hidden, c->attention_bias, &out->v);
}

static bool load_qk_norms(const struct loader *l, size_t i, struct layer *out) {
    char name[256];
    const char *const *parts = l->arch->parts;
    size_t d = l->m->config.head_dim;
    if (!l->m->config.qk_norm)
        return true;
    return load_vector(l, part_name(l, i, parts[PART_Q_NORM], ".weight", name), d, &out->q_norm) &&
           load_vector(l, part_name(l, i, parts[PART_K_NORM], ".weight", name), d, &out->k_norm);
}

static bool load_layer(const struct loader *l, size_t i, struct layer *out) {
    const struct model_config *c = &l->m->config;
    const char *const *parts = l->arch->parts;
    size_t h = c->hidden, inner = c->intermediate, attention = c->n_heads * c->head_dim;
    return load_norm(l, i, parts[PART_ATTENTION_NORM], h, &out->attention_norm) &&
           load_qkv(l, i, out) && load_qk_norms(l, i, out) &&
           load_linear(l, i, PART_O, h, attention, c->output_bias, &out->o) &&
           load_norm(l, i, parts[PART_MLP_NORM], h, &out->mlp_norm) &&
           (!parts[PART_GATE] || load_linear(l, i, PART_GATE, inner, h, c->mlp_bias, &out->gate)) &&
           load_linear(l, i, PART_UP, inner, h, c->mlp_bias, &out->up) &&
           load_linear(l, i, PART_DOWN, h, inner, c->mlp_bias, &out->down);
}

// ---- the whole model ----------------------------------------------------------------------------

static bool find_prefix(struct loader *l) {
    char name[256];
    for (size_t i = 0; i < 2; i++) {
        l->prefix = l->arch->prefixes[i];
        if (find_by_name(l, part_name(l, SIZE_MAX, l->arch->embedding, ".weight", name)))
            return true;
    }
    return error_set(l->err, "%s: tensor '%s%s.weight' is missing, expected [%zu, %zu]", l->path,
                     l->arch->prefixes[0], l->arch->embedding, l->m->config.vocab,
                     l->m->config.hidden);
}

static bool load_head(const struct loader *l) {
    struct model *m = l->m;
    char name[256];
    snprintf(name, sizeof name, "%s.weight", l->arch->head);
    if (!m->config.tied)
        return load_matrix(l, name, m->config.vocab, m->config.hidden, false, &m->head);
    m->head = m->embedding;
    m->head.owns_data = false;
    return true;
}

static bool load_weights(struct loader *l) {
    struct model *m = l->m;
    const struct model_config *c = &m->config;
    const char *position = l->arch->position_embedding;
    char name[256];
    if (!find_prefix(l) ||
        !load_matrix(l, part_name(l, SIZE_MAX, l->arch->embedding, ".weight", name), c->vocab,
                     c->hidden, false, &m->embedding) ||
        !load_head(l))
        return false;
    if (position && !load_matrix(l, part_name(l, SIZE_MAX, position, ".weight", name),
                                 c->max_context, c->hidden, false, &m->position_embedding))
        return false;
    for (size_t i = 0; i < c->n_layers; i++)
        if (!load_layer(l, i, &m->layers[i]))
            return false;
    return load_norm(l, SIZE_MAX, l->arch->final_norm, c->hidden, &m->final_norm);
}

static bool open_files(struct model *m, const char *path, struct error *err) {
    if (file_exists(path))
        return (m->gguf = memory_alloc(1, sizeof *m->gguf, "checkpoint", err)) &&
               gguf_weights_open(m->gguf, path, &m->config, err);
    return model_config_read(&m->config, path, err) &&
           (m->files = memory_alloc(1, sizeof *m->files, "checkpoint", err)) &&
           safetensors_open(m->files, path, err) && packed_bind(m->files, err);
}

static bool set_int8_activations(void *user, struct linear *l) {
    const int8_t *codes;
    const float *scales;
    size_t step;
    if (l->w.woven && quant_takes_int8_activations(l->w.format))
        return error_set(user, "%s: tensor '%s' is woven, expected rows for int8 activations",
                         l->w.file, l->w.name);
    l->int8_activations = quant_int8_planes(&l->w, &codes, &scales, &step);
    return true;
}

static bool load_activations(const struct loader *l) {
    bool int8;
    if (!l->m->files)
        return true;
    if (!packed_activations(l->m->files, &int8, l->err))
        return false;
    return !int8 || model_visit_linears(l->m, set_int8_activations, l->err);
}

struct model *model_load(const char *path, struct error *err) {
    struct model *m = memory_alloc(1, sizeof *m, "model", err);
    if (!m)
        return NULL;
    m->config.bos = -1;
    bool ok = open_files(m, path, err) &&
              (m->layers = memory_alloc(m->config.n_layers, sizeof *m->layers, "layers", err));
    if (ok) {
        struct loader l = {m, m->config.arch, path, "", err};
        ok = load_weights(&l) && (!m->gguf || gguf_weights_check_used(m->gguf, err)) &&
             load_activations(&l) && rope_frequencies(&m->config, &m->inv_freq, err);
    }
    if (!ok) {
        model_free(m);
        return NULL;
    }
    return m;
}

// ---- visiting, counting, freeing --------------------------------------------------------------

bool model_visit_linears(struct model *m, linear_visitor *visit, void *user) {
    for (size_t i = 0; i < m->config.n_layers; i++) {
        struct layer *l = &m->layers[i];
        struct linear *all[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            if (all[j]->w.data && !visit(user, all[j]))
                return false;
    }
    return visit(user, &m->embedding) && (m->config.tied || visit(user, &m->head));
}

static bool add_linear_size(void *user, struct linear *l) {
    size_t *sizes = user; // bytes, parameters
    sizes[0] += l->w.bytes + (l->bias ? l->w.shape[0] * sizeof(float) : 0);
    sizes[1] += l->w.shape[0] * l->w.shape[1] + (l->bias ? l->w.shape[0] : 0);
    return true;
}

static void model_sizes(const struct model *m, size_t sizes[2]) {
    const struct model_config *c = &m->config;
    sizes[0] = sizes[1] = 0;
    model_visit_linears((struct model *)(uintptr_t)m, add_linear_size, sizes);
    size_t per_norm = c->hidden * (m->final_norm.bias ? 2 : 1);
    size_t norms =
        (2 * c->n_layers + 1) * per_norm + (c->qk_norm ? 2 * c->n_layers * c->head_dim : 0);
    sizes[0] += norms * sizeof(float) + m->position_embedding.w.bytes;
    sizes[1] += norms + (m->position_embedding.w.data ? c->max_context * c->hidden : 0);
}

size_t model_bytes(const struct model *m) {
    size_t sizes[2];
    model_sizes(m, sizes);
    return sizes[0];
}

size_t model_parameters(const struct model *m) {
    size_t sizes[2];
    model_sizes(m, sizes);
    return sizes[1];
}

static bool disown(void *user, struct linear *l) {
    (void)user;
    l->owns_data = false;
    return true;
}

struct model *model_share(const struct model *source, struct error *err) {
    struct model *m = memory_alloc(1, sizeof *m, "model", err);
    if (!m)
        return NULL;
    *m = *source;
    m->files = NULL;
    m->gguf = NULL;
    m->source = source;
    m->placed = NULL;
    m->layers = memory_alloc(m->config.n_layers, sizeof *m->layers, "layers", err);
    if (!m->layers) {
        free(m);
        return NULL;
    }
    memcpy(m->layers, source->layers, m->config.n_layers * sizeof *m->layers);
    model_visit_linears(m, disown, NULL);
    return m;
}

static bool free_linear(void *user, struct linear *l) {
    const struct model *m = user;
    if (l->owns_data && l->w.woven)
        woven_free(&l->weave);
    else if (l->owns_data)
        free(l->w.data);
    if (!m->source)
        free(l->bias);
    return true;
}

static void free_norm(struct norm *n) {
    free(n->gain);
    free(n->bias);
}

void model_free(struct model *m) {
    if (!m)
        return;
    model_detach(m);
    if (m->layers) {
        model_visit_linears(m, free_linear, m);
        for (size_t i = 0; i < m->config.n_layers && !m->source; i++) {
            free_norm(&m->layers[i].attention_norm);
            free_norm(&m->layers[i].mlp_norm);
            free(m->layers[i].q_norm);
            free(m->layers[i].k_norm);
        }
    }
    free(m->layers);
    if (!m->source) {
        free_linear(m, &m->position_embedding);
        free_norm(&m->final_norm);
        free(m->inv_freq);
        model_config_free(&m->config);
    }
    if (m->files)
        safetensors_close(m->files);
    if (m->gguf)
        gguf_weights_close(m->gguf);
    free(m->files);
    free(m->gguf);
    free(m);
}

void model_drop(const struct model *m, const void *p, size_t size) {
    if (m->files)
        safetensors_drop(m->files, p, size);
    if (m->gguf)
        gguf_drop(&m->gguf->file, p, size);
}
