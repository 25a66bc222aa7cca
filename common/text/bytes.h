// A text under construction: bytes that grow.
#ifndef NIBBLE_TEXT_BYTES_H
#define NIBBLE_TEXT_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

struct bytes {
    char *data; // NULL until the first append; no NUL behind it
    size_t size, capacity;
};

static inline void bytes_free(struct bytes *b) {
    free(b->data);
    *b = (struct bytes){0};
}

// Room for n more bytes; doubling, so that appending is amortised.
static inline bool bytes_reserve(struct bytes *b, size_t n, struct error *err) {
    if (n <= b->capacity - b->size)
        return true;
    size_t capacity = b->capacity < SIZE_MAX / 4 ? b->capacity * 2 + 64 : SIZE_MAX;
    if (n > SIZE_MAX / 4)
        return error_set(err, "out of memory for a text of %zu bytes", n);
    if (capacity < b->size + n)
        capacity = b->size + n;
    char *data = realloc(b->data, capacity);
    if (!data)
        return error_set(err, "out of memory for a text of %zu bytes", capacity);
    b->data = data;
    b->capacity = capacity;
    return true;
}

static inline bool bytes_append(struct bytes *b, const char *data, size_t n, struct error *err) {
    if (!bytes_reserve(b, n, err))
        return false;
    if (n)
        memcpy(b->data + b->size, data, n);
    b->size += n;
    return true;
}

#endif
