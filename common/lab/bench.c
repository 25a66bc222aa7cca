#include "lab/bench.h"

#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/timer.h"

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
    double times[BENCH_MAX_RUNS];
    assert(most <= BENCH_MAX_RUNS);
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
    return t;
}
