// What the kernel tests share: arrays of exactly the size that is asked for, on odd addresses, so
// that a sanitizer sees every step outside; numbers shaped like a language model's; and a loop over
// the instruction sets that this CPU has.
#ifndef NIBBLE_TESTS_KERNEL_DATA_H
#define NIBBLE_TESTS_KERNEL_DATA_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "kernels/cpu/kernels.h"
#include "tests/compare.h"

#ifdef _OPENMP
#include <omp.h>
#else
#define omp_set_num_threads(n) ((void)(n))
#endif

#define FOR_EACH_LEVEL(level)                                                                      \
    for (enum cpu_level level = LEVEL_SCALAR; level < LEVEL_COUNT; level++)                        \
        if (kernels_level_force(level) == level)

// n floats, every bit set: NaN, which no test lets pass. Aligned to 4 bytes only.
static inline float *poisoned(size_t n) {
    char *p = malloc(n * sizeof(float) + 4);
    cr_assert_not_null(p);
    memset(p, 0xff, n * sizeof(float) + 4);
    return (float *)(p + 4);
}

static inline void release(void *p) {
    free((char *)p - 4);
}

// Normal numbers; one in 97 columns is 30 times larger, as in the activations of real models.
static inline float *outliers(struct random *r, size_t rows, size_t columns) {
    float *x = poisoned(rows * columns);
    for (size_t i = 0; i < rows * columns; i++)
        x[i] = (float)(random_normal(r) * (i % columns % 97 == 13 ? 30 : 1));
    return x;
}

#endif
