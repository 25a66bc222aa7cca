#include "eval/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "kernels/cpu/kernels.h"

enum {
    LOGIT_ROWS = 32,                // whose logits exist at a time
    KEPT_LOGITS = 512 * 1024 * 1024 // bytes: 256 tokens of a vocabulary of 152,064 take 311 MB
};

// Rows [first, first + n) of the reference's logits and probabilities.
static bool reference_rows(const struct probe *p, size_t first, size_t n, float *logits,
                           float *probability, struct error *err) {
    size_t v = p->reference->config.vocab;
    if (!model_logits(p->reference, p->reference_hidden + first * p->reference->config.hidden, n,
                      logits, err))
        return false;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        probabilities(logits + i * v, v, probability + i * v);
    return true;
}

// ---- opening ----------------------------------------------------------------------------------

// Windows begin at even distances, so that a probe of a long text has seen all of it.
static bool choose_tokens(struct probe *p, const int32_t *tokens, size_t n_tokens, size_t want,
                          struct error *err) {
    size_t windows = want / p->window;
    p->n = windows * p->window;
    p->tokens = memory_alloc(p->n, sizeof *p->tokens, "probe tokens", err);
    p->positions = memory_alloc(p->n, sizeof *p->positions, "probe tokens", err);
    p->sequences = memory_alloc(p->n, sizeof *p->sequences, "probe tokens", err);
    if (!p->tokens || !p->positions || !p->sequences)
        return false;
    size_t spare = n_tokens - p->n, at = 0;
    for (size_t w = 0; w < windows; w++) {
        size_t begin = w * p->window + (windows > 1 ? spare / (windows - 1) * w : 0);
        for (size_t i = 0; i < p->window; i++, at++) {
            p->tokens[at] = tokens[begin + i];
            p->positions[at] = (int32_t)i;
            p->sequences[at] = (int32_t)w;
        }
    }
    return true;
}

static struct batch probe_batch(const struct probe *p) {
    return (struct batch){
        .n = p->n, .tokens = p->tokens, .positions = p->positions, .sequences = p->sequences};
}

static bool allocate(struct probe *p, struct error *err) {
    const struct model_config *c = &p->base->config;
    size_t row = c->hidden * sizeof(float), rows, logits;
    if (!size_mul(c->n_layers + 1, p->n, &rows))
        return error_set(err, "a probe of %zu tokens overflows", p->n);
    p->x = memory_alloc(rows, row, "hidden states", err);
    p->reference_hidden = memory_alloc(p->n, row, "hidden states", err);
    p->scratch = memory_alloc(2 * p->n, row, "hidden states", err);
    if (!p->x || !p->reference_hidden || !p->scratch ||
        !kv_cache_init(&p->kv, c, p->n / p->window, p->window, err))
        return false;
    if (!size_mul(p->n, c->vocab * 2 * sizeof(float), &logits) || logits > KEPT_LOGITS)
        return true;
    p->logits = memory_alloc(p->n, c->vocab * sizeof(float), "logits", err);
    p->p = memory_alloc(p->n, c->vocab * sizeof(float), "logits", err);
    return p->logits && p->p;
}

static bool run_base(struct probe *p, struct error *err) {
    struct batch b = probe_batch(p);
    size_t layers = p->base->config.n_layers, size = p->n * p->base->config.hidden;
    bool ok = model_embed(p->base, &p->kv, &b, p->x, err);
    for (size_t l = 0; ok && l < layers; l++) {
        float *x = p->x + (l + 1) * size;
        memcpy(x, x - size, size * sizeof *x);
        ok = model_run_layers(p->base, &p->kv, &b, l, l + 1, x, NULL, NULL, err);
    }
    return ok;
}

static bool run_reference(struct probe *p, struct error *err) {
    const struct model *m = p->reference;
    struct batch b = probe_batch(p);
    if (m != p->base)
        return model_hidden(m, &p->kv, &b, p->reference_hidden, err);
    model_final_norm(m, p->x + m->config.n_layers * p->n * m->config.hidden, p->n,
                     p->reference_hidden);
    return true;
}

bool probe_open(struct probe *p, const struct model *reference, const struct model *base,
                const int32_t *tokens, size_t n_tokens, size_t want, size_t window,
                struct error *err) {
    *p = (struct probe){.reference = reference, .base = base, .window = window};
    const struct model_config *c = &reference->config, *d = &base->config;
    if (c->n_layers != d->n_layers || c->hidden != d->hidden || c->vocab != d->vocab)
        return error_set(err, "the probe's reference is another kind of model");
    want = want < n_tokens ? want : n_tokens;
    p->window = window < want ? window : want;
    if (!p->window)
        return error_set(err, "the text to probe on has no tokens");
    bool ok = choose_tokens(p, tokens, n_tokens, want, err) && allocate(p, err) &&
              run_base(p, err) && run_reference(p, err) &&
              (!p->p || reference_rows(p, 0, p->n, p->logits, p->p, err));
    if (!ok)
        probe_close(p);
    return ok;
}

void probe_close(struct probe *p) {
    free(p->tokens);
    free(p->positions);
    free(p->sequences);
    free(p->x);
    free(p->reference_hidden);
    free(p->logits);
    free(p->p);
    free(p->scratch);
    kv_cache_free(&p->kv);
    *p = (struct probe){0};
}

// ---- measuring --------------------------------------------------------------------------------

// hidden [n, H] after m's final norm.
static bool run_changed(struct probe *p, const struct model *m, size_t first, float *hidden,
                        struct error *err) {
    struct batch b = probe_batch(p);
    size_t size = p->n * m->config.hidden;
    float *x = p->scratch;
    if (first)
        memcpy(x, p->x + first * size, size * sizeof *x);
    else if (!model_embed(m, &p->kv, &b, x, err))
        return false;
    if (!model_run_layers(m, &p->kv, &b, first, m->config.n_layers, x, NULL, NULL, err))
        return false;
    model_final_norm(m, x, p->n, hidden);
    return true;
}

bool probe_watch(struct probe *p, size_t layer, linear_observer *observe, void *user,
                 struct error *err) {
    struct batch b = probe_batch(p);
    size_t size = p->n * p->base->config.hidden;
    memcpy(p->scratch, p->x + layer * size, size * sizeof *p->x);
    return model_run_layers(p->base, &p->kv, &b, layer, layer + 1, p->scratch, observe, user, err);
}

// The divergences of rows [first, first + n); space has room for 3 × LOGIT_ROWS of logits.
static bool compare_rows(const struct probe *p, const struct model *m, const float *hidden,
                         size_t first, size_t n, float *space, double *klds, struct error *err) {
    size_t v = m->config.vocab;
    const float *reference = space + LOGIT_ROWS * v, *probability = space + 2 * LOGIT_ROWS * v;
    if (!model_logits(m, hidden + first * m->config.hidden, n, space, err))
        return false;
    if (p->p) {
        reference = p->logits + first * v;
        probability = p->p + first * v;
    } else if (!reference_rows(p, first, n, space + LOGIT_ROWS * v, space + 2 * LOGIT_ROWS * v,
                               err)) {
        return false;
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        klds[first + i] = kl_of_change(probability + i * v, reference + i * v, space + i * v, v);
    return true;
}

bool probe_klds(struct probe *p, const struct model *m, size_t first, double *klds,
                struct error *err) {
    float *hidden = p->scratch + p->n * m->config.hidden;
    float *space = memory_alloc(3 * LOGIT_ROWS, m->config.vocab * sizeof *space, "logits", err);
    bool ok = space && run_changed(p, m, first, hidden, err);
    for (size_t i = 0; ok && i < p->n; i += LOGIT_ROWS)
        ok = compare_rows(p, m, hidden, i, p->n - i < LOGIT_ROWS ? p->n - i : LOGIT_ROWS, space,
                          klds, err);
    free(space);
    return ok;
}

bool probe_kld(struct probe *p, const struct model *m, size_t first, double *kld,
               struct error *err) {
    double *klds = memory_alloc(p->n, sizeof *klds, "divergences", err), sum = 0;
    bool ok = klds && probe_klds(p, m, first, klds, err);
    for (size_t i = 0; ok && i < p->n; i++)
        sum += klds[i];
    free(klds);
    *kld = isnan(sum) ? INFINITY : sum / (double)p->n;
    return ok;
}
