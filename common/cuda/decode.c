// A step of decoding as one launch. The second time a small batch of some size is run, its kernels
// are captured as a graph; from then on the host sends tokens and positions and starts that.
// With the sampler on the device not even these are sent:
//
//     token, position ──▶ embedding … head ──▶ logits ──▶ sampler ──┐
//          ▲                                                        │
//          └────────────── written by the sampler ──────────────────┘
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "cuda/state.h"

static bool all_wanted(const struct batch *b) {
    for (size_t t = 0; b->wants_logits && t < b->n; t++)
        if (!b->wants_logits[t])
            return false;
    return true;
}

// Starts what `start` starts: by itself the first time, which also loads the kernels; then
// captured.
typedef bool starter(struct cuda_model *cm, struct cuda_cache *c, size_t capacity,
                     struct error *err);

static bool start_or_replay(struct cuda_model *cm, struct cuda_cache *c, size_t capacity,
                            starter *start, bool *warm, void **graph, struct error *err) {
    if (!*warm) {
        *warm = true;
        return start(cm, c, capacity, err);
    }
    if (!*graph) {
        if (!cuda_ok(cm->b->capture(cm->at.stream), err))
            return false;
        bool ok = start(cm, c, capacity, err);
        const char *failed = cm->b->captured(cm->at.stream, graph);
        if (!ok || !cuda_ok(failed, err))
            return false;
        cuda_note_peak(cm);
    }
    return cuda_ok(cm->b->replay(*graph, cm->at.stream), err);
}

// ---- a batch from the host ----------------------------------------------------------------------

static bool start_batch(struct cuda_model *cm, struct cuda_cache *c, size_t capacity,
                        struct error *err) {
    struct cuda_tokens batch = cm->batch;
    return cuda_start_all(cm, c, &batch, capacity, err);
}

bool cuda_forward(const struct model *m, struct kv_cache *kv, const struct batch *b, float *logits,
                  bool *done, struct error *err) {
    struct cuda_model *cm = cuda_model_of(m);
    size_t bytes = b->n * m->config.vocab * sizeof *logits;
    *done = false;
    if (b->n == 0 || b->n > CUDA_GRAPH_TOKENS || !all_wanted(b))
        return true;
    struct cuda_cache *c = cuda_cache_of(cm, kv, err);
    struct pass p = {.m = m, .kv = kv, .b = b, .state = cm};
    if (!c || !device_cuda.begin(&p, err) ||
        !start_or_replay(cm, c, kv->capacity, start_batch, &c->warm[b->n], &c->graphs[b->n], err) ||
        !cuda_ok(cm->b->fetch(cm->at_work.host, cm->at_work.logits, bytes, cm->at.stream), err) ||
        !cuda_ok(cm->b->wait(cm->at.stream), err))
        return false;
    memcpy(logits, cm->at_work.host, bytes);
    *done = true;
    return true;
}

// ---- the sampler on the device ------------------------------------------------------------------

static bool start_step(struct cuda_model *cm, struct cuda_cache *c, size_t capacity,
                       struct error *err) {
    return cuda_start_all(cm, c, &c->step, capacity, err) &&
           cuda_ok(cm->b->ops->sample(&cm->at, &c->sample), err);
}

static bool send_now(struct cuda_model *cm, void *to, const void *from, size_t bytes,
                     struct error *err) {
    return cuda_ok(cm->b->upload(to, from, bytes), err);
}

static bool sampler_room(struct cuda_model *cm, struct cuda_cache *c, size_t limit,
                         struct error *err) {
    struct cuda_sample_next *s = &c->sample;
    if (c->limit >= limit)
        return true;
    cm->b->graph_free(c->step_graph);
    c->step_graph = NULL;
    c->step_warm = false;
    c->limit = limit;
    int32_t *step = cuda_arena_take(&c->memory, 3 * sizeof *step, "sampler", err);
    s->history = cuda_arena_take(&c->memory, limit * sizeof *s->history, "sampler", err);
    s->draws = cuda_arena_take(&c->memory, limit * sizeof *s->draws, "sampler", err);
    s->state = cuda_arena_take(&c->memory, sizeof *s->state, "sampler", err);
    c->step = (struct cuda_tokens){step, step + 1, step + 2, 1};
    s->token = step;
    s->position = step + 1;
    return step && s->history && s->draws && s->state;
}

// The uniform numbers that the CPU's sampler would draw, in its order.
static bool send_draws(struct cuda_model *cm, const struct cuda_cache *c, uint64_t seed, size_t n,
                       struct error *err) {
    struct random random = {seed};
    double *draws = memory_alloc(n, sizeof *draws, "sampler", err);
    for (size_t i = 0; draws && i < n; i++)
        draws[i] = random_uniform(&random);
    bool ok =
        draws && send_now(cm, (void *)(uintptr_t)c->sample.draws, draws, n * sizeof *draws, err);
    free(draws);
    return ok;
}

bool cuda_decode_start(const struct model *m, struct kv_cache *kv, const struct sampler_options *o,
                       const int32_t *history, size_t n, size_t max_tokens, bool *done,
                       struct error *err) {
    struct cuda_model *cm = cuda_model_of(m);
    bool greedy = !(o->temperature > 0),
         drawn = o->top_k >= 1 && o->top_k <= CUDA_MAX_TOP_K && (size_t)o->top_k < m->config.vocab;
    *done = false;
    if ((!greedy && !drawn) || n == 0 || n + max_tokens > kv->capacity + 1)
        return true;
    struct cuda_cache *c = cuda_cache_of(cm, kv, err);
    if (!c || !sampler_room(cm, c, kv->capacity + 1, err))
        return false;
    struct cuda_sample_next *s = &c->sample;
    s->logits = cm->at_work.logits;
    s->vocab = (unsigned)m->config.vocab;
    s->temperature = o->temperature;
    s->top_p = o->top_p;
    s->repeat_penalty = o->repeat_penalty;
    s->top_k = greedy ? 0 : (unsigned)o->top_k;
    cm->b->graph_free(c->step_graph); // it has the options of another run in it
    c->step_graph = NULL;
    c->length = n;
    int32_t step[] = {history[n - 1], (int32_t)n - 1, 0};
    struct cuda_sample_state state = {.step = 0, .length = (int32_t)n};
    *done = true;
    return send_now(cm, s->token, step, sizeof step, err) &&
           send_now(cm, s->state, &state, sizeof state, err) &&
           send_now(cm, s->history, history, n * sizeof *history, err) &&
           (greedy || send_draws(cm, c, o->seed, max_tokens, err));
}

bool cuda_decode_next(const struct model *m, struct kv_cache *kv, int32_t *token,
                      struct error *err) {
    struct cuda_model *cm = cuda_model_of(m);
    struct cuda_cache *c = (struct cuda_cache *)kv->placed;
    if (c->length >= c->limit)
        return error_set(err, "the cache has no room for another token");
    if (!start_or_replay(cm, c, kv->capacity, start_step, &c->step_warm, &c->step_graph, err) ||
        !cuda_ok(cm->b->fetch(cm->at_work.host_batch, c->sample.history + c->length, sizeof *token,
                              cm->at.stream),
                 err) ||
        !cuda_ok(cm->b->wait(cm->at.stream), err))
        return false;
    *token = cm->at_work.host_batch[0];
    c->length++;
    return *token >= 0 || error_set(err, "the logits are NaN, or all are -inf");
}
