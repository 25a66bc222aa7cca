// One forward pass for every architecture, told in order:
//
//     x = embedding[token]
//     for each layer:  x += o( attention( rope(q(norm(x))), rope(k(norm(x))), v(norm(x)) ) )
//                      x += down( silu(gate(norm(x))) * up(norm(x)) )
//     logits = head(norm(x))
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "kernels/cpu/kernels.h"
#include "model/arch.h"
#include "model/model.h"
#include "quant/format.h"

// Tokens that go through the layers together: enough to reuse each weight, few enough that the
// activations of a 3 B model (512 × 32,768 × 4 bytes) stay under 70 MB.
enum { BLOCK = 512 };

// Activations of one block, T = up to BLOCK tokens.
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
    linear_observer *observe; // NULL: nobody watches
    void *user;
};

static bool workspace_init(struct workspace *ws, const struct model_config *c, size_t t,
                           struct error *err) {
    size_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    size_t per_token = 3 * c->hidden + 2 * q + 2 * kv + 2 * c->intermediate;
    *ws = (struct workspace){0};
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

static bool check_batch(const struct model *m, const struct kv_cache *kv, const struct batch *b,
                        struct error *err) {
    size_t limit = m->position_embedding.w.data ? m->config.max_context : kv->capacity;
    if (limit > kv->capacity)
        limit = kv->capacity;
    for (size_t t = 0; t < b->n; t++) {
        if (b->tokens[t] < 0 || (size_t)b->tokens[t] >= m->config.vocab)
            return error_set(err, "token %d is outside the model's vocabulary of %zu", b->tokens[t],
                             m->config.vocab);
        if (b->positions[t] < 0 || (size_t)b->positions[t] >= limit)
            return error_set(err, "position %d is outside the context of %zu", b->positions[t],
                             limit);
        if (b->sequences && (b->sequences[t] < 0 || (size_t)b->sequences[t] >= kv->n_sequences))
            return error_set(err, "sequence %d is outside the cache's %zu", b->sequences[t],
                             kv->n_sequences);
    }
    return true;
}

static void read_row(const struct linear *l, size_t row, float *out) {
    const struct tensor *w = &l->w;
    w->format->dequantize(w->format, w->data, w->shape[0], w->shape[1], row, 0, w->shape[1], out);
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
    attention(ws->attention, ws->q, b->n, c->n_heads, c->n_kv_heads, c->head_dim, ws->queries,
              1.0f / sqrtf((float)c->head_dim));
}

// Linears that read the same x.
static bool apply(const struct workspace *ws, float *const *y, const struct linear *const *l,
                  size_t n, const float *x, size_t t, struct error *err) {
    for (size_t i = 0; ws->observe && i < n; i++)
        ws->observe(ws->user, l[i], x, t);
    return linears_forward(y, l, n, x, t, err);
}

static bool apply_one(const struct workspace *ws, float *y, const struct linear *l, const float *x,
                      size_t t, struct error *err) {
    return apply(ws, &y, &l, 1, x, t, err);
}

static bool attention_block(const struct model *m, struct kv_cache *kv, size_t i,
                            const struct batch *b, struct workspace *ws, struct error *err) {
    const struct model_config *c = &m->config;
    const struct layer *l = &m->layers[i];
    size_t t = b->n, d = c->head_dim;
    normalize(m, &l->attention_norm, ws->x, t, ws->normed);
    float *const qkv[] = {ws->q, ws->k, ws->v};
    if (!apply(ws, qkv, (const struct linear *const[]){&l->q, &l->k, &l->v}, 3, ws->normed, t, err))
        return false;
    if (l->q_norm) {
        rmsnorm(ws->q, ws->q, t * c->n_heads, d, l->q_norm, c->norm_eps);
        rmsnorm(ws->k, ws->k, t * c->n_kv_heads, d, l->k_norm, c->norm_eps);
    }
    if (m->inv_freq) {
        rope(ws->q, c->n_heads * d, t, c->n_heads, d, b->positions, m->inv_freq);
        rope(ws->k, c->n_kv_heads * d, t, c->n_kv_heads, d, b->positions, m->inv_freq);
    }
    store_kv(kv, i, b, ws);
    attend(m, kv, i, b, ws);
    if (!apply_one(ws, ws->sum, &l->o, ws->attention, t, err))
        return false;
    add_to(ws->x, ws->sum, t * c->hidden);
    return true;
}

static bool mlp_block(const struct model *m, size_t i, size_t t, struct workspace *ws,
                      struct error *err) {
    const struct layer *l = &m->layers[i];
    size_t inner = t * m->config.intermediate;
    normalize(m, &l->mlp_norm, ws->x, t, ws->normed);
    float *const both[] = {ws->up, ws->gate};
    if (!apply(ws, both, (const struct linear *const[]){&l->up, &l->gate},
               m->config.arch->gelu ? 1 : 2, ws->normed, t, err))
        return false;
    if (m->config.arch->gelu)
        gelu_tanh(ws->up, ws->up, inner);
    else
        silu_mul(ws->up, ws->gate, ws->up, inner);
    if (!apply_one(ws, ws->sum, &l->down, ws->up, t, err))
        return false;
    add_to(ws->x, ws->sum, t * m->config.hidden);
    return true;
}

static bool forward_block(const struct model *m, struct kv_cache *kv, const struct batch *b,
                          struct workspace *ws, float *hidden, struct error *err) {
    embed(m, b, ws);
    for (size_t i = 0; i < m->config.n_layers; i++)
        if (!attention_block(m, kv, i, b, ws, err) || !mlp_block(m, i, b->n, ws, err))
            return false;
    normalize(m, &m->final_norm, ws->x, b->n, hidden);
    return true;
}

// Tokens [t, t + at most BLOCK) of a batch.
static struct batch part_of(const struct batch *b, size_t t) {
    return (struct batch){.n = b->n - t < BLOCK ? b->n - t : BLOCK,
                          .tokens = b->tokens + t,
                          .positions = b->positions + t,
                          .sequences = b->sequences ? b->sequences + t : NULL};
}

bool model_hidden(const struct model *m, struct kv_cache *kv, const struct batch *b, float *hidden,
                  struct error *err) {
    if (!check_batch(m, kv, b, err))
        return false;
    struct workspace ws;
    bool ok = workspace_init(&ws, &m->config, b->n < BLOCK ? b->n : BLOCK, err);
    for (size_t t = 0; ok && t < b->n; t += BLOCK) {
        struct batch part = part_of(b, t);
        ok = forward_block(m, kv, &part, &ws, hidden + t * m->config.hidden, err);
    }
    workspace_free(&ws);
    return ok;
}

bool model_embed(const struct model *m, const struct kv_cache *kv, const struct batch *b, float *x,
                 struct error *err) {
    if (!check_batch(m, kv, b, err))
        return false;
    struct workspace ws = {
        .x = x, .sum = memory_alloc(b->n, m->config.hidden * sizeof(float), "embeddings", err)};
    if (!ws.sum)
        return false;
    embed(m, b, &ws);
    free(ws.sum);
    return true;
}

bool model_run_layers(const struct model *m, struct kv_cache *kv, const struct batch *b,
                      size_t first, size_t end, float *x, linear_observer *observe, void *user,
                      struct error *err) {
    size_t h = m->config.hidden;
    if (first > end || end > m->config.n_layers)
        return error_set(err, "layers %zu to %zu of a model that has %zu", first, end,
                         m->config.n_layers);
    if (!check_batch(m, kv, b, err))
        return false;
    struct workspace ws;
    bool ok = workspace_init(&ws, &m->config, b->n < BLOCK ? b->n : BLOCK, err);
    ws.observe = observe;
    ws.user = user;
    for (size_t t = 0; ok && t < b->n; t += BLOCK) {
        struct batch part = part_of(b, t);
        memcpy(ws.x, x + t * h, part.n * h * sizeof *x);
        for (size_t i = first; ok && i < end; i++)
            ok = attention_block(m, kv, i, &part, &ws, err) && mlp_block(m, i, part.n, &ws, err);
        memcpy(x + t * h, ws.x, part.n * h * sizeof *x);
    }
    workspace_free(&ws);
    return ok;
}

void model_final_norm(const struct model *m, const float *x, size_t n, float *hidden) {
    normalize(m, &m->final_norm, x, n, hidden);
}

bool model_logits(const struct model *m, const float *hidden, size_t n, float *logits,
                  struct error *err) {
    return linear_forward(logits, &m->head, hidden, n, err);
}

bool model_forward(const struct model *m, struct kv_cache *kv, const struct batch *b, float *logits,
                   struct error *err) {
    size_t h = m->config.hidden, wanted = 0;
    float *hidden = memory_alloc(b->n, h * sizeof *hidden, "hidden states", err);
    bool ok = hidden && model_hidden(m, kv, b, hidden, err);
    for (size_t t = 0; ok && t < b->n; t++) // those that want logits move to the front
        if (!b->wants_logits || b->wants_logits[t])
            memmove(hidden + wanted++ * h, hidden + t * h, h * sizeof *hidden);
    ok = ok && (wanted == 0 || model_logits(m, hidden, wanted, logits, err));
    free(hidden);
    return ok;
}
