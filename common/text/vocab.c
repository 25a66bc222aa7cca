#include "text/vocab.h"

void vocab_free(struct vocab *v) {
    bytes_free(&v->strings);
    free(v->entries);
    free(v->slots);
    free(v->by_id);
    *v = (struct vocab){0};
}

uint64_t text_hash(const char *text, size_t size) {
    uint64_t h = 0xcbf29ce484222325u;
    for (; size >= 8; text += 8, size -= 8) {
        uint64_t eight;
        memcpy(&eight, text, 8);
        h = (h ^ eight) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    for (; size; text++, size--)
        h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

// The slot that holds the string, or the empty one where it belongs.
static size_t slot_of(const struct vocab *v, const char *text, size_t size) {
    size_t i = text_hash(text, size) & (v->n_slots - 1);
    for (;; i = (i + 1) & (v->n_slots - 1)) {
        if (!v->slots[i])
            return i;
        const struct vocab_entry *e = &v->entries[v->slots[i] - 1];
        if (e->size == size && memcmp(v->strings.data + e->at, text, size) == 0)
            return i;
    }
}

static bool grow(struct vocab *v, struct error *err) {
    size_t capacity = v->capacity ? v->capacity * 2 : 64;
    struct vocab_entry *entries = realloc(v->entries, capacity * sizeof *entries);
    if (entries)
        v->entries = entries;
    uint32_t *slots = calloc(capacity * 2, sizeof *slots);
    if (!entries || !slots) {
        free(slots);
        return error_set(err, "out of memory for a vocabulary of %zu tokens", capacity);
    }
    free(v->slots);
    v->capacity = capacity;
    v->slots = slots;
    v->n_slots = capacity * 2;
    for (size_t i = 0; i < v->n; i++) {
        const struct vocab_entry *e = &v->entries[i];
        v->slots[slot_of(v, v->strings.data + e->at, e->size)] = (uint32_t)i + 1;
    }
    return true;
}

static bool reach_id(struct vocab *v, size_t id, struct error *err) {
    if (id >= v->id_capacity) {
        size_t capacity = id + id / 2 + 64;
        uint32_t *by_id = realloc(v->by_id, capacity * sizeof *by_id);
        if (!by_id)
            return error_set(err, "out of memory for %zu token ids", capacity);
        memset(by_id + v->id_capacity, 0, (capacity - v->id_capacity) * sizeof *by_id);
        v->by_id = by_id;
        v->id_capacity = capacity;
    }
    if (id >= v->size)
        v->size = id + 1;
    return true;
}

bool vocab_put(struct vocab *v, const char *text, size_t size, int32_t id, struct error *err) {
    if (id < 0 || id > VOCAB_MAX_ID)
        return error_set(err, "token id %d is outside 0 … %d", id, VOCAB_MAX_ID);
    if (!reach_id(v, (size_t)id, err) || (v->n == v->capacity && !grow(v, err)))
        return false;
    size_t slot = slot_of(v, text, size);
    if (!v->slots[slot]) {
        v->entries[v->n] = (struct vocab_entry){v->strings.size, size, id};
        if (!bytes_append(&v->strings, text, size, err))
            return false;
        v->slots[slot] = (uint32_t)++v->n;
    }
    v->entries[v->slots[slot] - 1].id = id;
    v->by_id[id] = v->slots[slot];
    return true;
}

int32_t vocab_find(const struct vocab *v, const char *text, size_t size) {
    if (!v->n)
        return -1;
    uint32_t found = v->slots[slot_of(v, text, size)];
    return found ? v->entries[found - 1].id : -1;
}

const char *vocab_text(const struct vocab *v, int32_t id, size_t *size) {
    if (id < 0 || (size_t)id >= v->size || !v->by_id[id])
        return NULL;
    const struct vocab_entry *e = &v->entries[v->by_id[id] - 1];
    *size = e->size;
    return v->strings.data + e->at;
}
