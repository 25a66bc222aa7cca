#include "tools/bench/bench.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/memory.h"
#include "core/random.h"
#include "kernels/cpu/kernels.h"

void bench_fail(const char *fmt, ...) {
    va_list arguments;
    va_start(arguments, fmt);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, fmt, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

void bench_start(void) {
    struct error err;
    if (kernels_check_environment(&err))
        return;
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, err.message);
    exit(2);
}

void *bench_alloc(size_t count, size_t size) {
    struct error err = {0};
    void *p = memory_alloc(count, size, "the benchmark", &err);
    if (!p)
        bench_fail("%s", err.message);
    return p;
}

float *bench_normals(size_t n) {
    struct random r = {n};
    float *x = bench_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)random_normal(&r);
    return x;
}
