#include <string.h>

#include "core/memory.h"
#include "kernels/cpu/huge.h"
#include "model/device.h"

bool kv_cache_init(struct kv_cache *kv, const struct model_config *c, size_t n_sequences,
                   size_t capacity, struct error *err) {
    *kv = (struct kv_cache){.n_layers = c->n_layers,
                            .n_sequences = n_sequences,
                            .capacity = capacity,
                            .n_kv_heads = c->n_kv_heads,
                            .head_dim = c->head_dim};
    size_t bytes, row = c->n_kv_heads * c->head_dim;
    if (!size_mul(c->n_layers, n_sequences, &bytes) || !size_mul(bytes, capacity, &bytes) ||
        !size_mul(bytes, row, &bytes) || !size_mul(bytes, sizeof(float), &bytes))
        return error_set(err, "a key/value cache of %zu positions overflows", capacity);
    kv->bytes = bytes;
    kv->k = huge_alloc(bytes, "key cache", err);
    kv->v = huge_alloc(bytes, "value cache", err);
    if (kv->k && kv->v)
        return true;
    kv_cache_free(kv);
    return false;
}

void kv_cache_free(struct kv_cache *kv) {
    if (kv->placed)
        kv->placed->device->cache_free(kv);
    huge_free(kv->k, kv->bytes);
    huge_free(kv->v, kv->bytes);
    *kv = (struct kv_cache){0};
}

void kv_cache_copy(struct kv_cache *kv, size_t from, size_t to, size_t n) {
    if (kv->placed)
        kv->placed->device->cache_copy(kv, from, to, n);
    size_t head = kv->capacity * kv->head_dim, sequence = kv->n_kv_heads * head;
    for (size_t layer = 0; layer < kv->n_layers; layer++)
        for (size_t b = 0; b < kv->n_kv_heads; b++) {
            size_t base = layer * kv->n_sequences * sequence + b * head;
            size_t bytes = n * kv->head_dim * sizeof(float);
            memcpy(kv->k + base + to * sequence, kv->k + base + from * sequence, bytes);
            memcpy(kv->v + base + to * sequence, kv->v + base + from * sequence, bytes);
        }
}
