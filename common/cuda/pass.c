// The GPU's operations of a forward pass (model/device.h). Each only starts kernels on the model's
// stream; get, finish and logits wait for it.
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "cuda/state.h"
#include "model/arch.h"

static struct cuda_model *model_of(const struct pass *p) {
    return p->state;
}

static unsigned tokens_of(const struct pass *p) {
    return (unsigned)p->b->n;
}

// ---- opening ------------------------------------------------------------------------------------

static bool cuda_open(struct pass *p, size_t tokens, struct error *err) {
    (void)tokens; // the buffers are made for the largest pass
    struct cuda_model *cm = cuda_model_of(p->m);
    p->state = cm;
    return !p->kv || cuda_cache_of(cm, p->kv, err);
}

static void cuda_close(struct pass *p) {
    p->state = NULL;
}

static bool cuda_begin(struct pass *p, struct error *err) {
    struct cuda_model *cm = model_of(p);
    int32_t *host = cm->at_work.host_batch, *there = cm->at_work.batch;
    size_t n = p->b->n, bytes = n * sizeof *host;
    memcpy(host, p->b->tokens, bytes);
    memcpy(host + n, p->b->positions, bytes);
    if (p->b->sequences)
        memcpy(host + 2 * n, p->b->sequences, bytes);
    else
        memset(host + 2 * n, 0, bytes);
    cm->batch = (struct cuda_tokens){there, there + n, there + 2 * n, (unsigned)n};
    cm->pending = NULL;
    // Waits, so that the next part may use the pinned array again.
    return cuda_ok(cm->b->send(there, host, 3 * bytes, cm->at.stream), err) &&
           cuda_ok(cm->b->wait(cm->at.stream), err);
}

// ---- the residual stream ------------------------------------------------------------------------

static bool start_angles(struct cuda_model *cm, struct error *err) {
    struct cuda_angles a = {.batch = cm->batch,
                            .inv_freq = cm->inv_freq,
                            .half = (unsigned)cm->m->config.head_dim / 2,
                            .out = cm->at_work.angles};
    return !cm->inv_freq || cuda_ok(cm->b->ops->angles(&cm->at, &a), err);
}

static bool start_embed(struct cuda_model *cm, struct error *err) {
    struct cuda_embed e = {.batch = cm->batch,
                           .table = cm->table,
                           .places = cm->places,
                           .x = cm->at_work.x,
                           .width = (unsigned)cm->m->config.hidden};
    return start_angles(cm, err) && cuda_ok(cm->b->ops->embed(&cm->at, &e), err);
}

static bool cuda_embed_pass(struct pass *p, struct error *err) {
    return start_embed(model_of(p), err);
}

static bool cuda_put(struct pass *p, const float *x, struct error *err) {
    struct cuda_model *cm = model_of(p);
    size_t bytes = p->b->n * cm->m->config.hidden * sizeof *x;
    memcpy(cm->at_work.host, x, bytes);
    cm->pending = NULL;
    return start_angles(cm, err) &&
           cuda_ok(cm->b->send(cm->at_work.x, cm->at_work.host, bytes, cm->at.stream), err) &&
           cuda_ok(cm->b->wait(cm->at.stream), err);
}

// Rows of H floats to the host.
static bool fetch_rows(struct cuda_model *cm, const float *from, size_t rows, float *to,
                       struct error *err) {
    size_t bytes = rows * cm->m->config.hidden * sizeof *to;
    if (!cuda_ok(cm->b->fetch(cm->at_work.host, from, bytes, cm->at.stream), err) ||
        !cuda_ok(cm->b->wait(cm->at.stream), err))
        return false;
    memcpy(to, cm->at_work.host, bytes);
    return true;
}

// The norm of x in float16, x itself completed first. gain NULL: only that.
static bool start_norm(struct cuda_model *cm, const float *gain, const float *bias, float *copy,
                       struct error *err) {
    const struct model_config *c = &cm->m->config;
    struct cuda_norm n = {.x = cm->at_work.x,
                          .add = cm->pending,
                          .add_bias = cm->pending_bias,
                          .rows = cm->batch.n,
                          .width = (unsigned)c->hidden,
                          .add_stride = (unsigned)c->hidden,
                          .gain = gain,
                          .bias = bias,
                          .center = c->arch->layernorm,
                          .eps = c->norm_eps,
                          .out = cm->at_work.normed,
                          .out_stride = cuda_stride(c->hidden),
                          .copy = copy};
    cm->pending = cm->pending_bias = NULL;
    return cuda_ok(cm->b->ops->norm(&cm->at, &n), err);
}

static bool cuda_get(struct pass *p, float *x, struct error *err) {
    struct cuda_model *cm = model_of(p);
    return (!cm->pending || start_norm(cm, NULL, NULL, NULL, err)) &&
           fetch_rows(cm, cm->at_work.x, p->b->n, x, err);
}

static bool cuda_finish(struct pass *p, float *hidden, struct error *err) {
    struct cuda_model *cm = model_of(p);
    return start_norm(cm, cm->final_gain, cm->final_bias, cm->at_work.hidden, err) &&
           fetch_rows(cm, cm->at_work.hidden, p->b->n, hidden, err);
}

// ---- a layer ------------------------------------------------------------------------------------

static bool norm_of_layer(struct cuda_model *cm, size_t layer, int which, struct error *err) {
    const struct cuda_layer *l = &cm->layers[layer];
    return start_norm(cm, l->gains[which], l->biases[which], NULL, err);
}

static bool cuda_norm_pass(struct pass *p, size_t layer, bool mlp, struct error *err) {
    return norm_of_layer(model_of(p), layer, mlp, err);
}

// Where a layer's keys (or values) start.
static size_t cache_offset(const struct cuda_model *cm, size_t layer, size_t sequences,
                           size_t capacity) {
    const struct model_config *c = &cm->m->config;
    return (layer - cm->place.first_layer) * sequences * c->n_kv_heads * capacity * c->head_dim;
}

static bool start_project(struct cuda_model *cm, size_t layer, uint16_t *keys, uint16_t *values,
                          size_t capacity, struct error *err) {
    const struct model_config *c = &cm->m->config;
    const struct cuda_layer *l = &cm->layers[layer];
    struct cuda_heads h = {.batch = cm->batch,
                           .qkv = cm->at_work.qkv,
                           .stride = l->qkv.n,
                           .bias = l->qkv.bias,
                           .q_gain = l->q_gain,
                           .k_gain = l->k_gain,
                           .eps = c->norm_eps,
                           .angles = cm->inv_freq ? cm->at_work.angles : NULL,
                           .heads = (unsigned)c->n_heads,
                           .kv_heads = (unsigned)c->n_kv_heads,
                           .d = (unsigned)c->head_dim,
                           .keys = keys,
                           .values = values,
                           .capacity = (unsigned)capacity};
    return cuda_multiply(cm, &l->qkv, cm->at_work.normed, cuda_stride(c->hidden), cm->batch.n,
                         cm->at_work.qkv, err) &&
           cuda_ok(cm->b->ops->heads(&cm->at, &h), err);
}

static bool cuda_project(struct pass *p, size_t layer, struct error *err) {
    struct cuda_model *cm = model_of(p);
    struct cuda_cache *cache = cuda_cache_of(cm, p->kv, err);
    size_t at = cache_offset(cm, layer, p->kv->n_sequences, p->kv->capacity);
    return cache &&
           start_project(cm, layer, cache->keys + at, cache->values + at, p->kv->capacity, err);
}

static struct cuda_attend attend_call(const struct cuda_model *cm, size_t layer,
                                      const uint16_t *keys, const uint16_t *values,
                                      size_t capacity) {
    const struct model_config *c = &cm->m->config;
    bool windowed = model_config_layer_windowed(c, layer);
    return (struct cuda_attend){.batch = cm->batch,
                                .q = cm->at_work.qkv,
                                .keys = keys,
                                .values = values,
                                .q_stride = cm->layers[layer].qkv.n,
                                .heads = (unsigned)c->n_heads,
                                .kv_heads = (unsigned)c->n_kv_heads,
                                .d = (unsigned)c->head_dim,
                                .capacity = (unsigned)capacity,
                                .window = windowed ? (int)c->sliding_window : INT_MAX,
                                .scale = 1.0f / sqrtf((float)c->head_dim),
                                .out = cm->at_work.attention,
                                .out_stride = cuda_stride(c->n_heads * c->head_dim),
                                .parts = cm->at_work.parts};
}

// Tokens [first, first + count), each on its own.
static bool attend_singly(struct cuda_model *cm, struct cuda_attend *a, unsigned first,
                          unsigned count, struct error *err) {
    a->first = first;
    a->count = count;
    a->tiles = false;
    a->splits = cuda_attend_splits(cm->at.processors, count, a->kv_heads, a->capacity);
    return count == 0 || cuda_ok(cm->b->ops->attend(&cm->at, a), err);
}

// Tokens from t on that are one sequence's next to each other.
static unsigned run_length(const struct batch *b, unsigned t) {
    unsigned end = t + 1;
    while (end < b->n && (!b->sequences || b->sequences[end] == b->sequences[t]) &&
           b->positions[end] == b->positions[end - 1] + 1)
        end++;
    return end - t;
}

// Long runs of a sequence share their keys, 16 queries at a time.
static bool cuda_attend_pass(struct pass *p, size_t layer, struct error *err) {
    enum { WORTH_TILES = 16 };
    struct cuda_model *cm = model_of(p);
    struct cuda_cache *cache = cuda_cache_of(cm, p->kv, err);
    if (!cache)
        return false;
    size_t at = cache_offset(cm, layer, p->kv->n_sequences, p->kv->capacity);
    struct cuda_attend a =
        attend_call(cm, layer, cache->keys + at, cache->values + at, p->kv->capacity);
    unsigned single = 0; // tokens before t that wait
    for (unsigned t = 0, n; t < p->b->n; t += n) {
        n = run_length(p->b, t);
        if (n < WORTH_TILES) {
            single += n;
            continue;
        }
        if (!attend_singly(cm, &a, t - single, single, err))
            return false;
        single = 0;
        a.first = t, a.count = n, a.tiles = true;
        if (!cuda_ok(cm->b->ops->attend(&cm->at, &a), err))
            return false;
    }
    return attend_singly(cm, &a, tokens_of(p) - single, single, err);
}

// x += l(from), when x is read next.
static bool start_add(struct cuda_model *cm, const struct cuda_linear *l, const uint16_t *from,
                      struct error *err) {
    cm->pending = cm->at_work.sum;
    cm->pending_bias = l->bias;
    return cuda_multiply(cm, l, from, cuda_stride(l->k), cm->batch.n, cm->at_work.sum, err);
}

static bool cuda_output(struct pass *p, size_t layer, struct error *err) {
    struct cuda_model *cm = model_of(p);
    return start_add(cm, &cm->layers[layer].o, cm->at_work.attention, err);
}

static bool start_inner(struct cuda_model *cm, size_t layer, struct error *err) {
    const struct model_config *c = &cm->m->config;
    const struct cuda_linear *l = &cm->layers[layer].gate_up;
    unsigned inner = (unsigned)c->intermediate, up = c->arch->gelu ? 0 : inner;
    struct cuda_activate a = {.kind = c->arch->gelu ? CUDA_GELU : CUDA_SILU_MUL,
                              .gate = cm->at_work.gate_up,
                              .up = cm->at_work.gate_up + up,
                              .gate_bias = l->bias,
                              .up_bias = l->bias ? l->bias + up : NULL,
                              .rows = cm->batch.n,
                              .width = inner,
                              .stride = l->n,
                              .out = cm->at_work.inner,
                              .out_stride = cuda_stride(inner)};
    return cuda_multiply(cm, l, cm->at_work.normed, cuda_stride(c->hidden), cm->batch.n,
                         cm->at_work.gate_up, err) &&
           cuda_ok(cm->b->ops->activate(&cm->at, &a), err);
}

static bool cuda_inner(struct pass *p, size_t layer, struct error *err) {
    return start_inner(model_of(p), layer, err);
}

static bool cuda_down(struct pass *p, size_t layer, struct error *err) {
    struct cuda_model *cm = model_of(p);
    return start_add(cm, &cm->layers[layer].down, cm->at_work.inner, err);
}

// ---- logits -------------------------------------------------------------------------------------

// Of the rows in `normed`.
static bool start_head(struct cuda_model *cm, unsigned rows, struct error *err) {
    struct cuda_bias b = {
        .y = cm->at_work.logits, .bias = cm->head.bias, .rows = rows, .width = cm->head.n};
    return cuda_multiply(cm, &cm->head, cm->at_work.normed, cuda_stride(cm->head.k), rows,
                         cm->at_work.logits, err) &&
           (!b.bias || cuda_ok(cm->b->ops->bias(&cm->at, &b), err));
}

static bool cuda_logits(const struct model *m, const float *hidden, size_t n, float *logits,
                        struct error *err) {
    struct cuda_model *cm = cuda_model_of(m);
    size_t h = m->config.hidden, v = m->config.vocab;
    bool ok = true;
    for (size_t row = 0, rows; ok && row < n; row += rows) {
        rows = n - row < CUDA_LOGIT_ROWS ? n - row : CUDA_LOGIT_ROWS;
        struct cuda_narrow narrow = {.x = cm->at_work.hidden,
                                     .out = cm->at_work.normed,
                                     .rows = (unsigned)rows,
                                     .width = (unsigned)h,
                                     .out_stride = cuda_stride(h)};
        memcpy(cm->at_work.host, hidden + row * h, rows * h * sizeof *hidden);
        ok = cuda_ok(cm->b->send(cm->at_work.hidden, cm->at_work.host, rows * h * sizeof *hidden,
                                 cm->at.stream),
                     err) &&
             cuda_ok(cm->b->ops->narrow(&cm->at, &narrow), err) &&
             start_head(cm, (unsigned)rows, err) &&
             cuda_ok(cm->b->fetch(cm->at_work.host, cm->at_work.logits, rows * v * sizeof *logits,
                                  cm->at.stream),
                     err) &&
             cuda_ok(cm->b->wait(cm->at.stream), err);
        if (ok)
            memcpy(logits + row * v, cm->at_work.host, rows * v * sizeof *logits);
    }
    return ok;
}

// ---- all of it ----------------------------------------------------------------------------------

bool cuda_start_all(struct cuda_model *cm, struct cuda_cache *cache,
                    const struct cuda_tokens *batch, size_t capacity, struct error *err) {
    size_t n = cm->m->config.n_layers, sequences = cache->sequences;
    cm->batch = *batch;
    cm->pending = NULL;
    bool ok = start_embed(cm, err);
    for (size_t i = 0; ok && i < n; i++) {
        size_t at = cache_offset(cm, i, sequences, capacity);
        uint16_t *keys = cache->keys + at, *values = cache->values + at;
        struct cuda_attend a = attend_call(cm, i, keys, values, capacity);
        ok = norm_of_layer(cm, i, 0, err) && start_project(cm, i, keys, values, capacity, err) &&
             attend_singly(cm, &a, 0, batch->n, err) &&
             start_add(cm, &cm->layers[i].o, cm->at_work.attention, err) &&
             norm_of_layer(cm, i, 1, err) && start_inner(cm, i, err) &&
             start_add(cm, &cm->layers[i].down, cm->at_work.inner, err);
    }
    return ok && start_norm(cm, cm->final_gain, cm->final_bias, NULL, err) &&
           start_head(cm, batch->n, err);
}

const struct device device_cuda = {
    .name = "GPU",
    .open = cuda_open,
    .close = cuda_close,
    .begin = cuda_begin,
    .embed = cuda_embed_pass,
    .put = cuda_put,
    .get = cuda_get,
    .norm = cuda_norm_pass,
    .project = cuda_project,
    .attend = cuda_attend_pass,
    .output = cuda_output,
    .inner = cuda_inner,
    .down = cuda_down,
    .finish = cuda_finish,
    .logits = cuda_logits,
    .forward = cuda_forward,
    .decode_start = cuda_decode_start,
    .decode_next = cuda_decode_next,
    .cache_copy = cuda_cache_copy,
    .cache_free = cuda_cache_free,
    .detach = cuda_detach,
};
