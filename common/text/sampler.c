// One draw costs about two passes over the vocabulary. Sorting all of it (151,936 entries in
// Qwen2.5) would cost more than either, so only the head is ever sorted: a min-heap of the k best,
// whose root most other candidates fail to beat.
#include "text/sampler.h"

#include <math.h>
#include <stdlib.h>

#include "core/memory.h"

enum { PENALTY_WINDOW = 64, FIRST_NUCLEUS = 64 };

static bool check(bool ok, const char *name, double value, const char *expected,
                  struct error *err) {
    return ok || error_set(err, "%s is %g, expected %s", name, value, expected);
}

bool sampler_init(struct sampler *s, struct sampler_options options, size_t vocab,
                  struct error *err) {
    *s = (struct sampler){.options = options, .random = {options.seed}, .vocab = vocab};
    const struct sampler_options *o = &options;
    if (!check(o->temperature >= 0 && isfinite(o->temperature), "temperature", o->temperature,
               "a number of at least 0", err) ||
        !check(o->top_k >= 0, "top-k", o->top_k, "at least 0", err) ||
        !check(o->top_p >= 0 && o->top_p <= 1, "top-p", o->top_p, "0 to 1", err) ||
        !check(o->repeat_penalty > 0 && isfinite(o->repeat_penalty), "repeat penalty",
               o->repeat_penalty, "a number above 0", err) ||
        !check(vocab > 0 && vocab <= INT32_MAX, "vocabulary size", (double)vocab, "1 to 2147483647",
               err))
        return false;
    s->candidates = memory_alloc(vocab, sizeof *s->candidates, "sampler", err);
    return s->candidates != NULL;
}

void sampler_free(struct sampler *s) {
    free(s->candidates);
    *s = (struct sampler){0};
}

// The order of everything here: higher logit first, lower id among equals.
static bool better(struct sampler_candidate a, struct sampler_candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void swap(struct sampler_candidate *a, struct sampler_candidate *b) {
    struct sampler_candidate t = *a;
    *a = *b;
    *b = t;
}

// Restores the heap below i: no parent is better than its children, the worst is at the root.
static void sift_down(struct sampler_candidate *heap, size_t n, size_t i) {
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && better(heap[child], heap[child + 1]))
            child++;
        if (!better(heap[i], heap[child]))
            return;
        swap(&heap[i], &heap[child]);
    }
}

// Brings the k best of n to the front, best first. Permutes; loses none.
static void select_best(struct sampler_candidate *c, size_t n, size_t k) {
    for (size_t i = k / 2; i-- > 0;)
        sift_down(c, k, i);
    for (size_t i = k; i < n; i++)
        if (better(c[i], c[0])) {
            swap(&c[i], &c[0]);
            sift_down(c, k, 0);
        }
    for (size_t last = k; last-- > 1;) {
        swap(&c[0], &c[last]);
        sift_down(c, last, 0);
    }
}

static bool load(struct sampler *s, const float *logits, struct error *err) {
    for (size_t i = 0; i < s->vocab; i++) {
        if (isnan(logits[i]))
            return error_set(err, "the logit of token %zu of %zu is NaN", i, s->vocab);
        s->candidates[i] = (struct sampler_candidate){logits[i], (int32_t)i};
    }
    return true;
}

// CTRL, section 4.1, for either sign: a repeated token becomes less likely, once however often it
// was repeated. Needs candidates[i].id == i.
static void penalize(struct sampler *s, const float *logits, const int32_t *history, size_t n) {
    float penalty = s->options.repeat_penalty;
    if (penalty == 1)
        return;
    for (size_t i = n > PENALTY_WINDOW ? n - PENALTY_WINDOW : 0; i < n; i++) {
        int32_t id = history[i];
        if (id >= 0 && (size_t)id < s->vocab)
            s->candidates[id].logit = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
    }
}

static struct sampler_candidate best_of(const struct sampler_candidate *c, size_t n) {
    struct sampler_candidate best = c[0];
    for (size_t i = 1; i < n; i++)
        if (c[i].logit > best.logit)
            best = c[i];
    return best;
}

// exp((logit - top) / temperature), the top one exactly 1 even if it is infinite.
static double weight(const struct sampler *s, float logit, float top) {
    if (logit == top)
        return 1;
    return exp(((double)logit - (double)top) / (double)s->options.temperature);
}

static double total_weight(const struct sampler *s, size_t n, float top) {
    double total = 0;
    for (size_t i = 0; i < n; i++)
        total += weight(s, s->candidates[i].logit, top);
    return total;
}

// How many of the sorted candidates it takes to hold `wanted`, and their weight; n if they hold
// less.
static size_t nucleus(const struct sampler *s, size_t n, float top, double wanted, double *held) {
    size_t i = 0;
    *held = 0;
    while (i < n && (i == 0 || *held < wanted))
        *held += weight(s, s->candidates[i++].logit, top);
    return i;
}

// Top-k and top-p: leaves the survivors in front, and returns how many; *mass is their weight.
static size_t keep_likely(struct sampler *s, float top, double *mass) {
    size_t n = s->vocab, sorted = 0;
    if (s->options.top_k > 0 && (size_t)s->options.top_k < n) {
        n = sorted = (size_t)s->options.top_k;
        select_best(s->candidates, s->vocab, n);
    }
    *mass = total_weight(s, n, top);
    if (s->options.top_p >= 1)
        return n;
    double wanted = (double)s->options.top_p * *mass;
    // A language model's nucleus is mostly a few dozen tokens: guess, and sort more if it is not.
    size_t guess = sorted ? sorted : FIRST_NUCLEUS;
    for (;; guess *= 8) {
        if (guess > n)
            guess = n;
        if (!sorted)
            select_best(s->candidates, n, guess);
        size_t kept = nucleus(s, guess, top, wanted, mass);
        if (*mass >= wanted || guess == n)
            return kept;
    }
}

static int32_t draw(struct sampler *s, size_t n, float top, double mass) {
    double left = random_uniform(&s->random) * mass;
    int32_t id = -1;
    for (size_t i = 0; i < n; i++) {
        double w = weight(s, s->candidates[i].logit, top);
        if (w > 0)
            id = s->candidates[i].id; // the last one, if rounding leaves a rest
        if (left < w)
            break;
        left -= w;
    }
    return id;
}

bool sampler_next(struct sampler *s, const float *logits, const int32_t *history, size_t n_history,
                  int32_t *token, struct error *err) {
    if (!load(s, logits, err))
        return false;
    penalize(s, logits, history, n_history);
    struct sampler_candidate best = best_of(s->candidates, s->vocab);
    if (best.logit == -INFINITY)
        return error_set(err, "all %zu logits are -inf", s->vocab);
    *token = best.id;
    if (s->options.temperature > 0) {
        double mass;
        size_t n = keep_likely(s, best.logit, &mass);
        *token = draw(s, n, best.logit, mass);
    }
    return true;
}
