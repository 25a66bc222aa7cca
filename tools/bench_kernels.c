// Times the kernels at the shapes of a 3 B model and prints them beside the limits of this machine,
// measured in the same run.
//
//     build/tools/bench_kernels [--csv FILE] [float32] [rows] [int8] [tiles] [quantize] [attention]
//
// Default: all. Weights come from a pool larger than any cache (1.2 GB), matrix after matrix, as a
// forward pass reads them. The time is the median of at least three runs; runs that waited for a
// processor are dropped and taken again, five times at most. No time is printed before the last
// result was compared with the reference.
//
//     float32     products in float32, weights unpacked as they are read
//     rows        16-bit weights as they lie, times a few tokens
//     int8        woven weights times activations in int8
//     tiles       any weights, as bfloat16 in matrix tiles
//     quantize    activations to int8, and those of SwiGLU
//     attention   queries at the last M of so many positions
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/file.h"
#include "core/random.h"
#include "kernels/cpu/huge.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/matmul_rows.h"
#include "kernels/cpu/matmul_tiles.h"
#include "kernels/cpu/matmul_weave.h"
#include "quant/woven.h"
#include "tests/compare.h"
#include "tools/bench/bench.h"

enum { POOL_BYTES = 1200000000, MAX_RUNS = 50, CHECKED_ROWS = 16 };
static const double bench_seconds = 0.3;
static const size_t shapes[][2] = {{11008, 2048}, {2048, 11008}}; // up and gate; down
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

// ---- rows of the table --------------------------------------------------------------------------

static struct machine_limits limits;
static struct file_writer csv_file; // of --csv
static FILE *csv;                   // its stream, or NULL

// peak: operations a second, in 10^9, of the unit that could do it; 0 where there is none.
static void print_row(const char *kernel, const char *format, size_t m, const char *shape,
                      const struct bench_times *t, double bytes, double operations, double peak) {
    double gb = bytes / t->median * 1e-9, gop = operations / t->median * 1e-9;
    double of_peak = peak > 0 ? gop / peak : 0;
    printf("| %-9s | %-12s | %3zu | %-27s | %9.0f | %9.0f | %6.2f | %7.1f | %5.1f %% | %5.1f %% | "
           "%7zu |\n",
           kernel, format, m, shape, t->median * 1e6, t->fastest * 1e6, gb, gop,
           100 * gb / limits.read_gb_s, 100 * of_peak, t->dropped);
    fflush(stdout);
    if (csv)
        fprintf(csv, "%s,%s,%zu,%s,%.1f,%.1f,%.2f,%.1f,%.3f,%.3f,%zu,%.3f\n", kernel, format, m,
                shape, t->median * 1e6, t->fastest * 1e6, gb, gop, gb / limits.read_gb_s, of_peak,
                t->dropped, t->waited);
}

static void print_limit(const char *name, double gb, double gop) {
    if (gb <= 0 && gop <= 0)
        return;
    printf("| limit     | %-12s |     | %-27s |           |           | %6.4g | %7.0f |         |"
           "         |         |\n",
           kernels_level_name(kernels_level()), name, gb, gop);
    if (csv)
        fprintf(csv, "limit,%s,,%s,,,%.2f,%.1f,,,,\n", kernels_level_name(kernels_level()), name,
                gb, gop);
}

static void print_head(void) {
    printf(
        "| kernel    | format       |   m | shape                       |        us |       min |"
        "   GB/s |   GOP/s | of read | of peak | dropped |\n"
        "|:----------|:-------------|----:|:----------------------------|----------:|----------:|"
        "-------:|--------:|--------:|--------:|--------:|\n");
    if (csv)
        fputs("kernel,format,m,shape,us,us_min,gb_s,gop_s,of_read,of_peak,dropped,waited\n", csv);
    print_limit("memory read", limits.read_gb_s, 0);
    print_limit("memory copy", limits.copy_gb_s, 0);
    print_limit("float32 multiply-add", 0, limits.f32_gflop_s);
    print_limit("int8 multiply-add", 0, limits.i8_gop_s);
    print_limit("int8 in tiles", 0, limits.i8_tiles_gop_s);
    print_limit("int8 in tiles loaded from L1", 0, limits.i8_fed_gop_s);
    print_limit("bfloat16 in tiles", 0, limits.bf16_gflop_s);
}

// ---- products -----------------------------------------------------------------------------------

// y[m, n] = x[m, k] wᵀ of one matrix after another in the pool.
struct product {
    const char *kernel, *format;
    size_t m, n, k;
    enum dtype dtype;              // of weights that are not woven
    struct weave weave;            // .n is 0 where they are not
    unsigned char *pool, *weights; // weights: the matrix that was multiplied last
    size_t bytes;                  // of a matrix
    float *x, *y;
    struct weave_x q;
    void (*multiply)(struct product *p);
    double peak;
    double tolerance; // relative L2 error of what it computes
};

static void read_row(const void *context, size_t row, size_t col, size_t count, float *out) {
    const struct product *p = context;
    if (p->weave.n)
        weave_read(&p->weave, row, col, count, out);
    else
        dtype_to_f32(p->dtype, p->weights + (row * p->k + col) * dtype_size(p->dtype), count, out);
}

static struct weight_source source_of(const struct product *p) {
    return (struct weight_source){p->n, p->k, p, read_row};
}

static void multiply_float32(struct product *p) {
    struct weight_source w = source_of(p);
    matmul(p->y, p->n, p->x, p->k, p->m, &w, NULL);
}

static void multiply_rows(struct product *p) {
    const struct rows_job job = {.w = (const uint16_t *)(void *)p->weights,
                                 .bf16 = p->dtype == DTYPE_BF16,
                                 .n = p->n,
                                 .y = p->y,
                                 .y_stride = p->n};
    matmul_rows(&job, 1, p->x, p->k, p->m, p->k);
}

static void multiply_int8(struct product *p) {
    struct error err = {0};
    const struct weave_job job = {.w = &p->weave, .y = p->y, .y_stride = p->n};
    if (!weave_x_make(&p->q, &p->weave, p->x, p->k, p->m, &err))
        bench_fail("%s", err.message);
    matmul_weave(&job, 1, &p->q);
}

static void multiply_tiles(struct product *p) {
    const struct tile_job job = {.kind = p->weave.n               ? TILE_WOVEN
                                         : p->dtype == DTYPE_BF16 ? TILE_BF16
                                                                  : TILE_F16,
                                 .n = p->n,
                                 .rows16 = (const uint16_t *)(void *)p->weights,
                                 .weave = &p->weave,
                                 .y = p->y,
                                 .y_stride = p->n};
    if (!matmul_tiles(&job, 1, p->x, p->k, p->m, p->k))
        bench_fail("out of memory");
}

static void run_product(void *context, size_t i) {
    struct product *p = context;
    p->weights = p->pool + i % (POOL_BYTES / p->bytes) * p->bytes;
    p->weave.data = p->weights;
    p->multiply(p);
}

// What the kernel should have made of a token and the first rows: of the activations in int8, where
// it has rounded them.
static void want_of(struct product *p, size_t token, float *want) {
    if (p->q.m) {
        struct weave few = p->weave;
        struct weave_x one = p->q;
        few.n = CHECKED_ROWS;
        one.m = 1;
        one.q += token * one.q_stride;
        one.scale += token * one.units;
        one.sum += token * one.units;
        one.scaled_sum += token * one.units;
        matmul_weave_ref(&(struct weave_job){&few, want, CHECKED_ROWS, NULL}, &one);
    } else {
        struct weight_source few = source_of(p);
        few.n = CHECKED_ROWS;
        matmul_ref(want, CHECKED_ROWS, p->x + token * p->k, p->k, 1, &few, NULL);
    }
}

static void check_product(struct product *p) {
    float want[CHECKED_ROWS];
    for (size_t token = 0; token<p->m; token += p->m> 1 ? p->m - 1 : 1) { // the first, the last
        want_of(p, token, want);
        double error = rel_l2(p->y + token * p->n, want, CHECKED_ROWS);
        if (!(error <= p->tolerance))
            bench_fail(
                "%s of %s, %zu tokens: differs from the reference by %g, expected at most %g",
                p->kernel, p->format, p->m, error, p->tolerance);
    }
}

static void bench_product(struct product p) {
    char shape[32];
    p.x = bench_normals(p.m * p.k);
    p.y = bench_alloc(p.m * p.n, sizeof *p.y);
    struct bench_times t = bench_measure(run_product, &p, 3, MAX_RUNS, bench_seconds);
    check_product(&p);
    snprintf(shape, sizeof shape, "%zu x %zu", p.n, p.k);
    print_row(p.kernel, p.format, p.m, shape, &t, (double)p.bytes,
              2.0 * (double)p.m * (double)p.n * (double)p.k, p.peak);
    weave_x_free(&p.q);
    free(p.x);
    free(p.y);
}

static unsigned char *pool_open(void) {
    struct error err = {0};
    unsigned char *pool = huge_alloc(POOL_BYTES, "weights", &err);
    if (!pool)
        bench_fail("%s", err.message);
    return pool;
}

// The first bytes over and over: what is multiplied does not change the time.
static void pool_repeat(unsigned char *pool, size_t bytes) {
    for (size_t done = bytes; done < POOL_BYTES; done += bytes)
        memcpy(pool + done, pool, bytes < POOL_BYTES - done ? bytes : POOL_BYTES - done);
}

// ---- floats -------------------------------------------------------------------------------------

struct wanted {
    bool float32, rows, int8, tiles, quantize, attention;
};

static void bench_float(struct product p, const struct wanted *wanted) {
    const size_t few[] = {1, 4, 8}, many[] = {16, 512};
    p.peak = limits.f32_gflop_s;
    p.tolerance = 1e-5;
    p.kernel = "float32";
    p.multiply = multiply_float32;
    for (size_t i = 0; wanted->float32 && i < 2; i++) {
        p.m = i ? 512 : 1;
        bench_product(p);
    }
    p.kernel = "rows";
    p.multiply = multiply_rows;
    for (size_t i = 0; wanted->rows && p.dtype != DTYPE_F32 && i < 3; i++) {
        p.m = few[i];
        bench_product(p);
    }
    p.kernel = "tiles";
    p.multiply = multiply_tiles;
    p.peak = limits.bf16_gflop_s;
    p.tolerance = 1e-2; // both sides are rounded to 8 bits
    for (size_t i = 0; wanted->tiles && p.dtype != DTYPE_F32 && i < 2; i++) {
        p.m = many[i];
        if (matmul_tiles_wanted(p.m))
            bench_product(p);
    }
}

static void bench_floats(const struct wanted *wanted) {
    enum { N = 1 << 18 };
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    unsigned char *pool = pool_open();
    float *x = bench_normals(N);
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
        dtype_from_f32(dtypes[d], x, N, pool);
        pool_repeat(pool, N * dtype_size(dtypes[d]));
        for (size_t s = 0; s < N_SHAPES; s++)
            bench_float(
                (struct product){.format = dtype_name(dtypes[d]),
                                 .dtype = dtypes[d],
                                 .n = shapes[s][0],
                                 .k = shapes[s][1],
                                 .bytes = shapes[s][0] * shapes[s][1] * dtype_size(dtypes[d]),
                                 .pool = pool},
                wanted);
    }
    free(x);
    huge_free(pool, POOL_BYTES);
}

// ---- woven weights ------------------------------------------------------------------------------

static const char *const woven[] = {"int4-g128", "int4-g128-zp", "int4-g32", "int8", "int8-g128",
                                    "q8_0",      "q4_0",         "q4_1",     "q5_0", "q4_k",
                                    "q5_k",      "q6_k",         "iq4_nl",   "nf4"};

// Four stripes of random rows, over and over.
static void fill_woven(const struct weave *w, unsigned char *pool) {
    struct random r = {1};
    struct weave_row row;
    struct weave few = *w;
    few.data = pool;
    if (!weave_row_init(&row, w))
        bench_fail("out of memory");
    for (size_t i = 0; i < 4 * WEAVE_ROWS; i++) {
        for (size_t c = 0; c < w->k; c++)
            row.codes[c] = (uint8_t)random_below(&r, w->kind.bits == 8 ? 120 : 16);
        row.row_scale = 0.01f;
        for (size_t g = 0; g < w->groups; g++)
            row.scales[g] = row.offsets[g] = f32_to_f16(row.wide_scales[g] = 0.01f);
        for (size_t j = 0; j < w->k / 16; j++)
            row.small[j] = row.small_offsets[j] = (uint8_t)random_below(&r, 64);
        weave_put(&few, i, &row);
    }
    weave_row_free(&row);
    pool_repeat(pool, 4 * w->block_bytes);
}

static void bench_one_woven(struct product p, const struct wanted *wanted) {
    const size_t ms[] = {1, 4, 16, 32, 512};
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++) {
        p.m = ms[i];
        p.kernel = "int8";
        p.multiply = multiply_int8;
        p.peak = p.m > 16 && limits.i8_tiles_gop_s > 0 ? limits.i8_tiles_gop_s : limits.i8_gop_s;
        p.tolerance = p.weave.kind.levels ? 1e-2 : 1e-5; // levels are rounded
        if (wanted->int8)
            bench_product(p);
        p.kernel = "tiles";
        p.multiply = multiply_tiles;
        p.peak = limits.bf16_gflop_s;
        p.tolerance = 1e-2;
        if (wanted->tiles && matmul_tiles_wanted(p.m))
            bench_product(p);
    }
}

static void bench_woven(const struct wanted *wanted) {
    unsigned char *pool = pool_open();
    for (size_t f = 0; f < sizeof woven / sizeof *woven; f++)
        for (size_t s = 0; s < N_SHAPES; s++) {
            struct weave_kind kind;
            struct product p = {
                .format = woven[f], .n = shapes[s][0], .k = shapes[s][1] / 256 * 256, .pool = pool};
            if (!woven_kind(quant_format_find(woven[f]), p.k, &kind) ||
                !weave_layout(&p.weave, &kind, p.n, p.k))
                bench_fail("%s: the layout does not fit", p.format);
            p.bytes = weave_bytes(&p.weave);
            fill_woven(&p.weave, pool);
            bench_one_woven(p, wanted);
        }
    huge_free(pool, POOL_BYTES);
}

// ---- activations --------------------------------------------------------------------------------

struct quantizing {
    struct weave w;
    struct weave_x q;
    float *up, *gate; // gate: NULL to quantize up alone
    size_t m;
};

static void run_quantize(void *context, size_t i) {
    struct quantizing *z = context;
    struct error err = {0};
    (void)i;
    if (!weave_x_make_gated(&z->q, &z->w, z->gate, z->up, z->w.k, z->m, &err))
        bench_fail("%s", err.message);
}

// The first token's codes against the reference's of x.
static void check_quantized(const struct quantizing *z, const float *x) {
    struct error err = {0};
    struct weave_x want = {0};
    if (!weave_x_make(&want, &z->w, x, z->w.k, 1, &err))
        bench_fail("%s", err.message);
    weave_x_make_ref(&want, x, z->w.k);
    if (memcmp(z->q.q, want.q, z->w.k) != 0)
        bench_fail("activations in int8 differ from the reference");
    weave_x_free(&want);
}

// What goes into down, 512 tokens: more than fits in a core's caches. GB/s of what is read.
static void bench_quantize(void) {
    struct weave_kind kind;
    struct quantizing z = {.m = 512};
    if (!woven_kind(quant_format_find("int4-g128"), shapes[1][1], &kind) ||
        !weave_layout(&z.w, &kind, shapes[1][0], shapes[1][1]))
        bench_fail("int4-g128: the layout does not fit");
    size_t n = z.m * z.w.k;
    z.up = bench_normals(n);
    struct bench_times t = bench_measure(run_quantize, &z, 3, MAX_RUNS, bench_seconds);
    check_quantized(&z, z.up);
    print_row("quantize", "activations", z.m, "11008", &t, 4.0 * (double)n, 0, 0);
    z.gate = bench_normals(n);
    t = bench_measure(run_quantize, &z, 3, MAX_RUNS, bench_seconds);
    silu_mul(z.up, z.gate, z.up, z.w.k);
    check_quantized(&z, z.up);
    print_row("quantize", "SwiGLU", z.m, "11008", &t, 8.0 * (double)n, 0, 0);
    weave_x_free(&z.q);
    free(z.up), free(z.gate);
}

// ---- attention ----------------------------------------------------------------------------------

typedef void attention_function(float *out, const float *q, size_t m, size_t n_heads,
                                size_t n_kv_heads, size_t d, const struct attention_query *queries,
                                float scale);

struct attending {
    attention_function *attend;
    size_t m, n_heads, n_kv_heads, d;
    float *q, *out;
    struct attention_query *queries;
};

static void run_attention(void *context, size_t i) {
    const struct attending *a = context;
    (void)i;
    a->attend(a->out, a->q, a->m, a->n_heads, a->n_kv_heads, a->d, a->queries, 0.1f);
}

// Queries at the last m of `positions`, as in prefill (m = positions) and decode (m = 1).
static void bench_attention(size_t m, size_t positions, size_t n_heads, size_t n_kv_heads,
                            size_t d) {
    size_t cache = n_kv_heads * positions * d, seen = 0, width = n_heads * d;
    float *k = bench_normals(cache), *v = bench_normals(cache);
    float *want = bench_alloc(width, sizeof *want);
    struct attending a = {.m = m, .n_heads = n_heads, .n_kv_heads = n_kv_heads, .d = d};
    a.q = bench_normals(m * width);
    a.out = bench_alloc(m * width, sizeof *a.out);
    a.queries = bench_alloc(m, sizeof *a.queries);
    for (size_t t = 0; t < m; t++) {
        seen += positions - m + t + 1;
        a.queries[t] =
            (struct attention_query){k, v, positions * d, 0, (int32_t)(positions - m + t)};
    }
    attention_ref(want, a.q + (m - 1) * width, 1, n_heads, n_kv_heads, d, a.queries + m - 1, 0.1f);
    char shape[40];
    snprintf(shape, sizeof shape, "%zu/%zu heads of %zu at %zu", n_heads, n_kv_heads, d, positions);
    const struct {
        attention_function *attend;
        const char *format;
        double peak, tolerance;
    } kinds[] = {{attention, "F32", limits.f32_gflop_s, 1e-5},
                 {attention_rounded, "BF16 tiles", limits.bf16_gflop_s, 5e-3}};
    bool tiles = m > 1 && limits.bf16_gflop_s > 0;
    for (size_t i = 0; i < (tiles ? 2 : 1); i++) {
        a.attend = kinds[i].attend;
        memset(a.out, 0xff, m * width * sizeof *a.out); // NaN, in case it writes nothing
        struct bench_times t = bench_measure(run_attention, &a, 3, MAX_RUNS, bench_seconds);
        if (!(rel_l2(a.out + (m - 1) * width, want, width) <= kinds[i].tolerance))
            bench_fail("attention of %zu tokens differs from the reference", m);
        print_row("attention", kinds[i].format, m, shape, &t, 8.0 * (double)cache,
                  4.0 * (double)(seen * width), kinds[i].peak);
    }
    free(a.q), free(k), free(v), free(a.out), free(want), free(a.queries);
}

static void bench_attentions(void) {
    bench_attention(512, 512, 16, 2, 128);
    bench_attention(512, 2048, 16, 2, 128);
    bench_attention(512, 512, 14, 2, 64);
    bench_attention(512, 512, 12, 12, 64);
    bench_attention(8, 2048, 16, 2, 128);
    bench_attention(1, 512, 16, 2, 128);
    bench_attention(1, 4096, 16, 2, 128);
    bench_attention(1, 8192, 24, 8, 128);
    bench_attention(1, 32768, 8, 1, 128);
}

// ---- the command line ---------------------------------------------------------------------------

static struct wanted parse(int argc, char **argv, const char **path) {
    struct wanted all = {1, 1, 1, 1, 1, 1}, some = {0};
    const struct {
        const char *name;
        bool *flag;
    } kernels[] = {{"float32", &some.float32},   {"rows", &some.rows},
                   {"int8", &some.int8},         {"tiles", &some.tiles},
                   {"quantize", &some.quantize}, {"attention", &some.attention}};
    enum { N_KERNELS = sizeof kernels / sizeof *kernels };
    bool any = false;
    for (int i = 1; i < argc; i++) {
        size_t k = 0;
        if (strcmp(argv[i], "--csv") == 0 && i + 1 < argc) {
            *path = argv[++i];
            continue;
        }
        while (k < N_KERNELS && strcmp(argv[i], kernels[k].name) != 0)
            k++;
        if (k == N_KERNELS) {
            fprintf(stderr, "usage: bench_kernels [--csv FILE] [float32] [rows] [int8] [tiles] "
                            "[quantize] [attention]\n");
            exit(2);
        }
        any = *kernels[k].flag = true;
    }
    return any ? some : all;
}

int main(int argc, char **argv) {
    const char *path = NULL;
    struct error err = {0};
    bench_start();
    struct wanted wanted = parse(argc, argv, &path);
    if (path && !file_writer_open(&csv_file, path, &err))
        bench_fail("%s", err.message);
    csv = csv_file.stream;
    machine_limits_measure(&limits);
    print_head();
    if (wanted.float32 || wanted.rows || wanted.tiles)
        bench_floats(&wanted);
    if (wanted.int8 || wanted.tiles)
        bench_woven(&wanted);
    if (wanted.quantize)
        bench_quantize();
    if (wanted.attention)
        bench_attentions();
    if (csv && !file_writer_commit(&csv_file, &err))
        bench_fail("%s", err.message);
    return 0;
}
