#include <stdlib.h>

#include "core/memory.h"
#include "model/model.h"

bool kv_cache_init(struct kv_cache *kv, const struct model_config *c, size_t n_sequences,
                   size_t capacity, struct error *err) {
    *kv = (struct kv_cache){.n_layers = c->n_layers,
                            .n_sequences = n_sequences,
                            .capacity = capacity,
                            .n_kv_heads = c->n_kv_heads,
                            .head_dim = c->head_dim};
    size_t count, row = c->n_kv_heads * c->head_dim;
    if (!size_mul(c->n_layers, n_sequences, &count) || !size_mul(count, capacity, &count) ||
        !size_mul(count, row, &count))
        return error_set(err, "a key/value cache of %zu positions overflows", capacity);
    kv->k = memory_alloc(count, sizeof(float), "key cache", err);
    kv->v = memory_alloc(count, sizeof(float), "value cache", err);
    if (kv->k && kv->v)
        return true;
    kv_cache_free(kv);
    return false;
}

void kv_cache_free(struct kv_cache *kv) {
    free(kv->k);
    free(kv->v);
    *kv = (struct kv_cache){0};
}
