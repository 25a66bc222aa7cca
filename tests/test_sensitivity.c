// eval/sensitivity: every number of a cell against a plain computation of it, and what is
// estimated.
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "eval/activations.h"
#include "eval/sensitivity_part.h"
#include "quant/format.h"
#include "quant/quantize.h"
#include "sensitivity_data.h"
#include "shared.h"

static bool near(double a, double b, double tolerance) {
    return isfinite(a) && isfinite(b) && fabs(a - b) <= tolerance * fabs(b);
}

// ---- the list of tensors --------------------------------------------------------------------

static struct sensitivity shapes(const struct model *m, bool blocks_only, const char *format) {
    struct error err = {0};
    struct sensitivity s;
    const struct quant_format *f = quant_format_find(format);
    cr_assert(sensitivity_shapes(m, &f, 1, blocks_only, &s, &err), "%s", err.message);
    return s;
}

Test(sensitivity, tensors_are_listed_by_layer_and_kind) {
    struct model *m = open_model("data/model");
    struct sensitivity s = shapes(m, false, "int8"), blocks = shapes(m, true, "int8");
    const struct sensitivity_tensor *t = s.tensors;
    cr_assert_eq(s.n_tensors, 43); // 6 × 7 and a tied embedding
    cr_expect_str_eq(t[13].name, "model.layers.1.mlp.down_proj.weight");
    cr_expect_str_eq(t[13].kind, "mlp.down_proj");
    cr_expect(t[13].layer == 1 && t[13].n == 256 && t[13].k == 768);
    cr_expect_eq(t[13].bytes, 256 * 768 * 2);
    cr_expect_str_eq(t[42].kind, "embed_tokens");
    cr_expect_eq(t[42].layer, SENSITIVITY_NO_LAYER);
    cr_expect_eq(blocks.n_tensors, 42);
    sensitivity_free(&s);
    sensitivity_free(&blocks);
    model_free(m);
}

// GPT-2 stores q, k and v as one tensor; its MLP has no gate.
Test(sensitivity, a_fused_tensor_is_one) {
    struct model *m = open_model(shared_path("fixtures/gpt2-f32"));
    struct sensitivity s = shapes(m, true, "int8");
    const struct sensitivity_tensor *t = s.tensors;
    size_t h = m->config.hidden;
    cr_assert_eq(s.n_tensors, 4 * m->config.n_layers);
    cr_expect_str_eq(t[0].kind, "attn.c_attn");
    cr_expect(t[0].n == 3 * h && t[0].k == h && t[0].bytes == 3 * h * h * 4);
    cr_expect_str_eq(t[1].kind, "attn.c_proj");
    cr_expect_str_eq(t[3].kind, "mlp.c_proj");
    sensitivity_free(&s);
    model_free(m);
}

// Of tensors with parts, of formats with one scale for each part, and of those that do not fit.
static void expect_bytes_of(const char *model) {
    static const char *const names[] = {"int4-g128", "int8-tensor", "q4_k", "bf16"};
    const struct quant_format *formats[4];
    struct model *m = open_model(model);
    struct error err = {0};
    struct sensitivity shapes, measured;
    int32_t tokens[16] = {1, 2, 3};
    for (size_t f = 0; f < 4; f++)
        formats[f] = quant_format_find(names[f]);
    const struct sensitivity_options o = {.tokens = 16, .anchors = 1, .checks = 1};
    cr_assert(sensitivity_shapes(m, formats, 4, false, &shapes, &err), "%s", err.message);
    cr_assert(sensitivity_measure(m, formats, 4, tokens, 16, &o, &measured, NULL, NULL, &err));
    cr_assert_eq(shapes.n_tensors, measured.n_tensors);
    for (size_t i = 0; i < shapes.n_tensors * 4; i++) {
        cr_expect_eq(shapes.cells[i].bytes, measured.cells[i].bytes, "%s: %s", model,
                     shapes.tensors[i / 4].name);
        cr_expect_eq(sensitivity_kld(&shapes.cells[i]), 0);
    }
    sensitivity_free(&shapes);
    sensitivity_free(&measured);
    model_free(m);
}

Test(sensitivity, shapes_tell_the_bytes_that_measuring_finds) {
    expect_bytes_of(shared_path("fixtures/gpt2-f32"));
    expect_bytes_of(shared_path("fixtures/qwen2-tied-bf16"));
}

// ---- a cell's numbers -------------------------------------------------------------------------

static float *read_all(const struct tensor *w) {
    size_t n = w->shape[0], k = w->shape[1];
    float *out = malloc(n * k * sizeof *out);
    for (size_t i = 0; i < n; i++)
        w->format->dequantize_ref(w->format, w->data, n, k, i, 0, k, out + i * k);
    return out;
}

static struct model *with(const struct model *m, const char *name, const struct quant_format *f) {
    struct error err = {0};
    struct recipe r = {0};
    struct quantize_stats stats;
    cr_assert(recipe_add(&r, name, f, &err), "%s", err.message);
    struct model *q = model_quantize(m, &r, false, &stats, NULL, NULL, &err);
    cr_assert_not_null(q, "%s", err.message);
    recipe_free(&r);
    return q;
}

// The errors of q against w, both [n]: NMSE, mean square, cosine.
static void compare(const float *w, const float *q, size_t n, double *nmse, double *mse,
                    double *cosine) {
    double error = 0, ww = 0, qq = 0, wq = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)w[i] - q[i]) * ((double)w[i] - q[i]);
        ww += (double)w[i] * w[i];
        qq += (double)q[i] * q[i];
        wq += (double)w[i] * q[i];
    }
    *nmse = error / ww;
    *mse = error / (double)n;
    *cosine = wq / sqrt(ww * qq);
}

static void check_cell(const struct model *m, const struct sensitivity *s, struct probe *p,
                       const struct layer_inputs *in, size_t tensor, size_t format,
                       const struct linear *w, enum input_slot slot) {
    const struct sensitivity_cell *c = sensitivity_at(s, tensor, format);
    struct error err = {0};
    size_t n = w->w.shape[0], k = w->w.shape[1], layer = s->tensors[tensor].layer;
    struct model *q = with(m, s->tensors[tensor].name, s->formats[format]);
    const struct linear *changed =
        (const struct linear *)((const char *)&q->layers[layer] +
                                ((const char *)w - (const char *)&m->layers[layer]));
    float *a = read_all(&w->w), *b = read_all(&changed->w), *y = malloc(2 * TOKENS * n * sizeof *y);
    double nmse, mse, cosine, kld;
    compare(a, b, n * k, &nmse, &mse, &cosine);
    cr_expect_eq(c->bytes, changed->w.bytes);
    cr_expect(near(c->weight_nmse, nmse, 1e-9) && near(c->weight_mse, mse, 1e-9));
    cr_expect(near(c->weight_cosine, cosine, 1e-9));
    cr_expect(near(c->weight_snr_db, 10 * log10(1 / nmse), 1e-9));
    for (size_t t = 0; t < TOKENS; t++) // the plain product, with its bias
        for (size_t i = 0; i < n; i++) {
            double exact = w->bias ? w->bias[i] : 0, quantized = exact;
            for (size_t j = 0; j < k; j++) {
                exact += (double)a[i * k + j] * in->x[slot][t * k + j];
                quantized += (double)b[i * k + j] * in->x[slot][t * k + j];
            }
            y[t * n + i] = (float)exact;
            y[(TOKENS + t) * n + i] = (float)quantized;
        }
    compare(y, y + TOKENS * n, TOKENS * n, &nmse, &mse, &cosine);
    cr_expect(near(c->output_nmse, nmse, 1e-3), "%g, %g", c->output_nmse, nmse);
    cr_expect(near(c->output_cosine, cosine, 1e-6));
    cr_assert(probe_kld(p, q, 0, &kld, &err), "%s", err.message);
    cr_expect(near(c->kld_measured, kld, 1e-6), "%g, %g", c->kld_measured, kld);
    cr_expect(c->kld_error > 0 && c->kld_error < 2 * kld);
    free(a);
    free(b);
    free(y);
    model_free(q);
}

Test(sensitivity, cells_equal_plain_computations) {
    struct error err = {0};
    struct model *m = open_model("data/model");
    struct sensitivity s = measure(m, (struct sensitivity_options){.anchors = FORMATS});
    struct probe p;
    struct layer_inputs in;
    cr_assert(probe_open(&p, m, m, some_tokens(m), TOKENS, TOKENS, TOKENS, &err));
    cr_assert(layer_inputs_init(&in, &p, &err));
    const struct {
        const char *name;
        size_t layer, format;
        const struct linear *w;
        enum input_slot slot;
    } cases[] = {{"layers.0.self_attn.k_proj", 0, 3, &m->layers[0].k, INPUT_ATTENTION},
                 {"layers.2.self_attn.o_proj", 2, 1, &m->layers[2].o, INPUT_O},
                 {"layers.3.mlp.gate_proj", 3, 0, &m->layers[3].gate, INPUT_MLP},
                 {"layers.5.mlp.down_proj", 5, 2, &m->layers[5].down, INPUT_DOWN}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert(layer_inputs_capture(&in, &p, cases[i].layer, &err), "%s", err.message);
        check_cell(m, &s, &p, &in, find(&s, cases[i].name), cases[i].format, cases[i].w,
                   cases[i].slot);
    }
    layer_inputs_free(&in);
    probe_close(&p);
    sensitivity_free(&s);
    model_free(m);
}

// A model with a head of its own: embedding and head are two tensors with damages of their own.
Test(sensitivity, an_untied_head_is_measured_alone) {
    struct error err = {0};
    struct model *m = open_model(shared_path("fixtures/llama-untied-f16-sharded"));
    struct sensitivity s = measure(m, (struct sensitivity_options){0});
    struct probe p;
    cr_assert(probe_open(&p, m, m, some_tokens(m), TOKENS, TOKENS, TOKENS, &err));
    static const char *const names[] = {"embed_tokens", "lm_head"};
    for (size_t i = 0; i < 2; i++) {
        size_t t = find(&s, names[i]);
        const struct sensitivity_cell *c = sensitivity_at(&s, t, 2);
        struct model *q = with(m, s.tensors[t].name, s.formats[2]);
        double kld;
        cr_expect_eq(t, s.n_tensors - 2 + i);
        cr_assert(probe_kld(&p, q, 0, &kld, &err), "%s", err.message);
        cr_expect(near(c->kld_measured, kld, 1e-6), "%s: %g, %g", names[i], c->kld_measured, kld);
        cr_expect(c->output_nmse > 0 && c->output_nmse < 0.1);
        model_free(q);
    }
    probe_close(&p);
    sensitivity_free(&s);
    model_free(m);
}

// The three outputs of GPT-2's c_attn in layer 1, one behind the other.
static float *fused_outputs(const struct model *m, const float *x) {
    struct error err = {0};
    const struct layer *l = &m->layers[1];
    const struct linear *parts[] = {&l->q, &l->k, &l->v};
    size_t size = TOKENS * m->config.hidden;
    float *y = malloc(3 * size * sizeof *y);
    for (size_t i = 0; i < 3; i++)
        cr_assert(linear_forward(y + i * size, parts[i], x, TOKENS, &err), "%s", err.message);
    return y;
}

Test(sensitivity, a_fused_tensor_s_outputs_are_compared_whole) {
    struct error err = {0};
    struct model *m = open_model(shared_path("fixtures/gpt2-f32"));
    struct sensitivity s = measure(m, (struct sensitivity_options){.blocks_only = true});
    struct probe p;
    struct layer_inputs in;
    cr_assert(probe_open(&p, m, m, some_tokens(m), TOKENS, TOKENS, TOKENS, &err));
    cr_assert(layer_inputs_init(&in, &p, &err) && layer_inputs_capture(&in, &p, 1, &err));
    size_t t = find(&s, "h.1.attn.c_attn");
    struct model *q = with(m, s.tensors[t].name, s.formats[2]);
    float *a = fused_outputs(m, in.x[INPUT_ATTENTION]),
          *b = fused_outputs(q, in.x[INPUT_ATTENTION]);
    double nmse, mse, cosine;
    compare(a, b, 3 * TOKENS * m->config.hidden, &nmse, &mse, &cosine);
    cr_expect(near(sensitivity_at(&s, t, 2)->output_nmse, nmse, 1e-9));
    cr_expect(near(sensitivity_at(&s, t, 2)->output_cosine, cosine, 1e-9));
    free(a);
    free(b);
    layer_inputs_free(&in);
    probe_close(&p);
    model_free(q);
    sensitivity_free(&s);
    model_free(m);
}

Test(sensitivity, gpt2_is_measured_too) {
    struct model *m = open_model(shared_path("fixtures/gpt2-f32"));
    struct sensitivity s = measure(m, (struct sensitivity_options){.blocks_only = true});
    for (size_t i = 0; i < s.n_tensors * s.n_formats; i++)
        cr_expect(s.cells[i].kld_measured > 0 && s.cells[i].output_nmse > 0 &&
                  s.cells[i].output_nmse < 0.2);
    size_t bytes, h = m->config.hidden;
    cr_assert(s.formats[1]->bytes(s.formats[1], h, h, &bytes));
    cr_expect_eq(sensitivity_at(&s, 0, 1)->bytes, 3 * bytes);
    sensitivity_free(&s);
    model_free(m);
}

Test(sensitivity, threads_do_not_change_a_bit) {
    struct model *m = open_model("data/model");
    omp_set_num_threads(1);
    struct sensitivity one = measure(m, (struct sensitivity_options){.anchors = 1});
    omp_set_num_threads(3);
    struct sensitivity three = measure(m, (struct sensitivity_options){.anchors = 1});
    cr_expect_arr_eq(one.cells, three.cells, one.n_tensors * one.n_formats * sizeof *one.cells);
    sensitivity_free(&one);
    sensitivity_free(&three);
    model_free(m);
}

Test(sensitivity, few_anchors_leave_the_rest_to_estimates) {
    struct model *m = open_model("data/model");
    struct sensitivity s =
        measure(m, (struct sensitivity_options){.anchors = 2, .checks = 10, .blocks_only = true});
    size_t measured = 0, both = 0;
    for (size_t i = 0; i < s.n_tensors * s.n_formats; i++) {
        const struct sensitivity_cell *c = &s.cells[i];
        measured += !isnan(c->kld_measured);
        both += !isnan(c->kld_measured) && !isnan(c->kld_estimated);
        cr_expect(sensitivity_kld(c) >= 0 && isfinite(sensitivity_kld(c)));
    }
    cr_expect_eq(measured, 2 * 42 + 10);
    cr_expect_eq(both, 10);
    cr_expect_eq(s.check.cells, 10);
    cr_expect(s.check.rank_correlation > 0.6, "%g", s.check.rank_correlation);
    cr_expect(s.check.typical_factor > 1 && s.check.typical_factor < 3);
    double sum = 0;
    for (size_t t = 0; t < s.n_tensors; t++)
        sum += sensitivity_kld(sensitivity_at(&s, t, 1));
    cr_expect(near(sensitivity_sum(&s, 1), sum, 1e-12));
    sensitivity_free(&s);
    model_free(m);
}

Test(sensitivity, bad_questions_are_refused) {
    struct error err = {0};
    struct model *m = open_model("data/model");
    struct sensitivity s;
    struct sensitivity_options o = {0};
    cr_expect_not(
        sensitivity_measure(m, four_formats(), 0, some_tokens(m), 9, &o, &s, NULL, NULL, &err));
    cr_expect_str_eq(err.message, "no format to measure");
    const struct sensitivity_options none = {.only = "*.up_down"};
    cr_expect_not(
        sensitivity_measure(m, four_formats(), 1, some_tokens(m), 9, &none, &s, NULL, NULL, &err));
    cr_expect_str_eq(err.message, "no tensor to measure");
    cr_expect_not(sensitivity_measure(m, four_formats(), FORMATS, some_tokens(m), 0, &o, &s, NULL,
                                      NULL, &err));
    cr_expect_str_eq(err.message, "the text to probe on has no tokens");
    int32_t outside[2] = {0, (int32_t)m->config.vocab};
    cr_expect_not(
        sensitivity_measure(m, four_formats(), FORMATS, outside, 2, &o, &s, NULL, NULL, &err));
    cr_expect(strstr(err.message, "outside the model's vocabulary"), "%s", err.message);
    float gain = m->final_norm.gain[3];
    m->final_norm.gain[3] = NAN;
    cr_expect_not(sensitivity_measure(m, four_formats(), FORMATS, some_tokens(m), TOKENS, &o, &s,
                                      NULL, NULL, &err));
    cr_expect(strstr(err.message, "not numbers"), "%s", err.message);
    m->final_norm.gain[3] = gain;
    model_free(m);
}

Test(sensitivity, fingerprints_tell_models_apart) {
    struct model *m = open_model("data/model");
    uint64_t original = sensitivity_fingerprint(m);
    cr_expect_eq(original, sensitivity_fingerprint(m));
    struct model *q = with(m, "model.layers.2.mlp.up_proj", quant_format_find("int8"));
    cr_expect_neq(original, sensitivity_fingerprint(q));
    model_free(q);
    const void *data = m->layers[1].q.w.data; // the same shapes, other weights
    m->layers[1].q.w.data = m->layers[2].q.w.data;
    cr_expect_neq(original, sensitivity_fingerprint(m));
    size_t bytes = m->layers[1].q.w.bytes; // one bit of one weight
    unsigned char *copy = malloc(bytes);
    memcpy(copy, data, bytes);
    m->layers[1].q.w.data = copy;
    cr_expect_eq(original, sensitivity_fingerprint(m));
    copy[bytes / 2 + 100] ^= 1;
    cr_expect_neq(original, sensitivity_fingerprint(m));
    m->layers[1].q.w.data = (void *)data;
    free(copy);
    cr_expect_neq(sensitivity_text((int32_t[]){1, 2}, 2), sensitivity_text((int32_t[]){2, 1}, 2));
    model_free(m);
}
