// Which tensors a model becomes, and by which rule each gets its type.
#include <string.h>

#include "core/memory.h"
#include "export/gguf_export.h"
#include "model/arch.h"
#include "model/rope_scaling.h"

// Matrices come with the suffix .weight; their biases are found beside them.
struct part {
    const char *name;
    enum gguf_role role;
    bool halves; // rows of a head's two halves, which rotary embedding turns together
};

static const struct part parts[] = {
    [GGUF_EMBEDDING] = {"token_embd", GGUF_EMBEDDING, false},
    [GGUF_OUTPUT] = {"output", GGUF_OUTPUT, false},
    [GGUF_Q] = {"attn_q", GGUF_Q, true},
    [GGUF_K] = {"attn_k", GGUF_K, true},
    [GGUF_V] = {"attn_v", GGUF_V, false},
    [GGUF_QKV] = {"attn_qkv", GGUF_QKV, false},
    [GGUF_O] = {"attn_output", GGUF_O, false},
    [GGUF_GATE] = {"ffn_gate", GGUF_GATE, false},
    [GGUF_UP] = {"ffn_up", GGUF_UP, false},
    [GGUF_DOWN] = {"ffn_down", GGUF_DOWN, false},
};

enum { NO_LAYER = -1 };

// ---- the list ---------------------------------------------------------------------------------

static struct gguf_plan_tensor *add(struct gguf_plan *plan, int64_t layer, const char *name,
                                    const char *suffix, struct error *err) {
    struct gguf_plan_tensor *list = memory_grow(plan->tensors, plan->n_tensors, &plan->capacity,
                                                sizeof *list, "list of tensors", err);
    if (!list)
        return NULL;
    plan->tensors = list;
    struct gguf_plan_tensor *t = &list[plan->n_tensors++];
    *t = (struct gguf_plan_tensor){.source = "", .layer = layer < 0 ? 0 : (size_t)layer};
    if (layer == NO_LAYER)
        snprintf(t->name, sizeof t->name, "%s%s", name, suffix);
    else
        snprintf(t->name, sizeof t->name, "blk.%zu.%s%s", t->layer, name, suffix);
    return t;
}

static bool add_vector(struct gguf_plan *plan, int64_t layer, const char *name, const char *suffix,
                       const float *values, size_t n, struct error *err) {
    struct gguf_plan_tensor *t = values ? add(plan, layer, name, suffix, err) : NULL;
    if (!t)
        return !values;
    t->vectors[0] = values;
    t->n_parts = 1;
    t->n = n;
    return true;
}

static bool add_norm(struct gguf_plan *plan, int64_t layer, const char *name, const struct norm *n,
                     struct error *err) {
    size_t hidden = plan->model->config.hidden;
    return add_vector(plan, layer, name, ".weight", n->gain, hidden, err) &&
           add_vector(plan, layer, name, ".bias", n->bias, hidden, err);
}

// llama.cpp's "llama" turns neighbouring rows together, other architectures the two halves of a
// head, as transformers does for all.
static size_t heads_of(const struct gguf_plan *plan, const struct part *part, size_t rows) {
    bool swapped = part->halves && strcmp(plan->arch, "llama") == 0;
    return swapped ? rows / plan->model->config.head_dim : 0;
}

// A matrix of the rows of all linears, one after another, and its bias if they have one.
static bool add_linears(struct gguf_plan *plan, int64_t layer, enum gguf_role role,
                        const struct linear *const *linears, size_t n_linears, struct error *err) {
    const struct part *part = &parts[role];
    if (!linears[0]->w.data)
        return true;
    struct gguf_plan_tensor *t = add(plan, layer, part->name, ".weight", err);
    if (!t)
        return false;
    t->source = linears[0]->w.name;
    t->role = role;
    t->k = linears[0]->w.shape[1];
    t->n_parts = n_linears;
    for (size_t i = 0; i < n_linears; i++) {
        t->parts[i] = &linears[i]->w;
        t->n += linears[i]->w.shape[0];
    }
    t->heads = heads_of(plan, part, t->n);
    size_t n = t->n, heads = t->heads;
    if (!linears[0]->bias)
        return true;
    if (!(t = add(plan, layer, part->name, ".bias", err)))
        return false;
    t->n = n;
    t->heads = heads;
    t->n_parts = n_linears;
    for (size_t i = 0; i < n_linears; i++)
        t->vectors[i] = linears[i]->bias;
    return true;
}

static bool add_linear(struct gguf_plan *plan, int64_t layer, enum gguf_role role,
                       const struct linear *l, struct error *err) {
    return add_linears(plan, layer, role, &l, 1, err);
}

static bool add_attention(struct gguf_plan *plan, int64_t layer, const struct layer *l,
                          struct error *err) {
    const struct linear *const qkv[] = {&l->q, &l->k, &l->v};
    size_t d = plan->model->config.head_dim;
    if (plan->model->config.arch->fused_qkv)
        return add_linears(plan, layer, GGUF_QKV, qkv, 3, err);
    return add_linear(plan, layer, GGUF_Q, &l->q, err) &&
           add_linear(plan, layer, GGUF_K, &l->k, err) &&
           add_linear(plan, layer, GGUF_V, &l->v, err) &&
           add_vector(plan, layer, "attn_q_norm", ".weight", l->q_norm, d, err) &&
           add_vector(plan, layer, "attn_k_norm", ".weight", l->k_norm, d, err);
}

static bool add_layer(struct gguf_plan *plan, size_t i, struct error *err) {
    const struct layer *l = &plan->model->layers[i];
    int64_t layer = (int64_t)i;
    return add_norm(plan, layer, "attn_norm", &l->attention_norm, err) &&
           add_attention(plan, layer, l, err) && add_linear(plan, layer, GGUF_O, &l->o, err) &&
           add_norm(plan, layer, "ffn_norm", &l->mlp_norm, err) &&
           add_linear(plan, layer, GGUF_GATE, &l->gate, err) &&
           add_linear(plan, layer, GGUF_UP, &l->up, err) &&
           add_linear(plan, layer, GGUF_DOWN, &l->down, err);
}

// llama3's scaling is a tensor of what each frequency is divided by; so is that of a GGUF file.
static bool add_rope_factors(struct gguf_plan *plan, struct error *err) {
    struct model_config plain = plan->model->config;
    size_t half = plain.head_dim / 2;
    float *factors;
    if (plain.rope.kind != ROPE_LLAMA3 && !plain.rope.factors)
        return true;
    if (strcmp(plan->arch, "llama") != 0)
        return error_set(err, "%s: GGUF has factors of the rotary frequencies only for llama",
                         plan->arch);
    if (plain.rope.kind == ROPE_LLAMA3)
        plain.rope.kind = ROPE_DEFAULT;
    plain.rope.factors = NULL;
    if (!rope_frequencies(&plain, &factors, err))
        return false;
    for (size_t i = 0; i < half; i++)
        factors[i] /= plan->model->inv_freq[i];
    plan->rope_factors = factors;
    return add_vector(plan, NO_LAYER, "rope_freqs", ".weight", factors, half, err);
}

// Positions are looked up, not multiplied: llama.cpp keeps them in float32.
static bool add_positions(struct gguf_plan *plan, struct error *err) {
    const struct tensor *w = &plan->model->position_embedding.w;
    struct gguf_plan_tensor *t =
        w->data ? add(plan, NO_LAYER, "position_embd", ".weight", err) : NULL;
    if (!t)
        return !w->data;
    t->source = w->name;
    t->parts[0] = w;
    t->n_parts = 1;
    t->n = w->shape[0];
    t->k = w->shape[1];
    t->format = quant_format_of_dtype(DTYPE_F32);
    return true;
}

static bool list_tensors(struct gguf_plan *plan, const struct model *m, struct error *err) {
    const char *arch = m->config.arch->name;
    *plan = (struct gguf_plan){.model = m, .arch = strcmp(arch, "mistral") ? arch : "llama"};
    bool ok =
        add_linear(plan, NO_LAYER, GGUF_EMBEDDING, &m->embedding, err) && add_positions(plan, err);
    for (size_t i = 0; ok && i < m->config.n_layers; i++)
        ok = add_layer(plan, i, err);
    return ok && add_norm(plan, NO_LAYER, "output_norm", &m->final_norm, err) &&
           (m->config.tied || add_linear(plan, NO_LAYER, GGUF_OUTPUT, &m->head, err)) &&
           add_rope_factors(plan, err);
}

void gguf_plan_free(struct gguf_plan *plan) {
    free(plan->tensors);
    free(plan->rope_factors);
    *plan = (struct gguf_plan){0};
}

// ---- types ------------------------------------------------------------------------------------

// A matrix that has no type yet becomes `wanted`, or what fits its rows.
static bool set_type(struct gguf_plan_tensor *t, enum gguf_type_number wanted, struct error *err) {
    enum gguf_type_number fitting = gguf_fitting_type(wanted, t->k);
    t->wanted = wanted;
    t->format = quant_format_of_gguf(fitting);
    return t->format ||
           error_set(err, "%s: no weight format for GGUF's type %d", t->name, (int)fitting);
}

static bool set_sizes(struct gguf_plan *plan, struct error *err) {
    for (size_t i = 0; i < plan->n_tensors; i++) {
        struct gguf_plan_tensor *t = &plan->tensors[i];
        if (!t->k)
            t->format = quant_format_of_dtype(DTYPE_F32);
        if (!t->format->bytes(t->format, t->k ? t->n : 1, t->k ? t->k : t->n, &t->bytes))
            return error_set(err, "%s: [%zu, %zu] in %s overflows", t->name, t->n, t->k,
                             t->format->name);
    }
    return true;
}

static enum gguf_type_number type_of(const struct quant_format *f) {
    return f->gguf_type ? (enum gguf_type_number)(f->gguf_type - 1) : gguf_nearest_type(f);
}

// A matrix that is not to be quantized.
static const struct quant_format *kept_format(const struct gguf_plan_tensor *t) {
    const struct quant_format *f = t->parts[0]->format;
    return f->gguf_type ? f : quant_format_of_dtype(DTYPE_F16);
}

static bool is_kept(const struct gguf_plan_tensor *t, const char *only, const char *skip) {
    return (only && !pattern_match(only, t->source)) || (skip && pattern_match(skip, t->source));
}

static bool apply_preset(struct gguf_plan *plan, const struct gguf_preset *preset, const char *only,
                         const char *skip, struct error *err) {
    const struct model_config *c = &plan->model->config;
    const struct gguf_mix mix =
        gguf_mix_of(plan->arch, c->n_layers, c->n_heads, c->n_kv_heads, c->tied);
    plan->file_type = preset->file_type;
    for (size_t i = 0; i < plan->n_tensors; i++) {
        struct gguf_plan_tensor *t = &plan->tensors[i];
        if (!t->k || t->format)
            continue;
        enum gguf_type_number type = is_kept(t, only, skip)
                                         ? type_of(kept_format(t))
                                         : gguf_mix_type(preset, &mix, t->role, t->layer, t->k);
        if (!set_type(t, type, err))
            return false;
    }
    return set_sizes(plan, err);
}

// What most weights are in names the file.
static uint32_t main_file_type(const struct gguf_plan *plan) {
    enum { TYPES = 64 };
    size_t weights[TYPES] = {0}, best = 0;
    for (size_t i = 0; i < plan->n_tensors; i++) {
        const struct gguf_plan_tensor *t = &plan->tensors[i];
        size_t type = t->k ? (size_t)(t->format->gguf_type - 1) : TYPES;
        if (type < TYPES)
            weights[type] += t->n * t->k;
    }
    for (size_t i = 1; i < TYPES; i++)
        if (weights[i] > weights[best])
            best = i;
    return gguf_file_type_of((enum gguf_type_number)best);
}

static bool apply_recipe(struct gguf_plan *plan, const struct recipe *recipe, struct error *err) {
    for (size_t i = 0; i < plan->n_tensors; i++) {
        struct gguf_plan_tensor *t = &plan->tensors[i];
        if (!t->k || t->format)
            continue;
        const struct recipe_rule *rule = recipe_find(recipe, t->source);
        t->asked = rule && rule->format ? rule->format : kept_format(t);
        t->search = rule && rule->search;
        if (!set_type(t, type_of(t->asked), err))
            return false;
    }
    plan->file_type = main_file_type(plan);
    return set_sizes(plan, err);
}

bool gguf_plan_preset(struct gguf_plan *plan, const struct model *m,
                      const struct gguf_preset *preset, const char *only, const char *skip,
                      struct error *err) {
    bool ok = list_tensors(plan, m, err) && apply_preset(plan, preset, only, skip, err);
    if (!ok)
        gguf_plan_free(plan);
    return ok;
}

bool gguf_plan_recipe(struct gguf_plan *plan, const struct model *m, const struct recipe *recipe,
                      struct error *err) {
    bool ok = list_tensors(plan, m, err) && apply_recipe(plan, recipe, err);
    if (!ok)
        gguf_plan_free(plan);
    return ok;
}

// Of a matrix that bits per weight are counted of (RESULT_BITS_OF).
static bool is_counted(const struct gguf_plan_tensor *t) {
    bool in_block = t->role != GGUF_EMBEDDING && t->role != GGUF_OUTPUT;
    return t->k && (in_block || t->format->dtype == DTYPE_BLOCK);
}

void gguf_plan_sizes(const struct gguf_plan *plan, struct gguf_plan_size *size) {
    *size = (struct gguf_plan_size){0};
    for (size_t i = 0; i < plan->n_tensors; i++) {
        const struct gguf_plan_tensor *t = &plan->tensors[i];
        size_t asked = t->bytes;
        if (!is_counted(t))
            continue;
        if (t->asked && !t->asked->bytes(t->asked, t->n, t->k, &asked))
            asked = t->bytes;
        size->weights += t->n * t->k;
        size->bytes += t->bytes;
        size->asked_bytes += asked;
    }
}
