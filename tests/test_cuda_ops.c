// The operations of kernels/cuda/forward.h in the emulator, each against its reference on the CPU:
// odd shapes, outputs of exactly their size that start as NaN.
#include <criterion/criterion.h>
#include <float.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/random.h"
#include "cuda/matrix.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cuda/forward.h"
#include "tests/compare.h"
#include "text/sampler.h"

static const struct cuda_launch launch = {.processors = 3};
#define RUN(op, args)                                                                              \
    do {                                                                                           \
        const char *failed = cuda_emulator.ops->op(&launch, args);                                 \
        cr_assert_null(failed, "%s", failed);                                                      \
    } while (0)

static void *poison(size_t bytes) {
    void *p = aligned_alloc(16, (bytes + 15) / 16 * 16);
    cr_assert_not_null(p);
    memset(p, 0xff, bytes);
    return p;
}

static float *normal(struct random *r, size_t n, float size) {
    float *x = poison(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = size * (float)random_normal(r);
    return x;
}

static float *widened(const uint16_t *x, size_t rows, size_t width, size_t stride) {
    float *y = poison(rows * width * sizeof *y);
    for (size_t i = 0; i < rows * width; i++)
        y[i] = f16_to_f32(x[i / width * stride + i % width]);
    return y;
}

// Columns from width on are 0.
static void check_padding(const uint16_t *x, size_t rows, size_t width, size_t stride) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = width; j < stride; j++)
            cr_assert_eq(x[i * stride + j], 0, "row %zu column %zu", i, j);
}

// ---- rows ---------------------------------------------------------------------------------------

static void check_norm(size_t rows, size_t width, bool center, bool add) {
    struct random r = {width};
    float *x = normal(&r, rows * width, 3), *sum = normal(&r, rows * width, 1);
    float *bias = normal(&r, width, 1), *gain = normal(&r, width, 1), *shift = normal(&r, width, 1);
    float *want_x = poison(rows * width * sizeof *want_x),
          *want = poison(rows * width * sizeof *want);
    for (size_t i = 0; i < rows * width; i++)
        want_x[i] = add ? x[i] + (sum[i] + bias[i % width]) : x[i];
    if (center)
        layernorm_ref(want, want_x, rows, width, gain, shift, 1e-5f);
    else
        rmsnorm_ref(want, want_x, rows, width, gain, 1e-5f);
    size_t stride = (width + 255) / 256 * 256;
    uint16_t *out = poison(rows * stride * sizeof *out);
    float *copy = poison(rows * width * sizeof *copy);
    struct cuda_norm a = {.x = x,
                          .add = add ? sum : NULL,
                          .add_bias = bias,
                          .rows = (unsigned)rows,
                          .width = (unsigned)width,
                          .add_stride = (unsigned)width,
                          .gain = gain,
                          .bias = center ? shift : NULL,
                          .center = center,
                          .eps = 1e-5f,
                          .out = out,
                          .out_stride = (unsigned)stride,
                          .copy = copy};
    RUN(norm, &a);
    float *got = widened(out, rows, width, stride);
    cr_assert(rel_l2(x, want_x, rows * width) <= FLT_EPSILON);
    cr_assert(rel_l2(copy, want, rows * width) <= 1e-6);
    cr_assert(rel_l2(got, want, rows * width) <= 5e-4);
    check_padding(out, rows, width, stride);
    void *all[] = {x, sum, bias, gain, shift, want_x, want, out, copy, got};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

Test(cuda_ops, norms_and_the_sum_before_them) {
    const size_t widths[] = {1, 33, 256, 700};
    for (size_t i = 0; i < 4; i++)
        for (int kind = 0; kind < 4; kind++)
            check_norm(1 + i, widths[i], kind & 1, kind & 2);
}

static void check_activation(enum cuda_activation kind, size_t rows, size_t width) {
    struct random r = {width};
    size_t stride = 2 * width + 5, out_stride = (width + 255) / 256 * 256;
    float *both = normal(&r, rows * stride, 2), *bias = normal(&r, 2 * width, 1);
    float *gate = poison(rows * width * sizeof *gate), *up = poison(rows * width * sizeof *up);
    for (size_t i = 0; i < rows * width; i++) {
        gate[i] = both[i / width * stride + i % width] + bias[i % width];
        up[i] = both[i / width * stride + width + i % width] + bias[width + i % width];
    }
    if (kind == CUDA_GELU)
        gelu_tanh_ref(up, up, rows * width);
    else
        silu_mul_ref(up, gate, up, rows * width);
    uint16_t *out = poison(rows * out_stride * sizeof *out);
    struct cuda_activate a = {kind,
                              both,
                              both + width,
                              bias,
                              bias + width,
                              (unsigned)rows,
                              (unsigned)width,
                              (unsigned)stride,
                              out,
                              (unsigned)out_stride};
    RUN(activate, &a);
    float *got = widened(out, rows, width, out_stride);
    cr_assert(rel_l2(got, up, rows * width) <= 5e-4);
    check_padding(out, rows, width, out_stride);
    void *all[] = {both, bias, gate, up, out, got};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

Test(cuda_ops, activations) {
    check_activation(CUDA_SILU_MUL, 3, 300);
    check_activation(CUDA_GELU, 2, 41);
}

Test(cuda_ops, rounding_to_int8) {
    enum { ROWS = 4, WIDTH = 300, STRIDE = 512 };
    struct random r = {1};
    uint16_t *x = calloc(ROWS * STRIDE, 2), *out = calloc(ROWS * STRIDE, 2);
    for (size_t i = 0; i < (ROWS - 1) * STRIDE; i++) // the last row is zeros
        if (i % STRIDE < WIDTH)
            x[i] = f32_to_f16((float)random_normal(&r));
    float *wide = widened(x, ROWS, WIDTH, STRIDE), scales[ROWS];
    int8_t *codes = poison(ROWS * WIDTH);
    quantize_rows_i8_ref(wide, WIDTH, ROWS, WIDTH, codes, scales);
    RUN(round, (&(struct cuda_round){x, out, ROWS, WIDTH, STRIDE}));
    for (size_t i = 0; i < ROWS * WIDTH; i++) {
        float want = (float)codes[i] * scales[i / WIDTH];
        float got = f16_to_f32(out[i / WIDTH * STRIDE + i % WIDTH]);
        cr_assert(fabsf(got - want) <= fabsf(want) / 2048, "%zu: %g, %g", i, (double)got,
                  (double)want);
    }
    free(x);
    free(out);
    free(wide);
    free(codes);
}

Test(cuda_ops, float16_keeps_finite_what_is_finite) {
    const float x[] = {1, -1e6f, 70000, INFINITY, NAN, 65504, 1e-8f};
    uint16_t out[256];
    RUN(narrow, (&(struct cuda_narrow){x, out, 1, 7, 256}));
    const float want[] = {1, -65504, 65504, INFINITY, 0, 65504, 0};
    for (int i = 0; i < 7; i++)
        cr_assert(i == 4 ? isnan(f16_to_f32(out[i])) : f16_to_f32(out[i]) == want[i], "%d", i);
    check_padding(out, 1, 7, 256);
}

Test(cuda_ops, embedding_rows_of_every_layout) {
    const char *formats[] = {"f16", "bf16", "int8", "int4-g32-zp", "q8_0", "q4_0", "q4_k", "q6_k"};
    const int32_t tokens[] = {0, 36, 17}, positions[] = {2, 0, 1};
    enum { ROWS = 37, WIDTH = 512 };
    for (size_t f = 0; f < 9; f++) { // the last: float16, packed
        struct cuda_sample table, places;
        struct error err = {0};
        bool packed = f == 8;
        float x[3 * WIDTH], want[3 * WIDTH];
        cr_assert(cuda_sample_init(&table, formats[packed ? 0 : f], ROWS, WIDTH, f, &err));
        cr_assert(cuda_sample_init(&places, "f16", 3, WIDTH, 7, &err));
        for (size_t i = 0; i < 3 * WIDTH; i++)
            want[i] = cuda_weight_ref(&table.w, (unsigned)tokens[i / WIDTH], i % WIDTH) +
                      cuda_weight_ref(&places.w, (unsigned)positions[i / WIDTH], i % WIDTH);
        size_t bytes = 0;
        void *there = NULL;
        if (packed) {
            cr_assert(cuda_pack_bytes(&table.w, &bytes));
            cuda_pack(&table.w, there = poison(bytes));
            table.w.codes = NULL;
            table.w.packed = there;
        }
        memset(x, 0xff, sizeof x);
        struct cuda_embed e = {{tokens, positions, tokens, 3}, table.w, places.w, x, WIDTH};
        RUN(embed, &e);
        cr_assert(rel_l2(x, want, 3 * WIDTH) <= 1e-6, "%zu", f);
        free(there);
        cuda_sample_free(&table);
        cuda_sample_free(&places);
    }
}

// ---- heads and attention ------------------------------------------------------------------------

struct attention_case {
    size_t heads, kv_heads, d, capacity, sequences, n;
    int32_t from; // position of the first token
    int window;
    unsigned splits; // 0: tiles
    bool mixed;      // sequences alternate
};

// Everything between the product and attention's output, as the CPU does it.
static void check_attention(struct attention_case c) {
    struct random r = {c.d + c.n};
    size_t q = c.heads * c.d, kv = c.kv_heads * c.d, width = q + 2 * kv, stride = width + 3;
    size_t cached = c.sequences * c.kv_heads * c.capacity * c.d, out_stride = (q + 255) / 256 * 256;
    float *qkv = normal(&r, c.n * stride, 1.5f), *bias = normal(&r, width, 0.5f);
    float *q_gain = normal(&r, c.d, 1), *k_gain = normal(&r, c.d, 1), *inv_freq = poison(c.d * 2);
    uint16_t *keys = poison(cached * 2), *values = poison(cached * 2); // NaN where nothing is
    float *angles = poison(c.n * c.d * sizeof *angles);
    int32_t positions[128], sequences[128];
    for (size_t i = 0; i < c.d / 2; i++)
        inv_freq[i] = powf(10000, -2 * (float)i / (float)c.d);
    for (size_t i = 0; i < c.n; i++) {
        sequences[i] = c.mixed ? (int32_t)(i % c.sequences) : (int32_t)c.sequences - 1;
        positions[i] = c.from + (int32_t)(c.mixed ? i / c.sequences : i);
    }
    for (size_t row = 0; row < c.sequences * c.kv_heads; row++) // what was there before
        for (size_t i = 0; i < (size_t)c.from * c.d; i++) {
            keys[row * c.capacity * c.d + i] = f32_to_f16((float)random_normal(&r));
            values[row * c.capacity * c.d + i] = f32_to_f16((float)random_normal(&r));
        }
    float *want_q = poison(c.n * q * 4), *want_k = poison(c.n * kv * 4),
          *want_v = poison(c.n * kv * 4);
    for (size_t t = 0; t < c.n; t++)
        for (size_t i = 0; i < width; i++) {
            float x = qkv[t * stride + i] + bias[i];
            *(i < q        ? &want_q[t * q + i]
              : i < q + kv ? &want_k[t * kv + i - q]
                           : &want_v[t * kv + i - q - kv]) = x;
        }
    rmsnorm_ref(want_q, want_q, c.n * c.heads, c.d, q_gain, 1e-5f);
    rmsnorm_ref(want_k, want_k, c.n * c.kv_heads, c.d, k_gain, 1e-5f);
    rope_ref(want_q, q, c.n, c.heads, c.d, positions, inv_freq);
    rope_ref(want_k, kv, c.n, c.kv_heads, c.d, positions, inv_freq);

    struct cuda_tokens batch = {NULL, positions, sequences, (unsigned)c.n};
    RUN(angles, (&(struct cuda_angles){batch, inv_freq, (unsigned)c.d / 2, angles}));
    RUN(heads, (&(struct cuda_heads){batch, qkv, (unsigned)stride, bias, q_gain, k_gain, 1e-5f,
                                     angles, (unsigned)c.heads, (unsigned)c.kv_heads, (unsigned)c.d,
                                     keys, values, (unsigned)c.capacity}));
    float *got_q = poison(c.n * q * 4);
    for (size_t t = 0; t < c.n; t++)
        memcpy(got_q + t * q, qkv + t * stride, q * 4);
    cr_assert(rel_l2(got_q, want_q, c.n * q) <= 1e-6);

    // The reference reads the cache that the kernel wrote, in float32.
    float *wide_k = poison(cached * 4), *wide_v = poison(cached * 4), *want = poison(c.n * q * 4);
    struct attention_query *queries = calloc(c.n, sizeof *queries);
    for (size_t i = 0; i < cached; i++)
        wide_k[i] = f16_to_f32(keys[i]), wide_v[i] = f16_to_f32(values[i]);
    for (size_t t = 0; t < c.n; t++) {
        size_t base = (size_t)sequences[t] * c.kv_heads * c.capacity * c.d;
        for (size_t i = 0; i < kv; i++) {
            size_t at = base + (i / c.d * c.capacity + (size_t)positions[t]) * c.d + i % c.d;
            cr_assert_float_eq(wide_k[at], want_k[t * kv + i], 2e-3 + 1e-3 * fabsf(wide_k[at]));
            cr_assert_float_eq(wide_v[at], want_v[t * kv + i], 2e-3 + 1e-3 * fabsf(wide_v[at]));
        }
        int32_t last = positions[t], first = last - c.window + 1;
        queries[t] = (struct attention_query){wide_k + base, wide_v + base, c.capacity * c.d,
                                              first < 0 ? 0 : first, last};
    }
    float scale = 1 / sqrtf((float)c.d);
    attention_ref(want, want_q, c.n, c.heads, c.kv_heads, c.d, queries, scale);

    uint16_t *out = poison(c.n * out_stride * 2);
    float *parts = poison(c.n * (c.splits + 1) * c.heads * (c.d + 2) * 4);
    struct cuda_attend a = {.batch = batch,
                            .q = qkv,
                            .keys = keys,
                            .values = values,
                            .q_stride = (unsigned)stride,
                            .heads = (unsigned)c.heads,
                            .kv_heads = (unsigned)c.kv_heads,
                            .d = (unsigned)c.d,
                            .capacity = (unsigned)c.capacity,
                            .window = c.window,
                            .scale = scale,
                            .out = out,
                            .out_stride = (unsigned)out_stride,
                            .first = 0,
                            .count = (unsigned)c.n,
                            .splits = c.splits,
                            .tiles = c.splits == 0,
                            .parts = parts};
    RUN(attend, &a);
    float *got = widened(out, c.n, q, out_stride);
    double error = rel_l2(got, want, c.n * q), allowed = c.splits ? 4e-4 : 2e-3; // q, p in float16
    cr_assert(error <= allowed, "d %zu n %zu splits %u: %g", c.d, c.n, c.splits, error);
    void *all[] = {qkv,    bias,  q_gain, k_gain, inv_freq, keys,    values, angles, want_q, want_k,
                   want_v, got_q, wide_k, wide_v, want,     queries, out,    parts,  got};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

Test(cuda_ops, attention_of_single_tokens) {
    check_attention((struct attention_case){4, 2, 16, 40, 1, 1, 33, INT_MAX, 1, false});
    check_attention((struct attention_case){7, 1, 64, 90, 1, 1, 80, INT_MAX, 4, false});
    check_attention((struct attention_case){12, 2, 128, 50, 3, 6, 20, INT_MAX, 2, true});
    check_attention((struct attention_case){2, 2, 200, 30, 2, 4, 3, INT_MAX, 3, true});
    check_attention((struct attention_case){3, 3, 34, 64, 1, 2, 50, 9, 5, false}); // a window
    check_attention((struct attention_case){1, 1, 2, 4, 1, 1, 0, INT_MAX, 3, false});
}

Test(cuda_ops, attention_of_a_prompt) {
    check_attention((struct attention_case){2, 1, 16, 80, 1, 70, 0, INT_MAX, 0, false});
    check_attention((struct attention_case){4, 2, 64, 60, 2, 17, 5, INT_MAX, 0, false});
    check_attention((struct attention_case){2, 2, 128, 40, 1, 33, 3, INT_MAX, 0, false});
    check_attention((struct attention_case){2, 1, 250, 20, 1, 16, 0, INT_MAX, 0, false});
    check_attention((struct attention_case){2, 1, 36, 90, 1, 64, 20, 13, 0, false}); // a window
}

// ---- sampling -----------------------------------------------------------------------------------

// The same tokens as the CPU's sampler, step by step, with the history and random numbers of both.
static void check_sampler(struct sampler_options o, size_t vocab, bool ties) {
    enum { STEPS = 6 };
    struct random r = {o.seed + vocab}, draws_of = {o.seed};
    struct error err = {0};
    struct sampler s;
    double draws[STEPS];
    int32_t history[80], token = -7, position = -7, want;
    struct cuda_sample_state state = {0, 70};
    cr_assert(sampler_init(&s, o, vocab, &err), "%s", err.message);
    for (int i = 0; i < STEPS; i++)
        draws[i] = random_uniform(&draws_of);
    for (int i = 0; i < 70; i++)
        history[i] = (int32_t)random_below(&r, (uint32_t)vocab / 2);
    for (int i = 0; i < STEPS; i++) {
        float *logits = normal(&r, vocab, 3);
        for (size_t j = 0; ties && j < vocab; j++)
            logits[j] = roundf(logits[j]) - 0.0f;
        cr_assert(sampler_next(&s, logits, history, (size_t)state.length, &want, &err));
        struct cuda_sample_next a = {
            logits, (unsigned)vocab, o.temperature, o.top_p, o.repeat_penalty, (unsigned)o.top_k,
            draws,  &state,          history,       &token,  &position};
        RUN(sample, &a);
        cr_assert_eq(token, want, "step %d: %d, expected %d", i, token, want);
        cr_assert(position == 70 + i && history[70 + i] == token);
        cr_assert(state.length == 71 + i && state.step == i + 1);
        free(logits);
    }
    sampler_free(&s);
}

Test(cuda_ops, draws_what_the_cpu_draws) {
    check_sampler((struct sampler_options){0, 40, 1, 1, 0}, 3000, false);
    check_sampler((struct sampler_options){0, 40, 1, 1.5f, 0}, 500, true);
    check_sampler((struct sampler_options){0.8f, 40, 0.95f, 1, 1}, 5000, false);
    check_sampler((struct sampler_options){1.5f, 1000, 0.9f, 1.3f, 2}, 3000, true);
    check_sampler((struct sampler_options){1, 7, 1, 1, 3}, 40, true);
    check_sampler((struct sampler_options){2, 32, 1, 1, 4}, 33, false);
    check_sampler((struct sampler_options){1, 1, 0, 1, 5}, 300, false);
}

Test(cuda_ops, a_broken_logit_is_no_token) {
    const float bad[] = {NAN, -INFINITY};
    for (int i = 0; i < 2; i++) {
        float logits[100];
        double draw = 0.5;
        int32_t history[4], token, position;
        struct cuda_sample_state state = {0, 0};
        for (int j = 0; j < 100; j++)
            logits[j] = i ? bad[i] : 0;
        logits[57] = bad[i];
        struct cuda_sample_next a = {logits, 100,    1,       1,      1,        40,
                                     &draw,  &state, history, &token, &position};
        RUN(sample, &a);
        cr_assert_eq(history[0], -1);
    }
}

Test(cuda_ops, pieces_of_a_context) {
    cr_assert_eq(cuda_attend_splits(132, 1, 8, 2048), 32);
    cr_assert_eq(cuda_attend_splits(132, 1, 8, 200), 4);
    cr_assert_eq(cuda_attend_splits(132, 64, 8, 2048), 1);
    cr_assert_eq(cuda_attend_splits(132, 16, 8, 2048), 3);
    cr_assert_eq(cuda_attend_splits(3, 1, 2, 10), 1);
}
