// Times matmul and attention at the shapes of a 3 B model and prints them beside the limits of this
// machine, measured in the same run.
//
//     build/tools/bench_kernels [--csv FILE] [limits] [matmul] [woven] [attention]   default: all
//
// Weights come from a pool larger than any cache (1.2 GB), matrix after matrix, as a forward pass
// reads them. Each result is compared with the reference before its time is printed; the time is
// the median of at least three runs.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/timer.h"
#include "kernels/cpu/huge.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/matmul_tiles.h"
#include "kernels/cpu/matmul_weave.h"
#include "tests/compare.h"

enum { POOL_BYTES = 1200000000, MAX_RUNS = 50, MAX_M = 512 };

struct matrix {
    enum dtype dtype;
    size_t k;
    const char *data;
};

static void read_row(const void *context, size_t row, size_t col, size_t count, float *out) {
    const struct matrix *a = context;
    const char *p = a->data + (row * a->k + col) * dtype_size(a->dtype);
    if (a->dtype == DTYPE_F32)
        memcpy(out, p, count * sizeof *out);
    else if (a->dtype == DTYPE_F16)
        convert_f16_f32((const uint16_t *)p, count, out);
    else
        convert_bf16_f32((const uint16_t *)p, count, out);
}

static void fail(const char *message) {
    fprintf(stderr, "bench_kernels: %s\n", message);
    exit(1);
}

static void *allocate(size_t count, size_t size) {
    struct error err = {0};
    void *p = memory_alloc(count, size, "bench", &err);
    if (!p)
        fail(err.message);
    return p;
}

static float *normals(size_t n) {
    struct random r = {n};
    float *x = allocate(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)random_normal(&r);
    return x;
}

// The same random megabyte over and over: what is multiplied does not change the time.
static void fill_pool(char *pool, enum dtype dtype) {
    enum { N = 1 << 18 };
    float *x = normals(N);
    size_t bytes = N * dtype_size(dtype);
    dtype_from_f32(dtype, x, N, pool);
    for (size_t done = bytes; done < POOL_BYTES; done += bytes)
        memcpy(pool + done, pool, bytes < POOL_BYTES - done ? bytes : POOL_BYTES - done);
    free(x);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *times, size_t n) {
    qsort(times, n, sizeof *times, by_value);
    return times[n / 2];
}

static void check_matmul(const struct weight_source *w, const float *x, const float *y) {
    enum { ROWS = 8 };
    float want[ROWS];
    struct weight_source few = *w;
    few.n = ROWS;
    matmul_ref(want, ROWS, x, w->k, 1, &few, NULL);
    if (!(rel_l2(y, want, ROWS) <= 1e-5))
        fail("matmul differs from the reference");
}

static void bench_matmul(const struct machine_limits *limits, char *pool, enum dtype dtype,
                         size_t m, size_t n, size_t k) {
    size_t bytes = n * k * dtype_size(dtype), matrices = POOL_BYTES / bytes, runs = 0;
    float *x = normals(m * k), *y = allocate(m * n, sizeof *y);
    double times[MAX_RUNS], start = timer_now();
    while (runs < 3 || (runs < MAX_RUNS && timer_now() - start < 0.5)) {
        struct matrix a = {dtype, k, pool + runs % matrices * bytes};
        const struct weight_source w = {n, k, &a, read_row};
        double before = timer_now();
        matmul(y, n, x, k, m, &w, NULL);
        times[runs++] = timer_now() - before;
        check_matmul(&w, x, y);
    }
    double s = median(times, runs), gb = (double)bytes / s * 1e-9;
    double gflop = 2.0 * (double)(m * n * k) / s * 1e-9;
    printf("| %-4s | %3zu | %5zu | %5zu | %9.0f | %6.2f | %7.1f | %5.1f %% | %5.1f %% |\n",
           dtype_name(dtype), m, n, k, s * 1e6, gb, gflop, 100 * gb / limits->read_gb_s,
           100 * gflop / limits->f32_gflop_s);
    fflush(stdout);
    free(x);
    free(y);
}

static void bench_matmuls(const struct machine_limits *limits) {
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    const size_t ms[] = {1, 8, 64, MAX_M};
    const size_t shapes[][2] = {{2048, 2048}, {11008, 2048}, {2048, 11008}};
    char *pool = allocate(POOL_BYTES, 1);
    printf("\n| type |   m |     n |     k |        us |   GB/s | GFLOP/s | of read | of FMA  |\n"
           "|------|-----|-------|-------|-----------|--------|---------|---------|---------|\n");
    for (size_t d = 0; d < 3; d++) {
        fill_pool(pool, dtypes[d]);
        for (size_t i = 0; i < 4; i++)
            for (size_t s = 0; s < 3; s++)
                bench_matmul(limits, pool, dtypes[d], ms[i], shapes[s][0], shapes[s][1]);
    }
    free(pool);
}

// ---- woven weights ------------------------------------------------------------------------------

static const struct {
    const char *name;
    struct weave_kind kind;
} woven[] = {
    {"int4-g128", {.bits = 4, .group = 128, .scale = WEAVE_SCALE_F16, .zero_code = 8}},
    {"int4-g128-zp", {.bits = 4, .group = 128, .scale = WEAVE_SCALE_F16, .zero = WEAVE_ZERO_GROUP}},
    {"int4-g32", {.bits = 4, .group = 32, .scale = WEAVE_SCALE_F16, .zero_code = 8}},
    {"int8", {.bits = 8, .scale = WEAVE_SCALE_ROW}},
    {"int8-g128", {.bits = 8, .group = 128, .scale = WEAVE_SCALE_F16}},
    {"q8_0", {.bits = 8, .group = 32, .scale = WEAVE_SCALE_F16}},
    {"q4_1", {.bits = 4, .group = 32, .scale = WEAVE_SCALE_F16, .zero = WEAVE_ZERO_OFFSET}},
    {"q5_0", {.bits = 5, .group = 32, .scale = WEAVE_SCALE_F16, .zero_code = 16}},
    {"q4_k", {.bits = 4, .group = 32, .scale = WEAVE_SCALE_K4, .zero = WEAVE_ZERO_K4}},
    {"q5_k", {.bits = 5, .group = 32, .scale = WEAVE_SCALE_K4, .zero = WEAVE_ZERO_K4}},
    {"q6_k", {.bits = 6, .group = 16, .scale = WEAVE_SCALE_K6, .zero_code = 32}},
    {"iq4_nl",
     {.bits = 4,
      .group = 32,
      .scale = WEAVE_SCALE_F16,
      .table = (const int8_t[16]){-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69,
                                  89, 113}}}};

// One stripe of random rows, over and over: what is multiplied does not change the time.
static void fill_woven(const struct weave *w, unsigned char *pool) {
    struct random r = {1};
    struct weave_row row;
    struct weave few = *w;
    size_t bytes = 4 * w->block_bytes;
    few.data = pool;
    if (!weave_row_init(&row, w))
        fail("out of memory");
    for (size_t i = 0; i < 4 * WEAVE_ROWS; i++) {
        for (size_t c = 0; c < w->k; c++)
            row.codes[c] = (uint8_t)random_below(&r, w->kind.bits == 8 ? 120 : 16);
        row.row_scale = 0.01f;
        for (size_t g = 0; g < w->groups; g++)
            row.scales[g] = row.offsets[g] = f32_to_f16(0.01f);
        for (size_t j = 0; j < w->k / 16; j++)
            row.small[j] = row.small_offsets[j] = (uint8_t)random_below(&r, 64);
        weave_put(&few, i, &row);
    }
    weave_row_free(&row);
    for (size_t done = bytes; done < POOL_BYTES; done += bytes)
        memcpy(pool + done, pool, bytes < POOL_BYTES - done ? bytes : POOL_BYTES - done);
}

static void run_woven(const struct weave *w, const float *x, size_t m, float *y, bool tiles,
                      struct weave_x *q) {
    struct error err = {0};
    const struct tile_job tile = {
        .kind = TILE_WOVEN, .n = w->n, .weave = w, .y = y, .y_stride = w->n};
    const struct weave_job job = {.w = w, .y = y, .y_stride = w->n};
    if (tiles) {
        if (!matmul_tiles(&tile, 1, x, w->k, m, w->k))
            fail("out of memory");
        return;
    }
    if (!weave_x_make(q, w, x, w->k, m, &err))
        fail(err.message);
    matmul_weave(&job, 1, q);
}

static void bench_one_woven(const struct machine_limits *limits, FILE *csv, const char *name,
                            struct weave *w, unsigned char *pool, size_t m, bool tiles) {
    size_t bytes = weave_bytes(w), matrices = POOL_BYTES / bytes, runs = 0;
    float *x = normals(m * w->k), *y = allocate(m * w->n, sizeof *y);
    double times[MAX_RUNS], start = timer_now();
    struct weave_x q = {0};
    while (runs < 3 || (runs < MAX_RUNS && timer_now() - start < 0.3)) {
        w->data = pool + runs % matrices * bytes;
        double before = timer_now();
        run_woven(w, x, m, y, tiles, &q);
        times[runs++] = timer_now() - before;
    }
    double s = median(times, runs), gb = (double)bytes / s * 1e-9, fastest = times[0];
    double gop = 2.0 * (double)(m * w->n * w->k) / s * 1e-9;
    double peak = tiles ? limits->bf16_gflop_s : limits->i8_gop_s;
    printf(
        "| %-12s | %s | %3zu | %5zu | %5zu | %9.0f | %9.0f | %6.2f | %7.1f | %5.1f %% | %5.1f %% |\n",
        name, tiles ? "tiles" : "dot  ", m, w->n, w->k, s * 1e6, fastest * 1e6, gb, gop,
        100 * gb / limits->read_gb_s, 100 * gop / peak);
    fflush(stdout);
    if (csv)
        fprintf(csv, "%s,%s,%zu,%zu,%zu,%.1f,%.1f,%.2f,%.1f,%.3f,%.3f\n", name,
                tiles ? "tiles" : "dot", m, w->n, w->k, s * 1e6, fastest * 1e6, gb, gop,
                gb / limits->read_gb_s, gop / peak);
    weave_x_free(&q);
    free(x);
    free(y);
}

static void bench_woven(const struct machine_limits *limits, FILE *csv) {
    const size_t ms[] = {1, 4, 16, 512}, shapes[][2] = {{11008, 2048}, {2048, 11008}};
    struct error err = {0};
    unsigned char *pool = huge_alloc(POOL_BYTES, "weights", &err);
    if (!pool)
        fail(err.message);
    printf(
        "\n| format       | how   |   m |     n |     k |        us |       min |   GB/s |   GOP/s | of read | of peak |\n"
        "|--------------|-------|-----|-------|-------|-----------|-----------|--------|---------|---------|---------|\n");
    for (size_t f = 0; f < sizeof woven / sizeof *woven; f++)
        for (size_t s = 0; s < 2; s++) {
            struct weave w;
            if (!weave_layout(&w, &woven[f].kind, shapes[s][0], shapes[s][1] / 256 * 256))
                fail("the layout does not fit");
            fill_woven(&w, pool);
            for (size_t i = 0; i < 4; i++) {
                if (ms[i] < 512)
                    bench_one_woven(limits, csv, woven[f].name, &w, pool, ms[i], false);
                if (matmul_tiles_wanted(ms[i]))
                    bench_one_woven(limits, csv, woven[f].name, &w, pool, ms[i], true);
            }
        }
    huge_free(pool, POOL_BYTES);
}

// Queries at the last m of `context` positions, as in prefill (m = context) and decode (m = 1).
static void bench_attention(const struct machine_limits *limits, size_t m, size_t context,
                            size_t n_heads, size_t n_kv_heads, size_t d) {
    size_t cache = n_kv_heads * context * d, runs = 0, seen = 0;
    float *q = normals(m * n_heads * d), *k = normals(cache), *v = normals(cache);
    float *out = allocate(m * n_heads * d, sizeof *out),
          *want = allocate(n_heads * d, sizeof *want);
    struct attention_query *queries = allocate(m, sizeof *queries);
    for (size_t t = 0; t < m; t++) {
        seen += context - m + t + 1;
        queries[t] = (struct attention_query){k, v, context * d, 0, (int32_t)(context - m + t)};
    }
    double times[MAX_RUNS], start = timer_now();
    while (runs < 3 || (runs < MAX_RUNS && timer_now() - start < 0.5)) {
        double before = timer_now();
        attention(out, q, m, n_heads, n_kv_heads, d, queries, 0.1f);
        times[runs++] = timer_now() - before;
    }
    attention_ref(want, q, 1, n_heads, n_kv_heads, d, queries, 0.1f);
    if (!(rel_l2(out, want, n_heads * d) <= 1e-5))
        fail("attention differs from the reference");
    double s = median(times, runs), gflop = 4.0 * (double)(seen * n_heads * d) / s * 1e-9;
    double gb = 8.0 * (double)cache / s * 1e-9;
    printf("| %4zu | %7zu | %5zu | %8zu | %4zu | %9.0f | %6.2f | %7.1f | %5.1f %% |\n", m, context,
           n_heads, n_kv_heads, d, s * 1e6, gb, gflop, 100 * gflop / limits->f32_gflop_s);
    fflush(stdout);
    free(q), free(k), free(v), free(out), free(want), free(queries);
}

static void bench_attentions(const struct machine_limits *limits) {
    printf(
        "\n|    m | context | heads | kv heads |    d |        us |   GB/s | GFLOP/s | of FMA  |\n"
        "|------|---------|-------|----------|------|-----------|--------|---------|---------|\n");
    bench_attention(limits, 512, 512, 16, 2, 128);
    bench_attention(limits, 512, 2048, 16, 2, 128);
    bench_attention(limits, 512, 512, 14, 2, 64);
    bench_attention(limits, 512, 512, 12, 12, 64);
    bench_attention(limits, 8, 2048, 16, 2, 128);
    bench_attention(limits, 1, 512, 16, 2, 128);
    bench_attention(limits, 1, 2048, 16, 2, 128);
    bench_attention(limits, 1, 8192, 24, 8, 128);
    bench_attention(limits, 1, 32768, 8, 1, 128);
}

static bool wanted(int argc, char **argv, const char *what) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], what) == 0)
            return true;
    return argc == 1;
}

// The table of woven kernels as CSV, under the machine's limits.
static FILE *open_csv(const char *path, const struct machine_limits *limits) {
    FILE *csv = fopen(path, "w");
    if (!csv)
        fail("the CSV file cannot be written");
    fprintf(csv, "# %s: read %.1f GB/s, int8 %.0f GOP/s, bf16 tiles %.0f GFLOP/s\n",
            kernels_level_name(kernels_level()), limits->read_gb_s, limits->i8_gop_s,
            limits->bf16_gflop_s);
    fputs("format,how,m,n,k,us,us_min,gb_s,gop_s,of_read,of_peak\n", csv);
    return csv;
}

int main(int argc, char **argv) {
    struct machine_limits limits;
    FILE *csv = NULL;
    machine_limits_measure(&limits);
    if (argc > 2 && strcmp(argv[1], "--csv") == 0) {
        csv = open_csv(argv[2], &limits);
        argc -= 2;
        argv += 2;
    }
    printf("%s: read %.1f GB/s, copy %.1f GB/s, f32 %.0f GFLOP/s, int8 %.0f GOP/s, bf16 tiles %.0f "
           "GFLOP/s\n",
           kernels_level_name(kernels_level()), limits.read_gb_s, limits.copy_gb_s,
           limits.f32_gflop_s, limits.i8_gop_s, limits.bf16_gflop_s);
    if (wanted(argc, argv, "matmul"))
        bench_matmuls(&limits);
    if (wanted(argc, argv, "woven"))
        bench_woven(&limits, csv);
    if (wanted(argc, argv, "attention"))
        bench_attentions(&limits);
    if (csv && fclose(csv) != 0)
        fail("the CSV file cannot be written");
    return 0;
}
