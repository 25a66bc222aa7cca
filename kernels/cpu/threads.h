// How many threads a parallel region would get; 1 where the compiler has no OpenMP.
#ifndef NIBBLE_THREADS_H
#define NIBBLE_THREADS_H

#include <stddef.h>

#ifdef _OPENMP
#include <omp.h>
static inline size_t threads_max(void) {
    return (size_t)omp_get_max_threads();
}
#else
static inline size_t threads_max(void) {
    return 1;
}
#endif

#endif
