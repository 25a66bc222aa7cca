#include "eval/activations.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "eval/perplexity.h"

void moments_add(struct moments *m, const float *x, size_t n) {
    double s1 = 0, s2 = 0, s3 = 0, s4 = 0;
    for (size_t i = 0; i < n; i++) {
        double v = x[i], square = v * v;
        s1 += v;
        s2 += square;
        s3 += square * v;
        s4 += square * square;
    }
    m->n += (double)n;
    m->sum[0] += s1;
    m->sum[1] += s2;
    m->sum[2] += s3;
    m->sum[3] += s4;
}

double moments_kurtosis(const struct moments *m) {
    double mean = m->sum[0] / m->n, e2 = m->sum[1] / m->n, e3 = m->sum[2] / m->n,
           e4 = m->sum[3] / m->n;
    double variance = e2 - mean * mean;
    double fourth = e4 - 4 * mean * e3 + 6 * mean * mean * e2 - 3 * mean * mean * mean * mean;
    return variance > 1e-12 * e2 ? fourth / (variance * variance) : NAN;
}

bool activation_stats(const float *x, size_t n, size_t k, struct activation_stats *out,
                      struct error *err) {
    struct moments m = {0};
    float *largest = memory_alloc(k, sizeof *largest, "channels", err);
    if (!largest)
        return false;
    for (size_t i = 0; i < n; i++) {
        moments_add(&m, x + i * k, k);
        for (size_t c = 0; c < k; c++)
            largest[c] = fmaxf(largest[c], fabsf(x[i * k + c]));
    }
    *out = (struct activation_stats){.kurtosis = moments_kurtosis(&m), .worst = argmax(largest, k)};
    double maximum = largest[out->worst], median = quantile(largest, k, 0.5); // sorts
    out->outlier_ratio = median > 0 ? maximum / median : NAN;
    for (size_t c = 0; c < k; c++)
        out->outliers += median > 0 && largest[c] >= OUTLIER_RATIO * median;
    free(largest);
    return true;
}

bool layer_inputs_init(struct layer_inputs *in, const struct probe *p, struct error *err) {
    const struct model_config *c = &p->base->config;
    *in = (struct layer_inputs){.n = p->n,
                                .width = {[INPUT_ATTENTION] = c->hidden,
                                          [INPUT_O] = c->n_heads * c->head_dim,
                                          [INPUT_MLP] = c->hidden,
                                          [INPUT_DOWN] = c->intermediate}};
    for (size_t s = 0; s < INPUT_SLOTS; s++)
        if (!(in->x[s] = memory_alloc(p->n, in->width[s] * sizeof(float), "activations", err))) {
            layer_inputs_free(in);
            return false;
        }
    return true;
}

void layer_inputs_free(struct layer_inputs *in) {
    for (size_t s = 0; s < INPUT_SLOTS; s++)
        free(in->x[s]);
    *in = (struct layer_inputs){0};
}

struct recorder {
    struct layer_inputs *in;
    const struct linear *watched[INPUT_SLOTS];
    size_t done[INPUT_SLOTS]; // tokens
};

static void record(void *user, const struct linear *l, const float *x, size_t n) {
    struct recorder *r = user;
    for (size_t s = 0; s < INPUT_SLOTS; s++)
        if (l == r->watched[s]) {
            size_t width = r->in->width[s];
            memcpy(r->in->x[s] + r->done[s] * width, x, n * width * sizeof *x);
            r->done[s] += n;
        }
}

bool layer_inputs_capture(struct layer_inputs *in, struct probe *p, size_t layer,
                          struct error *err) {
    const struct layer *l = &p->base->layers[layer];
    struct recorder r = {.in = in,
                         .watched = {[INPUT_ATTENTION] = &l->q,
                                     [INPUT_O] = &l->o,
                                     [INPUT_MLP] = &l->up,
                                     [INPUT_DOWN] = &l->down}};
    return probe_watch(p, layer, record, &r, err);
}
