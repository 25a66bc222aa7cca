// kernels/cpu/attention.c against its reference: softmax-weighted sums over cached keys.
#include <criterion/criterion.h>

#include "tests/kernel_data.h"

// rel_l2 of a token's heads; the worst measured: 2.0e-6. With softmax's weights rounded to
// bfloat16, which moves each by 2^-8 at most: 4.2e-3.
static const double tolerance = 4e-6, rounded_tolerance = 8e-3;

struct setup {
    size_t m, n_heads, n_kv_heads, d, positions;
    int32_t window; // 0: sees all before it
};

struct data {
    float *q, *k, *v, *want, *got;
    struct attention_query *queries;
};

// What bfloat16 holds: the nearest, ties to even. Scores close to each other make any difference
// large, so operands are rounded before they are compared.
static void round_all(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        if (x[i] == x[i]) // what is poisoned stays so
            bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
        memcpy(&x[i], &bits, sizeof bits);
    }
}

// Query t sits at the cache's last m positions. The positions after the last stay poisoned.
static struct data data_open(const struct setup *s) {
    struct random r = {s->m * 31 + s->d * 7 + s->positions};
    size_t cache = s->n_kv_heads * (s->positions + 1) * s->d, out = s->m * s->n_heads * s->d;
    struct data a = {outliers(&r, s->m * s->n_heads, s->d),
                     poisoned(cache),
                     poisoned(cache),
                     poisoned(out),
                     poisoned(out),
                     malloc(s->m * sizeof *a.queries)};
    for (size_t head = 0; head < s->n_kv_heads; head++)
        for (size_t i = 0; i < s->positions * s->d; i++) {
            a.k[head * (s->positions + 1) * s->d + i] = (float)random_normal(&r);
            a.v[head * (s->positions + 1) * s->d + i] = (float)random_normal(&r);
        }
    for (size_t t = 0; t < s->m; t++) {
        int32_t last = (int32_t)(s->positions - s->m + t);
        int32_t first = s->window && last >= s->window ? last - s->window + 1 : 0;
        a.queries[t] = (struct attention_query){a.k, a.v, (s->positions + 1) * s->d, first, last};
    }
    return a;
}

static void data_close(struct data *a) {
    release(a->q), release(a->k), release(a->v), release(a->want), release(a->got);
    free(a->queries);
}

static void check_rows(const struct setup *s, const struct data *a, double allowed) {
    size_t row = s->n_heads * s->d;
    for (size_t t = 0; t < s->m; t++) {
        double error = rel_l2(a->got + t * row, a->want + t * row, row);
        cr_assert(error <= allowed, "m %zu heads %zu/%zu d %zu positions %zu token %zu: %g", s->m,
                  s->n_heads, s->n_kv_heads, s->d, s->positions, t, error);
    }
}

static void poison(const struct setup *s, struct data *a) {
    memset(a->got, 0xff, s->m * s->n_heads * s->d * sizeof *a->got);
}

static void round_data(const struct setup *s, struct data *a) {
    size_t cache = s->n_kv_heads * (s->positions + 1) * s->d;
    round_all(a->q, s->m * s->n_heads * s->d);
    round_all(a->k, cache);
    round_all(a->v, cache);
}

// Rounded attention is compared with the reference of rounded operands: the nearest, not others. A
// scale that is a power of two is the same before and after.
static void check(const struct setup *s) {
    struct data a = data_open(s), rounded = data_open(s);
    float scale = exp2f(-roundf(log2f((float)s->d) / 2));
    round_data(s, &rounded);
    attention_ref(a.want, a.q, s->m, s->n_heads, s->n_kv_heads, s->d, a.queries, scale);
    attention_ref(rounded.want, rounded.q, s->m, s->n_heads, s->n_kv_heads, s->d, rounded.queries,
                  scale);
    FOR_EACH_LEVEL(level) {
        poison(s, &a);
        attention(a.got, a.q, s->m, s->n_heads, s->n_kv_heads, s->d, a.queries, scale);
        check_rows(s, &a, tolerance);
        poison(s, &rounded);
        attention_rounded(rounded.got, a.q, s->m, s->n_heads, s->n_kv_heads, s->d, a.queries,
                          scale);
        bool few = s->m * (s->n_heads / s->n_kv_heads) < 32;
        if (level < LEVEL_AMX || few || s->d > 256) { // no tiles
            cr_assert_arr_eq(rounded.got, a.got, s->m * s->n_heads * s->d * sizeof *a.got);
        } else {
            check_rows(s, &rounded, rounded_tolerance);
            cr_assert(memcmp(rounded.got, a.got, s->d * sizeof *a.got) != 0, "nothing is rounded");
        }
    }
    data_close(&a);
    data_close(&rounded);
}

Test(attention, equals_the_reference_in_every_shape) {
    const struct setup setups[] = {
        {1, 1, 1, 1, 1, 0},      {1, 2, 1, 3, 5, 0},        {2, 3, 3, 17, 63, 0},
        {3, 4, 2, 64, 64, 0},    {7, 8, 1, 80, 65, 0},      {20, 16, 2, 128, 130, 0},
        {70, 4, 4, 48, 70, 0},   {1, 16, 2, 128, 600, 0},   {1, 71, 1, 64, 100, 0},
        {5, 130, 1, 20, 9, 0},   {3, 2, 1, 1024, 40, 0},    {2, 40, 2, 1000, 30, 0},
        {66, 2, 1, 32, 1100, 0}, {30, 2, 2, 33, 90, 7},     {90, 4, 2, 16, 700, 64},
        {90, 4, 2, 16, 560, 10}, {9, 2, 1, 128, 1300, 513}, {300, 2, 1, 64, 300, 0},
        {33, 2, 2, 256, 129, 0}, {40, 7, 1, 63, 1200, 100}, {130, 3, 1, 257, 130, 0},
        {31, 2, 2, 64, 40, 0},   {32, 2, 2, 64, 40, 0},     {2, 300, 1, 16, 9, 0}};
    for (size_t i = 0; i < sizeof setups / sizeof *setups; i++)
        check(&setups[i]);
}

// Every number of query heads that share keys splits into tiles in its own way, at widths that fill
// vectors and that do not, and contexts that end just before and behind blocks of keys (64), of
// values (16) and segments (512).
Test(attention, every_ratio_of_heads_at_the_borders_of_blocks) {
    const size_t widths[] = {64, 77, 128}, contexts[] = {1, 15, 17, 63, 64, 65, 511, 513};
    for (size_t ratio = 1; ratio <= 8; ratio++)
        for (size_t w = 0; w < 3; w++)
            for (size_t c = 0; c < 8; c++)
                check(&(struct setup){1, 2 * ratio, 2, widths[w], contexts[c], c % 2 ? 40 : 0});
}

Test(attention, hand_computed) {
    const float k[4] = {0, 0, 1, 0}, v[4] = {1, 2, 3, 4}, q[2] = {2, 5};
    const struct attention_query one = {k, v, 4, 0, 0}, both = {k, v, 4, 0, 1};
    const double weight = 1 / (1 + exp(-1.0)); // scores 0 and 2 * 0.5
    FOR_EACH_LEVEL(level) {
        float out[2] = {NAN, NAN};
        attention(out, q, 1, 1, 1, 2, &one, 0.5f);
        cr_assert(out[0] == 1 && out[1] == 2);
        attention(out, q, 1, 1, 1, 2, &both, 0.5f);
        cr_assert_float_eq(out[0], 1 + 2 * weight, 1e-6);
        cr_assert_float_eq(out[1], 2 + 2 * weight, 1e-6);
    }
}

Test(attention, a_query_that_sees_nothing_gives_zeros) {
    const float k[6] = {1, 1, 1, 1, 1, 1}, q[6] = {1, 1, 1, 1, 1, 1};
    const struct attention_query queries[3] = {{k, k, 6, 0, 2}, {k, k, 6, 2, 1}, {k, k, 6, 0, -1}};
    FOR_EACH_LEVEL(level) {
        float out[6] = {NAN, NAN, NAN, NAN, NAN, NAN}, want[6];
        attention_ref(want, q, 3, 1, 1, 2, queries, 1);
        attention(out, q, 3, 1, 1, 2, queries, 1);
        for (int i = 0; i < 6; i++)
            cr_assert(out[i] == (i < 2 ? 1.0f : 0.0f) && want[i] == out[i]);
    }
}

// Rows of one block that see the first block of keys in part, in full and not at all, and the
// second likewise; a key in the second that is far above all before it, so that sums shrink; and
// other rows of another cache.
Test(attention, rounded_rows_that_share_a_block_of_keys_see_what_is_theirs) {
    enum { M = 96, D = 32, P = 256, HIGH = 150 };
    struct random r = {5};
    float *q = outliers(&r, M, D), *k = poisoned(2 * P * D), *v = poisoned(2 * P * D);
    float *want = poisoned(M * D), *got = poisoned(M * D);
    struct attention_query queries[M];
    for (int i = 0; i < 2 * P * D; i++) {
        k[i] = (float)random_normal(&r);
        v[i] = (float)random_normal(&r);
    }
    for (int i = 0; i < D; i++)
        k[HIGH * D + i] = q[i] / 16;
    round_all(q, M * D), round_all(k, 2 * P * D), round_all(v, 2 * P * D);
    for (int t = 0; t < 64; t++)
        queries[t] = (struct attention_query){k, v, 0,
                                              t % 3 == 0   ? 0
                                              : t % 3 == 1 ? t
                                                           : 120 + t,
                                              t % 3 == 0 ? 60 + t : 190 + t};
    for (int t = 64; t < M; t++)
        queries[t] = (struct attention_query){k + P * D, v + P * D, 0, 0, 2 * t};
    attention_ref(want, q, M, 1, 1, D, queries, 0.125f);
    FOR_EACH_LEVEL(level) {
        memset(got, 0xff, M * D * sizeof *got);
        attention_rounded(got, q, M, 1, 1, D, queries, 0.125f);
        for (int t = 0; t < M; t++) {
            double error = rel_l2(got + t * D, want + t * D, D);
            cr_assert(error <= (level == LEVEL_AMX ? rounded_tolerance : tolerance), "token %d: %g",
                      t, error);
        }
    }
    release(q), release(k), release(v), release(want), release(got);
}

// Scores that would overflow e^x on their own, and one that drowns all others.
Test(attention, large_scores_do_not_overflow) {
    const struct setup s = {4, 2, 1, 16, 300, 0};
    struct data a = data_open(&s);
    attention_ref(a.want, a.q, 4, 2, 1, 16, a.queries, 50);
    FOR_EACH_LEVEL(level) {
        attention(a.got, a.q, 4, 2, 1, 16, a.queries, 50);
        double error = rel_l2(a.got, a.want, 4 * 2 * 16);
        cr_assert(error <= 1e-6, "%g", error);
    }
    data_close(&a);
}

// Different caches, and windows with a hole between them that no query sees and that is poisoned.
Test(attention, a_batch_mixes_sequences) {
    enum { D = 24, P = 200 };
    struct random r = {3};
    float *k[2], *v[2], *q = outliers(&r, 6, D), *want = poisoned(6 * D), *got = poisoned(6 * D);
    for (int i = 0; i < 2; i++) {
        k[i] = outliers(&r, P, D);
        v[i] = outliers(&r, P, D);
        memset(v[i] + 50 * D, 0xff, 50 * D * sizeof **v);
    }
    const struct attention_query queries[6] = {{k[0], v[0], 0, 0, 10},    {k[0], v[0], 0, 3, 49},
                                               {k[0], v[0], 0, 100, 199}, {k[1], v[1], 0, 101, 150},
                                               {k[1], v[1], 0, 0, 30},    {k[0], v[0], 0, 0, 31}};
    attention_ref(want, q, 6, 1, 1, D, queries, 0.2f);
    FOR_EACH_LEVEL(level) {
        attention(got, q, 6, 1, 1, D, queries, 0.2f);
        cr_assert(rel_l2(got, want, 6 * D) <= tolerance);
    }
    for (int i = 0; i < 2; i++)
        release(k[i]), release(v[i]);
    release(q), release(want), release(got);
}

// Rounded or not depends on how many come together; then a token's bits depend on nothing else.
Test(attention, rounded_bits_do_not_depend_on_threads_or_the_rest_of_the_batch) {
    const struct setup s = {300, 4, 1, 64, 1300, 0};
    struct data a = data_open(&s);
    size_t row = s.n_heads * s.d, part = 50; // queries, of 64 that make a block
    FOR_EACH_LEVEL(level) {
        omp_set_num_threads(1);
        attention_rounded(a.want, a.q, s.m, s.n_heads, s.n_kv_heads, s.d, a.queries, 0.1f);
        for (int threads = 1; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            memset(a.got, 0xff, s.m * row * sizeof *a.got);
            for (size_t t = 0; t < s.m; t += part)
                attention_rounded(a.got + t * row, a.q + t * row, s.m - t < part ? s.m - t : part,
                                  s.n_heads, s.n_kv_heads, s.d, a.queries + t, 0.1f);
            cr_assert_arr_eq(a.got, a.want, s.m * row * sizeof *a.got);
        }
    }
    data_close(&a);
}

static void check_bits(const struct setup *s) {
    struct data a = data_open(s);
    size_t row = s->n_heads * s->d;
    FOR_EACH_LEVEL(level) {
        omp_set_num_threads(1);
        attention(a.want, a.q, s->m, s->n_heads, s->n_kv_heads, s->d, a.queries, 0.1f);
        for (int threads = 1; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            memset(a.got, 0xff, s->m * row * sizeof *a.got);
            attention(a.got, a.q, s->m, s->n_heads, s->n_kv_heads, s->d, a.queries, 0.1f);
            cr_assert_arr_eq(a.got, a.want, s->m * row * sizeof *a.got);
            for (size_t t = 0; t < s->m; t++)
                attention(a.got + t * row, a.q + t * row, 1, s->n_heads, s->n_kv_heads, s->d,
                          a.queries + t, 0.1f);
            cr_assert_arr_eq(a.got, a.want, s->m * row * sizeof *a.got);
        }
    }
    data_close(&a);
}

// As for matmul: a token's attention is the same alone and in a batch, on one thread and on three.
Test(attention, bits_do_not_depend_on_threads_or_batch) {
    check_bits(&(struct setup){40, 4, 2, 40, 1300, 0});
    check_bits(&(struct setup){40, 4, 1, 64, 1300, 77});
    check_bits(&(struct setup){1, 1, 1, 128, 2100, 0});
    check_bits(&(struct setup){70, 21, 3, 72, 600, 0}); // more parts than are split
    check_bits(&(struct setup){9, 16, 2, 128, 1030, 100});
}

Test(attention, works_inside_a_parallel_region) {
    const struct setup s = {3, 4, 2, 64, 1500, 0};
    struct data a = data_open(&s);
    size_t size = 3 * 4 * 64;
    float *got = poisoned(4 * size);
    attention(a.want, a.q, 3, 4, 2, 64, a.queries, 0.1f);
#pragma omp parallel for num_threads(4)
    for (int i = 0; i < 4; i++)
        attention(got + (size_t)i * size, a.q, 3, 4, 2, 64, a.queries, 0.1f);
    for (size_t i = 0; i < 4; i++)
        cr_assert_arr_eq(got + i * size, a.want, size * sizeof *got);
    release(got);
    data_close(&a);
}
