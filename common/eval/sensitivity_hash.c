#include <string.h>

#include "eval/sensitivity_part.h"
#include "quant/format.h"
#include "quant/woven.h"

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

// All of a tensor's bytes, eight at a time: samples at even distances would meet the same columns
// in every row, and a change in the others would go unseen. The shift takes what a multiplication
// moves up down again, so that a change of two signs does not cancel.
static uint64_t hash_data(uint64_t hash, const void *data, size_t size) {
    const unsigned char *bytes = data;
    uint64_t word;
    for (; size >= sizeof word; size -= sizeof word, bytes += sizeof word) {
        memcpy(&word, bytes, sizeof word);
        hash = (hash ^ word) * 0x100000001b3u;
        hash ^= hash >> 32;
    }
    return hash_more(hash, bytes, size);
}

static uint64_t hash_tensor(uint64_t hash, const struct model *m, const struct tensor *w) {
    hash = hash_more(hash, w->name, strlen(w->name));
    hash = hash_more(hash, w->format->name, strlen(w->format->name));
    hash = hash_more(hash, w->shape, 2 * sizeof *w->shape);
    hash = hash_data(hash, w->data, woven_bytes(w));
    model_drop(m, w->data, woven_bytes(w));
    return hash;
}

uint64_t sensitivity_fingerprint(const struct model *m) {
    uint64_t hash = hash_more(empty, &m->config.n_layers, sizeof m->config.n_layers);
    for (size_t l = 0; l <= m->config.n_layers; l++) {
        bool end = l == m->config.n_layers;
        for (enum linear_role r = end ? ROLE_EMBEDDING : ROLE_Q;
             r < (end ? ROLE_END : ROLE_LAYER_END); r++)
            if (model_linear(m, l, r)->w.data)
                hash = hash_tensor(hash, m, &model_linear(m, l, r)->w);
    }
    return hash;
}
