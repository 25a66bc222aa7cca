#include "eval/sensitivity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/random.h"
#include "core/timer.h"
#include "eval/activations.h"
#include "eval/sensitivity_part.h"
#include "quant/quantize.h"

// Outputs are compared over as many tokens as have this many bytes of them: a head's 152,064 are
// 0.6 MB for one.
enum { OUTPUT_BYTES = 64 * 1024 * 1024 };

// What one of the two kinds of work has taken so far, to tell what is left of it.
struct spent {
    double seconds, work;
};

struct analysis {
    struct sensitivity *s;
    const struct model *m;
    struct linear_span *spans; // [n_tensors]
    struct probe probe;
    struct layer_inputs inputs;
    size_t anchors, checks, others; // checks still to do among the cells that are no anchors
    bool search;
    struct random random;
    bool *is_anchor;      // [n_formats]
    char *part;           // where finished tensors are kept; NULL: nowhere
    double measured;      // cells measured per tensor, on average
    double layer_weights; // of a block, on average
    struct spent errors;  // work: weights, in all formats
    struct spent damage;  // work: multiply-adds for a token
    sensitivity_progress *progress;
    void *user;
    size_t done; // cells
};

static double weights_of(const struct sensitivity *s, size_t tensor) {
    return (double)s->tensors[tensor].n * (double)s->tensors[tensor].k;
}

double sensitivity_kld(const struct sensitivity_cell *c) {
    return isnan(c->kld_measured) ? c->kld_estimated : c->kld_measured;
}

size_t sensitivity_cells(const struct sensitivity *s, size_t *measured) {
    size_t cells = 0;
    *measured = 0;
    for (size_t i = 0; i < s->n_tensors * s->n_formats; i++) {
        cells += s->cells[i].bytes > 0;
        *measured += s->cells[i].bytes > 0 && !isnan(s->cells[i].kld_measured);
    }
    return cells;
}

double sensitivity_sum(const struct sensitivity *s, size_t format) {
    double sum = 0;
    for (size_t t = 0; t < s->n_tensors; t++)
        if (s->tensors[t].layer != SENSITIVITY_NO_LAYER)
            sum += sensitivity_kld(sensitivity_at(s, t, format));
    return sum;
}

// ---- the weights ------------------------------------------------------------------------------

struct products {
    double error, ww, qq, wq; // Σ (w - ŵ)², Σ w², Σ ŵ², Σ w ŵ
};

static void products_add(struct products *sum, const float *w, const float *q, size_t n) {
    double error = 0, ww = 0, qq = 0, wq = 0;
    for (size_t i = 0; i < n; i++) {
        double a = w[i], b = q[i];
        error += (a - b) * (a - b);
        ww += a * a;
        qq += b * b;
        wq += a * b;
    }
    sum->error += error;
    sum->ww += ww;
    sum->qq += qq;
    sum->wq += wq;
}

static double nmse_of(const struct products *p) {
    return p->ww > 0 ? p->error / p->ww : p->error > 0 ? INFINITY : 0;
}

static double cosine_of(const struct products *p) {
    return p->ww > 0 && p->qq > 0 ? p->wq / sqrt(p->ww * p->qq) : p->error > 0 ? 0 : 1;
}

static void read_row(const struct tensor *w, size_t row, float *out) {
    quant_read(w, row, 0, w->shape[1], out);
}

// Both matrices row by row; a row's sums are one thread's, and are added in order.
static bool compare_weights(const struct tensor *w, const struct tensor *q, struct products *sum,
                            struct error *err) {
    size_t n = w->shape[0], k = w->shape[1];
    struct products *rows = memory_alloc(n, sizeof *rows, w->name, err);
    bool ok = rows != NULL;
#pragma omp parallel if (ok)
    {
        float *buffer = malloc(2 * k * sizeof *buffer);
        if (!buffer) {
#pragma omp atomic write
            ok = false;
        }
#pragma omp for schedule(static)
        for (size_t i = 0; i < n; i++)
            if (buffer && rows) {
                read_row(w, i, buffer);
                read_row(q, i, buffer + k);
                products_add(&rows[i], buffer, buffer + k, k);
            }
        free(buffer);
    }
    for (size_t i = 0; ok && i < n; i++) {
        sum->error += rows[i].error;
        sum->ww += rows[i].ww;
        sum->qq += rows[i].qq;
        sum->wq += rows[i].wq;
    }
    free(rows);
    return ok || error_set(err, "%s: out of memory for rows of %zu", w->name, k);
}

static bool weight_errors(const struct model *m, const struct model *quantized,
                          const struct linear_span *span, const struct sensitivity_tensor *t,
                          struct sensitivity_cell *c, struct error *err) {
    struct products p = {0};
    for (size_t i = 0; i < span->n; i++) {
        enum linear_role role = span->first + (enum linear_role)i;
        const struct tensor *w = &model_linear(m, span->layer, role)->w,
                            *q = &model_linear(quantized, span->layer, role)->w;
        if (!compare_weights(w, q, &p, err))
            return false;
        c->bytes += q->bytes;
    }
    c->weight_mse = p.error / ((double)t->n * (double)t->k);
    c->weight_nmse = nmse_of(&p);
    c->weight_snr_db = -10 * log10(c->weight_nmse);
    c->weight_cosine = cosine_of(&p);
    return true;
}

static bool weight_moments(const struct analysis *a, size_t tensor, struct error *err) {
    const struct linear_span *span = &a->spans[tensor];
    struct moments m = {0};
    for (size_t i = 0; i < span->n; i++) {
        const struct tensor *w =
            &model_linear(a->m, span->layer, span->first + (enum linear_role)i)->w;
        float *row = memory_alloc(w->shape[1], sizeof *row, w->name, err);
        if (!row)
            return false;
        for (size_t r = 0; r < w->shape[0]; r++) {
            read_row(w, r, row);
            moments_add(&m, row, w->shape[1]);
        }
        free(row);
    }
    a->s->tensors[tensor].weight_kurtosis = moments_kurtosis(&m);
    return true;
}

// ---- the outputs ------------------------------------------------------------------------------

// What a tensor is applied to: x [n, k]. The embedding of a model with a head of its own is looked
// up, not multiplied: x is NULL, and its outputs are the rows of the probe's tokens.
struct seen {
    const float *x;
    size_t n;
};

static struct seen input_of(const struct analysis *a, const struct linear_span *span) {
    static const enum input_slot slots[ROLE_LAYER_END] = {
        [ROLE_Q] = INPUT_ATTENTION, [ROLE_K] = INPUT_ATTENTION, [ROLE_V] = INPUT_ATTENTION,
        [ROLE_O] = INPUT_O,         [ROLE_GATE] = INPUT_MLP,    [ROLE_UP] = INPUT_MLP,
        [ROLE_DOWN] = INPUT_DOWN};
    struct seen seen = {.n = a->probe.n};
    if (span->first < ROLE_LAYER_END)
        seen.x = a->inputs.x[slots[span->first]];
    else if (span->first == ROLE_HEAD || a->m->config.tied)
        seen.x = a->probe.reference_hidden;
    return seen;
}

static bool output(const struct analysis *a, const struct linear *l, const struct seen *seen,
                   float *y, struct error *err) {
    size_t k = l->w.shape[1];
    if (seen->x)
        return linear_forward(y, l, seen->x, seen->n, err);
    for (size_t i = 0; i < seen->n; i++)
        read_row(&l->w, (size_t)a->probe.tokens[i], y + i * k);
    return true;
}

static size_t output_width(const struct linear *l, const struct seen *seen) {
    return seen->x ? l->w.shape[0] : l->w.shape[1];
}

static const struct linear *part_of(const struct model *m, const struct linear_span *span,
                                    size_t i) {
    return model_linear(m, span->layer, span->first + (enum linear_role)i);
}

// Of all parts of a tensor together.
static size_t whole_output(const struct analysis *a, const struct linear_span *span,
                           const struct seen *seen) {
    size_t width = 0;
    for (size_t i = 0; i < span->n; i++)
        width += output_width(part_of(a->m, span, i), seen);
    return width;
}

// y [n, whole_output]: what m makes of the inputs, one part behind the other.
static bool outputs(const struct analysis *a, const struct model *m, const struct linear_span *span,
                    const struct seen *seen, float *y, struct error *err) {
    for (size_t i = 0; i < span->n; i++) {
        const struct linear *l = part_of(m, span, i);
        if (!output(a, l, seen, y, err))
            return false;
        y += seen->n * output_width(l, seen);
    }
    return true;
}

static void output_errors(const float *exact, const float *quantized, size_t size,
                          struct sensitivity_cell *c) {
    struct products p = {0};
    products_add(&p, exact, quantized, size);
    c->output_nmse = nmse_of(&p);
    c->output_cosine = cosine_of(&p);
}

// ---- one tensor -------------------------------------------------------------------------------

// A model that differs from a->m in one tensor; NULL with *fits false where its shape and the
// format do not go together.
static struct model *with_format(const struct analysis *a, size_t tensor, size_t format, bool *fits,
                                 struct error *err) {
    const struct sensitivity_tensor *t = &a->s->tensors[tensor];
    const struct quant_format *f = a->s->formats[format];
    struct recipe r = {0};
    struct quantize_stats stats;
    size_t bytes;
    *fits = f->bytes(f, t->n, t->k, &bytes);
    if (!*fits || !recipe_add(&r, t->name, f, err))
        return NULL;
    const struct quantize_options how = {.search = a->search};
    struct model *m = model_quantize_with(a->m, &r, &how, &stats, err);
    recipe_free(&r);
    return m;
}

static void cell_clear(struct sensitivity_cell *c) {
    *c = (struct sensitivity_cell){.weight_mse = NAN,
                                   .weight_nmse = NAN,
                                   .weight_snr_db = NAN,
                                   .weight_cosine = NAN,
                                   .output_nmse = NAN,
                                   .output_cosine = NAN,
                                   .kld_estimated = NAN,
                                   .kld_measured = NAN,
                                   .kld_error = NAN};
}

static bool measure_errors(struct analysis *a, size_t tensor, struct error *err) {
    struct sensitivity *s = a->s;
    double start = timer_now();
    const struct linear_span *span = &a->spans[tensor];
    struct seen seen = input_of(a, span);
    size_t width = whole_output(a, span, &seen), row = width * sizeof(float);
    if (seen.n > OUTPUT_BYTES / row)
        seen.n = OUTPUT_BYTES / row ? OUTPUT_BYTES / row : 1;
    float *exact = memory_alloc(2 * seen.n, row, s->tensors[tensor].name, err);
    float *y = exact ? exact + seen.n * width : NULL;
    bool ok = exact && outputs(a, a->m, span, &seen, exact, err);
    for (size_t f = 0; ok && f < s->n_formats; f++) {
        struct sensitivity_cell *c = sensitivity_at(s, tensor, f);
        bool fits;
        cell_clear(c);
        struct model *q = with_format(a, tensor, f, &fits, err);
        ok = !fits || (q && weight_errors(a->m, q, span, &s->tensors[tensor], c, err) &&
                       outputs(a, q, span, &seen, y, err));
        if (ok && fits)
            output_errors(exact, y, seen.n * width, c);
        model_free(q);
    }
    free(exact);
    a->errors.seconds += timer_now() - start;
    a->errors.work += weights_of(s, tensor);
    return ok;
}

// The first layer that a change of the tensor reaches.
static size_t first_layer(const struct analysis *a, size_t tensor) {
    const struct linear_span *span = &a->spans[tensor];
    if (span->layer != SENSITIVITY_NO_LAYER)
        return span->layer;
    return span->first == ROLE_HEAD ? a->m->config.n_layers : 0;
}

// Multiply-adds for a token from there to the logits.
static double damage_work(const struct analysis *a, size_t tensor) {
    const struct model_config *c = &a->m->config;
    double layers = (double)(c->n_layers - first_layer(a, tensor)),
           head = (double)(c->vocab * c->hidden);
    return layers * a->layer_weights + head;
}

static double seconds_left(const struct analysis *a, size_t tensor) {
    double weights = 0, damage = 0;
    if (a->damage.work == 0)
        return 0;
    for (size_t t = tensor + 1; t < a->s->n_tensors; t++) {
        weights += weights_of(a->s, t);
        damage += a->measured * damage_work(a, t);
    }
    return weights * a->errors.seconds / a->errors.work +
           damage * a->damage.seconds / a->damage.work;
}

static void summarize(const double *klds, size_t n, struct sensitivity_cell *c) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += klds[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (klds[i] - mean) * (klds[i] - mean);
    c->kld_measured = isnan(mean) ? INFINITY : mean; // logits that overflowed
    c->kld_error = n > 1 ? sqrt(squares / (double)n / (double)(n - 1)) : NAN;
}

static bool measure_damage(struct analysis *a, size_t tensor, size_t format, struct error *err) {
    bool fits;
    double start = timer_now(), *klds = memory_alloc(a->probe.n, sizeof *klds, "divergences", err);
    struct model *q = with_format(a, tensor, format, &fits, err);
    bool ok = klds && q && probe_klds(&a->probe, q, first_layer(a, tensor), klds, err);
    if (ok)
        summarize(klds, a->probe.n, sensitivity_at(a->s, tensor, format));
    free(klds);
    model_free(q);
    a->damage.seconds += timer_now() - start;
    a->damage.work += damage_work(a, tensor);
    return ok;
}

// Of the cells that are no anchors, each is as likely to be measured as any other (Knuth's
// selection sampling: `checks` of the `others` still to come).
static bool is_check(struct analysis *a) {
    bool chosen = random_uniform(&a->random) * (double)a->others < (double)a->checks;
    a->others -= a->others > 0;
    a->checks -= chosen;
    return chosen;
}

// Where the errors are known. A tensor that was finished before is gone through like any other, for
// what is_check then makes of the next ones, but nothing of it is missing.
static bool measure_damages(struct analysis *a, size_t tensor, struct error *err) {
    struct sensitivity *s = a->s;
    struct sensitivity_cell *cells = sensitivity_at(s, tensor, 0);
    size_t total = (s->n_tensors - s->kept) * s->n_formats;
    sensitivity_choose_anchors(cells, s->n_formats, a->anchors, a->is_anchor);
    for (size_t f = 0; f < s->n_formats; f++) {
        bool wanted = a->is_anchor[f] || is_check(a), missing = isnan(cells[f].kld_measured);
        if (wanted && missing && cells[f].bytes && !measure_damage(a, tensor, f, err))
            return false;
        if (a->progress && tensor >= s->kept)
            a->progress(a->user, ++a->done, total, seconds_left(a, tensor),
                        s->tensors[tensor].name);
    }
    sensitivity_estimate(cells, s->n_formats, a->is_anchor);
    return true;
}

static bool describe_input(struct analysis *a, size_t tensor, struct error *err) {
    struct sensitivity_tensor *t = &a->s->tensors[tensor];
    struct seen seen = input_of(a, &a->spans[tensor]);
    struct activation_stats stats = {.kurtosis = NAN, .outlier_ratio = NAN};
    if (seen.x && !activation_stats(seen.x, seen.n, t->k, &stats, err))
        return false;
    t->input_kurtosis = stats.kurtosis;
    t->input_outlier_ratio = stats.outlier_ratio;
    t->input_outliers = stats.outliers;
    t->input_worst_channel = stats.worst;
    return true;
}

// ---- the whole --------------------------------------------------------------------------------

// A model that computes NaN has no distribution to compare with.
static bool check_probe(struct analysis *a, struct error *err) {
    double kld;
    if (!probe_kld(&a->probe, a->m, a->m->config.n_layers, &kld, err))
        return false;
    return isfinite(kld) ||
           error_set(err, "the logits are not numbers: a weight is NaN, or overflows");
}

// The tensors up to this one, for a run after one that is stopped.
static bool keep(const struct analysis *a, size_t tensor, struct error *err) {
    struct sensitivity finished = *a->s;
    finished.n_tensors = tensor + 1;
    return !a->part || sensitivity_write(&finished, a->part, err);
}

static bool analyse(struct analysis *a, struct error *err) {
    struct sensitivity *s = a->s;
    size_t layer = SENSITIVITY_NO_LAYER;
    for (size_t t = 0; t < s->kept; t++)
        if (!measure_damages(a, t, err))
            return false;
    for (size_t t = s->kept; t < s->n_tensors; t++) {
        if (s->tensors[t].layer != SENSITIVITY_NO_LAYER && s->tensors[t].layer != layer) {
            layer = s->tensors[t].layer;
            if (!layer_inputs_capture(&a->inputs, &a->probe, layer, err))
                return false;
        }
        if (!describe_input(a, t, err) || !weight_moments(a, t, err) ||
            !measure_errors(a, t, err) || !measure_damages(a, t, err) || !keep(a, t, err))
            return false;
    }
    return sensitivity_judge(s, err);
}

static double weights_of_a_layer(const struct sensitivity *s, size_t n_layers) {
    double sum = 0;
    for (size_t t = 0; t < s->n_tensors; t++)
        if (s->tensors[t].layer != SENSITIVITY_NO_LAYER)
            sum += weights_of(s, t);
    return sum / (double)n_layers;
}

static bool prepare(struct analysis *a, const struct quant_format *const *formats, size_t n_formats,
                    const int32_t *tokens, size_t n_tokens,
                    const struct sensitivity_options *options, struct error *err) {
    struct sensitivity *s = a->s;
    if (!sensitivity_list(a->m, formats, n_formats, options, s, &a->spans, err) ||
        !(a->is_anchor = memory_alloc(n_formats, sizeof *a->is_anchor, "formats", err)))
        return false;
    struct sensitivity_options o =
        sensitivity_choose_options(options, a->m, s->n_tensors, n_formats);
    double measured = (double)o.anchors + (double)o.checks / (double)s->n_tensors;
    a->anchors = o.anchors;
    a->checks = o.checks;
    a->search = o.search;
    a->others = s->n_tensors * (n_formats > o.anchors ? n_formats - o.anchors : 0);
    a->measured = measured < (double)n_formats ? measured : (double)n_formats;
    a->layer_weights = weights_of_a_layer(s, a->m->config.n_layers);
    if (!probe_open(&a->probe, a->m, a->m, tokens, n_tokens, o.tokens, o.window, err))
        return false;
    s->tokens = a->probe.n;
    s->window = a->probe.window;
    if (o.path && !(a->part = memory_printf(err, "%s.part", o.path)))
        return false;
    s->kept = a->part ? sensitivity_take_up(s, a->part) : 0;
    return check_probe(a, err) && layer_inputs_init(&a->inputs, &a->probe, err);
}

static bool write_all(const struct analysis *a, const char *path, struct error *err) {
    if (!path)
        return true;
    bool ok = sensitivity_write(a->s, path, err);
    if (ok)
        unlink(a->part);
    return ok;
}

bool sensitivity_measure(const struct model *m, const struct quant_format *const *formats,
                         size_t n_formats, const int32_t *tokens, size_t n_tokens,
                         const struct sensitivity_options *options, struct sensitivity *s,
                         sensitivity_progress *progress, void *user, struct error *err) {
    *s = (struct sensitivity){.model = sensitivity_fingerprint(m),
                              .text = sensitivity_text(tokens, n_tokens),
                              .search = options->search};
    struct analysis a = {.s = s, .m = m, .random = {1}, .progress = progress, .user = user};
    bool ok = prepare(&a, formats, n_formats, tokens, n_tokens, options, err) && analyse(&a, err) &&
              write_all(&a, options->path, err);
    layer_inputs_free(&a.inputs);
    probe_close(&a.probe);
    free(a.spans);
    free(a.is_anchor);
    free(a.part);
    if (!ok)
        sensitivity_free(s);
    return ok;
}

void sensitivity_free(struct sensitivity *s) {
    for (size_t t = 0; t < s->n_tensors; t++) {
        free(s->tensors[t].name);
        free(s->tensors[t].kind);
    }
    free(s->tensors);
    free((void *)s->formats);
    free(s->cells);
    *s = (struct sensitivity){0};
}
