// Token strings and their ids, both ways: a hash table (open addressing) over strings that lie one
// behind the other in one buffer.
#ifndef NIBBLE_TEXT_VOCAB_H
#define NIBBLE_TEXT_VOCAB_H

#include "text/bytes.h"

// Ids above this are refused: the table by id is an array. (The largest vocabularies have 256 K.)
enum { VOCAB_MAX_ID = (1 << 22) - 1 };

struct vocab_entry {
    size_t at, size; // bytes of the string in `strings`
    int32_t id;
};

struct vocab {
    struct bytes strings;
    struct vocab_entry *entries; // in the order they were put
    size_t n, capacity;
    uint32_t *slots;          // hash table: index into entries + 1, or 0
    size_t n_slots;           // a power of two, or 0
    uint32_t *by_id;          // [size]: index into entries + 1, or 0 where no token has the id
    size_t size, id_capacity; // highest id + 1
};

void vocab_free(struct vocab *v);
// A string put twice, or an id, keeps what came last.
bool vocab_put(struct vocab *v, const char *text, size_t size, int32_t id, struct error *err);
int32_t vocab_find(const struct vocab *v, const char *text, size_t size); // -1 if there is none
// The string with this id, or NULL.
const char *vocab_text(const struct vocab *v, int32_t id, size_t *size);

// FNV-1a, but eight bytes a step while there are eight.
uint64_t text_hash(const char *text, size_t size);

#endif
