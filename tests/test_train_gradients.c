// The trainer's gradients: against finite differences in double, and against recorded PyTorch ones.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/random.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "tests/shared.h"
#include "train/trainer.h"

enum { T = 7 };
static const int32_t tokens[T] = {3, 1, 4, 1, 5, 9, 2}, targets[T] = {1, 4, 1, 5, 9, 2, 6};

static const struct train_shape tiny_qwen2 = {.hidden = 8,
                                              .intermediate = 12,
                                              .n_layers = 2,
                                              .n_heads = 4,
                                              .n_kv_heads = 2,
                                              .head_dim = 4,
                                              .vocab = 11,
                                              .max_context = 16,
                                              .norm_eps = 1e-6,
                                              .rope_theta = 10000,
                                              .qkv_bias = true,
                                              .tied = true,
                                              .eos = -1};
static const struct train_shape tiny_qwen3 = {.hidden = 8,
                                              .intermediate = 20,
                                              .n_layers = 2,
                                              .n_heads = 3,
                                              .n_kv_heads = 1,
                                              .head_dim = 6,
                                              .vocab = 11,
                                              .max_context = 16,
                                              .norm_eps = 1e-6,
                                              .rope_theta = 100,
                                              .qk_norm = true,
                                              .eos = -1};

// Large random weights everywhere, gains and biases too, so that no gradient is near zero by
// design.
static void open_tiny(struct network *net, const struct train_shape *shape, bool recompute) {
    struct error err = {0};
    cr_assert(network_init(net, shape, 2, T, recompute, &err), "%s", err.message);
    struct random r = {42};
    for (size_t i = 0; i < net->params.total; i++)
        net->values[i] = (float)(0.5 * random_normal(&r));
}

// |a - b| / |b|; anything not finite gives infinity.
static double relative_error(const float *a, const double *b, size_t n) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    double e = sqrt(difference / norm);
    return isfinite(e) ? e : INFINITY;
}

// The central difference with h = 1e-4 errs by about 1e-8; what is left is float32 in the network.
static void check_finite_differences(const struct train_shape *shape, bool recompute) {
    struct network net;
    open_tiny(&net, shape, recompute);
    double loss = network_loss(&net, tokens, 1, T, loss_tokens, targets, 1.0f / T, true);
    double *values = malloc(net.params.total * sizeof *values);
    double *numeric = malloc(net.params.total * sizeof *numeric);
    for (size_t i = 0; i < net.params.total; i++)
        values[i] = net.values[i];
    double loss_ref = network_loss_ref(shape, &net.params, values, tokens, targets, T);
    cr_assert(fabs(loss - loss_ref) <= 2e-6 * loss_ref, "%.9g is not %.9g", loss, loss_ref);
    for (size_t i = 0; i < net.params.total; i++) {
        double keep = values[i], h = 1e-4;
        values[i] = keep + h;
        double above = network_loss_ref(shape, &net.params, values, tokens, targets, T);
        values[i] = keep - h;
        double below = network_loss_ref(shape, &net.params, values, tokens, targets, T);
        values[i] = keep;
        numeric[i] = (above - below) / (2 * h);
    }
    for (size_t p = 0; p < net.params.n; p++) {
        const struct train_param *param = &net.params.list[p];
        size_t at = param->offset;
        if (param->size == 0)
            continue;
        // A key bias adds the same to all scores of a query at angle 0 only: its gradient is small.
        double e = relative_error(net.grads + at, numeric + at, param->size);
        cr_assert(e <= 2e-5, "%s: relative error %g", param->name, e);
    }
    free(values);
    free(numeric);
    network_free(&net);
}

Test(train_gradients, qwen2_equals_finite_differences) {
    check_finite_differences(&tiny_qwen2, false);
}

Test(train_gradients, qwen3_untied_equals_finite_differences) {
    check_finite_differences(&tiny_qwen3, false);
}

Test(train_gradients, recomputed_layers_equal_finite_differences) {
    check_finite_differences(&tiny_qwen2, true);
}

Test(train_gradients, recomputing_changes_no_bit) {
    struct network kept, recomputed;
    open_tiny(&kept, &tiny_qwen3, false);
    open_tiny(&recomputed, &tiny_qwen3, true);
    double a = network_loss(&kept, tokens, 1, T, loss_tokens, targets, 1, true);
    double b = network_loss(&recomputed, tokens, 1, T, loss_tokens, targets, 1, true);
    cr_assert_eq(a, b);
    cr_assert(memcmp(kept.grads, recomputed.grads, kept.params.total * sizeof(float)) == 0);
    network_free(&kept);
    network_free(&recomputed);
}

Test(train_gradients, batches_add_up) {
    struct network net;
    open_tiny(&net, &tiny_qwen2, false);
    int32_t both[2 * T], both_targets[2 * T];
    for (int i = 0; i < T; i++) {
        both[i] = tokens[i], both_targets[i] = targets[i];
        both[T + i] = targets[i], both_targets[T + i] = tokens[i];
    }
    double together = network_loss(&net, both, 2, T, loss_tokens, both_targets, 1, true);
    double *sum = malloc(net.params.total * sizeof *sum);
    for (size_t i = 0; i < net.params.total; i++)
        sum[i] = net.grads[i];
    network_clear_grads(&net);
    double apart = network_loss(&net, tokens, 1, T, loss_tokens, targets, 1, true) +
                   network_loss(&net, targets, 1, T, loss_tokens, tokens, 1, true);
    cr_assert(fabs(together - apart) <= 1e-6 * together);
    cr_assert(relative_error(net.grads, sum, net.params.total) <= 1e-5);
    free(sum);
    network_free(&net);
}

Test(train_gradients, an_unscored_token_teaches_nothing) {
    struct network net;
    open_tiny(&net, &tiny_qwen2, false);
    int32_t none[T];
    for (int i = 0; i < T; i++)
        none[i] = -1;
    cr_assert_eq(network_loss(&net, tokens, 1, T, loss_tokens, none, 1, true), 0.0);
    for (size_t i = 0; i < net.params.total; i++)
        cr_assert_eq(net.grads[i], 0.0f);
    network_free(&net);
}

// ---- the seams for quantization-aware training and distillation ---------------------------------

static void halve(const void *context, const struct train_param *param, const float *values,
                  float *used) {
    (void)context;
    for (size_t i = 0; i < param->size; i++)
        used[i] = 0.5f * values[i];
}

Test(train_gradients, transformed_weights_are_the_ones_used) {
    struct network net, half;
    struct error err = {0};
    open_tiny(&net, &tiny_qwen2, false);
    open_tiny(&half, &tiny_qwen2, false);
    for (size_t i = 0; i < half.params.total; i++)
        half.values[i] *= 0.5f;
    cr_assert(network_set_transform(&net, halve, NULL, &err), "%s", err.message);
    double a = network_loss(&net, tokens, 1, T, loss_tokens, targets, 1, true);
    cr_assert_eq(a, network_loss(&half, tokens, 1, T, loss_tokens, targets, 1, true));
    cr_assert(memcmp(net.grads, half.grads, net.params.total * sizeof(float)) == 0);
    cr_assert_eq(network_weight(&net, 0)[3], half.values[3]);
    cr_assert(network_set_transform(&net, NULL, NULL, &err));
    cr_assert(network_loss(&net, tokens, 1, T, loss_tokens, targets, 1, false) != a);
    network_free(&net);
    network_free(&half);
}

Test(train_gradients, distillation_equals_finite_differences) {
    enum { V = 9 };
    struct random r = {5};
    float z[V], teacher[V], gradient[V], loss;
    for (int v = 0; v < V; v++) {
        z[v] = (float)random_normal(&r);
        teacher[v] = (float)random_normal(&r);
    }
    struct loss_teacher context = {teacher, 2.0f};
    memcpy(gradient, z, sizeof z);
    loss_teacher(&context, 0, 1, V, 1.0f, gradient, &loss);
    cr_assert(loss > 0);
    for (int v = 0; v < V; v++) {
        float up[V], down[V], above, below, h = 1e-2f;
        memcpy(up, z, sizeof z);
        memcpy(down, z, sizeof z);
        up[v] += h;
        down[v] -= h;
        loss_teacher(&context, 0, 1, V, 1.0f, up, &above);
        loss_teacher(&context, 0, 1, V, 1.0f, down, &below);
        cr_assert(fabsf((above - below) / (2 * h) - gradient[v]) <= 1e-4f);
    }
    memcpy(gradient, teacher, sizeof teacher);
    loss_teacher(&context, 0, 1, V, 1.0f, gradient, &loss);
    cr_assert(fabsf(loss) <= 1e-6f); // the teacher itself has nothing to learn
}

// ---- recorded by PyTorch ------------------------------------------------------------------------

// The fixture's token ids; *n of them.
static int32_t *fixture_tokens(const cJSON *expected, size_t *n) {
    const cJSON *list = json_get(expected, "tokens"), *item;
    int32_t *ids = malloc((size_t)cJSON_GetArraySize(list) * sizeof *ids);
    *n = 0;
    cJSON_ArrayForEach (item, list)
        ids[(*n)++] = (int32_t)item->valuedouble;
    return ids;
}

static void check_recorded(const char *folder) {
    char config[1100], json[1100], grads[1100];
    snprintf(config, sizeof config, "%s/config.json", folder);
    snprintf(json, sizeof json, "%s/expected.json", folder);
    snprintf(grads, sizeof grads, "%s/expected_grads.safetensors", folder);
    struct error err = {0};
    struct train_shape shape;
    struct network net;
    struct safetensors recorded = {0};
    size_t n;
    cJSON *expected = json_parse_file(json, &err);
    cr_assert(expected, "%s", err.message);
    int32_t *ids = fixture_tokens(expected, &n);
    cr_assert(train_shape_read(&shape, config, &err), "%s", err.message);
    cr_assert(network_init(&net, &shape, 1, n - 1, false, &err), "%s", err.message);
    cr_assert(network_import(&net, folder, &err), "%s", err.message);
    cr_assert(safetensors_open_file(&recorded, grads, &err), "%s", err.message);

    double nll = 0, loss = network_loss(&net, ids, 1, n - 1, loss_tokens, ids + 1,
                                        1.0f / (float)(n - 1), true);
    cr_assert(json_get_number(expected, "nll_mean", &nll, json, &err));
    cr_assert(fabs(loss - nll) <= 1e-5 * nll, "loss %g, expected %g", loss, nll);
    size_t checked = 0;
    for (size_t p = 0; p < net.params.n; p++) {
        const struct train_param *param = &net.params.list[p];
        if (param->size == 0)
            continue;
        const struct tensor *t = safetensors_find(&recorded, param->name);
        cr_assert(t && t->bytes == param->size * sizeof(float), "%s", param->name);
        double *wanted = malloc(param->size * sizeof *wanted);
        for (size_t i = 0; i < param->size; i++)
            wanted[i] = ((const float *)t->data)[i];
        double e = relative_error(net.grads + param->offset, wanted, param->size);
        cr_assert(e <= 1e-3, "%s: relative error %g", param->name, e);
        free(wanted);
        checked++;
    }
    cr_assert_eq(checked, recorded.n_tensors);
    safetensors_close(&recorded);
    cJSON_Delete(expected);
    free(ids);
    network_free(&net);
}

Test(train_gradients, qwen2_equals_pytorch) {
    check_recorded(shared_path("fixtures/qwen2-tied-bf16"));
}

Test(train_gradients, qwen3_equals_pytorch) {
    check_recorded(shared_path("fixtures/qwen3-qknorm-bf16"));
}

// Windows of several attention tiles, the last one not full; the derivative along each parameter's
// own gradient is the gradient's squared norm.
Test(train_gradients, windows_of_many_tiles_equal_finite_differences) {
    enum { LONG = 205, V = 40 };
    struct train_shape shape = tiny_qwen2;
    shape.hidden = 64, shape.intermediate = 96, shape.head_dim = 32, shape.max_context = 256;
    shape.vocab = V;
    struct network net;
    struct error err = {0};
    int32_t text[LONG + 1];
    struct random r = {7};
    cr_assert(network_init(&net, &shape, 1, LONG, false, &err), "%s", err.message);
    for (size_t i = 0; i < net.params.total; i++)
        net.values[i] = (float)(0.1 * random_normal(&r));
    for (size_t i = 0; i <= LONG; i++)
        text[i] = (int32_t)random_below(&r, V);
    network_loss(&net, text, 1, LONG, loss_tokens, text + 1, 1.0f / LONG, true);
    double *values = malloc(net.params.total * sizeof *values);
    for (size_t p = 0; p < net.params.n; p++) {
        const struct train_param *param = &net.params.list[p];
        const float *g = net.grads + param->offset;
        double squared = 0, loss[2];
        for (size_t i = 0; i < param->size; i++)
            squared += (double)g[i] * g[i];
        if (param->size == 0)
            continue;
        for (int side = 0; side < 2; side++) {
            double h = (side ? 1e-4 : -1e-4) / sqrt(squared);
            for (size_t i = 0; i < net.params.total; i++)
                values[i] = net.values[i];
            for (size_t i = 0; i < param->size; i++)
                values[param->offset + i] += h * g[i];
            loss[side] = network_loss_ref(&shape, &net.params, values, text, text + 1, LONG);
        }
        double slope = (loss[1] - loss[0]) / 2e-4;
        cr_assert(fabs(slope / sqrt(squared) - 1) <= 1e-3, "%s: %g, expected %g", param->name,
                  slope, sqrt(squared));
    }
    free(values);
    network_free(&net);
}
