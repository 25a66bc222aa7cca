#include "train/pages.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/memory.h"

enum { LARGE_PAGE = 2 << 20 };

float *pages_alloc(size_t n, const char *what, struct error *err) {
    size_t bytes;
    if (!size_mul(n, sizeof(float), &bytes) || !size_add(bytes, LARGE_PAGE - 1, &bytes) ||
        bytes < 2 * (size_t)LARGE_PAGE)
        return memory_alloc(n, sizeof(float), what, err); // too small to gain, or too large at all
    bytes = bytes / LARGE_PAGE * LARGE_PAGE;
    float *p = aligned_alloc(LARGE_PAGE, bytes);
    if (!p) {
        error_set(err, "%s: out of memory for %zu bytes", what, bytes);
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    madvise(p, bytes, MADV_HUGEPAGE); // before the first touch; only a wish
#endif
    memset(p, 0, bytes);
    return p;
}
