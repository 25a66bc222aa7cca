// How much to measure where the caller leaves it open. A pass over one token costs about as many
// multiply-adds as the model has weights, half of that from the middle on; two cores do 6·10¹² in
// about two minutes. Measuring everything on 1,024 tokens is better than estimating from more:
// how a rounding happens to fall makes two formats of equal output error differ by 40 %. Where
// that is too much, the report says how well the estimates rank.
#include "eval/sensitivity_part.h"

static size_t between(double x, size_t low, size_t high) {
    return x < (double)low ? low : x > (double)high ? high : (size_t)x;
}

struct sensitivity_options sensitivity_choose_options(const struct sensitivity_options *given,
                                                      const struct model *m, size_t n_tensors,
                                                      size_t n_formats) {
    struct sensitivity_options o = *given;
    double token = (double)n_tensors * (double)model_parameters(m) / 2;
    size_t tokens = o.tokens ? o.tokens : 1024;
    if (!o.window)
        o.window = 512;
    if (o.window > m->config.max_context)
        o.window = m->config.max_context;
    if (!o.anchors && token * (double)n_formats * (double)tokens <= 6e12)
        o.anchors = n_formats;
    else if (!o.anchors)
        o.anchors = token * 3 * (double)(o.tokens ? o.tokens : 256) <= 2e13 ? 3 : 1;
    size_t measured = o.anchors < n_formats ? o.anchors : n_formats;
    double budget = measured == n_formats ? 6e12 : 1e13;
    if (!o.tokens)
        o.tokens = between(budget / (token * (double)measured), 256, 2048);
    if (o.anchors >= n_formats) { // all are measured; three of them as if the rest were not
        o.anchors = 3;
        o.checks = SIZE_MAX;
    } else if (!o.checks) {
        o.checks = 32;
    }
    return o;
}
