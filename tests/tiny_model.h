// A small model of any architecture with random weights, made in memory: for comparing devices.
#ifndef NIBBLE_TESTS_TINY_MODEL_H
#define NIBBLE_TESTS_TINY_MODEL_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/random.h"
#include "model/arch.h"
#include "model/model.h"
#include "quant/format.h"

struct tiny_shape {
    const char *arch;
    size_t hidden, inner, layers, heads, kv_heads, d, vocab;
    const char *format; // of the matrices: f32, f16, bf16
    bool tied;
    size_t window; // of attention; 0: none
};

static inline float *tiny_vector(struct random *r, size_t n, float middle, float spread) {
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = middle + spread * (float)random_normal(r);
    return x;
}

static inline struct linear tiny_linear(struct random *r, const char *format, size_t n, size_t k,
                                        bool bias) {
    const struct quant_format *f = quant_format_find(format);
    struct linear l = {.owns_data = true};
    struct error err = {0};
    l.w = (struct tensor){
        .name = "tiny.weight", .dtype = f->dtype, .format = f, .n_dims = 2, .shape = {n, k}};
    cr_assert(f->bytes(f, n, k, &l.w.bytes));
    l.w.data = memory_alloc(l.w.bytes, 1, "weights", &err);
    float *w = tiny_vector(r, n * k, 0, 1.5f / sqrtf((float)k));
    cr_assert(f->quantize(f, w, 0, n, n, k, &(struct quant_hints){0}, l.w.data, &err), "%s",
              err.message);
    free(w);
    l.bias = bias ? tiny_vector(r, n, 0, 0.5f) : NULL;
    return l;
}

static inline struct norm tiny_norm(struct random *r, size_t n, bool bias) {
    return (struct norm){tiny_vector(r, n, 1, 0.2f), bias ? tiny_vector(r, n, 0, 0.1f) : NULL};
}

static inline void tiny_layer(struct random *r, const struct tiny_shape *s,
                              const struct model_config *c, struct layer *l) {
    size_t h = s->hidden, q = s->heads * s->d, kv = s->kv_heads * s->d;
    bool center = c->arch->layernorm;
    l->attention_norm = tiny_norm(r, h, center);
    l->mlp_norm = tiny_norm(r, h, center);
    l->q = tiny_linear(r, s->format, q, h, c->attention_bias);
    l->k = tiny_linear(r, s->format, kv, h, c->attention_bias);
    l->v = tiny_linear(r, s->format, kv, h, c->attention_bias);
    l->o = tiny_linear(r, s->format, h, q, c->output_bias);
    l->up = tiny_linear(r, s->format, s->inner, h, c->mlp_bias);
    l->down = tiny_linear(r, s->format, h, s->inner, c->mlp_bias);
    if (!c->arch->gelu)
        l->gate = tiny_linear(r, s->format, s->inner, h, c->mlp_bias);
    if (c->qk_norm) {
        l->q_norm = tiny_vector(r, s->d, 1, 0.2f);
        l->k_norm = tiny_vector(r, s->d, 1, 0.2f);
    }
}

static inline struct model_config tiny_config(const struct tiny_shape *s) {
    struct model_config c = {.hidden = s->hidden,
                             .intermediate = s->inner,
                             .n_layers = s->layers,
                             .n_heads = s->heads,
                             .n_kv_heads = s->kv_heads,
                             .head_dim = s->d,
                             .vocab = s->vocab,
                             .max_context = 96,
                             .norm_eps = 1e-5f,
                             .tied = s->tied,
                             .sliding_window = s->window,
                             .bos = -1};
    for (size_t i = 0; archs[i]; i++)
        if (strcmp(archs[i]->name, s->arch) == 0)
            c.arch = archs[i];
    cr_assert_not_null(c.arch, "%s", s->arch);
    bool gpt2 = strcmp(s->arch, "gpt2") == 0;
    c.attention_bias = gpt2 || strcmp(s->arch, "qwen2") == 0;
    c.output_bias = c.mlp_bias = gpt2;
    c.qk_norm = strcmp(s->arch, "qwen3") == 0;
    c.rope.kind = gpt2 ? ROPE_NONE : ROPE_DEFAULT;
    return c;
}

static inline struct model *tiny_model(const struct tiny_shape *s) {
    struct random r = {s->hidden + s->heads};
    struct model *m = calloc(1, sizeof *m);
    m->config = tiny_config(s);
    m->layers = calloc(s->layers, sizeof *m->layers);
    for (size_t i = 0; i < s->layers; i++)
        tiny_layer(&r, s, &m->config, &m->layers[i]);
    m->embedding = tiny_linear(&r, s->format, s->vocab, s->hidden, false);
    m->final_norm = tiny_norm(&r, s->hidden, m->config.arch->layernorm);
    if (s->tied) {
        m->head = m->embedding;
        m->head.owns_data = false;
    } else {
        m->head = tiny_linear(&r, s->format, s->vocab, s->hidden, false);
    }
    if (m->config.rope.kind == ROPE_NONE) {
        m->position_embedding = tiny_linear(&r, s->format, 96, s->hidden, false);
        return m;
    }
    m->inv_freq = malloc(s->d / 2 * sizeof *m->inv_freq);
    for (size_t i = 0; i < s->d / 2; i++)
        m->inv_freq[i] = powf(10000, -2 * (float)i / (float)s->d);
    return m;
}

#endif
