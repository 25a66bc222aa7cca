// Times the trainer's matrix products at the bundled model's shapes, and whole steps, beside the
// float32 peak of this machine, measured in the same run: in float32 and, where the CPU has AMX, in
// bfloat16 tiles.
//
//     build/tools/bench_train [--csv FILE]
//
// Each product is compared with the reference before its time is printed; times are medians.
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/random.h"
#include "core/timer.h"
#include "kernels/cpu/kernels.h"
#include "lab/bench.h"
#include "report/result.h"
#include "tests/compare.h"
#include "train/gemm.h"
#include "train/gemm_tiles.h"
#include "train/trainer.h"

enum { TOKENS = 2048, RUNS = 9, STEPS = 7, CHECKED_ROWS = 4 };

struct bench {
    struct result_table table;
    struct machine_limits limits;
    float *pool, *out, *want;
    struct gemm_work work;
    struct error err;
};

static void fail(const char *message) {
    fprintf(stderr, "bench_train: %s\n", message);
    exit(1);
}

static float *normals(size_t n, struct error *err) {
    struct random r = {n};
    float *x = memory_alloc(n, sizeof *x, "matrices", err);
    for (size_t i = 0; x && i < n; i++)
        x[i] = (float)random_normal(&r);
    return x;
}

static void add_row(struct bench *b, const char *name, double seconds, double gop) {
    struct result_row row;
    result_row_init(&row, name, b->work.bf16 ? "bf16" : "f32");
    row.us = 1e6 * seconds;
    row.gop_s = gop / seconds;
    row.of_limit = row.gop_s / b->limits.f32_gflop_s;
    if (!result_table_add(&b->table, &row, &b->err))
        fail(b->err.message);
}

// c[M, N] = a[M, K] b[K, N], seen as the three products of backpropagation see them.
static void bench_product(struct bench *b, const char *name, size_t M, size_t N, size_t K,
                          bool a_turned, bool b_turned) {
    const float *second = b->pool + M * K;
    struct gemm_view x = a_turned ? gemm_by_columns(b->pool, M) : gemm_by_rows(b->pool, K);
    struct gemm_view y = b_turned ? gemm_by_columns(second, K) : gemm_by_rows(second, N);
    double seconds[RUNS];
    gemm(M, N, K, x, y, false, b->out, N, b->work);
    gemm_ref(CHECKED_ROWS, N, K, x, y, false, b->want, N);
    if (!(rel_l2(b->out, b->want, CHECKED_ROWS * N) <= (b->work.bf16 ? 4e-3 : 1e-4)))
        fail("a product differs from the reference");
    for (int i = 0; i < RUNS; i++) {
        double start = timer_now();
        gemm(M, N, K, x, y, false, b->out, N, b->work);
        seconds[i] = timer_now() - start;
    }
    add_row(b, name, bench_median(seconds, RUNS), 2e-9 * (double)M * (double)N * (double)K);
}

// Six operations a weight and token, a third of them forward; attention's come on top.
static double step_gop(const struct train_shape *s, size_t weights, size_t context) {
    double attention = 12.0 * (double)(s->n_layers * s->n_heads * s->head_dim * context) / 2;
    return 1e-9 * TOKENS * (6.0 * (double)weights + attention);
}

static void bench_step(struct bench *b, const struct train_shape *s) {
    enum { CONTEXT = 512 };
    struct trainer t;
    struct train_report report;
    struct random r = {1};
    struct train_options o = {.context = CONTEXT,
                              .batch = TOKENS / CONTEXT,
                              .micro_batch = TOKENS / CONTEXT,
                              .n_steps = STEPS + 1,
                              .lr = 1e-3,
                              .beta1 = 0.9,
                              .beta2 = 0.95,
                              .eps = 1e-8,
                              .clip = 1,
                              .bf16 = b->work.bf16,
                              .seed = 1};
    static int32_t ids[TOKENS * (STEPS + 2)];
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        ids[i] = (int32_t)random_below(&r, (uint32_t)s->vocab);
    double seconds[STEPS];
    if (!trainer_init(&t, s, &o, ids, sizeof ids / sizeof *ids, &b->err) ||
        !trainer_step(&t, &report, &b->err))
        fail(b->err.message);
    for (int i = 0; i < STEPS; i++) {
        double start = timer_now();
        if (!trainer_step(&t, &report, &b->err))
            fail(b->err.message);
        seconds[i] = timer_now() - start;
    }
    double middle = bench_median(seconds, STEPS);
    add_row(b, "a whole step", middle, step_gop(s, t.network.params.total, CONTEXT));
    b->table.rows[b->table.n_rows - 1].prefill_tps = TOKENS / middle;
    trainer_free(&t);
}

static void bench_all(struct bench *b, const struct train_shape *s) {
    size_t H = s->hidden, I = s->intermediate, V = s->vocab;
    bench_product(b, "gate and up, forward", TOKENS, 2 * I, H, false, true);
    bench_product(b, "gate and up, gradient of x", TOKENS, H, 2 * I, false, false);
    bench_product(b, "gate and up, gradient of w", 2 * I, H, TOKENS, true, false);
    bench_product(b, "down, forward", TOKENS, H, I, false, true);
    bench_product(b, "head, forward", TOKENS, V, H, false, true);
    bench_product(b, "head, gradient of x", TOKENS, H, V, false, false);
    bench_step(b, s);
}

int main(int argc, char **argv) {
    struct bench b = {.table = {.device = "cpu"}};
    struct train_shape s;
    const char *csv = argc == 3 && strcmp(argv[1], "--csv") == 0 ? argv[2] : NULL;
    if (argc != 1 && !csv) {
        fprintf(stderr, "usage: bench_train [--csv FILE]\n");
        return 2;
    }
    if (!train_shape_read(&s, "tools/bundled-model.json", &b.err))
        fail(b.err.message);
    size_t H = s.hidden, V = s.vocab, largest = TOKENS * V;
    b.pool = normals(TOKENS * H + TOKENS * V + V * H, &b.err);
    b.out = memory_alloc(largest, sizeof(float), "product", &b.err);
    b.want = memory_alloc(CHECKED_ROWS * V, sizeof(float), "product", &b.err);
    b.work.space = memory_alloc(GEMM_SPACE, sizeof(float), "product", &b.err);
    if (!b.pool || !b.out || !b.want || !b.work.space)
        fail(b.err.message);
    machine_limits_measure(&b.limits);
    b.table.threads = omp_get_max_threads();
    bench_all(&b, &s);
    b.work.bf16 = gemm_tiles_here();
    if (b.work.bf16)
        bench_all(&b, &s);
    b.work.bf16 = false;
    add_row(&b, "float32 multiply-add", 1, b.limits.f32_gflop_s);
    b.table.rows[b.table.n_rows - 1].us = NAN;
    b.table.model = "the bundled model's shapes";
    if (!result_print_markdown(&b.table, stdout, &b.err) ||
        (csv && !result_write_csv(&b.table, csv, &b.err)))
        fail(b.err.message);
    result_table_free(&b.table);
    free(b.pool), free(b.out), free(b.want), free(b.work.space);
    return 0;
}
