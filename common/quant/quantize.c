#include "quant/quantize.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/timer.h"
#include "quant/matrix.h"
#include "quant/woven.h"

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

static bool quantize_tensor(struct job *job, bool search, const struct tensor *from,
                            struct tensor *to) {
    struct tally *tally = to->dtype == DTYPE_BLOCK ? &job->blocks : &job->floats;
    const struct matrix_source source = matrix_of_tensor(from);
    const struct quantize_options *o = job->options;
    const struct quant_hints hints = {.search = search || o->search,
                                      .importance =
                                          o->importance ? o->importance(o->user, from) : NULL};
    struct matrix_error cost = {0};
    struct error why = {0};
    double start = timer_now();
    bool ok = matrix_quantize(&source, to->format, &hints, to->data, NULL, &why);
    job->seconds += timer_now() - start;
    if (!ok || !matrix_measure(&source, to->format, to->data, &cost, &why))
        return error_set(job->err, "%s: tensor '%s': %s", from->file ? from->file : "model",
                         from->name, why.message);
    tally->error_squared += cost.error_squared;
    tally->weight_squared += cost.weight_squared;
    tally->weights += from->shape[0] * from->shape[1];
    tally->bytes += to->bytes;
    return true;
}

static bool is_int8_matrix(const struct tensor *w) {
    const int8_t *codes;
    const float *scales;
    size_t step;
    return quant_int8_planes(w, &codes, &scales, &step);
}

// l's weights stay as they are. Those of a packed file may be woven; int8 activations want rows.
static bool keep_linear(struct job *job, const struct quant_format *format, struct linear *l) {
    bool int8 = format && job->options->int8_activations;
    if (l->w.dtype == DTYPE_BLOCK) {
        job->blocks.weights += l->w.shape[0] * l->w.shape[1];
        job->blocks.bytes += l->w.bytes;
    }
    if (int8 && l->w.woven && quant_takes_int8_activations(format)) {
        if (!(l->w.data = woven_undo(&l->w, job->err)))
            return false;
        l->w.woven = false;
        l->owns_data = true;
    }
    l->int8_activations = int8 && is_int8_matrix(&l->w);
    return true;
}

// Replaces l's weights (a view of the source's) by a quantized copy of its own.
static bool quantize_linear(void *user, struct linear *l) {
    struct job *job = user;
    const struct recipe_rule *rule = recipe_find(job->recipe, l->w.name);
    const struct quant_format *format = rule ? rule->format : NULL;
    job->done++;
    if (!format || format == l->w.format)
        return keep_linear(job, format, l);
    struct tensor from = l->w, *to = &l->w;
    size_t n = from.shape[0], k = from.shape[1], bytes;
    if (!format->bytes(format, n, k, &bytes))
        return error_set(job->err, "%s: %s cannot hold %zu x %zu weights", from.name, format->name,
                         n, k);
    void *data = memory_alloc(bytes, 1, from.name, job->err);
    if (!data)
        return false;
    to->data = data;
    to->woven = false;
    to->bytes = bytes;
    to->format = format;
    to->dtype = format->dtype;
    l->owns_data = true;
    bool ok = quantize_tensor(job, rule->search, &from, to);
    model_drop(job->source, from.data, woven_bytes(&from));
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

struct model *model_quantize_with(const struct model *source, const struct recipe *recipe,
                                  const struct quantize_options *options,
                                  struct quantize_stats *stats, struct error *err) {
    struct model *m = model_share(source, err);
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
