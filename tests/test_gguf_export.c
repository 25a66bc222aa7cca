// export/gguf_export: what is written computes what the checkpoint does.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "gguf_files.h"
#include "model/arch.h"
#include "quant/quantize.h"
#include "shared.h"

// A checkpoint in the type it is stored in (or a wider one), there and back: the same logits.
static void expect_same_logits(const char *folder, const char *type) {
    struct model *m = model_of(folder);
    struct tokenizer *t = tokenizer_of(folder);
    char *path = gguf_path("same");
    export_as(m, t, type, path);
    struct model *back = model_of(path);
    cr_assert_eq(m->config.vocab, back->config.vocab);
    float *expected = logits_of(m), *found = logits_of(back);
    size_t n = LOGIT_TOKENS * m->config.vocab;
    cr_expect(rel_l2(found, expected, n) <= 1e-6, "%s as %s: %g", folder, type,
              rel_l2(found, expected, n));
    free(expected);
    free(found);
    model_free(back);
    model_free(m);
    tokenizer_free(t);
    free(path);
}

Test(gguf_export, the_bundled_model_comes_back) {
    expect_same_logits("data/model", "BF16");
    expect_same_logits("data/model", "F32");
}

Test(gguf_export, qwen2_comes_back) {
    expect_same_logits(shared_path("fixtures/qwen2-tied-bf16"), "BF16");
}

Test(gguf_export, qwen3_comes_back) {
    expect_same_logits(shared_path("fixtures/qwen3-qknorm-bf16"), "BF16");
}

Test(gguf_export, llama_comes_back_with_its_rows_moved) {
    expect_same_logits(shared_path("fixtures/llama-untied-f16-sharded"), "F16");
}

Test(gguf_export, mistral_comes_back_as_llama) {
    expect_same_logits(shared_path("fixtures/mistral-gqa-f32"), "F32");
}

Test(gguf_export, gpt2_comes_back_with_its_matrices_turned) {
    expect_same_logits(shared_path("fixtures/gpt2-f32"), "F32");
}

// ---- a model of a few numbers -----------------------------------------------------------------

enum { HIDDEN = 8, HEADS = 2, HEAD_DIM = 4, MLP = 6, VOCAB = 10 };

struct tiny {
    struct model model;
    struct layer layer;
    float weights[8][VOCAB * HIDDEN], bias[HIDDEN], gain[HIDDEN], inv_freq[HEAD_DIM / 2];
};

static void set_linear(struct linear *l, const char *name, float *w, size_t n, size_t k) {
    for (size_t i = 0; i < n * k; i++)
        w[i] = (float)i; // row r begins with r * k
    l->w = (struct tensor){.name = name,
                           .file = "tiny",
                           .dtype = DTYPE_F32,
                           .format = quant_format_of_dtype(DTYPE_F32),
                           .n_dims = 2,
                           .shape = {n, k},
                           .bytes = n * k * sizeof *w,
                           .data = w};
}

static void tiny_init(struct tiny *t, const char *arch) {
    memset(t, 0, sizeof *t);
    struct model *m = &t->model;
    for (const struct arch *const *a = archs; *a; a++)
        if (strcmp((*a)->name, arch) == 0)
            m->config.arch = *a;
    m->config = (struct model_config){.arch = m->config.arch,
                                      .hidden = HIDDEN,
                                      .intermediate = MLP,
                                      .n_layers = 1,
                                      .n_heads = HEADS,
                                      .n_kv_heads = HEADS,
                                      .head_dim = HEAD_DIM,
                                      .vocab = VOCAB,
                                      .max_context = 64,
                                      .tied = true,
                                      .bos = -1,
                                      .rope = {.kind = ROPE_DEFAULT, .theta = 10000}};
    m->layers = &t->layer;
    m->inv_freq = t->inv_freq;
    m->final_norm.gain = t->layer.attention_norm.gain = t->layer.mlp_norm.gain = t->gain;
    set_linear(&m->embedding, "model.embed_tokens.weight", t->weights[0], VOCAB, HIDDEN);
    set_linear(&t->layer.q, "model.layers.0.self_attn.q_proj.weight", t->weights[1], HIDDEN,
               HIDDEN);
    set_linear(&t->layer.k, "model.layers.0.self_attn.k_proj.weight", t->weights[2], HIDDEN,
               HIDDEN);
    set_linear(&t->layer.v, "model.layers.0.self_attn.v_proj.weight", t->weights[3], HIDDEN,
               HIDDEN);
    set_linear(&t->layer.o, "model.layers.0.self_attn.o_proj.weight", t->weights[4], HIDDEN,
               HIDDEN);
    set_linear(&t->layer.gate, "model.layers.0.mlp.gate_proj.weight", t->weights[5], MLP, HIDDEN);
    set_linear(&t->layer.up, "model.layers.0.mlp.up_proj.weight", t->weights[6], MLP, HIDDEN);
    set_linear(&t->layer.down, "model.layers.0.mlp.down_proj.weight", t->weights[7], HIDDEN, MLP);
    for (size_t i = 0; i < HIDDEN; i++)
        t->bias[i] = (float)i;
    t->layer.q.bias = t->bias;
}

static struct tokenizer *tiny_tokenizer(void) {
    static const char json[] = "{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": []}, "
                               "\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, "
                               "\"decoder\": {\"type\": \"ByteLevel\"}}";
    struct error err = {0};
    struct tokenizer *t = tokenizer_parse(json, strlen(json), NULL, 0, "tiny.json", &err);
    cr_assert(t, "%s", err.message);
    return t;
}

static void open_tiny(struct tiny *t, const char *type, struct gguf *g) {
    struct tokenizer *tokenizer = tiny_tokenizer();
    char *path = gguf_path("tiny");
    struct error err = {0};
    export_as(&t->model, tokenizer, type, path);
    cr_assert(gguf_open(g, path, &err), "%s", err.message);
    tokenizer_free(tokenizer);
    free(path);
}

static const float *floats_of(const struct gguf *g, const char *name) {
    const struct gguf_tensor *t = gguf_find_tensor(g, name);
    cr_assert(t && t->view.dtype == DTYPE_F32, "%s", name);
    return t->view.data;
}

Test(gguf_export, llama_has_the_two_halves_of_a_head_interleaved) {
    static const float order[HIDDEN] = {0, 2, 1, 3, 4, 6, 5, 7};
    struct tiny t;
    struct gguf g;
    tiny_init(&t, "llama");
    open_tiny(&t, "F32", &g);
    for (size_t i = 0; i < HIDDEN; i++) {
        cr_expect_eq(floats_of(&g, "blk.0.attn_q.weight")[i * HIDDEN], HIDDEN * order[i]);
        cr_expect_eq(floats_of(&g, "blk.0.attn_k.weight")[i * HIDDEN], HIDDEN * order[i]);
        cr_expect_eq(floats_of(&g, "blk.0.attn_v.weight")[i * HIDDEN], HIDDEN * (float)i);
        cr_expect_eq(floats_of(&g, "blk.0.attn_q.bias")[i], order[i]);
    }
    gguf_close(&g);
}

Test(gguf_export, qwen2_keeps_its_rows) {
    struct tiny t;
    struct gguf g;
    tiny_init(&t, "qwen2");
    open_tiny(&t, "F16", &g);
    const struct gguf_tensor *q = gguf_find_tensor(&g, "blk.0.attn_q.weight");
    cr_assert(q && q->type == GGUF_TYPE_F16);
    for (size_t i = 0; i < HIDDEN; i++) {
        uint16_t h;
        memcpy(&h, (const char *)q->view.data + 2 * i * HIDDEN, sizeof h);
        cr_expect_eq(f16_to_f32(h), HIDDEN * (float)i);
        cr_expect_eq(floats_of(&g, "blk.0.attn_q.bias")[i], (float)i);
    }
    gguf_close(&g);
}

Test(gguf_export, llama3_scaling_is_what_frequencies_are_divided_by) {
    struct tiny t;
    struct gguf g;
    tiny_init(&t, "llama");
    t.model.config.rope = (struct rope_config){.kind = ROPE_LLAMA3,
                                               .theta = 10000,
                                               .factor = 8,
                                               .low_freq_factor = 1,
                                               .high_freq_factor = 4,
                                               .original_context = 64};
    t.inv_freq[0] = 1; // turns ten times in 64 positions: stays
    t.inv_freq[1] = 0.01f / 8;
    open_tiny(&t, "F32", &g);
    const float *factors = floats_of(&g, "rope_freqs.weight");
    cr_expect_eq(factors[0], 1);
    cr_expect(fabsf(factors[1] - 8) < 1e-5f, "%g", (double)factors[1]);
    gguf_close(&g);
}

Test(gguf_export, linear_scaling_and_windows_are_keys) {
    struct tiny t;
    struct gguf g;
    struct error err = {0};
    struct gguf_string type = {0};
    double factor = 0;
    int64_t window = 0;
    tiny_init(&t, "llama");
    t.model.config.rope.kind = ROPE_LINEAR;
    t.model.config.rope.factor = 4;
    t.model.config.sliding_window = 32;
    open_tiny(&t, "F32", &g);
    cr_assert(gguf_get_string(&g, "llama.rope.scaling.type", &type, &err) &&
              gguf_get_number(&g, "llama.rope.scaling.factor", &factor, &err) &&
              gguf_get_int(&g, "llama.attention.sliding_window", 0, 100, &window, &err));
    cr_expect(gguf_string_is(type, "linear"));
    cr_expect_eq(factor, 4);
    cr_expect_eq(window, 32);
    cr_expect_null(gguf_find(&g, "llama.attention.sliding_window_pattern"));
    gguf_close(&g);
}

// ---- types --------------------------------------------------------------------------------------

Test(gguf_export, rows_that_no_block_fits_become_float16) {
    struct tiny t;
    struct gguf_plan plan;
    struct error err = {0};
    tiny_init(&t, "qwen2");
    cr_assert(gguf_plan_preset(&plan, &t.model, preset("Q4_K_M"), NULL, NULL, &err));
    for (size_t i = 0; i < plan.n_tensors; i++) {
        const struct gguf_plan_tensor *p = &plan.tensors[i];
        cr_expect_eq(p->format->dtype, p->k ? DTYPE_F16 : DTYPE_F32, "%s", p->name);
        if (p->role == GGUF_GATE && p->k)
            cr_expect_eq(p->wanted, GGUF_TYPE_Q4_K);
    }
    gguf_plan_free(&plan);
}

Test(gguf_export, only_and_skip_leave_matrices_as_they_are) {
    struct model *m = model_of("data/model");
    struct gguf_plan plan;
    struct error err = {0};
    cr_assert(gguf_plan_preset(&plan, m, preset("Q8_0"), "*.mlp.*", "*down*", &err));
    for (size_t i = 0; i < plan.n_tensors; i++) {
        const struct gguf_plan_tensor *t = &plan.tensors[i];
        if (t->k)
            cr_expect_str_eq(t->format->name,
                             t->role == GGUF_GATE || t->role == GGUF_UP ? "q8_0" : "bf16", "%s",
                             t->name);
    }
    gguf_plan_free(&plan);
    model_free(m);
}

Test(gguf_export, a_recipe_maps_formats_of_ours_and_measures_both) {
    struct model *m = model_of("data/model");
    struct tokenizer *t = tokenizer_of("data/model");
    struct recipe r;
    struct gguf_plan plan;
    struct error err = {0};
    struct quantize_stats stats;
    const struct gguf_export_options options = {.name = "test"};
    char *path = gguf_path("recipe");
    cr_assert(recipe_parse(&r, "*.down_proj int4-g128\n*.up_proj q6_k\n", "r", &err));
    cr_assert(gguf_plan_recipe(&plan, m, &r, &err), "%s", err.message);
    cr_expect_eq(plan.file_type, 32, "%u", plan.file_type); // BF16, as most weights stay
    cr_assert(gguf_export(&plan, t, &options, path, NULL, &err), "%s", err.message);
    struct matrix_error asked = {0};
    for (size_t i = 0; i < plan.n_tensors; i++) {
        const struct gguf_plan_tensor *p = &plan.tensors[i];
        if (p->k && p->role == GGUF_DOWN) {
            cr_expect_str_eq(p->format->name, "q4_0");
            asked.error_squared += p->asked_cost.error_squared;
            asked.weight_squared += p->asked_cost.weight_squared;
        } else if (p->k) {
            cr_expect_str_eq(p->format->name, p->role == GGUF_UP ? "q6_k" : "bf16");
            cr_expect_eq(p->asked_cost.weight_squared, 0);
        }
    }
    recipe_free(&r);
    cr_assert(recipe_parse(&r, "*.down_proj int4-g128\n", "r", &err));
    struct model *q = model_quantize(m, &r, false, &stats, NULL, NULL, &err);
    cr_expect(fabs(asked.error_squared / asked.weight_squared - stats.nmse) <= 1e-9 * stats.nmse);
    model_free(q);
    recipe_free(&r);
    gguf_plan_free(&plan);
    tokenizer_free(t);
    model_free(m);
    free(path);
}

Test(gguf_export, what_is_in_the_file_is_what_model_quantize_makes) {
    struct model *m = model_of("data/model");
    struct tokenizer *t = tokenizer_of("data/model");
    struct recipe r;
    struct quantize_stats stats;
    struct error err = {0};
    char *path = gguf_path("q4_0");
    export_as(m, t, "Q4_0", path);
    struct model *file = model_of(path);
    cr_assert(recipe_parse(&r, "*embed* q6_k\n* q4_0\n", "r", &err));
    struct model *q = model_quantize(m, &r, false, &stats, NULL, NULL, &err);
    cr_assert(q, "%s", err.message);
    for (size_t i = 0; i < m->config.n_layers; i++) {
        const struct tensor *a = &q->layers[i].down.w, *b = &file->layers[i].down.w;
        cr_assert_eq(a->bytes, b->bytes);
        cr_expect_eq(memcmp(a->data, b->data, a->bytes), 0, "layer %zu", i);
    }
    cr_expect_eq(memcmp(q->embedding.w.data, file->embedding.w.data, q->embedding.w.bytes), 0);
    recipe_free(&r);
    model_free(q);
    model_free(file);
    tokenizer_free(t);
    model_free(m);
    free(path);
}

// ---- again from a file --------------------------------------------------------------------------

static void expect_same_key(const struct gguf *a, const struct gguf *b, const char *key) {
    const struct gguf_value *x = gguf_find(a, key), *y = gguf_find(b, key);
    cr_assert(x && y, "%s", key);
    cr_expect(x->type == y->type && x->n == y->n && x->bytes == y->bytes &&
                  memcmp(x->data, y->data, x->bytes) == 0,
              "%s", key);
}

Test(gguf_export, a_file_can_be_quantized_anew_and_keeps_its_keys) {
    struct model *m = model_of("data/model");
    struct tokenizer *t = tokenizer_of("data/model");
    char *f32 = gguf_path("f32"), *direct = gguf_path("direct"), *anew = gguf_path("anew");
    struct error err = {0};
    struct gguf a, b, c;
    export_as(m, t, "F32", f32);
    export_as(m, t, "Q8_0", direct);
    struct model *from_file = model_of(f32);
    export_as(from_file, NULL, "Q8_0", anew);
    cr_assert(gguf_open(&a, f32, &err) && gguf_open(&b, anew, &err) && gguf_open(&c, direct, &err));
    cr_expect_eq(a.n_keys, b.n_keys);
    expect_same_key(&a, &b, "tokenizer.ggml.tokens");
    expect_same_key(&a, &b, "general.name");
    expect_same_key(&b, &c, "general.file_type");
    cr_assert_eq(b.n_tensors, c.n_tensors);
    for (size_t i = 0; i < b.n_tensors; i++) {
        const struct tensor *x = &b.tensors[i].view, *y = &c.tensors[i].view;
        cr_expect_str_eq(x->name, y->name);
        cr_expect(x->bytes == y->bytes && memcmp(x->data, y->data, x->bytes) == 0, "%s", x->name);
    }
    gguf_close(&a);
    gguf_close(&b);
    gguf_close(&c);
    model_free(from_file);
    model_free(m);
    tokenizer_free(t);
    free(f32);
    free(direct);
    free(anew);
}

Test(gguf_export, types_that_stay_are_copied_not_rounded_again) {
    struct model *m = model_of("data/model");
    struct tokenizer *t = tokenizer_of("data/model");
    char *first = gguf_path("first"), *second = gguf_path("second");
    export_as(m, t, "Q4_K_M", first);
    struct model *again = model_of(first);
    struct gguf_plan plan;
    struct error err = {0};
    const struct gguf_export_options options = {.name = "test"};
    cr_assert(gguf_plan_preset(&plan, again, preset("Q4_K_M"), NULL, NULL, &err));
    cr_assert(gguf_export(&plan, NULL, &options, second, NULL, &err), "%s", err.message);
    for (size_t i = 0; i < plan.n_tensors; i++)
        cr_expect_eq(plan.tensors[i].cost.weight_squared, 0);
    gguf_plan_free(&plan);
    struct model *twice = model_of(second);
    float *expected = logits_of(again), *found = logits_of(twice);
    cr_expect_eq(memcmp(expected, found, LOGIT_TOKENS * m->config.vocab * sizeof *found), 0);
    free(expected);
    free(found);
    model_free(twice);
    model_free(again);
    model_free(m);
    tokenizer_free(t);
    free(first);
    free(second);
}

// ---- failures -----------------------------------------------------------------------------------

Test(gguf_export, a_weight_that_is_no_number_is_named_and_nothing_is_left) {
    struct tiny t;
    struct gguf_plan plan;
    struct error err = {0};
    const struct gguf_export_options options = {.name = "test"};
    struct tokenizer *tokenizer = tiny_tokenizer();
    char *path = gguf_path("nan");
    tiny_init(&t, "qwen2");
    t.weights[6][3 * HIDDEN + 2] = NAN;
    cr_assert(gguf_plan_preset(&plan, &t.model, preset("F16"), NULL, NULL, &err));
    cr_expect(!gguf_export(&plan, tokenizer, &options, path, NULL, &err));
    cr_expect(strstr(err.message, "tiny: tensor 'model.layers.0.mlp.up_proj.weight': row 3, column "
                                  "2"),
              "%s", err.message);
    cr_expect(!file_exists(path));
    gguf_plan_free(&plan);
    tokenizer_free(tokenizer);
    free(path);
}

Test(gguf_export, factors_of_frequencies_need_the_architecture_llama) {
    struct tiny t;
    struct gguf_plan plan;
    struct error err = {0};
    tiny_init(&t, "qwen2");
    t.model.config.rope.kind = ROPE_LLAMA3;
    cr_expect(!gguf_plan_preset(&plan, &t.model, preset("F16"), NULL, NULL, &err));
    cr_expect(strstr(err.message, "only for llama"), "%s", err.message);
}
