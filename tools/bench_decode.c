// Where a decode step's time goes, and what a long context costs.
//
//     build/tools/bench_decode  MODEL [FORMAT [DEPTH]]       e.g. data/model int4-g128 4096
//
// Times, turn by turn: a step of one token at depth 0, the same step's matrix products alone, a
// step behind DEPTH cached positions, and that step's attention alone. "Of read": the weights' (and
// the cache's) bytes over the time, as a fraction of the bandwidth measured in the same run.
// FORMAT "keep" (the default) leaves the weights as the checkpoint has them.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/timer.h"
#include "kernels/cpu/kernels.h"
#include "model/arch.h"
#include "quant/woven.h"
#include "tools/bench/bench.h"
#include "tools/bench/model.h"

enum { ROUNDS = 25, WARM_UP = 3 };

struct bench {
    struct model *loaded, *m;
    struct kv_cache kv;
    size_t depth;
    float *logits; // [V]
    float *x, *y;  // as wide as any matrix
};

static void bench_open(struct bench *b, const char *path, const char *format, size_t depth) {
    struct error err = {0};
    if (!(b->loaded = model_load(path, &err)))
        bench_fail("%s", err.message);
    const struct model_config *c = &b->loaded->config;
    size_t widest = c->vocab > c->intermediate ? c->vocab : c->intermediate;
    b->m = bench_in_format(b->loaded, format);
    if (!model_weave(b->m, &err))
        bench_fail("%s", err.message);
    b->depth = depth;
    if (!kv_cache_init(&b->kv, c, 1, depth + 1, &err))
        bench_fail("%s", err.message);
    bench_fill_cache(&b->kv);
    b->logits = bench_alloc(c->vocab, sizeof *b->logits);
    b->x = bench_alloc(widest + c->hidden, sizeof *b->x);
    b->y = bench_alloc(3 * (widest + c->hidden), sizeof *b->y);
    for (size_t i = 0; i < widest + c->hidden; i++)
        b->x[i] = 0.5f;
}

static void bench_close(struct bench *b) {
    kv_cache_free(&b->kv);
    model_free(b->m);
    model_free(b->loaded);
    free(b->logits);
    free(b->x);
    free(b->y);
}

static void step_at(struct bench *b, size_t position) {
    struct error err = {0};
    const int32_t token = 1, at = (int32_t)position;
    const struct batch one = {.n = 1, .tokens = &token, .positions = &at};
    if (!model_forward(b->m, &b->kv, &one, b->logits, &err))
        bench_fail("%s", err.message);
}

static void step_empty(struct bench *b) {
    step_at(b, 0);
}

static void step_deep(struct bench *b) {
    step_at(b, b->depth);
}

static void products(struct bench *b) {
    struct error err = {0};
    float *const y[] = {b->y, b->y + b->m->config.intermediate + b->m->config.hidden,
                        b->y + 2 * (b->m->config.intermediate + b->m->config.hidden)};
    bool ok = true;
    for (size_t i = 0; ok && i < b->m->config.n_layers; i++) {
        const struct layer *l = &b->m->layers[i];
        ok = linears_forward(y, (const struct linear *const[]){&l->q, &l->k, &l->v}, 3, b->x, 1,
                             &err) &&
             linear_forward(b->y, &l->o, b->x, 1, &err) &&
             linears_forward(y, (const struct linear *const[]){&l->up, &l->gate},
                             b->m->config.arch->gelu ? 1 : 2, b->x, 1, &err) &&
             linear_forward(b->y, &l->down, b->x, 1, &err);
    }
    if (!ok || !model_logits(b->m, b->x, 1, b->logits, &err))
        bench_fail("%s", err.message);
}

static void attentions(struct bench *b) {
    const struct kv_cache *kv = &b->kv;
    size_t head = kv->capacity * kv->head_dim;
    for (size_t i = 0; i < kv->n_layers; i++) {
        size_t at = i * kv->n_kv_heads * head;
        const struct attention_query q = {
            .k = kv->k + at, .v = kv->v + at, .head_stride = head, .last = (int32_t)b->depth};
        attention(b->y, b->x, 1, b->m->config.n_heads, kv->n_kv_heads, kv->head_dim, &q, 0.1f);
    }
}

static void print_row(const char *what, double seconds, double bytes,
                      const struct machine_limits *limits) {
    double gb = bytes / seconds * 1e-9;
    printf("| %-26s | %8.3f | %7.1f | %6.2f | %5.1f %% |\n", what, seconds * 1e3, bytes * 1e-6, gb,
           100 * gb / limits->read_gb_s);
}

static void report(const struct bench *b, const double *s, const struct machine_limits *limits) {
    double weights = bench_weight_bytes(b->m);
    double cache = 2.0 * (double)b->kv.bytes;
    char deep[32], attend[32];
    snprintf(deep, sizeof deep, "step at depth %zu", b->depth);
    snprintf(attend, sizeof attend, "attention at depth %zu", b->depth);
    printf("\n| part                       |       ms |      MB |   GB/s | of read |\n"
           "|----------------------------|----------|---------|--------|---------|\n");
    print_row("step at depth 0", s[0], weights, limits);
    print_row("its matrix products", s[1], weights, limits);
    print_row(deep, s[2], weights + cache, limits);
    print_row(attend, s[3], cache, limits);
    printf("\nall but the products: %.1f %% of a step; GB/s at depth %zu: %.2f of depth 0's\n",
           100 * (1 - s[1] / s[0]), b->depth, s[0] / s[2] * (weights + cache) / weights);
}

int main(int argc, char **argv) {
    void (*const parts[])(struct bench *) = {step_empty, products, step_deep, attentions};
    enum { PARTS = 4 };
    double times[PARTS][ROUNDS], medians[PARTS];
    struct machine_limits limits;
    struct bench b = {0};
    bench_start();
    int depth = argc > 3 ? atoi(argv[3]) : 4096;
    if (argc < 2 || argc > 4 || depth < 1 || depth > 1 << 20) {
        fprintf(stderr, "usage: bench_decode MODEL [FORMAT [DEPTH]], DEPTH 1 to 1048576\n");
        return 2;
    }
    machine_limits_measure(&limits);
    bench_open(&b, argv[1], argc > 2 ? argv[2] : "keep", (size_t)depth);
    printf("%s: read %.1f GB/s\n", kernels_level_name(kernels_level()), limits.read_gb_s);
    for (int round = -WARM_UP; round < ROUNDS; round++)
        for (size_t p = 0; p < PARTS; p++) {
            double before = timer_now();
            parts[p](&b);
            if (round >= 0)
                times[p][round] = timer_now() - before;
        }
    for (size_t p = 0; p < PARTS; p++)
        medians[p] = bench_median(times[p], ROUNDS);
    report(&b, medians, &limits);
    bench_close(&b);
    return 0;
}
