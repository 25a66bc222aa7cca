#include "quant/matrix.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "core/memory.h"

// Rows a thread takes at a time: its working memory is this many rows in float32, twice.
enum { ROWS = 8 };

// A format with one scale for the whole matrix needs three passes: what the scale depends on, the
// codes, and what they cost (which must wait until the scale is stored). Others do all at once,
// while the rows are in the cache.
enum pass { PASS_ABSMAX, PASS_QUANTIZE, PASS_QUANTIZE_AND_MEASURE, PASS_MEASURE };

// What was found in a few rows; kept per chunk so that sums do not depend on who did which.
struct chunk {
    float absmax;
    struct matrix_error error;
};

struct job {
    const struct matrix_source *from;
    const struct quant_format *to;
    struct quant_hints hints;
    void *out;
    struct chunk *chunks;
    size_t n_chunks;
};

static void read_tensor(const void *context, size_t row, size_t count, float *out) {
    const struct tensor *t = context;
    size_t k = t->shape[1];
    for (size_t i = 0; i < count; i++)
        quant_read(t, row + i, 0, k, out + i * k);
}

struct matrix_source matrix_of_tensor(const struct tensor *t) {
    return (struct matrix_source){t->shape[0], t->shape[1], t, read_tensor};
}

static bool find_absmax(const float *w, size_t row, size_t count, size_t k, float *absmax,
                        struct error *err) {
    size_t i = 0;
    *absmax = quant_absmax(w, count * k);
    if (isfinite(*absmax))
        return true;
    while (isfinite(w[i]))
        i++;
    return error_set(err, "row %zu, column %zu: weight is %g, expected a finite number",
                     row + i / k, i % k, (double)w[i]);
}

// Sixteen sums side by side: the compiler keeps them in vector registers. The rest of a row of an
// odd length goes to the first of them.
static void measure_error(const float *w, const float *back, size_t n, struct matrix_error *sum) {
    enum { LANES = 16 };
    double errors[LANES] = {0}, squares[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) {
            double x = w[i + j], difference = x - (double)back[i + j];
            errors[j] += difference * difference;
            squares[j] += x * x;
        }
    for (; i < n; i++) {
        double x = w[i], difference = x - (double)back[i];
        errors[0] += difference * difference;
        squares[0] += x * x;
    }
    for (size_t j = 0; j < LANES; j++) {
        sum->error_squared += errors[j];
        sum->weight_squared += squares[j];
    }
}

// One pass over ROWS rows; buffer has room for twice as many.
static bool run_chunk(const struct job *job, enum pass pass, size_t index, float *buffer,
                      struct error *err) {
    const struct matrix_source *from = job->from;
    const struct quant_format *to = job->to;
    struct chunk *chunk = &job->chunks[index];
    size_t n = from->n, k = from->k, row = index * ROWS, count = n - row < ROWS ? n - row : ROWS;
    float *back = buffer + ROWS * k;
    from->read(from->context, row, count, buffer);
    if (pass == PASS_ABSMAX)
        return find_absmax(buffer, row, count, k, &chunk->absmax, err);
    if (pass != PASS_MEASURE &&
        !to->quantize(to, buffer, row, count, n, k, &job->hints, job->out, err))
        return false;
    if (pass == PASS_QUANTIZE)
        return true;
    for (size_t i = 0; i < count; i++)
        to->dequantize(to, job->out, n, k, row + i, 0, k, back + i * k);
    measure_error(buffer, back, count * k, &chunk->error);
    return true;
}

static bool run_pass(const struct job *job, enum pass pass, struct error *err) {
    size_t failed = SIZE_MAX; // the first chunk that did, however many threads there are
    struct error first = {0};
#pragma omp parallel
    {
        struct error why = {0};
        float *buffer = memory_alloc(2 * ROWS, job->from->k * sizeof(float), "rows", &why);
        size_t mine = buffer ? SIZE_MAX : 0;
#pragma omp for schedule(monotonic : dynamic, 8)
        for (size_t i = 0; i < job->n_chunks; i++)
            if (mine == SIZE_MAX && !run_chunk(job, pass, i, buffer, &why))
                mine = i;
        free(buffer);
#pragma omp critical
        if (mine < failed) {
            failed = mine;
            first = why;
        }
    }
    return failed == SIZE_MAX || error_set(err, "%s", first.message);
}

static bool job_init(struct job *job, const struct matrix_source *from,
                     const struct quant_format *to, void *out, struct error *err) {
    size_t n_chunks = from->n / ROWS + (from->n % ROWS != 0);
    *job = (struct job){.from = from, .to = to, .out = out, .n_chunks = n_chunks};
    job->chunks = memory_alloc(n_chunks, sizeof *job->chunks, "sums", err);
    return job->chunks;
}

static void add_errors(const struct job *job, struct matrix_error *cost) {
    *cost = (struct matrix_error){0};
    for (size_t i = 0; i < job->n_chunks; i++) {
        cost->error_squared += job->chunks[i].error.error_squared;
        cost->weight_squared += job->chunks[i].error.weight_squared;
    }
}

bool matrix_quantize(const struct matrix_source *from, const struct quant_format *to,
                     const struct quant_hints *hints, void *out, struct matrix_error *cost,
                     struct error *err) {
    struct job job;
    if (!job_init(&job, from, to, out, err))
        return false;
    if (hints)
        job.hints = *hints;
    bool one_scale = to->span == SPAN_TENSOR, ok = true;
    if (one_scale) {
        ok = run_pass(&job, PASS_ABSMAX, err);
        job.hints.absmax = 0;
        for (size_t i = 0; i < job.n_chunks; i++)
            job.hints.absmax = fmaxf(job.chunks[i].absmax, job.hints.absmax);
    }
    bool at_once = cost && !one_scale;
    ok = ok && run_pass(&job, at_once ? PASS_QUANTIZE_AND_MEASURE : PASS_QUANTIZE, err) &&
         (!cost || at_once || run_pass(&job, PASS_MEASURE, err));
    if (ok && cost)
        add_errors(&job, cost);
    free(job.chunks);
    return ok;
}

bool matrix_measure(const struct matrix_source *from, const struct quant_format *to,
                    const void *data, struct matrix_error *cost, struct error *err) {
    struct job job;
    if (!job_init(&job, from, to, (void *)(uintptr_t)data, err))
        return false;
    bool ok = run_pass(&job, PASS_MEASURE, err);
    add_errors(&job, cost);
    free(job.chunks);
    return ok;
}
