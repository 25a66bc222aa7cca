// model/: every architecture against recorded logits of the reference implementation, and the
// promises of model_forward: any batch, any thread count, the same numbers.
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "eval/perplexity.h"
#include "io/json.h"
#include "io/npy.h"
#include "model/model.h"
#include "shared.h"
#include "temp.h"

struct fixture {
    struct model *m;
    int32_t *tokens, *positions;
    size_t n, vocab;
    cJSON *expected;
    float *logits; // [n, V] recorded
};

static struct fixture fixture_open(const char *folder) {
    struct fixture f = {0};
    struct error err = {0};
    char path[2048];
    f.m = model_load(folder, &err);
    cr_assert_not_null(f.m, "%s", err.message);
    snprintf(path, sizeof path, "%s/expected.json", folder);
    f.expected = json_parse_file(path, &err);
    cr_assert_not_null(f.expected, "%s", err.message);
    const cJSON *tokens = json_get(f.expected, "tokens"), *token;
    f.tokens = calloc((size_t)cJSON_GetArraySize(tokens) + 64, sizeof *f.tokens);
    f.positions = calloc((size_t)cJSON_GetArraySize(tokens) + 64, sizeof *f.positions);
    cJSON_ArrayForEach (token, tokens)
        f.tokens[f.n++] = (int32_t)token->valuedouble;
    for (int32_t i = 0; i < (int32_t)f.n + 64; i++)
        f.positions[i] = i;
    snprintf(path, sizeof path, "%s/expected_logits.npy", folder);
    size_t rows;
    f.logits = npy_read_f32(path, &rows, &f.vocab, &err);
    cr_assert(f.logits && rows == f.n && f.vocab == f.m->config.vocab, "%s", err.message);
    return f;
}

static void fixture_close(struct fixture *f) {
    model_free(f->m);
    cJSON_Delete(f->expected);
    free(f->tokens);
    free(f->positions);
    free(f->logits);
}

// Relative L2 distance; infinite if anything is not finite.
static double relative_l2(const float *a, const float *expected, size_t n) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(a[i]) || !isfinite(expected[i]))
            return INFINITY;
        difference += ((double)a[i] - expected[i]) * ((double)a[i] - expected[i]);
        norm += (double)expected[i] * expected[i];
    }
    return sqrt(difference / norm);
}

static float *forward_all(const struct model *m, const int32_t *tokens, const int32_t *positions,
                          size_t n) {
    struct kv_cache kv;
    struct error err = {0};
    cr_assert(kv_cache_init(&kv, &m->config, 1, n, &err), "%s", err.message);
    float *logits = malloc(n * m->config.vocab * sizeof *logits);
    struct batch b = {.n = n, .tokens = tokens, .positions = positions};
    cr_assert(model_forward(m, &kv, &b, logits, &err), "%s", err.message);
    kv_cache_free(&kv);
    return logits;
}

static void check_greedy(const struct fixture *f) {
    const cJSON *expected = json_get(f->expected, "greedy_after_16"), *token;
    int32_t tokens[128];
    memcpy(tokens, f->tokens, 16 * sizeof *tokens);
    size_t n = 16, v = f->vocab;
    struct kv_cache kv;
    struct error err = {0};
    float *logits = malloc(16 * v * sizeof *logits);
    cr_assert(kv_cache_init(&kv, &f->m->config, 1, 128, &err));
    struct batch b = {.n = 16, .tokens = tokens, .positions = f->positions};
    cr_assert(model_forward(f->m, &kv, &b, logits, &err), "%s", err.message);
    cJSON_ArrayForEach (token, expected) {
        tokens[n] = (int32_t)argmax(logits + (b.n - 1) * v, v);
        cr_assert_eq(tokens[n], (int32_t)token->valuedouble, "token %zu", n);
        b = (struct batch){.n = 1, .tokens = tokens + n, .positions = f->positions + n};
        cr_assert(model_forward(f->m, &kv, &b, logits, &err), "%s", err.message);
        n++;
    }
    kv_cache_free(&kv);
    free(logits);
}

static void check_fixture(const char *folder) {
    struct fixture f = fixture_open(folder);
    float *logits = forward_all(f.m, f.tokens, f.positions, f.n);
    double error = relative_l2(logits, f.logits, f.n * f.vocab);
    cr_assert(error <= 1e-5, "relative error %g", error); // measured: 4e-7 to 2e-6
    double nll = 0;
    for (size_t i = 0; i + 1 < f.n; i++)
        nll += nll_of(logits + i * f.vocab, f.vocab, f.tokens[i + 1]);
    cr_assert_float_eq(nll / (double)(f.n - 1), json_get(f.expected, "nll_mean")->valuedouble,
                       1e-5);
    check_greedy(&f);
    free(logits);
    fixture_close(&f);
}

Test(model, qwen2_equals_the_reference) {
    check_fixture(shared_path("fixtures/qwen2-tied-bf16"));
}

Test(model, qwen3_equals_the_reference) {
    check_fixture(shared_path("fixtures/qwen3-qknorm-bf16"));
}

Test(model, sharded_llama_equals_the_reference) {
    check_fixture(shared_path("fixtures/llama-untied-f16-sharded"));
}

Test(model, mistral_equals_the_reference) {
    check_fixture(shared_path("fixtures/mistral-gqa-f32"));
}

Test(model, gpt2_equals_the_reference) {
    check_fixture(shared_path("fixtures/gpt2-f32"));
}

Test(model, threads_do_not_change_a_bit) {
    struct fixture f = fixture_open(shared_path("fixtures/qwen2-tied-bf16"));
    omp_set_num_threads(1);
    float *one = forward_all(f.m, f.tokens, f.positions, f.n);
    for (int threads = 2; threads <= 5; threads++) {
        omp_set_num_threads(threads);
        float *many = forward_all(f.m, f.tokens, f.positions, f.n);
        cr_assert_arr_eq(one, many, f.n * f.vocab * sizeof *one, "%d threads", threads);
        free(many);
    }
    free(one);
    fixture_close(&f);
}

// Two users at once, one of them 7 tokens behind, in chunks of odd sizes: each sees only itself.
Test(model, sequences_in_one_batch_do_not_see_each_other) {
    struct fixture f = fixture_open(shared_path("fixtures/llama-untied-f16-sharded"));
    struct kv_cache kv;
    struct error err = {0};
    size_t n = 40, v = f.vocab, lag = 7;
    cr_assert(kv_cache_init(&kv, &f.m->config, 3, n, &err));
    float *logits = malloc(2 * n * v * sizeof *logits);
    for (size_t t = 0; t < n + lag; t++) { // one token of each per step
        int32_t tokens[2], positions[2], sequences[2];
        size_t m = 0;
        if (t < n)
            tokens[m] = f.tokens[t], positions[m] = (int32_t)t, sequences[m++] = 2;
        if (t >= lag)
            tokens[m] = f.tokens[t - lag], positions[m] = (int32_t)(t - lag), sequences[m++] = 0;
        struct batch b = {m, tokens, positions, sequences, NULL};
        cr_assert(model_forward(f.m, &kv, &b, logits, &err), "%s", err.message);
        for (size_t i = 0; i < m; i++)
            cr_assert_lt(relative_l2(logits + i * v, f.logits + (size_t)positions[i] * v, v), 1e-5);
    }
    kv_cache_free(&kv);
    free(logits);
    fixture_close(&f);
}

Test(model, only_the_wanted_logits_come_back) {
    struct fixture f = fixture_open(shared_path("fixtures/gpt2-f32"));
    struct kv_cache kv;
    struct error err = {0};
    cr_assert(kv_cache_init(&kv, &f.m->config, 1, 20, &err));
    uint8_t wants[20] = {[3] = 1, [19] = 1};
    float *logits = malloc(2 * f.vocab * sizeof *logits);
    struct batch b = {20, f.tokens, f.positions, NULL, wants};
    cr_assert(model_forward(f.m, &kv, &b, logits, &err), "%s", err.message);
    cr_assert_lt(relative_l2(logits, f.logits + 3 * f.vocab, f.vocab), 1e-5);
    cr_assert_lt(relative_l2(logits + f.vocab, f.logits + 19 * f.vocab, f.vocab), 1e-5);
    kv_cache_free(&kv);
    free(logits);
    fixture_close(&f);
}

// With a window of w, a token depends on the last w tokens of each layer: with one layer, changing
// a token further back changes nothing, changing one inside does.
Test(model, a_sliding_window_forgets) {
    struct fixture f = fixture_open(shared_path("fixtures/mistral-gqa-f32"));
    f.m->config.n_layers = 1;
    f.m->config.sliding_window = 8;
    size_t v = f.vocab, last = 29;
    float *a = forward_all(f.m, f.tokens, f.positions, 30);
    f.tokens[last - 8] ^= 1;
    float *b = forward_all(f.m, f.tokens, f.positions, 30);
    cr_assert_arr_eq(a + last * v, b + last * v, v * sizeof *a);
    f.tokens[last - 7] ^= 1;
    float *c = forward_all(f.m, f.tokens, f.positions, 30);
    cr_assert(relative_l2(c + last * v, a + last * v, v) > 1e-6);
    f.m->config.n_layers = 2;
    free(a);
    free(b);
    free(c);
    fixture_close(&f);
}

Test(model, a_batch_out_of_range_is_refused) {
    struct fixture f = fixture_open(shared_path("fixtures/gpt2-f32"));
    struct kv_cache kv;
    struct error err = {0};
    cr_assert(kv_cache_init(&kv, &f.m->config, 1, 4, &err));
    float *logits = malloc(f.vocab * sizeof *logits);
    int32_t token = 600, position = 0, sequence = 0;
    struct batch b = {1, &token, &position, &sequence, NULL};
    cr_assert_not(model_forward(f.m, &kv, &b, logits, &err));
    cr_assert_str_eq(err.message, "token 600 is outside the model's vocabulary of 600");
    token = 0, position = 4;
    cr_assert_not(model_forward(f.m, &kv, &b, logits, &err));
    cr_assert(strstr(err.message, "position 4 is outside the context of 4"));
    position = 0, sequence = 1;
    cr_assert_not(model_forward(f.m, &kv, &b, logits, &err));
    cr_assert(strstr(err.message, "sequence 1"));
    kv_cache_free(&kv);
    free(logits);
    fixture_close(&f);
}

// ---- broken checkpoints -------------------------------------------------------------------------

// A copy of a fixture's files in a temporary folder, for breaking.
static const char *copy_of(const char *folder) {
    char command[4096];
    snprintf(command, sizeof command, "cp -r '%s'/. '%s'", folder, temp_folder());
    cr_assert_eq(system(command), 0);
    return temp_folder();
}

static void expect_load_error(const char *folder, const char *part) {
    struct error err = {0};
    cr_assert_null(model_load(folder, &err));
    cr_assert(strstr(err.message, part), "'%s' lacks '%s'", err.message, part);
}

static void replace_in_file(const char *name, const char *from, const char *to) {
    char path[512];
    struct error err = {0};
    size_t size;
    snprintf(path, sizeof path, "%s/%s", temp_folder(), name);
    char *text = file_read(path, 1 << 26, &size, &err);
    cr_assert(text && strlen(from) == strlen(to));
    char *at = memmem(text, size, from, strlen(from));
    cr_assert_not_null(at, "%s has no %s", name, from);
    memcpy(at, to, strlen(to));
    temp_file(name, text, size);
    free(text);
}

Test(model, a_truncated_shard_is_named) {
    const char *folder = copy_of(shared_path("fixtures/llama-untied-f16-sharded"));
    char path[512];
    snprintf(path, sizeof path, "%s/model-00003-of-00007.safetensors", folder);
    cr_assert_eq(truncate(path, 200000), 0);
    expect_load_error(folder, "model-00003-of-00007.safetensors: tensor '");
}

Test(model, a_missing_tensor_is_named_with_its_shape) {
    const char *folder = copy_of(shared_path("fixtures/qwen2-tied-bf16"));
    replace_in_file("model.safetensors", "layers.2.mlp.up_proj", "layers.2.mlp.xp_proj");
    expect_load_error(folder, "tensor 'model.layers.2.mlp.up_proj.weight' is missing, expected "
                              "[352, 128]");
}

Test(model, a_misshapen_tensor_is_named_with_both_shapes) {
    const char *folder = copy_of(shared_path("fixtures/qwen2-tied-bf16"));
    replace_in_file("config.json", "\"intermediate_size\": 352", "\"intermediate_size\": 353");
    expect_load_error(folder, "is [352, 128], expected [353, 128]");
}

Test(model, a_vocabulary_larger_than_the_embedding_is_refused) {
    const char *folder = copy_of(shared_path("fixtures/qwen2-tied-bf16"));
    replace_in_file("config.json", "\"vocab_size\": 600", "\"vocab_size\": 999");
    expect_load_error(folder, "'model.embed_tokens.weight' is [600, 128], expected [999, 128]");
}

Test(model, names_may_lack_their_prefix) {
    const char *folder = copy_of(shared_path("fixtures/gpt2-f32"));
    struct fixture whole = fixture_open(folder);
    struct safetensors s;
    struct error err = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    cr_assert(safetensors_open(&s, folder, &err), "%s", err.message);
    struct tensor *renamed = malloc((s.n_tensors + 1) * sizeof *renamed);
    float mask[4] = {1, 0, 1, 1};
    for (size_t i = 0; i < s.n_tensors; i++) {
        renamed[i] = s.tensors[i];
        if (strncmp(renamed[i].name, "transformer.", 12) == 0)
            renamed[i].name += 12;
    }
    // The attention masks that old checkpoints store beside the weights are not weights.
    renamed[s.n_tensors] = (struct tensor){
        .name = "h.0.attn.bias", .n_dims = 4, .shape = {1, 1, 2, 2}, .bytes = 16, .data = mask};
    snprintf(path, sizeof path, "%s/bare.safetensors", folder);
    cr_assert(safetensors_write(path, renamed, s.n_tensors + 1, &err), "%s", err.message);
    safetensors_close(&s);
    char command[1200];
    snprintf(command, sizeof command, "mv %s %s/model.safetensors", path, folder);
    cr_assert_eq(system(command), 0);
    struct fixture bare = fixture_open(folder);
    float *logits = forward_all(bare.m, bare.tokens, bare.positions, bare.n);
    cr_assert_lt(relative_l2(logits, bare.logits, bare.n * bare.vocab), 1e-5);
    free(logits);
    free(renamed);
    fixture_close(&bare);
    fixture_close(&whole);
}
