// eval/: metrics on vectors computed by hand, the two protocols, and recorded perplexities.
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "eval/generate.h"
#include "eval/perplexity.h"
#include "io/json.h"
#include "quant/quantize.h"
#include "shared.h"
#include "text/tokenizer.h"

Test(eval, nll_of_a_known_softmax) {
    float logits[3] = {logf(1), logf(2), logf(5)}; // probabilities 1/8, 2/8, 5/8
    cr_assert_float_eq(nll_of(logits, 3, 0), log(8), 1e-6);
    cr_assert_float_eq(nll_of(logits, 3, 2), log(8.0 / 5), 1e-6);
    float shifted[3] = {logits[0] + 1000, logits[1] + 1000, logits[2] + 1000};
    cr_assert_float_eq(nll_of(shifted, 3, 1), log(4), 1e-4);
}

Test(eval, kl_divergence_of_known_distributions) {
    float p[2] = {logf(0.75f), logf(0.25f)}, q[2] = {0, 0};
    double expected = 0.75 * log(1.5) + 0.25 * log(0.5);
    cr_assert_float_eq(kl_divergence(p, q, 2), expected, 1e-7);
    cr_assert_float_eq(kl_divergence(p, p, 2), 0, 1e-12);
    float certain[2] = {0, -INFINITY}; // 0 log 0 counts as 0
    cr_assert_float_eq(kl_divergence(certain, q, 2), log(2), 1e-7);
    cr_assert(isinf(kl_divergence(q, certain, 2)));
    float broken[2] = {NAN, 0};
    cr_assert(isnan(kl_divergence(p, broken, 2)));
    cr_assert(isnan(kl_divergence(broken, p, 2)));
}

Test(eval, argmax_takes_the_first_of_equals) {
    float x[4] = {1, 3, 3, 2};
    cr_assert_eq(argmax(x, 4), 1);
}

Test(eval, quantile_interpolates) {
    float x[5] = {5, 1, 4, 2, 3};
    cr_assert_float_eq(quantile(x, 5, 0.5), 3, 1e-12);
    cr_assert_float_eq(quantile(x, 5, 0.99), 4.96, 1e-6);
    cr_assert_float_eq(quantile(x, 1, 0.99), 1, 1e-12);
    cr_assert(isnan(quantile(x, 0, 0.5)));
}

// ---- real models ------------------------------------------------------------------------------

struct subject {
    struct model *m;
    struct tokenizer *t;
};

static struct subject subject_open(const char *folder) {
    struct error err = {0};
    struct subject s = {model_load(folder, &err), NULL};
    cr_assert_not_null(s.m, "%s", err.message);
    s.t = tokenizer_load(folder, &err);
    cr_assert_not_null(s.t, "%s", err.message);
    return s;
}

static struct token_list encode_file(const struct tokenizer *t, const char *path, size_t limit) {
    struct error err = {0};
    struct token_list list = {0};
    size_t size;
    char *text = file_read(path, 1 << 30, &size, &err);
    cr_assert_not_null(text, "%s", err.message);
    int32_t bos = tokenizer_bos(t);
    cr_assert(bos < 0 || token_list_push(&list, bos, &err));
    cr_assert(tokenizer_encode(t, text, size, &list, &err), "%s", err.message);
    free(text);
    if (limit && list.n > limit)
        list.n = limit;
    return list;
}

// One entry of expected.json: the reference implementation's perplexities of one text.
static void check_recorded(const struct subject *s, const cJSON *entry) {
    char path[2048];
    const char *root = getenv("NIBBLE_SHARED");
    snprintf(path, sizeof path, "%s/data/text/%s", root ? root : "../shared",
             json_get(entry, "text")->valuestring);
    struct token_list list = encode_file(s->t, path, (size_t)json_get(entry, "limit")->valuedouble);
    cr_assert_eq(list.n, (size_t)json_get(entry, "tokens_encoded")->valuedouble);
    struct eval_text text = {.tokens = list.ids,
                             .n = list.n,
                             .ctx = (size_t)json_get(entry, "ctx")->valuedouble,
                             .bos = tokenizer_bos(s->t)};
    const char *modes[2] = {"full", "half"};
    for (int mode = 0; mode < 2; mode++) {
        const cJSON *expected = json_get(entry, modes[mode]);
        struct eval_result r;
        struct error err = {0};
        text.protocol = mode ? PPL_PROTOCOL_HALF : PPL_PROTOCOL_FULL;
        cr_assert(eval_perplexity(s->m, &text, NULL, NULL, &r, NULL, NULL, &err), "%s",
                  err.message);
        cr_assert_eq(r.tokens, (size_t)json_get(expected, "tokens")->valuedouble);
        double ppl = json_get(expected, "ppl")->valuedouble;
        cr_assert(fabs(r.ppl / ppl - 1) < 1e-4, "%s: %g, expected %g", modes[mode], r.ppl, ppl);
    }
    token_list_free(&list);
}

static void check_recorded_model(const char *folder, int entry) {
    struct subject s = subject_open(folder);
    char path[2048];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/expected.json", folder);
    cJSON *expected = json_parse_file(path, &err);
    cr_assert_not_null(expected, "%s", err.message);
    check_recorded(&s, cJSON_GetArrayItem(expected, entry));
    cJSON_Delete(expected);
    tokenizer_free(s.t);
    model_free(s.m);
}

Test(eval, perplexity_of_stories260k_is_the_recorded_one) {
    check_recorded_model(shared_path("data/models/stories260K"), 0);
}

Test(eval, perplexity_of_books_qwen2_is_the_recorded_one) {
    check_recorded_model(shared_path("data/models/books-qwen2"), 1);
}

static bool count_linears(void *user, struct linear *l) {
    *(size_t *)user += l->w.format == quant_format_find("int4-g32");
    return true;
}

// KL divergence of a 4-bit model, with the reference's logits made again from its hidden states,
// equals what two forward passes side by side give.
Test(eval, divergence_from_stored_states_equals_two_models_side_by_side) {
    struct subject s = subject_open(shared_path("data/models/stories260K"));
    struct token_list list = encode_file(s.t, shared_path("data/text/tinystories-sample.txt"), 300);
    struct eval_text text = {.tokens = list.ids, .n = list.n, .ctx = 100, .bos = -1};
    struct eval_reference reference = {0};
    struct eval_result base, quantized;
    struct error err = {0};
    cr_assert(eval_perplexity(s.m, &text, NULL, &reference, &base, NULL, NULL, &err), "%s",
              err.message);
    struct recipe recipe;
    struct quantize_stats stats;
    cr_assert(recipe_uniform(&recipe, quant_format_find("int4-g32"), NULL, NULL, &err));
    struct model *q = model_quantize(s.m, &recipe, false, &stats, NULL, NULL, &err);
    cr_assert_not_null(q, "%s", err.message);
    size_t n_quantized = 0;
    model_visit_linears(q, count_linears, &n_quantized);
    cr_assert_eq(n_quantized, 5 * 7);
    cr_assert(eval_perplexity(q, &text, &reference, NULL, &quantized, NULL, NULL, &err), "%s",
              err.message);

    size_t v = s.m->config.vocab, agree = 0, n = 0;
    double kld = 0;
    float *a = malloc(100 * v * sizeof *a), *b = malloc(100 * v * sizeof *b);
    int32_t positions[100];
    for (int32_t i = 0; i < 100; i++)
        positions[i] = i;
    for (size_t w = 0; w < 3; w++) {
        struct kv_cache kv;
        cr_assert(kv_cache_init(&kv, &s.m->config, 1, 100, &err));
        struct batch batch = {.n = 100, .tokens = list.ids + 100 * w, .positions = positions};
        cr_assert(model_forward(s.m, &kv, &batch, a, &err));
        cr_assert(model_forward(q, &kv, &batch, b, &err));
        for (size_t i = 0; i < 99; i++, n++) {
            kld += kl_divergence(a + i * v, b + i * v, v);
            agree += argmax(a + i * v, v) == argmax(b + i * v, v);
        }
        kv_cache_free(&kv);
    }
    cr_assert_eq(quantized.tokens, n);
    cr_assert(quantized.kld_mean > 1e-4);
    cr_assert_float_eq(quantized.kld_mean, kld / (double)n, 1e-6);
    cr_assert_float_eq(quantized.top1_agree, (double)agree / (double)n, 1e-12);
    cr_assert(isnan(base.kld_mean));
    free(a);
    free(b);
    eval_reference_close(&reference);
    recipe_free(&recipe);
    token_list_free(&list);
    model_free(q);
    model_free(s.m);
    tokenizer_free(s.t);
}

Test(eval, a_text_too_short_to_score_is_refused) {
    struct subject s = subject_open(shared_path("data/models/stories260K"));
    int32_t token = 1;
    struct eval_text text = {.tokens = &token, .n = 1, .ctx = 8, .bos = -1};
    struct eval_result r;
    struct error err = {0};
    cr_assert_not(eval_perplexity(s.m, &text, NULL, NULL, &r, NULL, NULL, &err));
    cr_assert(strstr(err.message, "has 1 tokens, too few"), "%s", err.message);
    int32_t tokens[3] = {1, 2, 3};
    text = (struct eval_text){.tokens = tokens, .n = 3, .ctx = 0, .bos = -1};
    cr_assert_not(eval_perplexity(s.m, &text, NULL, NULL, &r, NULL, NULL, &err));
    cr_assert(strstr(err.message, "windows of 0"), "%s", err.message);
    model_free(s.m);
    tokenizer_free(s.t);
}

Test(eval, generation_is_reproducible_and_streams_what_it_returns) {
    struct subject s = subject_open(shared_path("data/models/stories260K"));
    struct token_list prompt = {0};
    struct error err = {0};
    const char *text = "Once upon a time";
    cr_assert(token_list_push(&prompt, tokenizer_bos(s.t), &err));
    cr_assert(tokenizer_encode(s.t, text, strlen(text), &prompt, &err));
    struct sampler_options sampling = {
        .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .repeat_penalty = 1, .seed = 7};
    struct generation a, b;
    omp_set_num_threads(1);
    cr_assert(generate(s.m, s.t, &prompt, -1, 40, sampling, NULL, NULL, &a, &err), "%s",
              err.message);
    omp_set_num_threads(3);
    cr_assert(generate(s.m, s.t, &prompt, -1, 40, sampling, NULL, NULL, &b, &err), "%s",
              err.message);
    cr_assert_str_eq(a.text, b.text);
    cr_assert(a.tokens.n == 40 && strlen(a.text) > 40);
    generation_free(&a);
    generation_free(&b);
    cr_assert_not(
        generate(s.m, s.t, &(struct token_list){0}, -1, 4, sampling, NULL, NULL, &a, &err));
    token_list_free(&prompt);
    model_free(s.m);
    tokenizer_free(s.t);
}

// The prompt fills the context: nothing can be generated, and no time was measured.
Test(eval, a_full_context_leaves_no_room) {
    struct subject s = subject_open(shared_path("data/models/stories260K"));
    struct error err = {0};
    struct token_list prompt = {0};
    struct generation g;
    s.m->config.max_context = 2;
    cr_assert(token_list_push(&prompt, 1, &err) && token_list_push(&prompt, 2, &err));
    cr_assert(generate(s.m, s.t, &prompt, -1, 4, (struct sampler_options){.repeat_penalty = 1},
                       NULL, NULL, &g, &err),
              "%s", err.message);
    cr_assert(g.tokens.n == 0 && isnan(g.ttft_ms) && isnan(g.tpot_ms));
    generation_free(&g);
    struct speed speed;
    cr_assert(speed_measure(s.m, 512, 128, 2, &speed, &err), "%s", err.message);
    cr_assert(speed.prefill_tps > 0 && speed.decode_tps > 0);
    s.m->config.max_context = 1;
    cr_assert_not(speed_measure(s.m, 512, 128, 2, &speed, &err));
    token_list_free(&prompt);
    model_free(s.m);
    tokenizer_free(s.t);
}

// ---- quantizing a model ------------------------------------------------------------------------

Test(quantize, a_nan_in_the_weights_is_named) {
    struct subject s =
        subject_open(shared_path("fixtures/gpt2-f32")); // its matrices are our copies
    struct error err = {0};
    struct tensor *w = &s.m->layers[1].up.w;
    ((float *)w->data)[5 * w->shape[1] + 3] = NAN;
    struct recipe recipe;
    struct quantize_stats stats;
    const char *formats[] = {"int8-tensor", "int8", "int4-g64"};
    for (size_t i = 0; i < 3; i++) {
        err = (struct error){0};
        cr_assert(recipe_uniform(&recipe, quant_format_find(formats[i]), NULL, NULL, &err));
        cr_assert_null(model_quantize(s.m, &recipe, false, &stats, NULL, NULL, &err));
        cr_assert(strstr(err.message, "h.1.mlp.c_fc.weight") && strstr(err.message, "row 5"), "%s",
                  err.message);
        recipe_free(&recipe);
    }
    model_free(s.m);
    tokenizer_free(s.t);
}

Test(quantize, the_first_of_several_bad_rows_is_named_with_any_number_of_threads) {
    struct subject s = subject_open(shared_path("fixtures/gpt2-f32"));
    struct error err = {0};
    struct tensor *w = &s.m->layers[0].up.w;
    size_t n = w->shape[0], k = w->shape[1];
    ((float *)w->data)[9 * k] = NAN;
    ((float *)w->data)[(n - 1) * k] = INFINITY; // in text, its number comes before 9
    struct recipe recipe;
    struct quantize_stats stats;
    cr_assert(recipe_uniform(&recipe, quant_format_find("int8-tensor"), NULL, NULL, &err));
    for (int threads = 1; threads <= 4; threads++) {
        omp_set_num_threads(threads);
        cr_assert_null(model_quantize(s.m, &recipe, false, &stats, NULL, NULL, &err));
        cr_assert(strstr(err.message, "row 9, column 0: weight is nan"), "%s", err.message);
    }
    recipe_free(&recipe);
    model_free(s.m);
    tokenizer_free(s.t);
}

Test(quantize, int8_activations_refuse_rows_whose_sums_could_overflow) {
    struct error err = {0};
    const struct quant_format *f = quant_format_find("int8");
    struct linear l = {
        .int8_activations = true,
        .w = {
            .name = "wide", .format = f, .dtype = DTYPE_BLOCK, .n_dims = 2, .shape = {1, 131073}}};
    cr_assert(f->bytes(f, 1, 131073, &l.w.bytes));
    l.w.data = calloc(1, l.w.bytes);
    float *x = calloc(131073, sizeof *x), y;
    cr_assert_not(linear_forward(&y, &l, x, 1, &err));
    cr_assert(strstr(err.message, "wide: rows of 131073 weights"), "%s", err.message);
    free(l.w.data);
    free(x);
}

Test(quantize, the_number_of_threads_does_not_change_a_byte) {
    struct subject s = subject_open(shared_path("fixtures/qwen2-tied-bf16"));
    struct error err = {0};
    struct recipe recipe;
    struct quantize_stats one, three;
    cr_assert(recipe_uniform(&recipe, quant_format_find("int8-tensor"), NULL, NULL, &err));
    omp_set_num_threads(1);
    struct model *a = model_quantize(s.m, &recipe, false, &one, NULL, NULL, &err);
    omp_set_num_threads(3);
    struct model *b = model_quantize(s.m, &recipe, false, &three, NULL, NULL, &err);
    cr_assert(a && b, "%s", err.message);
    cr_assert_eq(one.nmse, three.nmse);
    cr_assert(one.nmse > 0 && one.nmse < 1e-2);
    const struct tensor *x = &a->layers[2].down.w, *y = &b->layers[2].down.w;
    cr_assert_arr_eq(x->data, y->data, x->bytes);
    cr_assert(model_bytes(a) < model_bytes(s.m));
    model_free(a);
    model_free(b);
    recipe_free(&recipe);
    model_free(s.m);
    tokenizer_free(s.t);
}
