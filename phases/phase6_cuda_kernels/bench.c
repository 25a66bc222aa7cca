// How a time is taken: the same matrix is uploaded several times, together four times the L2 cache,
// and one sample is a graph that multiplies by each copy in turn. So no call finds its weights in
// the cache, as in a model, where other layers come in between; and the host's launches are not
// timed.
#include "phases/phase6_cuda_kernels/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

// Rows at the start and the end of the matrix, and of x, that are compared: enough to see any error
// in the layout, few enough for a reference that takes a nanosecond and more per weight.
enum { CHECK_ROWS = 96, CHECK_M = 8, MAX_COPIES = 32 };

static bool fails(const char *why, struct error *err) {
    return why && !error_set(err, "%s", why);
}

bool bench_init(struct bench *b, const struct cuda_backend *backend, bool timed,
                struct error *err) {
    *b = (struct bench){.backend = backend, .samples = 200};
    return !fails(backend->describe(&b->device), err) &&
           (!timed || !backend->copy_speed || !fails(backend->copy_speed(&b->copy_gb_s), err));
}

bool bench_matrix_init(struct bench_matrix *m, const char *format, unsigned n, unsigned k,
                       struct error *err) {
    *m = (struct bench_matrix){0};
    if (!cuda_sample_init(&m->sample, format, n, k, n + k, err))
        return false;
    if (!cuda_pack_bytes(&m->sample.w, &m->packed_bytes))
        return true;
    m->packed = memory_alloc(m->packed_bytes, 1, "packed weights", err);
    if (m->packed)
        cuda_pack(&m->sample.w, m->packed);
    else
        cuda_sample_free(&m->sample);
    return m->packed != NULL;
}

void bench_matrix_free(struct bench_matrix *m) {
    cuda_sample_free(&m->sample);
    free(m->packed);
}

// ---- memory of the device ----------------------------------------------------------------------

struct buffers {
    const struct cuda_backend *backend;
    struct cuda_call calls[MAX_COPIES];
    size_t n;
    void *owned[MAX_COPIES + 3];
    size_t n_owned;
};

static void *reserve(struct buffers *u, const char *what, size_t bytes, struct error *err) {
    void *p = u->backend->allocate(bytes);
    if (p)
        u->owned[u->n_owned++] = p;
    else
        error_set(err, "no memory on the device for %zu bytes of %s", bytes, what);
    return p;
}

static void *send(struct buffers *u, const char *what, const void *data, size_t bytes,
                  struct error *err) {
    void *p = reserve(u, what, bytes, err);
    return p && !fails(u->backend->upload(p, data, bytes), err) ? p : NULL;
}

// The host's pointers into the matrix, moved to where it was sent.
static struct cuda_matrix moved(const struct bench_matrix *m, bool packed, const void *to) {
    struct cuda_matrix w = m->sample.w;
    const char *from = m->sample.data, *base = to;
    if (packed) {
        w.packed = to;
        return w;
    }
    w.codes = to;
    w.scales = w.scales ? base + ((const char *)w.scales - from) : NULL;
    w.zeros = w.zeros ? (const uint8_t *)base + ((const char *)w.zeros - from) : NULL;
    return w;
}

static size_t copies_of(const struct bench *b, size_t bytes) {
    size_t n = b->copy_gb_s > 0 ? 4 * b->device.l2_bytes / bytes + 1 : 1;
    return n < MAX_COPIES ? n : MAX_COPIES;
}

static bool buffers_init(struct buffers *u, const struct bench *b, const struct cuda_kernel *kernel,
                         const struct bench_matrix *m, const uint16_t *x, unsigned rows,
                         unsigned x_stride, struct error *err) {
    size_t bytes = kernel->packed ? m->packed_bytes : m->sample.bytes;
    unsigned n = m->sample.w.n;
    *u = (struct buffers){.backend = b->backend, .n = copies_of(b, bytes)};
    struct cuda_call call = {.w = m->sample.w,
                             .m = rows,
                             .x_stride = x_stride,
                             .y_stride = n,
                             .processors = b->device.processors};
    call.x = send(u, "activations", x, (size_t)rows * x_stride * sizeof *x, err);
    call.y = call.x ? reserve(u, "results", (size_t)rows * n * sizeof(float), err) : NULL;
    size_t workspace = kernel->workspace ? kernel->workspace(&call) : 0;
    call.workspace = call.y ? reserve(u, "workspace", workspace, err) : NULL;
    for (size_t i = 0; call.workspace && i < u->n; i++) {
        const void *data = kernel->packed ? m->packed : m->sample.data;
        const void *w = send(u, "weights", data, bytes, err);
        if (!w)
            return false;
        u->calls[i] = call;
        u->calls[i].w = moved(m, kernel->packed, w);
    }
    return call.workspace != NULL;
}

static void buffers_free(struct buffers *u) {
    while (u->n_owned)
        u->backend->release(u->owned[--u->n_owned]);
}

// ---- checking ----------------------------------------------------------------------------------

// Runs the first call on an output full of NaN and fetches the result.
static bool run_once(const struct buffers *u, const struct cuda_kernel *kernel, float *y,
                     struct error *err) {
    const struct cuda_call *c = &u->calls[0];
    size_t bytes = (size_t)c->m * c->y_stride * sizeof *y;
    memset(y, 0xff, bytes);
    return !fails(u->backend->upload(c->y, y, bytes), err) &&
           !fails(u->backend->run(kernel, c), err) &&
           !fails(u->backend->download(y, c->y, bytes), err);
}

// Σ (y - ref)² and Σ ref² over rows [first, first + n) of w and [i0, i0 + m) of x.
static bool add_errors(const struct cuda_matrix *w, unsigned first, unsigned n, const uint16_t *x,
                       unsigned x_stride, unsigned i0, unsigned m, const float *y, double sums[2],
                       struct error *err) {
    float *want = memory_alloc((size_t)n * m, sizeof *want, "reference", err);
    if (!want)
        return false;
    struct cuda_matrix part = *w;
    part.n = n;
    part.codes = (const char *)w->codes + first * w->row_bytes;
    if (w->scales)
        part.scales =
            (const char *)w->scales + (size_t)first * w->groups * (w->wide_scales ? 4 : 2);
    if (w->zeros)
        part.zeros = w->zeros + first * w->zero_bytes;
    cuda_matmul_ref(&part, x + (size_t)i0 * x_stride, x_stride, m, want, n);
    for (unsigned i = 0; i < m; i++)
        for (unsigned j = 0; j < n; j++) {
            double expected = want[(size_t)i * n + j];
            sums[0] += pow(y[(size_t)(i0 + i) * w->n + first + j] - expected, 2);
            sums[1] += expected * expected;
        }
    free(want);
    return true;
}

// Relative L2 error over the first and last rows; NaN if a value there is.
static bool error_of(const struct bench_matrix *matrix, const uint16_t *x, unsigned x_stride,
                     unsigned m, const float *y, double *error, struct error *err) {
    const struct cuda_matrix *w = &matrix->sample.w;
    unsigned rows = w->n < 2 * CHECK_ROWS ? w->n : CHECK_ROWS, ms = m < 2 * CHECK_M ? m : CHECK_M;
    double sums[2] = {0, 0};
    for (unsigned first = 0; first < w->n; first = first ? w->n : w->n - rows ? w->n - rows : w->n)
        for (unsigned i0 = 0; i0 < m; i0 = i0 ? m : m - ms ? m - ms : m)
            if (!add_errors(w, first, rows, x, x_stride, i0, ms, y, sums, err))
                return false;
    *error = sqrt(sums[0] / sums[1]);
    return true;
}

static bool check(const struct buffers *u, const struct cuda_kernel *kernel,
                  const struct bench_matrix *matrix, const uint16_t *x, float *y, double *error,
                  struct error *err) {
    const struct cuda_call *c = &u->calls[0];
    size_t count = (size_t)c->m * c->y_stride;
    if (!run_once(u, kernel, y + count, err) || !run_once(u, kernel, y, err) ||
        !error_of(matrix, x, c->x_stride, c->m, y, error, err))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!isfinite(y[i]))
            return error_set(err, "row %zu of w is %g, expected a number", i % c->y_stride,
                             (double)y[i]);
    if (memcmp(y, y + count, count * sizeof *y) != 0)
        return error_set(err, "two runs give different results, expected the same bits");
    return *error <= kernel->tolerance ||
           error_set(err, "relative error is %g, expected at most %g", *error, kernel->tolerance);
}

// ---- timing ------------------------------------------------------------------------------------

static bool time_row(const struct bench *b, const struct buffers *u,
                     const struct cuda_kernel *kernel, size_t weight_bytes, struct result_row *row,
                     struct error *err) {
    const struct cuda_call *c = &u->calls[0];
    if (fails(b->backend->time(kernel, u->calls, u->n, b->samples, &row->us, &row->us_p99), err))
        return false;
    double n = c->w.n, k = c->w.k, m = c->m;
    row->gb_s = ((double)weight_bytes + m * (2 * k + 4 * n)) / row->us / 1e3;
    row->gop_s = 2 * m * n * k / row->us / 1e3;
    row->of_limit = row->gb_s / b->copy_gb_s;
    return true;
}

bool bench_row(const struct bench *b, const struct cuda_kernel *kernel,
               const struct bench_matrix *w, unsigned m, struct result_row *row,
               struct error *err) {
    struct buffers u = {0};
    struct error why = {0};
    unsigned stride;
    size_t bytes = kernel->packed ? w->packed_bytes : w->sample.bytes;
    uint16_t *x = cuda_sample_x(m, w->sample.w.k, &stride, m, &why);
    float *y = memory_alloc((size_t)m * w->sample.w.n, 2 * sizeof *y, "results", &why);
    bool ok = x && y && buffers_init(&u, b, kernel, w, x, m, stride, &why) &&
              check(&u, kernel, w, x, y, &row->rel_error, &why) &&
              (b->copy_gb_s <= 0 || time_row(b, &u, kernel, bytes, row, &why));
    row->bits_per_weight = 8.0 * (double)bytes / ((double)w->sample.w.n * w->sample.w.k);
    buffers_free(&u);
    free(x);
    free(y);
    return ok || error_set(err, "%s: %s", row->config, why.message);
}
