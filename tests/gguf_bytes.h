// GGUF files for tests, written field by field: also such as no writer would write.
#ifndef NIBBLE_TESTS_GGUF_BYTES_H
#define NIBBLE_TESTS_GGUF_BYTES_H

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "io/gguf.h"

// A header under construction, and the data that will stand behind it.
struct gguf_bytes {
    unsigned char *data;
    size_t size, capacity;
};

static inline void put_raw(struct gguf_bytes *b, const void *p, size_t n) {
    if (b->size + n > b->capacity) {
        b->capacity = 2 * (b->size + n) + 256;
        b->data = realloc(b->data, b->capacity);
        cr_assert_not_null(b->data);
    }
    if (n)
        memcpy(b->data + b->size, p, n);
    b->size += n;
}

static inline void put_number(struct gguf_bytes *b, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; i++)
        put_raw(b, &(unsigned char){(unsigned char)(value >> 8 * i)}, 1);
}

static inline void put_u32(struct gguf_bytes *b, uint32_t value) {
    put_number(b, value, 4);
}

static inline void put_u64(struct gguf_bytes *b, uint64_t value) {
    put_number(b, value, 8);
}

static inline void put_text(struct gguf_bytes *b, const char *text) {
    put_u64(b, strlen(text));
    put_raw(b, text, strlen(text));
}

static inline void put_header(struct gguf_bytes *b, uint32_t version, uint64_t n_tensors,
                              uint64_t n_keys) {
    put_raw(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_keys);
}

static inline void put_key(struct gguf_bytes *b, const char *key, uint32_t type) {
    put_text(b, key);
    put_u32(b, type);
}

static inline void put_key_u32(struct gguf_bytes *b, const char *key, uint32_t value) {
    put_key(b, key, GGUF_U32);
    put_u32(b, value);
}

static inline void put_key_f32(struct gguf_bytes *b, const char *key, float value) {
    put_key(b, key, GGUF_F32);
    put_raw(b, &value, 4);
}

static inline void put_key_bool(struct gguf_bytes *b, const char *key, bool value) {
    put_key(b, key, GGUF_BOOL);
    put_number(b, value, 1);
}

static inline void put_key_text(struct gguf_bytes *b, const char *key, const char *value) {
    put_key(b, key, GGUF_STRING);
    put_text(b, value);
}

// An array's head; its items follow.
static inline void put_key_array(struct gguf_bytes *b, const char *key, uint32_t type, uint64_t n) {
    put_key(b, key, GGUF_ARRAY);
    put_u32(b, type);
    put_u64(b, n);
}

// A matrix [rows, columns], or a vector where rows is 0.
static inline void put_tensor(struct gguf_bytes *b, const char *name, uint64_t rows,
                              uint64_t columns, uint32_t type, uint64_t offset) {
    put_text(b, name);
    put_u32(b, rows ? 2 : 1);
    put_u64(b, columns);
    if (rows)
        put_u64(b, rows);
    put_u32(b, type);
    put_u64(b, offset);
}

static inline void put_zeros(struct gguf_bytes *b, size_t n) {
    while (n--)
        put_number(b, 0, 1);
}

static inline void put_padding(struct gguf_bytes *b, size_t alignment) {
    while (b->size % alignment)
        put_number(b, 0, 1);
}

#endif
