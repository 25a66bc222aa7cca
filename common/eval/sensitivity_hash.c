#include <string.h>

#include "eval/sensitivity_part.h"
#include "quant/format.h"

// FNV-1a (Fowler, Noll and Vo): not for secrets, but no two models meet by chance.
static uint64_t hash_more(uint64_t hash, const void *data, size_t size) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static const uint64_t empty = 0xcbf29ce484222325u;

uint64_t sensitivity_text(const int32_t *tokens, size_t n) {
    return hash_more(empty, tokens, n * sizeof *tokens);
}

// 64 samples of 16 bytes, evenly over a tensor: a checkpoint of many gigabytes is not read whole.
static uint64_t hash_tensor(uint64_t hash, const struct tensor *w) {
    enum { SAMPLES = 64, SAMPLE = 16 };
    size_t step = w->bytes / SAMPLES;
    hash = hash_more(hash, w->name, strlen(w->name));
    hash = hash_more(hash, w->format->name, strlen(w->format->name));
    hash = hash_more(hash, w->shape, 2 * sizeof *w->shape);
    if (step < SAMPLE)
        return hash_more(hash, w->data, w->bytes);
    for (size_t i = 0; i < SAMPLES; i++)
        hash = hash_more(hash, (const char *)w->data + i * step, SAMPLE);
    return hash;
}

uint64_t sensitivity_fingerprint(const struct model *m) {
    uint64_t hash = hash_more(empty, &m->config.n_layers, sizeof m->config.n_layers);
    for (size_t l = 0; l <= m->config.n_layers; l++) {
        bool end = l == m->config.n_layers;
        for (enum linear_role r = end ? ROLE_EMBEDDING : ROLE_Q;
             r < (end ? ROLE_END : ROLE_LAYER_END); r++)
            if (model_linear(m, l, r)->w.data)
                hash = hash_tensor(hash, &model_linear(m, l, r)->w);
    }
    return hash;
}
