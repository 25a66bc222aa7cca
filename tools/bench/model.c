#include "tools/bench/model.h"

#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "quant/quantize.h"
#include "tools/bench/bench.h"

struct model *bench_in_format(const struct model *loaded, const char *name) {
    struct error err = {0};
    struct recipe r = {0};
    const struct quant_format *f = strcmp(name, "keep") == 0 ? NULL : quant_format_find(name);
    struct model *m = NULL;
    if (!f && strcmp(name, "keep") != 0)
        bench_fail("%s: no such format", name);
    if (!f)
        m = model_share(loaded, &err);
    else if (recipe_uniform(&r, f, NULL, NULL, &err))
        m = model_quantize(loaded, &r, false, &(struct quantize_stats){0}, NULL, NULL, &err);
    if (!m)
        bench_fail("%s", err.message);
    recipe_free(&r);
    return m;
}

double bench_weight_bytes(const struct model *m) {
    double bytes = (double)model_bytes(m);
    const struct tensor *e = &m->embedding.w;
    if (e->data != m->head.w.data)
        bytes -= (double)e->bytes * (1 - 1 / (double)e->shape[0]);
    return bytes;
}

double bench_position_bytes(const struct model_config *c) {
    return 2.0 * sizeof(float) * (double)(c->n_layers * c->n_kv_heads * c->head_dim);
}

static double weights_of(const struct linear *l) {
    return l->w.data ? (double)(l->w.shape[0] * l->w.shape[1]) : 0;
}

double bench_token_operations(const struct model *m, double seen) {
    const struct model_config *c = &m->config;
    double operations = 4 * seen * (double)(c->n_layers * c->n_heads * c->head_dim);
    for (size_t i = 0; i < c->n_layers; i++) {
        const struct layer *l = &m->layers[i];
        const struct linear *const linears[] = {&l->q,    &l->k,  &l->v,   &l->o,
                                                &l->gate, &l->up, &l->down};
        for (size_t j = 0; j < sizeof linears / sizeof *linears; j++)
            operations += 2 * weights_of(linears[j]);
    }
    return operations;
}

// A quarter of a million values, over and over.
void bench_fill_cache(struct kv_cache *kv) {
    enum { N = 1 << 18 };
    float *x = bench_normals(N);
    for (size_t at = 0; at < kv->bytes / sizeof *x; at += N) {
        size_t n = kv->bytes / sizeof *x - at;
        memcpy(kv->k + at, x, (n < N ? n : N) * sizeof *x);
        memcpy(kv->v + at, x, (n < N ? n : N) * sizeof *x);
    }
    free(x);
}
