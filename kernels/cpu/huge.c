#include "kernels/cpu/huge.h"

#include <stdint.h>
#include <sys/mman.h>

enum { HUGE = 2 << 20, PAGE = 4096 };

static size_t whole_pages(size_t size) {
    return (size + PAGE - 1) / PAGE * PAGE;
}

// Maps HUGE bytes too many and gives back what lies before the first multiple of HUGE and behind
// the end. The last, partly used 2 MB stay small pages: a model has hundreds of matrices.
void *huge_alloc(size_t size, const char *what, struct error *err) {
    size_t length = whole_pages(size ? size : 1), padded = length + HUGE;
    char *p = padded < size
                  ? MAP_FAILED
                  : mmap(NULL, padded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        error_set(err, "%s: out of memory for %zu bytes", what, size);
        return NULL;
    }
    size_t skip = (HUGE - (uintptr_t)p % HUGE) % HUGE;
    if (skip)
        munmap(p, skip);
    if (HUGE - skip)
        munmap(p + skip + length, HUGE - skip);
#ifdef MADV_HUGEPAGE
    if (length >= HUGE)
        madvise(p + skip, length / HUGE * HUGE, MADV_HUGEPAGE);
#endif
    return p + skip;
}

void huge_free(void *p, size_t size) {
    if (p)
        munmap(p, whole_pages(size ? size : 1));
}

void huge_drop(const void *p, size_t size) {
    uintptr_t from = ((uintptr_t)p + PAGE - 1) / PAGE * PAGE,
              to = ((uintptr_t)p + size) / PAGE * PAGE;
    if (from < to)
        madvise((void *)from, to - from, MADV_DONTNEED);
}
