#include "core/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool size_mul(size_t a, size_t b, size_t *out) {
    size_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *out = product;
    return true;
}

bool size_add(size_t a, size_t b, size_t *out) {
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *out = sum;
    return true;
}

void *memory_alloc(size_t count, size_t item_size, const char *what, struct error *err) {
    size_t bytes;
    if (!size_mul(count, item_size, &bytes) || !size_add(bytes, 63, &bytes)) {
        error_set(err, "%s: %zu items of %zu bytes overflow the address space", what, count,
                  item_size);
        return NULL;
    }
    bytes &= ~(size_t)63;
    void *p = aligned_alloc(64, bytes ? bytes : 64);
    if (!p) {
        error_set(err, "%s: out of memory for %zu bytes", what, bytes);
        return NULL;
    }
    memset(p, 0, bytes);
    return p;
}

void *memory_grow(void *items, size_t n, size_t *capacity, size_t item_size, const char *what,
                  struct error *err) {
    if (n < *capacity)
        return items;
    size_t wanted, bytes;
    bool fits = size_mul(*capacity, 2, &wanted) && size_add(wanted, 8, &wanted) &&
                size_mul(wanted, item_size, &bytes);
    void *moved = fits ? realloc(items, bytes) : NULL;
    if (!moved) {
        error_set(err, "%s: out of memory for more than %zu items of %zu bytes", what, n,
                  item_size);
        return NULL;
    }
    *capacity = wanted;
    return moved;
}

char *memory_strdup(const char *s, struct error *err) {
    char *copy = strdup(s);
    if (!copy)
        error_set(err, "out of memory for a string");
    return copy;
}

char *memory_printf(struct error *err, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    char *s = NULL;
    if (vasprintf(&s, fmt, args) < 0) {
        s = NULL;
        error_set(err, "out of memory for a string");
    }
    va_end(args);
    return s;
}

struct memory_use memory_use(void) {
    struct memory_use use = {0};
    FILE *f = fopen("/proc/self/status", "r");
    if (!f)
        return use;
    char line[256];
    while (fgets(line, sizeof line, f)) {
        unsigned long kib;
        if (sscanf(line, "VmHWM: %lu kB", &kib) == 1)
            use.peak = kib * 1024;
        else if (sscanf(line, "VmRSS: %lu kB", &kib) == 1)
            use.resident = kib * 1024;
        else if (sscanf(line, "RssAnon: %lu kB", &kib) == 1)
            use.anonymous = kib * 1024;
    }
    fclose(f);
    return use;
}

bool memory_peak_reset(void) {
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f)
        return false;
    bool ok = fputs("5", f) >= 0; // 5: reset VmHWM, see proc(5)
    return fclose(f) == 0 && ok;
}
