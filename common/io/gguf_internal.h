// Numbers as a GGUF file has them, and the parts of its reader. For common/io/gguf*.c only.
#ifndef NIBBLE_IO_GGUF_INTERNAL_H
#define NIBBLE_IO_GGUF_INTERNAL_H

#include <stdint.h>

#include "io/gguf.h"

// A little-endian number of `size` bytes, at any address.
static inline uint64_t gguf_load(const unsigned char *p, size_t size) {
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++)
        value |= (uint64_t)p[i] << 8 * i;
    return value;
}

// Adds what a file has to g: its tensors, and, if it is the first, its keys. *split: what it says
// of the split it is a part of (count 0: nothing).
struct gguf_split {
    int64_t index, count, tensors;
};
bool gguf_add_file(struct gguf *g, const unsigned char *data, size_t size, const char *path,
                   struct gguf_split *split, struct error *err);
// Sorts by name, for lookup, and refuses a name that occurs twice.
bool gguf_sort_tensors(struct gguf *g, struct error *err);

#endif
