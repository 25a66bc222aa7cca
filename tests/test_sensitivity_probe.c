// eval/probe: the divergence of a model from another, from the layer where they part.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "core/random.h"
#include "eval/activations.h"
#include "eval/perplexity.h"
#include "eval/probe.h"
#include "kernels/cpu/kernels.h"
#include "quant/quantize.h"

enum { TOKENS = 96, WINDOW = 40 };

static struct model *bundled(void) {
    struct error err = {0};
    struct model *m = model_load("data/model", &err);
    cr_assert_not_null(m, "%s", err.message);
    return m;
}

static struct model *with(const struct model *m, const char *recipe) {
    struct error err = {0};
    struct recipe r;
    struct quantize_stats stats;
    cr_assert(recipe_parse(&r, recipe, "recipe", &err), "%s", err.message);
    struct model *q = model_quantize(m, &r, false, &stats, NULL, NULL, &err);
    cr_assert_not_null(q, "%s", err.message);
    recipe_free(&r);
    return q;
}

static void fill(int32_t *tokens, size_t n) {
    struct random r = {5};
    for (size_t i = 0; i < n; i++)
        tokens[i] = (int32_t)random_below(&r, 2000);
}

// Every window through the whole model, logits of each position, the definition of KL.
static double kld_in_full(const struct model *a, const struct model *b, const int32_t *tokens,
                          size_t windows) {
    struct error err = {0};
    size_t v = a->config.vocab;
    int32_t positions[WINDOW];
    float *logits = malloc(2 * WINDOW * v * sizeof *logits);
    double sum = 0;
    for (int32_t i = 0; i < WINDOW; i++)
        positions[i] = i;
    for (size_t w = 0; w < windows; w++) {
        struct kv_cache kv;
        struct batch batch = {.n = WINDOW, .tokens = tokens + w * WINDOW, .positions = positions};
        cr_assert(kv_cache_init(&kv, &a->config, 1, WINDOW, &err));
        cr_assert(model_forward(a, &kv, &batch, logits, &err));
        cr_assert(model_forward(b, &kv, &batch, logits + WINDOW * v, &err));
        for (size_t i = 0; i < WINDOW; i++)
            sum += kl_divergence(logits + i * v, logits + (WINDOW + i) * v, v);
        kv_cache_free(&kv);
    }
    free(logits);
    return sum / (double)(windows * WINDOW);
}

Test(sensitivity_probe, equals_the_divergence_of_whole_passes) {
    struct error err = {0};
    struct model *m = bundled();
    int32_t tokens[2 * WINDOW];
    fill(tokens, 2 * WINDOW);
    static const struct {
        const char *recipe;
        size_t first;
    } cases[] = {{"model.layers.0.self_attn.k_proj int4", 0},
                 {"model.layers.3.mlp.down_proj int4", 3},
                 {"model.layers.5.* int8", 5},
                 {"model.embed_tokens int4-g32", 0}};
    struct probe p;
    cr_assert(probe_open(&p, m, m, tokens, 2 * WINDOW, 2 * WINDOW, WINDOW, &err), "%s",
              err.message);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model *q = with(m, cases[i].recipe);
        double kld, expected = kld_in_full(m, q, tokens, 2);
        cr_assert(probe_kld(&p, q, cases[i].first, &kld, &err), "%s", err.message);
        cr_expect(fabs(kld / expected - 1) < 1e-3, "%s: %g, %g", cases[i].recipe, kld, expected);
        cr_expect(kld > 1e-7);
        model_free(q);
    }
    probe_close(&p);
    model_free(m);
}

Test(sensitivity_probe, a_model_does_not_diverge_from_itself) {
    struct error err = {0};
    struct model *m = bundled();
    int32_t tokens[TOKENS];
    fill(tokens, TOKENS);
    struct probe p;
    cr_assert(probe_open(&p, m, m, tokens, TOKENS, TOKENS, WINDOW, &err), "%s", err.message);
    cr_expect_eq(p.n, 2 * WINDOW); // whole windows only
    for (size_t first = 0; first <= m->config.n_layers; first++) {
        double kld = 1;
        cr_assert(probe_kld(&p, m, first, &kld, &err), "%s", err.message);
        cr_expect_eq(kld, 0, "from layer %zu: %g", first, kld); // not a bit has changed
    }
    probe_close(&p);
    model_free(m);
}

// NaN would be neither more nor less than the others, and might end as the best of them.
Test(sensitivity_probe, logits_that_are_no_numbers_are_infinitely_far) {
    struct error err = {0};
    struct model *m = bundled();
    int32_t tokens[WINDOW];
    fill(tokens, WINDOW);
    struct probe p;
    cr_assert(probe_open(&p, m, m, tokens, WINDOW, WINDOW, WINDOW, &err), "%s", err.message);
    float gain = m->final_norm.gain[3];
    double kld = 0;
    m->final_norm.gain[3] = NAN;
    cr_assert(probe_kld(&p, m, m->config.n_layers, &kld, &err), "%s", err.message);
    cr_expect(isinf(kld) && kld > 0, "%g", kld);
    m->final_norm.gain[3] = gain;
    probe_close(&p);
    model_free(m);
}

// Around a mix: what a change does on top of what is changed already, against the original.
Test(sensitivity_probe, starts_from_another_base) {
    struct error err = {0};
    struct model *m = bundled(), *base = with(m, "model.layers.1.* int4-g32");
    struct model *both = with(base, "model.layers.4.mlp.up_proj int4");
    int32_t tokens[WINDOW];
    fill(tokens, WINDOW);
    struct probe p;
    cr_assert(probe_open(&p, m, base, tokens, WINDOW, WINDOW, WINDOW, &err), "%s", err.message);
    double kld, expected = kld_in_full(m, both, tokens, 1);
    cr_assert(probe_kld(&p, both, 4, &kld, &err), "%s", err.message);
    cr_expect(fabs(kld / expected - 1) < 1e-3, "%g, %g", kld, expected);
    probe_close(&p);
    model_free(both);
    model_free(base);
    model_free(m);
}

Test(sensitivity_probe, windows_are_spread_over_the_text) {
    struct error err = {0};
    struct model *m = bundled();
    int32_t tokens[100];
    for (int32_t i = 0; i < 100; i++)
        tokens[i] = i;
    struct probe p;
    cr_assert(probe_open(&p, m, m, tokens, 100, 30, 10, &err), "%s", err.message);
    cr_expect_eq(p.n, 30);
    cr_expect_eq(p.tokens[0], 0);
    cr_expect_eq(p.tokens[10], 45);
    cr_expect_eq(p.tokens[29], 99);
    cr_expect_eq(p.positions[29], 9);
    cr_expect_eq(p.sequences[29], 2);
    probe_close(&p);
    cr_assert(probe_open(&p, m, m, tokens, 7, 30, 10, &err), "%s", err.message);
    cr_expect_eq(p.n, 7); // a text shorter than a window is one
    probe_close(&p);
    cr_expect_not(probe_open(&p, m, m, tokens, 0, 30, 10, &err));
    cr_expect_str_eq(err.message, "the text to probe on has no tokens");
    tokens[3] = 1 << 20;
    cr_expect_not(probe_open(&p, m, m, tokens, 100, 30, 10, &err)); // and nothing leaks
    model_free(m);
}

// More tokens than go through the layers together: the inputs come in parts, and in order.
Test(sensitivity_probe, a_layer_s_inputs_are_captured) {
    enum { MANY = 1200 };
    struct error err = {0};
    struct model *m = bundled();
    int32_t *tokens = malloc(MANY * sizeof *tokens);
    size_t h = m->config.hidden;
    float row[2048], expected[2048];
    fill(tokens, MANY);
    struct probe p;
    struct layer_inputs in;
    cr_assert(probe_open(&p, m, m, tokens, MANY, MANY, 400, &err), "%s", err.message);
    cr_assert(layer_inputs_init(&in, &p, &err));
    cr_assert(layer_inputs_capture(&in, &p, 0, &err), "%s", err.message);
    const struct tensor *w = &m->embedding.w;
    for (size_t t = 0; t < MANY; t++) { // layer 0 reads normalised embeddings
        w->format->dequantize_ref(w->format, w->data, w->shape[0], h, (size_t)tokens[t], 0, h, row);
        rmsnorm_ref(expected, row, 1, h, m->layers[0].attention_norm.gain, m->config.norm_eps);
        for (size_t i = 0; i < h; i++)
            cr_assert(fabsf(in.x[INPUT_ATTENTION][t * h + i] - expected[i]) <=
                          1e-5f * fabsf(expected[i]) + 1e-7f,
                      "token %zu, channel %zu", t, i);
    }
    layer_inputs_free(&in);
    struct batch b = {.n = 1, .tokens = tokens, .positions = (int32_t[]){0}};
    cr_expect_not(model_run_layers(m, &p.kv, &b, 2, 1, row, NULL, NULL, &err));
    cr_expect_str_eq(err.message, "layers 2 to 1 of a model that has 6");
    cr_expect_not(model_run_layers(m, &p.kv, &b, 0, 7, row, NULL, NULL, &err));
    probe_close(&p);
    free(tokens);
    model_free(m);
}
