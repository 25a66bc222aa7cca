// Keys and values on the GPU, in float16: half of what reading a long context costs.
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "cuda/state.h"

static bool cache_init(struct cuda_cache *c, struct cuda_model *cm, const struct kv_cache *kv,
                       struct error *err) {
    size_t layers = kv->n_layers - cm->place.first_layer, bytes;
    if (!size_mul(layers, kv->n_sequences * kv->n_kv_heads, &bytes) ||
        !size_mul(bytes, kv->capacity * kv->head_dim * sizeof(uint16_t), &bytes))
        return error_set(err, "a key/value cache of %zu positions overflows", kv->capacity);
    c->keys = cuda_arena_take(&c->memory, bytes, "key cache", err);
    c->values = c->keys ? cuda_arena_take(&c->memory, bytes, "value cache", err) : NULL;
    cuda_note_peak(cm);
    return c->values != NULL;
}

struct cuda_cache *cuda_cache_of(struct cuda_model *cm, struct kv_cache *kv, struct error *err) {
    struct cuda_cache *c = (struct cuda_cache *)kv->placed;
    if (c && c->owner == cm)
        return c;
    cuda_cache_free(kv); // of another model: its keys would mean nothing here
    c = memory_alloc(1, sizeof *c, "key/value cache", err);
    if (!c)
        return NULL;
    c->base.device = &device_cuda;
    c->owner = cm;
    c->memory.b = cm->b;
    c->sequences = kv->n_sequences;
    kv->placed = &c->base;
    if (cache_init(c, cm, kv, err))
        return c;
    cuda_cache_free(kv);
    return NULL;
}

void cuda_cache_free(struct kv_cache *kv) {
    struct cuda_cache *c = (struct cuda_cache *)kv->placed;
    if (!c)
        return;
    for (size_t i = 0; i <= CUDA_GRAPH_TOKENS; i++)
        c->memory.b->graph_free(c->graphs[i]);
    c->memory.b->graph_free(c->step_graph);
    cuda_arena_free(&c->memory);
    free(c);
    kv->placed = NULL;
}

// Through the host: a few thousand positions, once per question.
void cuda_cache_copy(struct kv_cache *kv, size_t from, size_t to, size_t n) {
    struct cuda_cache *c = (struct cuda_cache *)kv->placed;
    size_t head = kv->capacity * kv->head_dim, sequence = kv->n_kv_heads * head;
    size_t layers = kv->n_layers - c->owner->place.first_layer;
    size_t bytes = n * kv->head_dim * sizeof(uint16_t);
    void *rows = malloc(bytes ? bytes : 1);
    for (size_t i = 0; rows && i < layers * kv->n_kv_heads; i++) {
        size_t base = i / kv->n_kv_heads * c->sequences * sequence + i % kv->n_kv_heads * head;
        uint16_t *both[] = {c->keys + base, c->values + base};
        for (size_t j = 0; j < 2; j++) {
            c->memory.b->download(rows, both[j] + from * sequence, bytes);
            c->memory.b->upload(both[j] + to * sequence, rows, bytes);
        }
    }
    free(rows);
}
