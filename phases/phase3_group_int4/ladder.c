#include "phases/phase3_group_int4/ladder.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/random.h"
#include "kernels/cpu/huge.h"
#include "kernels/cpu/ladder/ladder.h"
#include "lab/bench.h"
#include "quant/matrix.h"
#include "quant/woven.h"

// More than a server's last-level cache keeps.
enum { POOL_BYTES = 1200000000, MIN_RUNS = 5 };
static const double bench_seconds = 0.3, tolerance = 1e-5;

// Qwen2.5-3B: q, o, k, v, gate, up and down of 36 layers, and the head.
static const double model_weights =
    36.0 * (2 * 2048 * 2048 + 2 * 256 * 2048 + 3 * 11008 * 2048) + 151936.0 * 2048;

// The rows that say what memory allows: one thread, all threads.
static const char *const walls[] = {"memory read, one thread", "memory read, all threads"};

struct bench {
    struct ladder l;
    struct tensor f16, packed, copy; // copy: the packed one that is multiplied now
    float *rounded;                  // [k] what int8 makes of x
    float *f16_y, *y, *round_y; // [n] what is to come out: of f16, of packed, of packed and rounded
    size_t scales;              // offset in packed
    struct weave woven;         // the same codes and scales
    struct {
        const void *data;
        size_t bytes;
    } layouts[3]; // by enum ladder_layout

    const struct ladder_step *step;
    unsigned char *pool; // copies of the step's layout
    enum ladder_layout pooled;
    size_t copies, stride, pool_bytes;
    double read_gb_s;
};

// ---- the matrix in every layout, and its products -----------------------------------------------

static void read_normals(const void *context, size_t row, size_t count, float *out) {
    const size_t *k = context;
    for (size_t i = 0; i < count; i++) {
        struct random r = {row + i};
        for (size_t c = 0; c < *k; c++)
            *out++ = (float)(0.02 * random_normal(&r));
    }
}

static bool quantize(struct tensor *t, const char *format, size_t n, size_t k, struct error *err) {
    const struct matrix_source normals = {n, k, &k, read_normals};
    const struct quant_format *f = quant_format_find(format);
    *t = (struct tensor){.name = "the ladder's matrix",
                         .dtype = f->dtype,
                         .format = f,
                         .n_dims = 2,
                         .shape = {n, k}};
    if (!f->bytes(f, n, k, &t->bytes))
        return error_set(err, "%zu x %zu weights: their size overflows", n, k);
    t->data = memory_alloc(t->bytes, 1, t->name, err);
    return t->data && matrix_quantize(&normals, f, NULL, t->data, NULL, err);
}

static void read_tensor(const void *context, size_t row, size_t col, size_t count, float *out) {
    quant_read(context, row, col, count, out);
}

static void read_tensor_ref(const void *context, size_t row, size_t col, size_t count, float *out) {
    const struct tensor *t = context;
    t->format->dequantize_ref(t->format, t->data, t->shape[0], t->shape[1], row, col, count, out);
}

static void multiply_ref(const struct tensor *t, const float *x, float *y) {
    const struct weight_source w = {t->shape[0], t->shape[1], t, read_tensor_ref};
    matmul_ref(y, w.n, x, w.k, 1, &w, NULL);
}

static bool make_references(struct bench *b, struct error *err) {
    struct weave_x *q = &b->l.q;
    if (!weave_x_make(q, &b->l.woven, b->l.x, b->l.k, 1, err))
        return false;
    weave_x_make_ref(q, b->l.x, b->l.k);
    for (size_t c = 0; c < b->l.k; c++)
        b->rounded[c] = q->scale[c / q->unit] * q->q[c];
    multiply_ref(&b->f16, b->l.x, b->f16_y);
    multiply_ref(&b->packed, b->l.x, b->y);
    multiply_ref(&b->packed, b->rounded, b->round_y);
    return true;
}

static float *floats(size_t n, struct error *err) {
    return memory_alloc(n, sizeof(float), "the ladder's products", err);
}

static bool bench_init(struct bench *b, size_t n, size_t k, struct error *err) {
    struct quant_planes planes;
    struct random r = {n + k};
    float *x = floats(k, err);
    *b = (struct bench){.l = {.n = n, .k = k, .x = x, .packed = {n, k, &b->copy, read_tensor}}};
    if (!x || !(b->rounded = floats(k, err)) || !(b->l.y = floats(n, err)) ||
        !(b->f16_y = floats(n, err)) || !(b->y = floats(n, err)) ||
        !(b->round_y = floats(n, err)) || !(b->l.unpacked = floats(n * k, err)) ||
        !quantize(&b->f16, "f16", n, k, err) || !quantize(&b->packed, "int4-g128", n, k, err) ||
        !woven_make(&b->packed, false, &b->woven, err))
        return false;
    b->l.woven = b->woven;
    for (size_t c = 0; c < k; c++)
        x[c] = (float)random_normal(&r);
    quant_planes(b->packed.format, n, k, &planes);
    b->scales = planes.scales;
    b->copy = b->packed;
    b->layouts[LADDER_F16].data = b->f16.data;
    b->layouts[LADDER_F16].bytes = b->f16.bytes;
    b->layouts[LADDER_PACKED].data = b->packed.data;
    b->layouts[LADDER_PACKED].bytes = b->packed.bytes;
    b->layouts[LADDER_WOVEN].data = b->l.woven.data;
    b->layouts[LADDER_WOVEN].bytes = weave_bytes(&b->l.woven);
    return make_references(b, err);
}

static void bench_free(struct bench *b) {
    huge_free(b->pool, b->pool_bytes);
    woven_free(&b->woven);
    weave_x_free(&b->l.q);
    free(b->f16.data), free(b->packed.data);
    free((void *)b->l.x), free(b->rounded), free(b->l.y), free(b->l.unpacked);
    free(b->f16_y), free(b->y), free(b->round_y);
}

// ---- a step -------------------------------------------------------------------------------------

// One copy behind another, as a model's matrices, so that no run finds its weights in a cache.
static bool fill_pool(struct bench *b, struct error *err) {
    enum ladder_layout layout = b->step->layout;
    if (b->pool && b->pooled == layout)
        return true;
    huge_free(b->pool, b->pool_bytes);
    const void *data = b->layouts[layout].data;
    size_t bytes = b->layouts[layout].bytes;
    b->pooled = layout;
    b->stride = (bytes + 63) / 64 * 64;
    b->copies = POOL_BYTES / b->stride;
    b->copies = b->copies < 1 ? 1 : b->copies > BENCH_MAX_RUNS ? BENCH_MAX_RUNS : b->copies;
    b->pool_bytes = b->copies * b->stride;
    b->pool = huge_alloc(b->pool_bytes, "copies of the ladder's matrix", err);
    for (size_t i = 0; b->pool && i < b->copies; i++)
        memcpy(b->pool + i * b->stride, data, bytes);
    return b->pool != NULL;
}

static bool multiply(struct bench *b, size_t i, struct error *err) {
    unsigned char *w = b->pool + i % b->copies * b->stride;
    b->l.f16 = (const void *)w;
    b->l.codes = b->l.woven.data = b->copy.data = w;
    b->l.scales = (const void *)(w + b->scales);
    return b->step->multiply(&b->l, err);
}

// ‖got - want‖ / ‖want‖; a NaN in `got` makes it one.
static double relative_error(const float *got, const float *want, size_t n) {
    double error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        error += pow((double)got[i] - want[i], 2);
        power += pow(want[i], 2);
    }
    return sqrt(error / power);
}

// Compared with what its arithmetic should give; the row says how far that is from the product
// without rounding x.
static bool check(struct bench *b, struct result_row *row, struct error *err) {
    const float *exact = b->step->layout == LADDER_F16 ? b->f16_y : b->y;
    size_t n = b->l.n;
    memset(b->l.y, 0xff, n * sizeof *b->l.y); // NaN
    if (!multiply(b, 0, err))
        return false;
    double error = relative_error(b->l.y, b->step->rounds_x ? b->round_y : exact, n);
    row->rel_error = relative_error(b->l.y, exact, n);
    return error <= tolerance ||
           error_set(err, "%s: differs from the reference by %g, expected at most %g",
                     b->step->name, error, tolerance);
}

static void run(void *context, size_t i) {
    struct error err = {0};
    multiply(context, i, &err); // memory it may need it has since check()
}

// All columns of a row that follow from its time.
static void fill_row(const struct bench *b, double seconds, size_t bytes, struct result_row *row) {
    double weights = (double)b->l.n * (double)b->l.k;
    row->bits_per_weight = 8 * (double)bytes / weights;
    row->us = seconds * 1e6;
    row->gb_s = (double)bytes / seconds * 1e-9;
    row->of_limit = row->gb_s / b->read_gb_s;
    row->decode_tps = weights / (model_weights * seconds);
}

static bool add_step(struct lab *lab, struct bench *b, struct error *err) {
    struct result_row row;
    result_row_init(&row, b->step->name, b->step->layout == LADDER_F16 ? "f16" : "int4-g128");
    omp_set_num_threads(b->step->all_threads ? lab->options.threads : 1);
    if (!fill_pool(b, err) || !check(b, &row, err))
        return false;
    struct bench_times t = bench_measure(run, b, MIN_RUNS, BENCH_MAX_RUNS, bench_seconds);
    if (t.waited > BENCH_DISTURBED)
        cli_warn(lab->program, "%s: disturbed, something else had a processor meanwhile",
                 b->step->name);
    fill_row(b, t.median, b->layouts[b->step->layout].bytes, &row);
    return result_table_add(&lab->table, &row, err);
}

// ---- the table ----------------------------------------------------------------------------------

bool ladder_has(const char *config) {
    bool found = !strcmp(config, walls[0]) || !strcmp(config, walls[1]);
    for (const struct ladder_step *s = ladder_steps; s->name; s++)
        found |= !strcmp(config, s->name);
    return found;
}

static double read_gb_s(int threads) {
    struct machine_limits limits;
    omp_set_num_threads(threads);
    machine_limits_measure(&limits);
    return limits.read_gb_s;
}

// What int4-g128 could do, were it only read.
static bool add_walls(struct lab *lab, struct bench *b, struct error *err) {
    b->read_gb_s = read_gb_s(lab->options.threads);
    for (size_t i = 0; i < 2; i++) {
        struct result_row row;
        if (!lab_wanted(lab, walls[i]))
            continue;
        result_row_init(&row, walls[i], "int4-g128");
        double bytes_s = (i == 0 ? read_gb_s(1) : b->read_gb_s) * 1e9;
        fill_row(b, (double)b->packed.bytes / bytes_s, b->packed.bytes, &row);
        if (!result_table_add(&lab->table, &row, err))
            return false;
    }
    return true;
}

bool ladder_measure(struct lab *lab, size_t n, size_t k, struct error *err) {
    struct bench b;
    struct progress p;
    size_t done = 0, steps = 0;
    while (ladder_steps[steps].name)
        steps++;
    progress_start(&p, "ladder", "steps");
    progress_update(&p, done, steps, "the matrix and this machine's limits");
    bool ok = bench_init(&b, n, k, err) && add_walls(lab, &b, err);
    for (; ok && done < steps; done++) {
        b.step = &ladder_steps[done];
        progress_update(&p, done, steps, b.step->name);
        ok = !lab_wanted(lab, b.step->name) || add_step(lab, &b, err);
    }
    progress_finish(&p);
    bench_free(&b);
    snprintf(
        lab->table.note, sizeof lab->table.note,
        "One token times %zu x %zu weights, another copy of them each time. Decode t/s: of a model of "
        "%.2f billion weights, all at this pace. Of limit: of what all threads can read.",
        n, k, model_weights * 1e-9);
    return ok;
}
