// Training runs: AdamW against PyTorch, schedule, data, checkpoints, threads.
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/random.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "tests/shared.h"
#include "tools/training/documents.h"
#include "train/adamw.h"
#include "train/pages.h"
#include "train/trainer.h"

static const struct train_shape small = {.hidden = 32,
                                         .intermediate = 48,
                                         .n_layers = 2,
                                         .n_heads = 4,
                                         .n_kv_heads = 2,
                                         .head_dim = 8,
                                         .vocab = 50,
                                         .max_context = 64,
                                         .norm_eps = 1e-6,
                                         .rope_theta = 10000,
                                         .qkv_bias = true,
                                         .tied = true,
                                         .eos = 3};
static const struct train_options quick = {.context = 16,
                                           .batch = 4,
                                           .micro_batch = 2,
                                           .n_steps = 12,
                                           .warmup = 3,
                                           .lr = 1e-2,
                                           .min_lr = 1e-3,
                                           .beta1 = 0.9,
                                           .beta2 = 0.95,
                                           .eps = 1e-8,
                                           .decay = 0.1,
                                           .clip = 1,
                                           .seed = 7};

enum { N_IDS = 1000 };

// A text with something to learn: each id follows from the one before, with some noise.
static const int32_t *text(void) {
    static int32_t ids[N_IDS];
    struct random r = {1};
    for (int i = 1; i < N_IDS; i++)
        ids[i] = random_below(&r, 5) ? (ids[i - 1] * 7 + 3) % 50 : (int32_t)random_below(&r, 50);
    return ids;
}

static void open_small(struct trainer *t, const struct train_options *o) {
    struct error err = {0};
    cr_assert(trainer_init(t, &small, o, text(), N_IDS, &err), "%s", err.message);
}

static double run(struct trainer *t, uint64_t until) {
    struct train_report report = {0};
    struct error err = {0};
    while (t->step < until)
        cr_assert(trainer_step(t, &report, &err), "%s", err.message);
    return report.loss;
}

static void check_equal(const struct trainer *a, const struct trainer *b) {
    size_t bytes = a->network.params.total * sizeof(float);
    cr_assert_eq(a->step, b->step);
    cr_assert(memcmp(a->network.values, b->network.values, bytes) == 0, "weights differ");
    cr_assert(memcmp(a->moment1, b->moment1, bytes) == 0, "moments differ");
    cr_assert(memcmp(a->moment2, b->moment2, bytes) == 0, "moments differ");
}

static char *temporary_folder(void) {
    static char folder[32];
    strcpy(folder, "/tmp/nibble-train-XXXXXX");
    cr_assert(mkdtemp(folder));
    return folder;
}

static void remove_files(const char *folder) {
    static const char *const names[] = {"state.safetensors", "config.json", "model.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[200];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    cr_assert_eq(rmdir(folder), 0, "something was left in %s", folder);
}

// ---- AdamW --------------------------------------------------------------------------------------

Test(train, adamw_first_step_by_hand) {
    // Step 1: m̂ = g, v̂ = g², so the weight moves by lr against g's sign, after decaying.
    float w[2] = {1.0f, -2.0f}, g[2] = {0.5f, -3.0f}, m[2] = {0}, v[2] = {0};
    struct adamw a = {.lr = 0.1,
                      .beta1 = 0.9,
                      .beta2 = 0.95,
                      .eps = 1e-8,
                      .decay = 0.5,
                      .gradient_scale = 1,
                      .step = 1};
    adamw_update(w, g, m, v, 2, &a);
    cr_assert_float_eq(w[0], 0.95f - 0.1f, 1e-6);
    cr_assert_float_eq(w[1], -1.9f + 0.1f, 1e-6);
    cr_assert_float_eq(m[0], 0.05f, 1e-7);
    cr_assert_float_eq(v[1], 0.45f, 1e-6);
}

Test(train, norm_of_the_gradient) {
    enum { N = 70001 };
    float *g = memory_alloc(N, sizeof *g, "g", NULL);
    cr_assert_eq(adamw_norm(g, N), 0.0);
    g[0] = 3;
    g[N - 1] = 4;
    cr_assert_float_eq(adamw_norm(g, N), 5.0, 1e-12);
    g[40000] = NAN;
    cr_assert(isnan(adamw_norm(g, N)));
    free(g);
}

static void check_recorded_losses(const char *folder) {
    char config[1100], json[1100];
    snprintf(config, sizeof config, "%s/config.json", folder);
    snprintf(json, sizeof json, "%s/expected.json", folder);
    struct error err = {0};
    struct train_shape shape;
    cJSON *expected = json_parse_file(json, &err);
    cr_assert(expected, "%s", err.message);
    cr_assert(train_shape_read(&shape, config, &err), "%s", err.message);
    const cJSON *list = json_get(expected, "tokens"), *adamw = json_get(expected, "adamw"), *item;
    const cJSON *losses = json_get(adamw, "loss_before_each_step_and_after_last");
    int32_t ids[256];
    size_t n = 0;
    cJSON_ArrayForEach (item, list)
        ids[n++] = (int32_t)item->valuedouble;
    double lr = json_get(adamw, "lr")->valuedouble;
    struct train_options o = {.context = n - 1,
                              .batch = 1,
                              .micro_batch = 1,
                              .n_steps = 6,
                              .lr = lr,
                              .min_lr = lr,
                              .beta1 = json_get(adamw, "betas")->child->valuedouble,
                              .beta2 = json_get(adamw, "betas")->child->next->valuedouble,
                              .eps = json_get(adamw, "eps")->valuedouble,
                              .decay = json_get(adamw, "weight_decay_matrices")->valuedouble,
                              .clip = json_get(adamw, "clip_grad_norm")->valuedouble};
    struct trainer t;
    cr_assert(trainer_init(&t, &shape, &o, ids, n, &err), "%s", err.message);
    cr_assert(network_import(&t.network, folder, &err), "%s", err.message);
    cr_assert_eq(cJSON_GetArraySize(losses), 6);
    cJSON_ArrayForEach (item, losses) {
        struct train_report report;
        cr_assert(trainer_step(&t, &report, &err), "%s", err.message);
        cr_assert(fabs(report.loss - item->valuedouble) <= 1e-3 * item->valuedouble,
                  "step %d: loss %.7g, expected %.7g", (int)t.step, report.loss, item->valuedouble);
    }
    trainer_free(&t);
    cJSON_Delete(expected);
}

Test(train, qwen2_losses_equal_pytorch) {
    check_recorded_losses(shared_path("fixtures/qwen2-tied-bf16"));
}

Test(train, qwen3_losses_equal_pytorch) {
    check_recorded_losses(shared_path("fixtures/qwen3-qknorm-bf16"));
}

// ---- runs ---------------------------------------------------------------------------------------

Test(train, rate_warms_up_and_follows_a_cosine) {
    cr_assert_float_eq(trainer_rate(&quick, 0), 1e-2 / 3, 1e-12);
    cr_assert_float_eq(trainer_rate(&quick, 2), 1e-2, 1e-12);
    cr_assert_float_eq(trainer_rate(&quick, 3), 1e-2, 1e-12);
    cr_assert_float_eq(trainer_rate(&quick, 12), 1e-3, 1e-12);
    struct train_options even = quick;
    even.n_steps = 13;
    cr_assert_float_eq(trainer_rate(&even, 8), 5.5e-3, 1e-12); // half way
}

static void check_it_learns(double muon_lr, bool bf16) {
    struct trainer t;
    struct token_data data;
    struct error err = {0};
    struct train_options o = quick;
    o.n_steps = 60;
    o.muon_lr = muon_lr;
    o.bf16 = bf16;
    open_small(&t, &o);
    cr_assert(token_data_init(&data, text(), N_IDS, o.context, small.vocab, 1, &err));
    double before = trainer_evaluate(&t, &data);
    cr_assert(before >= log(50) && before <= log(50) + 1, "%g: it knows nothing yet", before);
    run(&t, 60);
    double after = trainer_evaluate(&t, &data);
    cr_assert(after <= 0.6 * before, "%g is not well below %g", after, before);
    token_data_free(&data);
    trainer_free(&t);
}

Test(train, it_learns) {
    check_it_learns(0, false);
}

Test(train, it_learns_in_bfloat16) {
    check_it_learns(0, true);
}

Test(train, it_learns_with_muon) {
    check_it_learns(0.02, false);
    check_it_learns(0.02, true);
}

static void check_threads(double muon_lr, bool bf16) {
    struct trainer one, three;
    struct train_options o = quick; // large enough for every loop to be shared
    o.muon_lr = muon_lr;
    o.bf16 = bf16;
    o.context = 128, o.micro_batch = 4;
    omp_set_num_threads(1);
    open_small(&one, &o);
    run(&one, 3);
    omp_set_num_threads(3);
    open_small(&three, &o);
    run(&three, 3);
    check_equal(&one, &three);
    trainer_free(&one);
    trainer_free(&three);
}

Test(train, threads_do_not_change_a_bit) {
    check_threads(0, false);
    check_threads(0.02, false);
    check_threads(0.02, true);
}

static void check_resumed(double muon_lr, bool bf16) {
    struct train_options o = quick;
    o.muon_lr = muon_lr;
    o.bf16 = bf16;
    struct trainer whole, killed, resumed;
    struct error err = {0};
    const char *folder = temporary_folder();
    char path[100];
    snprintf(path, sizeof path, "%s/state.safetensors", folder);
    open_small(&whole, &o);
    run(&whole, 12);
    open_small(&killed, &o);
    run(&killed, 5);
    cr_assert(trainer_save(&killed, path, &err), "%s", err.message);
    run(&killed, 7); // lost: it is killed before the next checkpoint
    trainer_free(&killed);
    open_small(&resumed, &o);
    cr_assert(trainer_restore(&resumed, path, &err), "%s", err.message);
    cr_assert_eq(resumed.step, 5);
    run(&resumed, 12);
    check_equal(&whole, &resumed);
    trainer_free(&whole);
    trainer_free(&resumed);
    remove_files(folder);
}

Test(train, a_resumed_run_equals_an_uninterrupted_one) {
    check_resumed(0, false);
    check_resumed(0.02, false);
    check_resumed(0.02, true);
}

Test(train, another_run_s_state_is_refused) {
    struct trainer t;
    struct error err = {0};
    const char *folder = temporary_folder();
    char path[100];
    snprintf(path, sizeof path, "%s/state.safetensors", folder);
    open_small(&t, &quick);
    cr_assert(trainer_save(&t, path, &err), "%s", err.message);
    t.options.seed = 8;
    cr_assert_not(trainer_restore(&t, path, &err));
    cr_assert(strstr(err.message, "a run of seed 7, batch 4, context 16 at step 0; expected 8"),
              "%s", err.message);
    t.options.seed = 7;
    t.options.muon_lr = 0.01;
    cr_assert_not(trainer_restore(&t, path, &err));
    cr_assert(strstr(err.message, "a run without Muon, expected one with it"), "%s", err.message);
    trainer_free(&t);
    struct train_shape other = small;
    other.vocab = 60;
    cr_assert(trainer_init(&t, &other, &quick, text(), N_IDS, &err));
    cr_assert_not(trainer_restore(&t, path, &err));
    cr_assert(strstr(err.message, "'weights' has"), "%s", err.message);
    trainer_free(&t);
    remove_files(folder);
}

Test(train, the_exported_model_is_read_back_rounded_to_bfloat16) {
    struct trainer t;
    struct network net;
    struct train_shape shape;
    struct error err = {0};
    const char *folder = temporary_folder();
    char path[100];
    snprintf(path, sizeof path, "%s/config.json", folder);
    open_small(&t, &quick);
    run(&t, 1);
    cr_assert(network_export(&t.network, folder, &err), "%s", err.message);
    cr_assert(train_shape_read(&shape, path, &err), "%s", err.message);
    cr_assert(shape.vocab == 50 && shape.head_dim == 8 && shape.eos == 3 && shape.tied);
    cr_assert(shape.qkv_bias && !shape.qk_norm && shape.rope_theta == 10000);
    cr_assert(network_init(&net, &shape, 1, 4, false, &err), "%s", err.message);
    cr_assert(network_import(&net, folder, &err), "%s", err.message);
    for (size_t i = 0; i < net.params.total; i++)
        cr_assert_eq(net.values[i], bf16_to_f32(f32_to_bf16(t.network.values[i])));
    network_free(&net);
    trainer_free(&t);
    remove_files(folder);
}

Test(train, a_loss_that_is_not_finite_changes_nothing) {
    struct trainer t;
    struct error err = {0};
    struct train_report report;
    open_small(&t, &quick);
    float keep = t.network.values[5];
    t.network.values[100] = INFINITY;
    cr_assert_not(trainer_step(&t, &report, &err));
    cr_assert(strstr(err.message, "step 0: the loss is"), "%s", err.message);
    cr_assert(t.network.values[5] == keep && t.step == 0 && t.moment1[5] == 0.0f);
    trainer_free(&t);
}

// ---- data ---------------------------------------------------------------------------------------

Test(train, every_epoch_has_every_window_once) {
    enum { N = 103, C = 10 };
    int32_t ids[N], tokens[C], targets[C];
    struct token_data d;
    struct error err = {0};
    for (int i = 0; i < N; i++)
        ids[i] = i;
    cr_assert(token_data_init(&d, ids, N, C, N, 9, &err), "%s", err.message);
    cr_assert_eq(d.n_windows, 9);
    for (uint64_t epoch = 0; epoch < 20; epoch++) {
        bool seen[9] = {false};
        for (uint64_t i = 0; i < 9; i++) {
            token_data_window(&d, epoch * 9 + i, tokens, targets);
            cr_assert_eq(targets[0], tokens[0] + 1);
            cr_assert_eq(targets[C - 1], tokens[0] + C);
            size_t window = ((size_t)tokens[0] - d.offset) / C;
            cr_assert(window < 9 && !seen[window]);
            seen[window] = true;
        }
    }
    int orders_alike = 0;
    for (uint64_t i = 0; i < 9; i++) {
        token_data_window(&d, i, tokens, targets);
        int32_t earlier = tokens[0];
        token_data_window(&d, 9 + i, tokens, targets);
        orders_alike += tokens[0] == earlier;
    }
    cr_assert(orders_alike < 9, "two epochs have the same order");
    token_data_window(&d, 5, tokens, targets); // back in epoch 0: the same as the first time
    int32_t first = tokens[0];
    token_data_free(&d);
    cr_assert(token_data_init(&d, ids, N, C, N, 9, &err));
    token_data_window(&d, 5, tokens, targets);
    cr_assert_eq(tokens[0], first);
    token_data_free(&d);
}

Test(train, windows_begin_where_documents_do) {
    enum { N = 100, C = 10 };
    static const size_t starts[] = {0, 4, 11, 20, 22, 47, 88, 91}; // used: 0, 11, 22, 47, 88
    int32_t ids[N], tokens[C], targets[C];
    struct token_data d;
    struct error err = {0};
    for (int i = 0; i < N; i++)
        ids[i] = i;
    cr_assert(token_data_init(&d, ids, N, C, N, 9, &err), "%s", err.message);
    cr_assert(token_data_align(&d, starts, 8, &err), "%s", err.message);
    cr_assert_eq(d.n_windows, 5);
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        int32_t sum = 0;
        for (uint64_t i = 0; i < 5; i++) {
            token_data_window(&d, epoch * 5 + i, tokens, targets);
            cr_assert_eq(targets[C - 1], tokens[0] + C);
            sum += tokens[0];
        }
        cr_assert_eq(sum, 0 + 11 + 22 + 47 + 88);
    }
    cr_assert_not(token_data_align(&d, (size_t[]){90, 95, 200}, 3, &err));
    cr_assert_str_eq(err.message, "no document begins before the last 10 tokens");
    token_data_free(&d);
}

Test(train, tokens_that_are_not_scored_are_no_targets) {
    const int32_t ids[] = {5, 6, 7, 8, 9};
    const uint8_t unscored[] = {1, 0, 1, 0, 0};
    int32_t tokens[4], targets[4];
    struct token_data d;
    struct error err = {0};
    cr_assert(token_data_init(&d, ids, 5, 4, 10, 0, &err));
    d.unscored = unscored;
    token_data_window(&d, 0, tokens, targets);
    cr_assert_arr_eq(tokens, ids, sizeof tokens);
    cr_assert_arr_eq(targets, ((const int32_t[]){6, -1, 8, 9}), sizeof targets);
    token_data_free(&d);
}

// "." and a newline are one token of the bundled tokenizer, as is a stop before a blank line; and
// a blank line may be two tokens.
Test(train, documents_begin_behind_blank_lines_and_end_tokens) {
    static const char text[] = "One.\nTwo.\n\nIs it one\nor two\n\nThree.<|endoftext|>Four.";
    static const char *const starts[] = {"One", "Is", "Three", "Four"};
    struct error err = {0};
    struct tokenizer *t = tokenizer_load("data/model", &err);
    struct token_list list = {0};
    if (!t)
        cr_skip_test("skipped: no data/model");
    cr_assert(tokenizer_encode(t, text, strlen(text), &list, &err));
    uint8_t *marks = documents_find(list.ids, list.n, t, &err);
    cr_assert(marks, "%s", err.message);
    char first[256] = "";
    size_t n = 0;
    for (size_t i = 0; i < list.n; i++) {
        char *rest = tokenizer_decode(t, list.ids + i, list.n - i, false, NULL, &err);
        if (marks[i] & DOCUMENT_START) {
            cr_assert(n < 4 && strncmp(rest, starts[n], strlen(starts[n])) == 0, "%s", rest);
            n++;
        }
        free(rest);
        char *one = tokenizer_decode(t, list.ids + i, 1, false, NULL, &err);
        if (marks[i] & DOCUMENT_FIRST_LINE)
            strcat(first, one);
        free(one);
    }
    cr_assert_eq(n, 4);
    cr_assert_str_eq(first, "One.\nIs it one\nThree.<|endoftext|>Four.");
    size_t skipped = 0, lines = 0;
    for (size_t i = 0; i < list.n; i++)
        lines += (marks[i] & DOCUMENT_FIRST_LINE) > 0;
    documents_skip_first_lines(marks, list.n, 0, 1);
    for (size_t i = 0; i < list.n; i++)
        skipped += marks[i];
    cr_assert_eq(skipped, lines);
    documents_skip_first_lines(marks, list.n, 1, 1);
    for (size_t i = 0; i < list.n; i++)
        cr_assert_eq(marks[i], 0);
    free(marks);
    token_list_free(&list);
    tokenizer_free(t);
}

Test(train, bad_data_is_refused) {
    int32_t ids[5] = {0, 1, 2, 3, 9};
    struct token_data d;
    struct error err = {0};
    cr_assert_not(token_data_init(&d, ids, 4, 4, 10, 0, &err));
    cr_assert_str_eq(err.message, "the text has 4 tokens, expected more than one window of 4");
    cr_assert_not(token_data_init(&d, ids, 5, 4, 9, 0, &err));
    cr_assert_str_eq(err.message, "token 4 is 9, the vocabulary has 9");
    cr_assert(token_data_init(&d, ids, 5, 4, 10, 0, &err));
    token_data_free(&d);
}

Test(train, large_arrays_are_zeroed) {
    enum { N = 3 << 20 };
    struct error err = {0};
    for (int round = 0; round < 2; round++) { // the second may get the first one's memory
        float *p = pages_alloc(N, "weights", &err);
        cr_assert(p && p[0] == 0 && p[N / 2] == 0 && p[N - 1] == 0);
        cr_assert_eq((size_t)p % 64, 0);
        for (size_t i = 0; i < N; i++)
            p[i] = 1;
        free(p);
    }
    cr_assert_null(pages_alloc(SIZE_MAX / 2, "weights", &err));
    cr_assert(strstr(err.message, "overflow"), "%s", err.message);
}

// ---- config.json --------------------------------------------------------------------------------

static void check_config(const char *json, const char *message) {
    struct train_shape shape;
    struct error err = {0};
    char path[] = "/tmp/nibble-config-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && write(fd, json, strlen(json)) == (ssize_t)strlen(json));
    close(fd);
    bool ok = train_shape_read(&shape, path, &err);
    unlink(path);
    cr_assert_eq(ok, message == NULL, "%s: %s", json, err.message);
    cr_assert(ok || strstr(err.message, message), "%s: %s", json, err.message);
}

Test(train, bad_configs_are_refused) {
#define SIZES                                                                                      \
    "{\"hidden_size\": 8, \"intermediate_size\": 8, \"num_hidden_layers\": 1, "                    \
    "\"num_attention_heads\": 4, \"vocab_size\": 9"
#define QWEN2 SIZES ", \"model_type\": \"qwen2\""
    check_config(QWEN2 "}", NULL);
    check_config(SIZES ", \"num_key_value_heads\": 2, \"model_type\": \"qwen3\"}", NULL);
    check_config(SIZES "}", "expected Qwen2ForCausalLM");
    check_config("{\"hidden_size\": 8, \"model_type\": \"qwen2\"}",
                 "'num_hidden_layers' is missing");
    check_config(SIZES ", \"model_type\": \"gpt2\"}", "expected qwen2 or qwen3");
    check_config(QWEN2 ", \"num_key_value_heads\": 3}", "no multiple of 3");
    check_config(QWEN2 ", \"head_dim\": 3}", "an even number");
    check_config(QWEN2 ", \"head_dim\": 0}", "head_dim");
    check_config(QWEN2 ", \"rms_norm_eps\": 0}", "out of range");
    check_config(QWEN2 ", \"rope_parameters\": {\"rope_theta\": -1}}", "out of range");
    check_config(QWEN2 ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}}",
                 "rope scaling");
    check_config(QWEN2 ", \"use_sliding_window\": true, \"sliding_window\": 4}", "sliding");
    check_config(QWEN2 ", \"hidden_act\": \"relu\"}", "expected silu");
    check_config(QWEN2 ", \"tie_word_embeddings\": 3}", "tie_word_embeddings");
    check_config("[]", "");
#undef QWEN2
#undef SIZES
}
