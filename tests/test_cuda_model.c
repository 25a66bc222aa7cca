// A model on the emulated GPU against the same model on the CPU: architectures, formats, prefill,
// decoding, several sequences, layers on both, and what is said when memory is short. The models
// are made here; recorded ones are used where they are.
#include <float.h>

#include "cuda/placement.h"
#include "quant/quantize.h"
#include "quant/woven.h"
#include "tests/compare.h"
#include "tests/model_script.h"
#include "tests/shared.h"
#include "tests/tiny_model.h"

// Relative L2 error of logits. Measured: 4e-4 to 1.4e-3; float16 rounds to 5e-4.
#define TOLERANCE 3e-3

static const struct tiny_shape shapes[] = {
    {"qwen2", 64, 96, 2, 4, 2, 16, 99, "bf16", true, 0},
    {"qwen3", 64, 160, 2, 4, 1, 24, 130, "f16", false, 0},
    {"llama", 96, 64, 2, 3, 3, 32, 77, "f32", false, 0},
    {"mistral", 64, 100, 2, 10, 2, 8, 64, "f32", false, 11},
    {"gpt2", 72, 144, 2, 2, 2, 36, 101, "f32", true, 0},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

// The emulator; with NIBBLE_GPU_TESTS set, the GPU of this machine.
static const struct cuda_backend *backend(void) {
    const char *why, *wanted = getenv("NIBBLE_GPU_TESTS");
    const struct cuda_backend *gpu = wanted && *wanted ? cuda_device(&why) : &cuda_emulator;
    cr_assert_not_null(gpu, "NIBBLE_GPU_TESTS: %s", why);
    return gpu;
}

static void place(struct model *m, size_t layers, int schedule, struct cuda_report *report) {
    struct error err = {0};
    struct cuda_report ignored;
    struct cuda_options o = {.backend = backend(), .layers = layers, .schedule = schedule};
    cr_assert(cuda_place(m, &o, report ? report : &ignored, &err), "%s", err.message);
}

// Both ways; `layers` of them on the GPU.
static void compare(struct model *m, const char *what, struct script s, size_t layers,
                    double tolerance) {
    size_t n;
    float *want = run_script(m, s, &n);
    place(m, layers, 0, NULL);
    float *got = run_script(m, s, &n);
    double error = rel_l2(got, want, n);
    if (getenv("NIBBLE_SHOW"))
        fprintf(stderr, "%s: %.2g\n", what, error);
    cr_assert(error <= tolerance, "%s: relative error %g", what, error);
    cr_assert(error > 0, "%s: the GPU was not used", what);
    free(want);
    free(got);
    model_detach(m);
}

Test(cuda_model, every_architecture_prefills_and_decodes_as_on_the_cpu) {
    for (int i = 0; i < N_SHAPES; i++) {
        struct model *m = tiny_model(&shapes[i]);
        compare(m, shapes[i].arch, (struct script){19, 4, 1}, SIZE_MAX, TOLERANCE);
        model_free(m);
    }
}

Test(cuda_model, several_sequences_in_a_batch) {
    for (int i = 0; i < N_SHAPES; i += 2) {
        struct model *m = tiny_model(&shapes[i]);
        compare(m, shapes[i].arch, (struct script){5, 3, 3}, SIZE_MAX, TOLERANCE);
        compare(m, shapes[i].arch, (struct script){3, 2, 10}, SIZE_MAX, TOLERANCE); // no graph
        model_free(m);
    }
}

Test(cuda_model, contexts_longer_than_a_window_and_a_tile) {
    struct model *m = tiny_model(&shapes[3]);
    compare(m, "mistral", (struct script){77, 3, 1}, SIZE_MAX, TOLERANCE);
    model_free(m);
}

Test(cuda_model, layers_on_both) {
    for (size_t layers = 1; layers <= 2; layers++) {
        struct model *m = tiny_model(&shapes[4]);
        compare(m, "gpt2", (struct script){18, 2, 2}, layers, TOLERANCE);
        model_free(m);
    }
}

// ---- formats ------------------------------------------------------------------------------------

static struct model *quantized(const struct model *m, const char *format, bool int8) {
    char text[64];
    struct error err = {0};
    struct recipe r;
    struct quantize_stats stats;
    snprintf(text, sizeof text, "* %s", format);
    cr_assert(recipe_parse(&r, text, "recipe", &err), "%s", err.message);
    struct model *q = model_quantize(m, &r, int8, &stats, NULL, NULL, &err);
    cr_assert_not_null(q, "%s: %s", format, err.message);
    recipe_free(&r);
    return q;
}

// The layout that each is promised: of four products of a layer, and the head.
static const struct {
    const char *format;
    size_t packed, as_they_are, to_float16;
} formats[] = {
    {"f16", 5, 0, 0},         {"bf16", 5, 0, 0},        {"int8-tensor", 5, 0, 0},
    {"int8", 5, 0, 0},        {"int8-g64", 5, 0, 0},    {"int4-g32", 5, 0, 0},
    {"int4-g64", 5, 0, 0},    {"int4-g128", 5, 0, 0},   {"int4", 5, 0, 0},
    {"int4-g32-zp", 5, 0, 0}, {"int4-g64-zp", 5, 0, 0}, {"int4-g128-zp", 5, 0, 0},
    {"int4-zp", 0, 5, 0},     {"q4_0", 5, 0, 0},        {"q8_0", 5, 0, 0},
    {"q4_k", 0, 5, 0},        {"q6_k", 0, 5, 0},        {"iq4_nl", 0, 0, 5},
    {"q5_k", 0, 0, 5},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

static const struct tiny_shape wide = {"qwen2", 256, 256, 1, 8, 2, 32, 70, "f32", true, 0};

Test(cuda_model, every_format_as_on_the_cpu) {
    struct model *m = tiny_model(&wide);
    for (int i = 0; i < N_FORMATS; i++) {
        if (!quant_format_find(formats[i].format))
            continue;
        struct cuda_report report;
        struct model *q = quantized(m, formats[i].format, false);
        place(q, SIZE_MAX, 0, &report);
        cr_expect_eq(report.packed, formats[i].packed, "%s: %zu", formats[i].format, report.packed);
        cr_expect_eq(report.as_they_are, formats[i].as_they_are, "%s", formats[i].format);
        cr_expect_eq(report.to_float16, formats[i].to_float16, "%s", formats[i].format);
        model_detach(q);
        compare(q, formats[i].format, (struct script){3, 3, 1}, SIZE_MAX, TOLERANCE);
        model_free(q);
    }
    model_free(m);
}

// A saved model is in the order of the CPU's kernels; the GPU's find the rows they know.
Test(cuda_model, woven_matrices_are_placed_as_they_were) {
    static const char *const names[] = {"int8-tensor", "int4-g64-zp", "q4_0", "q4_k", "iq4_nl"};
    struct model *m = tiny_model(&wide);
    struct script s = {3, 2, 1};
    struct error err = {0};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct model *q = quantized(m, names[i], false);
        size_t n;
        place(q, SIZE_MAX, 0, NULL);
        float *want = run_script(q, s, &n);
        model_detach(q);
        cr_assert(model_weave(q, &err), "%s", err.message);
        cr_assert(q->layers[0].up.w.woven);
        place(q, SIZE_MAX, 0, NULL);
        float *got = run_script(q, s, &n);
        cr_assert_arr_eq(got, want, n * sizeof *got, "%s", names[i]);
        free(want);
        free(got);
        model_free(q);
    }
    model_free(m);
}

// Recipes name blocks; the embedding, tied or not, is given its format by hand.
Test(cuda_model, a_head_and_an_embedding_in_a_format_of_their_own) {
    struct tiny_shape s = wide;
    for (int tied = 0; tied < 2; tied++) {
        s.tied = tied;
        struct model *m = tiny_model(&s), *q = quantized(m, tied ? "int8" : "int4-g64", false);
        struct linear *l = &q->embedding, kept = *l;
        struct random r = {5};
        *l = tiny_linear(&r, tied ? "q6_k" : "int4-g32", s.vocab, s.hidden, false);
        void *data = l->w.data;
        if (tied)
            q->head = *l, q->head.owns_data = false;
        compare(q, l->w.format->name, (struct script){4, 3, 1}, SIZE_MAX, TOLERANCE);
        *l = kept;
        free(data);
        model_free(q);
        model_free(m);
    }
}

static const struct cuda_kernel *int8_kernel;
static size_t int8_products;

static const char *count_and_run(const struct cuda_call *c) {
    int8_products++;
    return int8_kernel->run(c);
}

// The backend, whose kernel 11 counts its calls.
static const struct cuda_backend *counting_backend(void) {
    static struct cuda_backend counting;
    static struct cuda_kernel kernel;
    static const struct cuda_kernel *kernels[32];
    counting = *backend();
    for (size_t i = 0; counting.kernels[i]; i++) {
        cr_assert_lt(i, sizeof kernels / sizeof *kernels - 1);
        kernels[i] = counting.kernels[i];
        if (kernels[i]->number == 11) {
            int8_kernel = kernels[i];
            kernel = *int8_kernel;
            kernel.run = count_and_run;
            kernels[i] = &kernel;
        }
    }
    counting.kernels = kernels;
    return &counting;
}

// Rounding x to int8 has steps, and where the devices differ by a rounding of float16 a code
// differs, and the next layer more: the two are as far from each other as from unrounded x, and no
// further. test_cuda_ops.c compares the rounding itself.
Test(cuda_model, int8_activations) {
    const struct script scripts[] = {{6, 3, 1}, {100, 2, 1}}; // of 100 tokens: kernel 11
    struct cuda_options o = {.backend = counting_backend(), .layers = SIZE_MAX};
    struct cuda_report ignored;
    struct error err = {0};
    struct model *m = tiny_model(&wide);
    struct model *rounded = quantized(m, "int8", true), *exact = quantized(m, "int8", false);
    for (int i = 0; i < 2; i++) {
        size_t n;
        float *want = run_script(rounded, scripts[i], &n);
        float *unrounded = run_script(exact, scripts[i], &n);
        int8_products = 0;
        cr_assert(cuda_place(rounded, &o, &ignored, &err), "%s", err.message);
        float *got = run_script(rounded, scripts[i], &n);
        cr_assert(i ? int8_products >= 7 * wide.layers : int8_products == 0, "%zu", int8_products);
        double step = rel_l2(want, unrounded, n), here = rel_l2(got, unrounded, n);
        cr_assert(step > 1e-2 && here > 0.7 * step && here < 1.4 * step, "%g %g", step, here);
        cr_assert(rel_l2(got, want, n) < 1.4 * step);
        model_detach(rounded);
        free(want);
        free(unrounded);
        free(got);
    }
    model_free(rounded);
    model_free(exact);
    model_free(m);
}

// ---- the same every time ------------------------------------------------------------------------

Test(cuda_model, repeated_runs_and_other_schedules_give_the_same_bits) {
    struct model *m = tiny_model(&shapes[0]);
    struct script s = {17, 3, 2};
    size_t n;
    place(m, SIZE_MAX, 0, NULL);
    float *first = run_script(m, s, &n);
    for (int schedule = 0; schedule < 3; schedule++) {
        place(m, SIZE_MAX, schedule, NULL);
        float *again = run_script(m, s, &n);
        cr_assert_eq(memcmp(first, again, n * sizeof *first), 0, "schedule %d", schedule);
        free(again);
    }
    free(first);
    model_free(m);
}

// ---- parts of the interface ---------------------------------------------------------------------

static void feed(const struct model *m, struct kv_cache *kv, const int32_t *tokens, size_t n,
                 int32_t sequence, int32_t from, float *logits) {
    struct error err = {0};
    int32_t positions[64], sequences[64];
    uint8_t wants[64] = {0};
    for (size_t i = 0; i < n; i++)
        positions[i] = from + (int32_t)i, sequences[i] = sequence;
    wants[n - 1] = 1;
    struct batch b = {n, tokens, positions, sequences, wants};
    cr_assert(model_forward(m, kv, &b, logits, &err), "%s", err.message);
}

Test(cuda_model, a_copied_prefix_continues_like_the_original) {
    struct model *m = tiny_model(&shapes[0]);
    struct error err = {0};
    const int32_t tokens[] = {5, 6, 7, 8, 9, 10, 11};
    float a[99], b[99];
    for (int on_gpu = 0; on_gpu < 2; on_gpu++) {
        struct kv_cache kv;
        if (on_gpu)
            place(m, 1, 0, NULL); // a layer each
        cr_assert(kv_cache_init(&kv, &m->config, 3, 10, &err));
        feed(m, &kv, tokens, 6, 0, 0, a);
        kv_cache_copy(&kv, 0, 2, 6);
        feed(m, &kv, tokens + 6, 1, 0, 6, a);
        feed(m, &kv, tokens + 6, 1, 2, 6, b);
        kv_cache_free(&kv);
        cr_assert_eq(memcmp(a, b, sizeof a), 0, "on_gpu %d", on_gpu);
    }
    model_free(m);
}

Test(cuda_model, hidden_states_in_steps) {
    struct model *m = tiny_model(&shapes[2]);
    struct error err = {0};
    const int32_t tokens[] = {1, 2, 3}, positions[] = {0, 1, 2};
    struct batch b = {.n = 3, .tokens = tokens, .positions = positions};
    size_t h = m->config.hidden;
    float whole[3 * 96], x[3 * 96], steps[3 * 96];
    struct kv_cache kv;
    place(m, SIZE_MAX, 0, NULL);
    cr_assert(kv_cache_init(&kv, &m->config, 1, 3, &err));
    cr_assert(model_hidden(m, &kv, &b, whole, &err), "%s", err.message);
    cr_assert(model_embed(m, &kv, &b, x, &err));
    for (size_t i = 0; i < 2; i++)
        cr_assert(model_run_layers(m, &kv, &b, i, i + 1, x, NULL, NULL, &err), "%s", err.message);
    model_final_norm(m, x, 3, steps);
    cr_assert(rel_l2(steps, whole, 3 * h) <= TOLERANCE);
    cr_assert_not(model_run_layers(m, &kv, &b, 0, 1, x, (linear_observer *)abort, NULL, &err));
    cr_assert_str_eq(err.message, "layers on the GPU cannot be watched");
    kv_cache_free(&kv);
    model_free(m);
}

// Only the head: what a reference needs.
Test(cuda_model, the_head_alone) {
    struct model *m = tiny_model(&shapes[1]);
    struct error err = {0};
    size_t h = m->config.hidden, v = m->config.vocab, rows = 35; // more than are made together
    struct random r = {3};
    float *hidden = tiny_vector(&r, rows * h, 0, 1);
    float *want = malloc(rows * v * sizeof *want), *got = malloc(rows * v * sizeof *got);
    cr_assert(model_logits(m, hidden, rows, want, &err));
    place(m, SIZE_MAX, 0, NULL);
    cuda_keep_head(m);
    cr_assert(model_logits(m, hidden, rows, got, &err), "%s", err.message);
    cr_assert(rel_l2(got, want, rows * v) <= TOLERANCE);
    size_t n;
    free(run_script(m, (struct script){3, 1, 1}, &n)); // the layers are the CPU's again
    free(hidden);
    free(want);
    free(got);
    model_free(m);
}

static size_t best(const float *x, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

// The sampler, token and position on the device: step for step the tokens of model_forward.
Test(cuda_model, greedy_decoding_on_the_device) {
    struct model *m = tiny_model(&shapes[0]);
    struct error err = {0};
    int32_t tokens[24] = {3, 1, 4, 1, 5}, token;
    float logits[99];
    struct kv_cache kv, other;
    bool done;
    place(m, SIZE_MAX, 0, NULL);
    cr_assert(kv_cache_init(&kv, &m->config, 1, 24, &err));
    cr_assert(kv_cache_init(&other, &m->config, 1, 24, &err));
    for (int run = 0; run < 2; run++) { // the second time with another graph
        feed(m, &kv, tokens, 4, 0, 0, logits);
        feed(m, &other, tokens, 4, 0, 0, logits);
        struct sampler_options o = {.repeat_penalty = 1};
        cr_assert(model_decode_start(m, &kv, &o, tokens, 5, 12, &done, &err) && done);
        for (int32_t n = 5; n < 17; n++) {
            cr_assert(model_decode_next(m, &kv, &token, &err), "%s", err.message);
            feed(m, &other, tokens + n - 1, 1, 0, n - 1, logits);
            tokens[n] = (int32_t)best(logits, 99);
            cr_assert_eq(token, tokens[n], "token %d", n);
        }
    }
    struct sampler_options all = {.temperature = 1, .top_k = 0, .top_p = 1, .repeat_penalty = 1};
    cr_assert(model_decode_start(m, &kv, &all, tokens, 5, 12, &done, &err) && !done);
    kv_cache_free(&kv);
    kv_cache_free(&other);
    model_free(m);
}

// ---- memory -------------------------------------------------------------------------------------

// Its card is as large as the test wants.
static void needs_emulator(void) {
    if (backend() != &cuda_emulator)
        cr_skip_test("only the emulator's card can be made small");
}

Test(cuda_model, says_how_many_layers_would_fit) {
    needs_emulator();
    struct tiny_shape s = wide;
    s.layers = 4;
    struct model *m = tiny_model(&s);
    struct error err = {0};
    struct cuda_report report;
    struct cuda_options o = {.backend = &cuda_emulator, .layers = SIZE_MAX};
    cr_assert(cuda_place(m, &o, &report, &err), "%s", err.message);
    size_t all = cuda_peak_bytes(m), uploaded = report.bytes, fits = 0;
    cr_assert(uploaded > 4 * (256 * 256 * 4) * 2 && all > uploaded, "%zu of %zu", uploaded, all);
    model_detach(m);
    cuda_emulator_memory(all - uploaded / 3);
    cr_assert_not(cuda_place(m, &o, &report, &err));
    cr_assert_null(m->placed);
    const char *advice = strstr(err.message, "at most --gpu-layers ");
    cr_assert_not_null(advice, "%s", err.message);
    fits = strtoul(advice + strlen("at most --gpu-layers "), NULL, 10);
    cr_assert(fits >= 1 && fits < 4, "%s", err.message);
    o.layers = fits;
    cr_assert(cuda_place(m, &o, &report, &err), "%s", err.message);
    cr_assert_eq(report.layers, fits);
    model_detach(m);
    cuda_emulator_memory(1 << 20);
    o.layers = 1;
    cr_assert_not(cuda_place(m, &o, &report, &err));
    cr_assert(strstr(err.message, "not even one layer fits"), "%s", err.message);
    cuda_emulator_memory((size_t)8 << 30);
    model_free(m);
}

Test(cuda_model, a_cache_that_does_not_fit_is_one_line) {
    needs_emulator();
    struct model *m = tiny_model(&shapes[0]);
    struct error err = {0};
    struct kv_cache kv;
    const int32_t token = 1, position = 0;
    struct batch b = {.n = 1, .tokens = &token, .positions = &position};
    float logits[99];
    place(m, SIZE_MAX, 0, NULL);
    cuda_emulator_memory(cuda_peak_bytes(m) + 1000);
    cr_assert(kv_cache_init(&kv, &m->config, 1, 5000, &err));
    cr_assert_not(model_forward(m, &kv, &b, logits, &err));
    cr_assert(strstr(err.message, "key cache") && strstr(err.message, "smaller --ctx"), "%s",
              err.message);
    kv_cache_free(&kv);
    cuda_emulator_memory((size_t)8 << 30);
    model_free(m);
}

Test(cuda_model, refuses_heads_that_no_kernel_takes) {
    struct tiny_shape s = {"llama", 64, 64, 1, 1, 1, 258, 50, "f32", false, 0};
    struct model *m = tiny_model(&s);
    struct error err = {0};
    struct cuda_report report;
    struct cuda_options o = {.backend = &cuda_emulator, .layers = 1};
    cr_assert_not(cuda_place(m, &o, &report, &err));
    cr_assert(strstr(err.message, "heads are 258 wide"), "%s", err.message);
    model_free(m);
}

// ---- recorded models ----------------------------------------------------------------------------

static void check_fixture(const char *path) {
    struct error err = {0};
    struct model *m = model_load(path, &err);
    cr_assert_not_null(m, "%s", err.message);
    compare(m, path, (struct script){24, 3, 1}, SIZE_MAX, TOLERANCE);
    model_free(m);
}

Test(cuda_model, recorded_qwen2) {
    check_fixture(shared_path("fixtures/qwen2-tied-bf16"));
}
Test(cuda_model, recorded_qwen3) {
    check_fixture(shared_path("fixtures/qwen3-qknorm-bf16"));
}
Test(cuda_model, recorded_llama) {
    check_fixture(shared_path("fixtures/llama-untied-f16-sharded"));
}
Test(cuda_model, recorded_mistral) {
    check_fixture(shared_path("fixtures/mistral-gqa-f32"));
}
Test(cuda_model, recorded_gpt2) {
    check_fixture(shared_path("fixtures/gpt2-f32"));
}
