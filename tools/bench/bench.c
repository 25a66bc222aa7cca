#include "tools/bench/bench.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/memory.h"
#include "core/random.h"
#include "core/timer.h"

void bench_fail(const char *fmt, ...) {
    va_list arguments;
    va_start(arguments, fmt);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, fmt, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
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

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double bench_median(double *x, size_t n) {
    qsort(x, n, sizeof *x, by_value);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

// schedstat: nanoseconds on a processor, nanoseconds waiting for one, time slices.
static double waited_by(const char *task) {
    char path[300];
    double waited = 0;
    snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", task);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%*f %lf", &waited) != 1)
        waited = 0;
    if (f)
        fclose(f);
    return waited * 1e-9;
}

double bench_waited(void) {
    double waited = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *task; tasks && (task = readdir(tasks));)
        if (task->d_name[0] != '.')
            waited += waited_by(task->d_name);
    if (tasks)
        closedir(tasks);
    return waited;
}

struct bench_times bench_measure(bench_run *run, void *context, size_t least, size_t most,
                                 double seconds) {
    struct bench_times t = {0};
    double *times = bench_alloc(most, sizeof *times);
    for (size_t try = 0; try < BENCH_TRIES; try++) {
        double waited = bench_waited(), start = timer_now(), before = start;
        size_t runs = 0;
        while (runs < least || (runs < most && before - start < seconds)) {
            run(context, runs);
            double now = timer_now();
            times[runs++] = now - before;
            before = now;
        }
        t.waited = (bench_waited() - waited) / (before - start);
        t.median = bench_median(times, runs);
        t.fastest = times[0];
        t.dropped = try;
        if (t.waited <= BENCH_DISTURBED)
            break;
    }
    free(times);
    return t;
}
