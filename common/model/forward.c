// One forward pass for every architecture and device, told in order:
//
//     x = embedding[token]
//     for each layer:  x += o( attention( rope(q(norm(x))), rope(k(norm(x))), v(norm(x)) ) )
//                      x += down( silu(gate(norm(x))) * up(norm(x)) )
//     logits = head(norm(x))
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "model/device.h"

bool pass_check(const struct model *m, const struct kv_cache *kv, const struct batch *b,
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

bool pass_layer(struct pass *p, const struct device *d, size_t i, struct error *err) {
    return d->norm(p, i, false, err) && // normed = norm(x)
           d->project(p, i, err) &&     // q, k, v of normed; rotated; k and v to the cache
           d->attend(p, i, err) &&      // over all cached positions up to the token's own
           d->output(p, i, err) &&      // x += o(attention)
           d->norm(p, i, true, err) &&  // normed = norm(x)
           d->inner(p, i, err) &&       // gate(normed) and up(normed)
           d->down(p, i, err);          // x += down(silu(gate) * up), made in either of the two
}

// ---- where each layer runs ----------------------------------------------------------------------

// Passes through the layers of [first, end) that the CPU has, and through those of the device.
struct passes {
    struct pass cpu, other;
    const struct device *device; // of the other; NULL: there is none
    size_t border;               // its layers start here
    float *x;                    // [T, H] on the way from one to the other; NULL where none does
};

static size_t border_of(const struct model *m) {
    return m->placed ? m->placed->first_layer : m->config.n_layers;
}

// observe: the CPU's way alone, whatever is placed elsewhere.
static bool passes_open(struct passes *ps, const struct model *m, struct kv_cache *kv, size_t first,
                        size_t end, size_t tokens, linear_observer *observe, void *user,
                        struct error *err) {
    struct pass p = {.m = m, .kv = kv, .observe = observe, .user = user};
    tokens = tokens < PASS_TOKENS ? tokens : PASS_TOKENS;
    *ps = (struct passes){.cpu = p, .other = p, .border = border_of(m)};
    if (ps->border < end) {
        if (observe)
            return error_set(err, "layers on the %s cannot be watched", m->placed->device->name);
        ps->device = m->placed->device;
        if (first < ps->border)
            ps->x = memory_alloc(tokens, m->config.hidden * sizeof *ps->x, "activations", err);
        if (!ps->device->open(&ps->other, tokens, err) || (first < ps->border && !ps->x))
            return false;
    }
    return ps->border <= first || device_cpu.open(&ps->cpu, tokens, err);
}

static void passes_close(struct passes *ps) {
    device_cpu.close(&ps->cpu);
    if (ps->device)
        ps->device->close(&ps->other);
    free(ps->x);
}

// The pass that layer i goes through, and its device.
static struct pass *pass_of(struct passes *ps, size_t i, const struct device **d) {
    bool cpu = !ps->device || i < ps->border;
    *d = cpu ? &device_cpu : ps->device;
    return cpu ? &ps->cpu : &ps->other;
}

static bool passes_begin(struct passes *ps, const struct batch *b, struct error *err) {
    ps->cpu.b = ps->other.b = b;
    return !ps->device || ps->device->begin(&ps->other, err);
}

// Layers [first, end), x handed over where the device changes.
static bool run_layers(struct passes *ps, size_t first, size_t end, struct error *err) {
    bool ok = true;
    for (size_t i = first; ok && i < end; i++) {
        const struct device *d;
        struct pass *p = pass_of(ps, i, &d);
        if (i > first && i == ps->border)
            ok = device_cpu.get(&ps->cpu, ps->x, err) && d->put(p, ps->x, err);
        ok = ok && pass_layer(p, d, i, err);
    }
    return ok;
}

static bool run_all(struct passes *ps, const struct batch *b, float *hidden, struct error *err) {
    size_t n = ps->cpu.m->config.n_layers;
    const struct device *first_device, *last_device;
    struct pass *first = pass_of(ps, 0, &first_device), *last = pass_of(ps, n - 1, &last_device);
    return passes_begin(ps, b, err) && first_device->embed(first, err) &&
           run_layers(ps, 0, n, err) && last_device->finish(last, hidden, err);
}

// Tokens [t, t + at most PASS_TOKENS) of a batch.
static struct batch part_of(const struct batch *b, size_t t) {
    return (struct batch){.n = b->n - t < PASS_TOKENS ? b->n - t : PASS_TOKENS,
                          .tokens = b->tokens + t,
                          .positions = b->positions + t,
                          .sequences = b->sequences ? b->sequences + t : NULL};
}

// ---- what callers see ---------------------------------------------------------------------------

bool model_hidden(const struct model *m, struct kv_cache *kv, const struct batch *b, float *hidden,
                  struct error *err) {
    if (!pass_check(m, kv, b, err))
        return false;
    struct passes ps;
    bool ok = passes_open(&ps, m, kv, 0, m->config.n_layers, b->n, NULL, NULL, err);
    for (size_t t = 0; ok && t < b->n; t += PASS_TOKENS) {
        struct batch part = part_of(b, t);
        ok = run_all(&ps, &part, hidden + t * m->config.hidden, err);
    }
    passes_close(&ps);
    return ok;
}

bool model_embed(const struct model *m, const struct kv_cache *kv, const struct batch *b, float *x,
                 struct error *err) {
    if (!pass_check(m, kv, b, err))
        return false;
    struct pass p = {.m = m};
    bool ok = device_cpu.open(&p, b->n < PASS_TOKENS ? b->n : PASS_TOKENS, err);
    for (size_t t = 0; ok && t < b->n; t += PASS_TOKENS) {
        struct batch part = part_of(b, t);
        p.b = &part;
        ok = device_cpu.embed(&p, err) && device_cpu.get(&p, x + t * m->config.hidden, err);
    }
    device_cpu.close(&p);
    return ok;
}

bool model_run_layers(const struct model *m, struct kv_cache *kv, const struct batch *b,
                      size_t first, size_t end, float *x, linear_observer *observe, void *user,
                      struct error *err) {
    if (first > end || end > m->config.n_layers)
        return error_set(err, "layers %zu to %zu of a model that has %zu", first, end,
                         m->config.n_layers);
    if (!pass_check(m, kv, b, err))
        return false;
    struct passes ps;
    bool ok = passes_open(&ps, m, kv, first, end, b->n, observe, user, err);
    for (size_t t = 0; ok && first < end && t < b->n; t += PASS_TOKENS) {
        struct batch part = part_of(b, t);
        const struct device *in, *out;
        struct pass *from = pass_of(&ps, first, &in), *to = pass_of(&ps, end - 1, &out);
        ok = passes_begin(&ps, &part, err) && in->put(from, x + t * m->config.hidden, err) &&
             run_layers(&ps, first, end, err) && out->get(to, x + t * m->config.hidden, err);
    }
    passes_close(&ps);
    return ok;
}

bool model_logits(const struct model *m, const float *hidden, size_t n, float *logits,
                  struct error *err) {
    const struct device *d = m->placed ? m->placed->device : &device_cpu;
    return d->logits(m, hidden, n, logits, err);
}

bool model_forward(const struct model *m, struct kv_cache *kv, const struct batch *b, float *logits,
                   struct error *err) {
    size_t h = m->config.hidden, wanted = 0;
    bool done = false;
    if (m->placed && m->placed->first_layer == 0) {
        if (!pass_check(m, kv, b, err) ||
            !m->placed->device->forward(m, kv, b, logits, &done, err) || done)
            return done;
    }
    float *hidden = memory_alloc(b->n, h * sizeof *hidden, "hidden states", err);
    bool ok = hidden && model_hidden(m, kv, b, hidden, err);
    for (size_t t = 0; ok && t < b->n; t++) // those that want logits move to the front
        if (!b->wants_logits || b->wants_logits[t])
            memmove(hidden + wanted++ * h, hidden + t * h, h * sizeof *hidden);
    ok = ok && (wanted == 0 || model_logits(m, hidden, wanted, logits, err));
    free(hidden);
    return ok;
}

bool model_decode_start(const struct model *m, struct kv_cache *kv, const struct sampler_options *o,
                        const int32_t *history, size_t n, size_t max_tokens, bool *done,
                        struct error *err) {
    *done = false;
    return !m->placed || m->placed->first_layer > 0 ||
           m->placed->device->decode_start(m, kv, o, history, n, max_tokens, done, err);
}

bool model_decode_next(const struct model *m, struct kv_cache *kv, int32_t *token,
                       struct error *err) {
    return m->placed->device->decode_next(m, kv, token, err);
}

void model_detach(struct model *m) {
    if (m->placed)
        m->placed->device->detach(m);
    m->placed = NULL;
}
