// model/model_gguf: a model from a GGUF file computes what the checkpoint it was made from does.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "gguf_model.h"
#include "model/rope_scaling.h"
#include "quant/quantize.h"
#include "compare.h"
#include "shared.h"
#include "temp.h"

enum { TOKENS = 40 };

// Logits [TOKENS, V] of tokens that hit many rows of the embedding.
static float *logits_of(const struct model *m) {
    int32_t tokens[TOKENS], positions[TOKENS];
    struct kv_cache kv;
    struct error err = {0};
    for (int32_t i = 0; i < TOKENS; i++) {
        tokens[i] = (i * 37 + 11) % (int32_t)m->config.vocab;
        positions[i] = i;
    }
    float *logits = malloc(TOKENS * m->config.vocab * sizeof *logits);
    struct batch b = {.n = TOKENS, .tokens = tokens, .positions = positions};
    cr_assert(kv_cache_init(&kv, &m->config, 1, TOKENS, &err), "%s", err.message);
    cr_assert(model_forward(m, &kv, &b, logits, &err), "%s", err.message);
    kv_cache_free(&kv);
    return logits;
}

static struct model *load(const char *path) {
    struct error err = {0};
    struct model *m = model_load(path, &err);
    cr_assert_not_null(m, "%s", err.message);
    return m;
}

static struct model *load_as_gguf(const struct model *m, const struct quant_format *format) {
    struct gguf_bytes file = gguf_of_model(m, NULL, NULL, format);
    const char *path = temp_file("model.gguf", file.data, file.size);
    free(file.data);
    return load(path);
}

static double distance(const struct model *a, const struct model *b) {
    cr_assert_eq(a->config.vocab, b->config.vocab);
    float *x = logits_of(a), *y = logits_of(b);
    double error = rel_l2(x, y, TOKENS * a->config.vocab);
    free(x);
    free(y);
    return error;
}

static bool collect_name(void *user, struct linear *l) {
    char *names = user;
    strcat(strcat(names, l->w.name), "\n");
    return true;
}

static void check_fixture(const char *folder) {
    struct model *m = load(folder), *g = load_as_gguf(m, NULL);
    double error = distance(g, m);
    cr_assert(error <= 1e-6, "%s: relative error %g", folder, error);
    char *names = calloc(2, 1 << 16);
    model_visit_linears(m, collect_name, names);
    model_visit_linears(g, collect_name, names + (1 << 16));
    cr_assert_str_eq(names, names + (1 << 16));
    cr_assert_eq(model_parameters(m), model_parameters(g));
    cr_assert_eq(model_bytes(m), model_bytes(g));
    free(names);
    model_free(g);
    model_free(m);
}

Test(gguf_model, qwen2_is_the_checkpoint) {
    check_fixture(shared_path("fixtures/qwen2-tied-bf16"));
}

Test(gguf_model, qwen3_is_the_checkpoint) {
    check_fixture(shared_path("fixtures/qwen3-qknorm-bf16"));
}

Test(gguf_model, llama_is_the_checkpoint) {
    check_fixture(shared_path("fixtures/llama-untied-f16-sharded"));
}

Test(gguf_model, mistral_is_the_checkpoint) {
    check_fixture(shared_path("fixtures/mistral-gqa-f32"));
}

Test(gguf_model, gpt2_is_the_checkpoint) {
    check_fixture(shared_path("fixtures/gpt2-f32"));
}

// q and k lose their order if rows of another architecture were turned, or llama's were not.
Test(gguf_model, only_llama_s_rows_are_turned) {
    struct model *m = load(shared_path("fixtures/mistral-gqa-f32")), *g = load_as_gguf(m, NULL);
    const struct layer *a = &m->layers[1], *b = &g->layers[1];
    cr_assert_arr_eq(a->q.w.data, b->q.w.data, a->q.w.bytes);
    cr_assert_arr_eq(a->k.w.data, b->k.w.data, a->k.w.bytes);
    const struct mapping *file = &g->gguf->file.parts[0].mapping;
    const unsigned char *v = b->v.w.data, *k = b->k.w.data;
    cr_assert(v > file->data && v < file->data + file->size, "v is a view of the file");
    cr_assert_not(k > file->data && k < file->data + file->size, "k is a copy");
    model_free(g);
    model_free(m);
}

// Llama with biases: they move with the rows they belong to.
Test(gguf_model, llama_s_biases_are_turned_with_their_rows) {
    struct model *m = load(shared_path("fixtures/llama-untied-f16-sharded"));
    for (size_t i = 0; i < m->config.n_layers; i++) {
        struct linear *all[] = {&m->layers[i].q, &m->layers[i].k, &m->layers[i].v};
        for (size_t j = 0; j < 3; j++) {
            size_t n = all[j]->w.shape[0];
            all[j]->bias = malloc(n * sizeof *all[j]->bias);
            for (size_t r = 0; r < n; r++)
                all[j]->bias[r] = (float)(r * 7 % 13) * 0.1f - 0.6f;
        }
    }
    struct model *g = load_as_gguf(m, NULL);
    cr_assert(g->config.attention_bias && !g->config.output_bias);
    cr_assert_arr_eq(g->layers[0].k.bias, m->layers[0].k.bias, m->layers[0].k.w.shape[0] * 4);
    double error = distance(g, m);
    cr_assert(error <= 1e-6, "relative error %g", error);
    model_free(g);
    model_free(m);
}

// Every format that GGUF has: the same weights come from the file as from quantizing here.
Test(gguf_model, matrices_of_every_format_are_computed_with) {
    const char *folder = shared_path("data/models/books-qwen2");
    struct model *m = load(folder);
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        struct error err = {0};
        if (!f->gguf_type)
            continue;
        struct model *g = load_as_gguf(m, f);
        cr_assert_eq(g->layers[0].down.w.format, f);
        struct recipe r;
        struct quantize_stats stats;
        cr_assert(recipe_uniform(&r, f, NULL, NULL, &err), "%s", err.message);
        struct model *q = model_quantize(m, &r, false, &stats, NULL, NULL, &err);
        cr_assert_not_null(q, "%s: %s", f->name, err.message);
        double error = distance(g, q);
        cr_assert(error <= 1e-6, "%s: relative error %g", f->name, error);
        recipe_free(&r);
        model_free(q);
        model_free(g);
    }
    model_free(m);
}

Test(gguf_model, a_quantized_embedding_is_read_row_by_row) {
    struct model *m = load(shared_path("data/models/books-qwen2"));
    struct recipe r;
    struct quantize_stats stats;
    struct error err = {0};
    cr_assert(recipe_parse(&r, "* q4_0", "r", &err), "%s", err.message);
    struct model *q = model_quantize(m, &r, false, &stats, NULL, NULL, &err);
    cr_assert_not_null(q, "%s", err.message);
    struct model *g = load_as_gguf(q, NULL);
    cr_assert_str_eq(g->embedding.w.format->name, "q4_0");
    cr_assert(g->config.tied && g->head.w.data == g->embedding.w.data);
    double error = distance(g, q);
    cr_assert(error <= 1e-6, "relative error %g", error);
    recipe_free(&r);
    model_free(g);
    model_free(q);
    model_free(m);
}

// What is quantized already is quantized again from what it stands for.
Test(gguf_model, a_quantized_model_can_be_quantized) {
    struct model *m = load(shared_path("data/models/books-qwen2"));
    struct model *g = load_as_gguf(m, quant_format_find("q8_0"));
    struct recipe r;
    struct quantize_stats stats;
    struct error err = {0};
    cr_assert(recipe_parse(&r, "*.down_proj int8\n*.layers.0.* keep\n*_proj int4-g64", "r", &err),
              "%s", err.message);
    struct model *q = model_quantize(g, &r, false, &stats, NULL, NULL, &err);
    cr_assert_not_null(q, "%s", err.message);
    cr_assert_str_eq(q->layers[3].down.w.format->name, "int8");
    cr_assert_str_eq(q->layers[3].up.w.format->name, "int4-g64");
    cr_assert_str_eq(q->layers[0].up.w.format->name, "q8_0");
    cr_assert(stats.nmse > 1e-6 && stats.nmse < 0.02, "%g", stats.nmse);
    double error = distance(q, m);
    cr_assert(error > 1e-4 && error < 0.3, "relative error %g", error);
    recipe_free(&r);
    model_free(q);
    model_free(g);
    model_free(m);
}

// Llama 3's frequencies come from the file's factors.
Test(gguf_model, rotary_factors_scale_the_frequencies) {
    struct model *m = load(shared_path("fixtures/llama-untied-f16-sharded"));
    m->config.rope = (struct rope_config){.kind = ROPE_LLAMA3,
                                          .theta = m->config.rope.theta,
                                          .factor = 8,
                                          .low_freq_factor = 1,
                                          .high_freq_factor = 4,
                                          .original_context = 64};
    struct error err = {0};
    free(m->inv_freq);
    cr_assert(rope_frequencies(&m->config, &m->inv_freq, &err));
    struct model *g = load_as_gguf(m, NULL);
    cr_assert_not_null(g->config.rope.factors);
    double error = rel_l2(g->inv_freq, m->inv_freq, m->config.head_dim / 2);
    cr_assert(error < 1e-6, "%g", error);
    error = distance(g, m);
    cr_assert(error <= 1e-5, "relative error %g", error);
    struct model *plain = load(shared_path("fixtures/llama-untied-f16-sharded"));
    cr_assert(distance(plain, m) > 1e-3, "the factors matter here");
    model_free(plain);
    model_free(g);
    model_free(m);
}
