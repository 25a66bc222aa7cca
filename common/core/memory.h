// Allocation with checked sizes, and what the process holds.
//
// Every size that comes from a file goes through size_mul/size_add before it is allocated.
#ifndef NIBBLE_CORE_MEMORY_H
#define NIBBLE_CORE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

// *out = a * b (a + b); false, leaving *out alone, when that does not fit a size_t.
bool size_mul(size_t a, size_t b, size_t *out);
bool size_add(size_t a, size_t b, size_t *out);

// 64-byte aligned memory (a cache line, one AVX-512 register) for count items of item_size bytes,
// zeroed. NULL and a message naming `what` on overflow or when memory is short; count 0 gives a
// valid pointer. Free with free().
void *memory_alloc(size_t count, size_t item_size, const char *what, struct error *err);

// Room for one more item behind the n of an array from malloc: doubles it when it is full. The
// (perhaps moved) array; NULL, leaving all as it was, when memory is short.
void *memory_grow(void *items, size_t n, size_t *capacity, size_t item_size, const char *what,
                  struct error *err);

// A copy of s that the caller frees; NULL when memory is short.
char *memory_strdup(const char *s, struct error *err);
// printf into a new string that the caller frees; NULL when memory is short.
char *memory_printf(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// Resident memory of this process in bytes, from /proc/self/status; 0 where that is missing.
struct memory_use {
    size_t peak;      // VmHWM: highest resident size since start or the last memory_peak_reset
    size_t resident;  // VmRSS
    size_t anonymous; // RssAnon: what was allocated, mapped files left out
};
struct memory_use memory_use(void);

// Starts a new peak measurement (each results row has its own); false where the kernel refuses.
bool memory_peak_reset(void);

#endif
