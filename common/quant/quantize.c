#include "quant/quantize.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/timer.h"

// Rows a thread takes at a time: its working memory is this many rows in float32, twice.
enum { ROWS = 8 };

struct tally {
    size_t weights, bytes;
    double error_squared, weight_squared;
};

struct job {
    const struct model *source;
    const struct recipe *recipe;
    const struct quantize_options *options;
    size_t done, total;
    double seconds;
    struct tally floats, blocks; // what became another float type, and what was quantized
    struct error *err;
};

static void read_rows(const struct tensor *w, size_t row, size_t count, float *out) {
    size_t k = w->shape[1];
    for (size_t i = 0; i < count; i++)
        w->format->dequantize(w->format, w->data, w->shape[0], k, row + i, 0, k, out + i * k);
}

// What one thread found in its rows; kept per chunk so that sums do not depend on who did which.
struct chunk {
    float absmax;
    double error_squared, weight_squared;
};

// A matrix is read two or three times: what one scale for all of it needs to know, the
// quantization, and what that cost (which must wait until every scale is stored).
enum pass { PASS_ABSMAX, PASS_QUANTIZE, PASS_MEASURE };

static bool find_absmax(const struct tensor *from, const float *w, size_t row, size_t count,
                        float *absmax, struct error *err) {
    size_t k = from->shape[1], i = 0;
    *absmax = quant_absmax(w, count * k);
    if (isfinite(*absmax))
        return true;
    while (isfinite(w[i]))
        i++;
    return error_set(err, "row %zu, column %zu: weight is %g, expected a finite number",
                     row + i / k, i % k, (double)w[i]);
}

static void measure_error(const float *w, const float *back, size_t n, struct chunk *chunk) {
    for (size_t i = 0; i < n; i++) {
        double difference = (double)w[i] - back[i];
        chunk->error_squared += difference * difference;
        chunk->weight_squared += (double)w[i] * w[i];
    }
}

// One pass over ROWS rows; buffer has room for twice as many.
static bool run_chunk(const struct tensor *from, const struct tensor *to, enum pass pass,
                      const struct quant_hints *hints, size_t row, float *buffer,
                      struct chunk *chunk, struct error *err) {
    size_t n = from->shape[0], k = from->shape[1], count = n - row < ROWS ? n - row : ROWS;
    read_rows(from, row, count, buffer);
    if (pass == PASS_ABSMAX)
        return find_absmax(from, buffer, row, count, &chunk->absmax, err);
    if (pass == PASS_QUANTIZE)
        return to->format->quantize(to->format, buffer, row, count, n, k, hints, to->data, err);
    read_rows(to, row, count, buffer + ROWS * k);
    measure_error(buffer, buffer + ROWS * k, count * k, chunk);
    return true;
}

static bool run_pass(const struct tensor *from, const struct tensor *to, enum pass pass,
                     const struct quant_hints *hints, struct chunk *chunks, struct error *err) {
    size_t n_chunks = (from->shape[0] + ROWS - 1) / ROWS;
    size_t failed = SIZE_MAX; // the first chunk that did, however many threads there are
    struct error first = {0};
#pragma omp parallel
    {
        struct error why = {0};
        float *buffer = memory_alloc(2 * ROWS, from->shape[1] * sizeof(float), from->name, &why);
        size_t mine = buffer ? SIZE_MAX : 0;
#pragma omp for schedule(static)
        for (size_t i = 0; i < n_chunks; i++)
            if (mine == SIZE_MAX &&
                !run_chunk(from, to, pass, hints, i * ROWS, buffer, &chunks[i], &why))
                mine = i;
        free(buffer);
#pragma omp critical
        if (mine < failed) {
            failed = mine;
            first = why;
        }
    }
    return failed == SIZE_MAX ||
           error_set(err, "%s: tensor '%s': %s", from->file ? from->file : "model", from->name,
                     first.message);
}

static bool quantize_tensor(struct job *job, bool search, const struct tensor *from,
                            struct tensor *to) {
    size_t n_chunks = (from->shape[0] + ROWS - 1) / ROWS;
    struct tally *tally = to->dtype == DTYPE_BLOCK ? &job->blocks : &job->floats;
    double start = timer_now();
    struct chunk *chunks = memory_alloc(n_chunks, sizeof *chunks, from->name, job->err);
    if (!chunks)
        return false;
    bool one_scale = to->format->span == SPAN_TENSOR;
    struct quant_hints hints = {.search = search || job->options->search};
    if (job->options->importance)
        hints.importance = job->options->importance(job->options->user, from);
    bool ok = !one_scale || run_pass(from, to, PASS_ABSMAX, &hints, chunks, job->err);
    for (size_t i = 0; i < n_chunks; i++)
        hints.absmax = fmaxf(chunks[i].absmax, hints.absmax);
    ok = ok && run_pass(from, to, PASS_QUANTIZE, &hints, chunks, job->err);
    job->seconds += timer_now() - start;
    ok = ok && run_pass(from, to, PASS_MEASURE, &hints, chunks, job->err);
    for (size_t i = 0; i < n_chunks; i++) {
        tally->error_squared += chunks[i].error_squared;
        tally->weight_squared += chunks[i].weight_squared;
    }
    tally->weights += from->shape[0] * from->shape[1];
    tally->bytes += to->bytes;
    free(chunks);
    return ok;
}

static bool is_int8_matrix(const struct tensor *w) {
    const int8_t *codes;
    const float *scales;
    size_t step;
    return quant_int8_planes(w, &codes, &scales, &step);
}

// Replaces l's weights (a view of the source's) by a quantized copy of its own.
static bool quantize_linear(void *user, struct linear *l) {
    struct job *job = user;
    const struct recipe_rule *rule = recipe_find(job->recipe, l->w.name);
    const struct quant_format *format = rule ? rule->format : NULL;
    job->done++;
    if (!format || format == l->w.format)
        return true;
    struct tensor from = l->w, *to = &l->w;
    size_t n = from.shape[0], k = from.shape[1], bytes;
    if (!format->bytes(format, n, k, &bytes))
        return error_set(job->err, "%s: %zu x %zu in %s overflows", from.name, n, k, format->name);
    void *data = memory_alloc(bytes, 1, from.name, job->err);
    if (!data)
        return false;
    to->data = data;
    to->bytes = bytes;
    to->format = format;
    to->dtype = format->dtype;
    l->owns_data = true;
    bool ok = quantize_tensor(job, rule->search, &from, to);
    if (job->source->files)
        safetensors_drop(job->source->files, from.data, from.bytes);
    l->int8_activations = job->options->int8_activations && is_int8_matrix(to);
    if (job->options->progress)
        job->options->progress(job->options->user, job->done, job->total);
    return ok;
}

static bool count_linear(void *user, struct linear *l) {
    (void)l;
    ++*(size_t *)user;
    return true;
}

static bool disown(void *user, struct linear *l) {
    (void)user;
    l->owns_data = false;
    return true;
}

static struct model *shallow_copy(const struct model *source, struct error *err) {
    struct model *m = memory_alloc(1, sizeof *m, "model", err);
    if (!m)
        return NULL;
    *m = *source;
    m->files = NULL;
    m->source = source;
    m->layers = memory_alloc(m->config.n_layers, sizeof *m->layers, "layers", err);
    if (!m->layers) {
        free(m);
        return NULL;
    }
    memcpy(m->layers, source->layers, m->config.n_layers * sizeof *m->layers);
    model_visit_linears(m, disown, NULL);
    return m;
}

struct model *model_quantize_with(const struct model *source, const struct recipe *recipe,
                                  const struct quantize_options *options,
                                  struct quantize_stats *stats, struct error *err) {
    struct model *m = shallow_copy(source, err);
    if (!m)
        return NULL;
    struct job job = {.source = source, .recipe = recipe, .options = options, .err = err};
    model_visit_linears(m, count_linear, &job.total);
    if (!model_visit_linears(m, quantize_linear, &job)) {
        model_free(m);
        return NULL;
    }
    if (m->config.tied) {
        m->head = m->embedding;
        m->head.owns_data = false;
    }
    const struct tally *t = job.blocks.weights ? &job.blocks : &job.floats;
    *stats = (struct quantize_stats){.weights = t->weights, .bytes = t->bytes};
    stats->seconds = job.seconds;
    stats->nmse = t->weight_squared > 0 ? t->error_squared / t->weight_squared : 0;
    return m;
}

struct model *model_quantize(const struct model *source, const struct recipe *recipe,
                             bool int8_activations, struct quantize_stats *stats,
                             quantize_progress *progress, void *user, struct error *err) {
    const struct quantize_options options = {
        .int8_activations = int8_activations, .progress = progress, .user = user};
    return model_quantize_with(source, recipe, &options, stats, err);
}
