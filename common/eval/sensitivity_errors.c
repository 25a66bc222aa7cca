// What quantizing does to a tensor's weights and outputs: the errors that need no other layer.
#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "eval/activations.h"
#include "eval/sensitivity_part.h"
#include "quant/format.h"

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

void sensitivity_read_row(const struct tensor *w, size_t row, float *out) {
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
                sensitivity_read_row(w, i, buffer);
                sensitivity_read_row(q, i, buffer + k);
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

bool sensitivity_weight_errors(const struct model *m, const struct model *quantized,
                               const struct linear_span *span, struct sensitivity_cell *c,
                               struct error *err) {
    size_t weights = 0;
    struct products p = {0};
    for (size_t i = 0; i < span->n; i++) {
        enum linear_role role = span->first + (enum linear_role)i;
        const struct tensor *w = &model_linear(m, span->layer, role)->w,
                            *q = &model_linear(quantized, span->layer, role)->w;
        if (!compare_weights(w, q, &p, err))
            return false;
        c->bytes += q->bytes;
        weights += w->shape[0] * w->shape[1];
    }
    c->weight_mse = p.error / (double)weights;
    c->weight_nmse = nmse_of(&p);
    c->weight_snr_db = -10 * log10(c->weight_nmse);
    c->weight_cosine = cosine_of(&p);
    return true;
}

bool sensitivity_weight_kurtosis(const struct model *m, const struct linear_span *span,
                                 double *kurtosis, struct error *err) {
    struct moments moments = {0};
    for (size_t i = 0; i < span->n; i++) {
        const struct tensor *w =
            &model_linear(m, span->layer, span->first + (enum linear_role)i)->w;
        float *row = memory_alloc(w->shape[1], sizeof *row, w->name, err);
        if (!row)
            return false;
        for (size_t r = 0; r < w->shape[0]; r++) {
            sensitivity_read_row(w, r, row);
            moments_add(&moments, row, w->shape[1]);
        }
        free(row);
    }
    *kurtosis = moments_kurtosis(&moments);
    return true;
}

void sensitivity_output_errors(const float *exact, const float *quantized, size_t size,
                               struct sensitivity_cell *c) {
    struct products p = {0};
    products_add(&p, exact, quantized, size);
    c->output_nmse = nmse_of(&p);
    c->output_cosine = cosine_of(&p);
}
