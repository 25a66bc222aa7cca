// text/sampler: the tokens drawn against the probabilities they must have.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/sampler.h"

static const struct sampler_options plain = {
    .temperature = 1, .top_k = 0, .top_p = 1, .repeat_penalty = 1, .seed = 1};

static int32_t next(struct sampler *s, const float *logits, const int32_t *history, size_t n) {
    struct error err = {0};
    int32_t token = -1;
    cr_assert(sampler_next(s, logits, history, n, &token, &err), "%s", err.message);
    return token;
}

static int32_t once(struct sampler_options options, const float *logits, size_t vocab) {
    struct error err = {0};
    struct sampler s;
    cr_assert(sampler_init(&s, options, vocab, &err), "%s", err.message);
    int32_t token = next(&s, logits, NULL, 0);
    sampler_free(&s);
    return token;
}

// Pearson's statistic of 20,000 draws against p [vocab], which must be below `limit`: the 99.9th
// percentile of chi-square at as many degrees of freedom as p has positive entries, less one. A
// token of probability 0 must never be drawn.
static void assert_distribution(struct sampler_options options, const float *logits, size_t vocab,
                                const int32_t *history, size_t n_history, const double *p,
                                double limit) {
    enum { DRAWS = 20000 };
    struct error err = {0};
    struct sampler s;
    cr_assert(sampler_init(&s, options, vocab, &err), "%s", err.message);
    size_t count[16] = {0};
    for (int i = 0; i < DRAWS; i++) {
        int32_t token = next(&s, logits, history, n_history);
        cr_assert(token >= 0 && (size_t)token < vocab, "token %d", token);
        count[token]++;
    }
    double sum = 0, chi2 = 0;
    for (size_t i = 0; i < vocab; i++) {
        sum += p[i];
        if (p[i] == 0)
            cr_assert_eq(count[i], 0, "token %zu drawn %zu times", i, count[i]);
        else
            chi2 += pow((double)count[i] - DRAWS * p[i], 2) / (DRAWS * p[i]);
    }
    cr_assert(fabs(sum - 1) < 1e-6, "the test's own probabilities sum to %g", sum);
    cr_assert(chi2 < limit, "chi-square %g, expected below %g", chi2, limit);
    sampler_free(&s);
}

// The logits of probabilities 0.4, 0.3, 0.2, 0.1, out of order and shifted.
static const double quarters[4] = {0.2, 0.4, 0.1, 0.3};

static void logits_of(const double *p, size_t n, float *logits) {
    for (size_t i = 0; i < n; i++)
        logits[i] = p[i] > 0 ? (float)log(p[i]) - 3 : -INFINITY;
}

Test(sampler, draws_follow_the_softmax) {
    float logits[4];
    logits_of(quarters, 4, logits);
    assert_distribution(plain, logits, 4, NULL, 0, quarters, 16.27);
}

Test(sampler, temperature_divides_the_logits) {
    float logits[4];
    logits_of(quarters, 4, logits);
    struct sampler_options o = plain;
    o.temperature = 0.5f; // squares the probabilities: 4, 16, 1, 9 parts of 30
    double p[4] = {4 / 30.0, 16 / 30.0, 1 / 30.0, 9 / 30.0};
    assert_distribution(o, logits, 4, NULL, 0, p, 16.27);
    o.temperature = 1000;
    double even[4] = {0.25, 0.25, 0.25, 0.25};
    assert_distribution(o, logits, 4, NULL, 0, even, 16.27);
}

Test(sampler, top_k_keeps_the_k_best) {
    float logits[4];
    logits_of(quarters, 4, logits);
    struct sampler_options o = plain;
    o.top_k = 3;
    double p[4] = {2 / 9.0, 4 / 9.0, 0, 3 / 9.0};
    assert_distribution(o, logits, 4, NULL, 0, p, 13.82);
    o.top_k = 400;
    assert_distribution(o, logits, 4, NULL, 0, quarters, 16.27);
    o.top_k = 4;
    assert_distribution(o, logits, 4, NULL, 0, quarters, 16.27);
}

Test(sampler, top_p_keeps_the_token_that_crosses) {
    float logits[4];
    logits_of(quarters, 4, logits);
    struct sampler_options o = plain;
    o.top_p = 0.6f; // 0.4 is short of it, 0.4 + 0.3 is not
    double two[4] = {0, 4 / 7.0, 0, 3 / 7.0};
    assert_distribution(o, logits, 4, NULL, 0, two, 10.83);
    o.top_p = 0;
    double one[4] = {0, 1, 0, 0};
    assert_distribution(o, logits, 4, NULL, 0, one, 1);
}

Test(sampler, top_p_sees_what_top_k_left) {
    float logits[4];
    logits_of(quarters, 4, logits);
    struct sampler_options o = plain;
    o.top_k = 2;    // leaves 4/7 and 3/7
    o.top_p = 0.5f; // which 4/7 alone exceeds, as 0.4 would not
    double one[4] = {0, 1, 0, 0};
    assert_distribution(o, logits, 4, NULL, 0, one, 1);
}

Test(sampler, penalty_divides_positive_and_multiplies_negative_logits) {
    float logits[4] = {2, -1, 1, 0};
    int32_t history[3] = {0, 1, 0}; // twice, penalized once
    struct sampler_options o = plain;
    o.repeat_penalty = 2;
    double e[4] = {exp(1), exp(-2), exp(1), 1}, sum = e[0] + e[1] + e[2] + e[3], p[4];
    for (int i = 0; i < 4; i++)
        p[i] = e[i] / sum;
    assert_distribution(o, logits, 4, history, 3, p, 16.27);
}

Test(sampler, penalty_sees_the_last_64_tokens) {
    float logits[2] = {1.5f, 1};
    int32_t history[65] = {0};
    for (int i = 1; i < 65; i++)
        history[i] = 999; // not in the vocabulary
    struct sampler_options o = plain;
    o.temperature = 0;
    o.repeat_penalty = 2;
    struct error err = {0};
    struct sampler s;
    cr_assert(sampler_init(&s, o, 2, &err));
    cr_assert_eq(next(&s, logits, history, 65), 0);
    cr_assert_eq(next(&s, logits, history, 64), 1);
    history[3] = -1;
    cr_assert_eq(next(&s, logits, history + 1, 64), 0);
    sampler_free(&s);
}

Test(sampler, greedy_takes_the_lowest_id_among_equals) {
    struct sampler_options o = plain;
    o.temperature = 0;
    cr_assert_eq(once(o, (float[]){1, 3, 2, 3}, 4), 1);
    cr_assert_eq(once(o, (float[]){-INFINITY, -5}, 2), 1);
    cr_assert_eq(once(o, (float[]){1, INFINITY, 2}, 3), 1);
    o.temperature = 1;
    o.top_k = 1;
    cr_assert_eq(once(o, (float[]){1, 3, 2, 3}, 4), 1);
}

Test(sampler, impossible_and_certain_tokens) {
    float logits[4] = {-INFINITY, 0, -INFINITY, 0};
    double halves[4] = {0, 0.5, 0, 0.5};
    assert_distribution(plain, logits, 4, NULL, 0, halves, 10.83);
    struct sampler_options o = plain;
    o.top_k = 3; // one of them has no chance
    assert_distribution(o, logits, 4, NULL, 0, halves, 10.83);
    logits[0] = INFINITY;
    double certain[4] = {1, 0, 0, 0};
    assert_distribution(plain, logits, 4, NULL, 0, certain, 1);
}

Test(sampler, refuses_nan_and_nothing_to_choose) {
    struct error err = {0};
    struct sampler s;
    int32_t token;
    cr_assert(sampler_init(&s, plain, 3, &err));
    cr_assert_not(sampler_next(&s, (float[]){0, NAN, 1}, NULL, 0, &token, &err));
    cr_assert_str_eq(err.message, "the logit of token 1 of 3 is NaN");
    float none[3] = {-INFINITY, -INFINITY, -INFINITY};
    cr_assert_not(sampler_next(&s, none, NULL, 0, &token, &err));
    cr_assert_str_eq(err.message, "all 3 logits are -inf");
    sampler_free(&s);
}

Test(sampler, refuses_senseless_options) {
    struct sampler_options bad[] = {plain, plain, plain, plain, plain, plain, plain};
    bad[0].temperature = -1;
    bad[1].temperature = NAN;
    bad[2].top_k = -1;
    bad[3].top_p = 1.5f;
    bad[4].top_p = NAN;
    bad[5].repeat_penalty = 0;
    bad[6].repeat_penalty = INFINITY;
    struct sampler s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err = {0};
        cr_assert_not(sampler_init(&s, bad[i], 4, &err), "case %zu", i);
        cr_assert(strstr(err.message, "expected"), "%s", err.message);
        sampler_free(&s);
    }
    struct error err = {0};
    cr_assert_not(sampler_init(&s, plain, 0, &err));
    cr_assert_str_eq(err.message, "vocabulary size is 0, expected 1 to 2147483647");
}

Test(sampler, a_seed_is_a_sequence) {
    float logits[8] = {0};
    int32_t tokens[2][50];
    struct error err = {0};
    bool differs = false;
    for (uint64_t run = 0; run < 3; run++) {
        struct sampler_options o = plain;
        o.seed = run == 2 ? 8 : 7;
        struct sampler s;
        cr_assert(sampler_init(&s, o, 8, &err));
        for (int i = 0; i < 50; i++) {
            int32_t t = next(&s, logits, NULL, 0);
            if (run < 2)
                tokens[run][i] = t;
            differs |= t != tokens[0][i];
        }
        cr_assert_eq(differs, run == 2);
        sampler_free(&s);
    }
}

static int by_logit(const void *a, const void *b) {
    const struct sampler_candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

// A draw over a real vocabulary, worked out with a full sort in double.
static int32_t reference(struct sampler_options o, const float *logits, size_t vocab, double u) {
    struct sampler_candidate *c = malloc(vocab * sizeof *c);
    for (size_t i = 0; i < vocab; i++)
        c[i] = (struct sampler_candidate){logits[i], (int32_t)i};
    qsort(c, vocab, sizeof *c, by_logit);
    size_t n = o.top_k > 0 ? (size_t)o.top_k : vocab, kept = 0;
    double total = 0, mass = 0;
    for (size_t i = 0; i < n; i++)
        total += exp(((double)c[i].logit - c[0].logit) / o.temperature);
    while (kept < n && mass < o.top_p * total)
        mass += exp(((double)c[kept++].logit - c[0].logit) / o.temperature);
    u *= mass;
    size_t i = 0;
    for (; i + 1 < kept; i++) {
        u -= exp(((double)c[i].logit - c[0].logit) / o.temperature);
        if (u < 0)
            break;
    }
    int32_t id = c[i].id;
    free(c);
    return id;
}

Test(sampler, a_real_vocabulary_agrees_with_a_full_sort) {
    enum { VOCAB = 151936 };
    float *logits = malloc(VOCAB * sizeof *logits);
    struct random random = {11};
    // Rounded, so that there are many ties.
    for (size_t i = 0; i < VOCAB; i++)
        logits[i] = (float)(round(random_normal(&random) * 32) / 16);
    struct sampler_options o[] = {plain, plain, plain, plain};
    o[0].top_k = 40, o[0].top_p = 0.95f;
    o[1].top_p = 0.9f, o[1].temperature = 0.3f; // a nucleus of hundreds
    o[2].top_p = 0.8f;                          // and of 60,000
    o[3].top_k = 50000;
    for (size_t i = 0; i < sizeof o / sizeof *o; i++) {
        struct error err = {0};
        struct sampler s;
        cr_assert(sampler_init(&s, o[i], VOCAB, &err), "%s", err.message);
        for (int j = 0; j < 5; j++) {
            struct random copy = s.random;
            int32_t expected = reference(o[i], logits, VOCAB, random_uniform(&copy));
            cr_assert_eq(next(&s, logits, NULL, 0), expected, "options %zu, draw %d", i, j);
        }
        sampler_free(&s);
    }
    free(logits);
}
