// The CPU's operations of a forward pass (model/device.h): rows of float32, kernels/cpu.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "kernels/cpu/kernels.h"
#include "model/arch.h"
#include "model/device.h"
#include "quant/format.h"

// Activations of a pass of up to T tokens.
struct workspace {
    float *x;                        // [T, H] the residual stream
    float *normed;                   // [T, H]
    float *q;                        // [T, A·D]
    float *k, *v;                    // [T, B·D]
    float *attention;                // [T, A·D]
    float *gate, *up;                // [T, I]
    float *sum;                      // [T, H] what a sub-layer adds to x
    struct attention_query *queries; // [T]
    float *memory;
};

static bool workspace_init(struct workspace *ws, const struct model_config *c, size_t t,
                           struct error *err) {
    size_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    size_t per_token = 3 * c->hidden + 2 * q + 2 * kv + 2 * c->intermediate;
    ws->memory = memory_alloc(t, per_token * sizeof(float), "activations", err);
    ws->queries = memory_alloc(t, sizeof *ws->queries, "activations", err);
    if (!ws->memory || !ws->queries)
        return false;
    float *at = ws->memory;
    struct {
        float **part;
        size_t width;
    } parts[] = {{&ws->x, c->hidden}, {&ws->normed, c->hidden},     {&ws->sum, c->hidden},
                 {&ws->q, q},         {&ws->attention, q},          {&ws->k, kv},
                 {&ws->v, kv},        {&ws->gate, c->intermediate}, {&ws->up, c->intermediate}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        *parts[i].part = at;
        at += t * parts[i].width;
    }
    return true;
}

static void workspace_free(struct workspace *ws) {
    free(ws->memory);
    free(ws->queries);
}

static size_t sequence_of(const struct batch *b, size_t t) {
    return b->sequences ? (size_t)b->sequences[t] : 0;
}

static void read_row(const struct linear *l, size_t row, float *out) {
    quant_read(&l->w, row, 0, l->w.shape[1], out);
}

static void embed(const struct model *m, const struct batch *b, struct workspace *ws) {
    size_t h = m->config.hidden;
    for (size_t t = 0; t < b->n; t++) {
        read_row(&m->embedding, (size_t)b->tokens[t], ws->x + t * h);
        if (m->position_embedding.w.data) {
            read_row(&m->position_embedding, (size_t)b->positions[t], ws->sum + t * h);
            add_to(ws->x + t * h, ws->sum + t * h, h);
        }
    }
}

static void normalize(const struct model *m, const struct norm *n, const float *x, size_t rows,
                      float *out) {
    size_t h = m->config.hidden;
    if (m->config.arch->layernorm)
        layernorm(out, x, rows, h, n->gain, n->bias, m->config.norm_eps);
    else
        rmsnorm(out, x, rows, h, n->gain, m->config.norm_eps);
}

// Where the keys (or values) of a sequence's first head and position lie in this layer.
static size_t cache_offset(const struct kv_cache *kv, size_t layer, size_t sequence) {
    return (layer * kv->n_sequences + sequence) * kv->n_kv_heads * kv->capacity * kv->head_dim;
}

static void store_kv(const struct kv_cache *kv, size_t layer, const struct batch *b,
                     const struct workspace *ws) {
    size_t d = kv->head_dim, row = kv->n_kv_heads * d;
    for (size_t t = 0; t < b->n; t++)
        for (size_t head = 0; head < kv->n_kv_heads; head++) {
            size_t to = cache_offset(kv, layer, sequence_of(b, t)) +
                        (head * kv->capacity + (size_t)b->positions[t]) * d;
            memcpy(kv->k + to, ws->k + t * row + head * d, d * sizeof(float));
            memcpy(kv->v + to, ws->v + t * row + head * d, d * sizeof(float));
        }
}

static void attend(const struct model *m, const struct kv_cache *kv, size_t layer,
                   const struct batch *b, struct workspace *ws) {
    const struct model_config *c = &m->config;
    int32_t window = model_config_layer_windowed(c, layer) ? (int32_t)c->sliding_window : INT32_MAX;
    for (size_t t = 0; t < b->n; t++) {
        size_t at = cache_offset(kv, layer, sequence_of(b, t));
        int32_t last = b->positions[t];
        ws->queries[t] = (struct attention_query){.k = kv->k + at,
                                                  .v = kv->v + at,
                                                  .head_stride = kv->capacity * kv->head_dim,
                                                  .first = last < window ? 0 : last - window + 1,
                                                  .last = last};
    }
    // Attention rounds what the layer's products round.
    bool rounds = linear_rounds(&m->layers[layer].q);
    (rounds ? attention_rounded : attention)(ws->attention, ws->q, b->n, c->n_heads, c->n_kv_heads,
                                             c->head_dim, ws->queries,
                                             1.0f / sqrtf((float)c->head_dim));
}

// Linears that read the same x.
static bool apply(const struct pass *p, float *const *y, const struct linear *const *l, size_t n,
                  const float *x, struct error *err) {
    for (size_t i = 0; p->observe && i < n; i++)
        p->observe(p->user, l[i], x, p->b->n);
    return linears_forward(y, l, n, x, p->b->n, err);
}

void model_final_norm(const struct model *m, const float *x, size_t n, float *hidden) {
    normalize(m, &m->final_norm, x, n, hidden);
}

// ---- the device ---------------------------------------------------------------------------------

static bool cpu_open(struct pass *p, size_t tokens, struct error *err) {
    p->state = memory_alloc(1, sizeof(struct workspace), "activations", err);
    return p->state && workspace_init(p->state, &p->m->config, tokens, err);
}

static void cpu_close(struct pass *p) {
    if (p->state)
        workspace_free(p->state);
    free(p->state);
    p->state = NULL;
}

static bool cpu_begin(struct pass *p, struct error *err) {
    (void)p, (void)err;
    return true;
}

static bool cpu_embed(struct pass *p, struct error *err) {
    (void)err;
    embed(p->m, p->b, p->state);
    return true;
}

static bool cpu_put(struct pass *p, const float *x, struct error *err) {
    (void)err;
    memcpy(((struct workspace *)p->state)->x, x, p->b->n * p->m->config.hidden * sizeof *x);
    return true;
}

static bool cpu_get(struct pass *p, float *x, struct error *err) {
    (void)err;
    memcpy(x, ((struct workspace *)p->state)->x, p->b->n * p->m->config.hidden * sizeof *x);
    return true;
}

static bool cpu_norm(struct pass *p, size_t layer, bool mlp, struct error *err) {
    struct workspace *ws = p->state;
    const struct layer *l = &p->m->layers[layer];
    const struct norm *n = mlp ? &l->mlp_norm : &l->attention_norm;
    (void)err;
    normalize(p->m, n, ws->x, p->b->n, ws->normed);
    return true;
}

static bool cpu_project(struct pass *p, size_t layer, struct error *err) {
    struct workspace *ws = p->state;
    const struct model_config *c = &p->m->config;
    const struct layer *l = &p->m->layers[layer];
    size_t t = p->b->n, d = c->head_dim;
    float *const qkv[] = {ws->q, ws->k, ws->v};
    if (!apply(p, qkv, (const struct linear *const[]){&l->q, &l->k, &l->v}, 3, ws->normed, err))
        return false;
    if (l->q_norm) {
        rmsnorm(ws->q, ws->q, t * c->n_heads, d, l->q_norm, c->norm_eps);
        rmsnorm(ws->k, ws->k, t * c->n_kv_heads, d, l->k_norm, c->norm_eps);
    }
    if (p->m->inv_freq) {
        rope(ws->q, c->n_heads * d, t, c->n_heads, d, p->b->positions, p->m->inv_freq);
        rope(ws->k, c->n_kv_heads * d, t, c->n_kv_heads, d, p->b->positions, p->m->inv_freq);
    }
    store_kv(p->kv, layer, p->b, ws);
    return true;
}

static bool cpu_attend(struct pass *p, size_t layer, struct error *err) {
    (void)err;
    attend(p->m, p->kv, layer, p->b, p->state);
    return true;
}

// x += l(from)
static bool add_linear(struct pass *p, const struct linear *l, const float *from,
                       struct error *err) {
    struct workspace *ws = p->state;
    if (!apply(p, &ws->sum, &l, 1, from, err))
        return false;
    add_to(ws->x, ws->sum, p->b->n * p->m->config.hidden);
    return true;
}

static bool cpu_output(struct pass *p, size_t layer, struct error *err) {
    return add_linear(p, &p->m->layers[layer].o, ((struct workspace *)p->state)->attention, err);
}

static bool cpu_inner(struct pass *p, size_t layer, struct error *err) {
    struct workspace *ws = p->state;
    const struct layer *l = &p->m->layers[layer];
    size_t inner = p->b->n * p->m->config.intermediate;
    bool gelu = p->m->config.arch->gelu;
    float *const both[] = {ws->up, ws->gate};
    if (!apply(p, both, (const struct linear *const[]){&l->up, &l->gate}, gelu ? 1 : 2, ws->normed,
               err))
        return false;
    if (gelu)
        gelu_tanh(ws->up, ws->up, inner);
    return true;
}

// What goes into it is silu(gate) * up, unless the architecture has no gate.
static bool cpu_down(struct pass *p, size_t layer, struct error *err) {
    struct workspace *ws = p->state;
    const struct linear *down = &p->m->layers[layer].down;
    size_t n = p->b->n;
    if (p->m->config.arch->gelu)
        return add_linear(p, down, ws->up, err);
    if (p->observe) {
        silu_mul(ws->up, ws->gate, ws->up, n * p->m->config.intermediate);
        return add_linear(p, down, ws->up, err);
    }
    if (!linear_forward_gated(ws->sum, down, ws->gate, ws->up, n, err))
        return false;
    add_to(ws->x, ws->sum, n * p->m->config.hidden);
    return true;
}

static bool cpu_finish(struct pass *p, float *hidden, struct error *err) {
    (void)err;
    model_final_norm(p->m, ((struct workspace *)p->state)->x, p->b->n, hidden);
    return true;
}

static bool cpu_logits(const struct model *m, const float *hidden, size_t n, float *logits,
                       struct error *err) {
    return linear_forward(logits, &m->head, hidden, n, err);
}

const struct device device_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .begin = cpu_begin,
    .embed = cpu_embed,
    .put = cpu_put,
    .get = cpu_get,
    .norm = cpu_norm,
    .project = cpu_project,
    .attend = cpu_attend,
    .output = cpu_output,
    .inner = cpu_inner,
    .down = cpu_down,
    .finish = cpu_finish,
    .logits = cpu_logits,
};
