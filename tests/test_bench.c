// lab/bench.h: what a disturbed measurement is, and that it is taken again.
#include <criterion/criterion.h>
#include <sched.h>
#include <stdint.h>

#include "core/timer.h"
#include "lab/bench.h"
#include "tools/bench/neighbour.h"

Test(bench, median_of_odd_and_even_numbers) {
    cr_assert_eq(bench_median((double[]){3, 1, 2}, 3), 2);
    cr_assert_eq(bench_median((double[]){4, 1, 3, 2}, 4), 2.5);
    cr_assert_eq(bench_median((double[]){7}, 1), 7);
}

static void spin(double seconds) {
    double until = timer_now() + seconds;
    while (timer_now() < until)
        ;
}

// This process on the processor that the neighbour keeps busy.
static pid_t share_a_processor(void) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(neighbour_processor(), &one);
    cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
    return neighbour_start();
}

struct visitor {
    pid_t neighbour; // leaves at the first run of series `leaves`; 0: it has left
    size_t series, leaves;
};

static void run(void *context, size_t i) {
    struct visitor *v = context;
    v->series += i == 0;
    if (v->neighbour && v->series == v->leaves) {
        neighbour_stop(v->neighbour);
        v->neighbour = 0;
    }
    spin(0.02);
}

Test(bench, time_without_a_processor_is_counted) {
    pid_t neighbour = share_a_processor();
    double before = bench_waited();
    spin(0.2);
    double waited = bench_waited() - before;
    neighbour_stop(neighbour);
    cr_assert(waited > 0.02 && waited < 5, "waited %g s", waited);
}

Test(bench, disturbed_series_are_dropped) {
    struct visitor v = {share_a_processor(), 0, 3};
    struct bench_times t = bench_measure(run, &v, 3, 5, 0.1);
    cr_assert(t.dropped >= 2, "%zu", t.dropped);
    cr_assert(t.fastest >= 0.02 && t.median >= t.fastest);
}

Test(bench, tries_end) {
    struct visitor v = {share_a_processor(), 0, SIZE_MAX};
    struct bench_times t = bench_measure(run, &v, 3, 5, 0.1);
    neighbour_stop(v.neighbour);
    cr_assert_eq(t.dropped, BENCH_TRIES - 1);
    cr_assert_eq(v.series, BENCH_TRIES);
    cr_assert_gt(t.waited, BENCH_DISTURBED);
}

Test(bench, runs_at_least_and_at_most_so_often) {
    struct visitor v = {0};
    double start = timer_now();
    bench_measure(run, &v, 2, 5, 0);
    cr_assert_geq(timer_now() - start, 0.04);
    start = timer_now();
    bench_measure(run, &v, 2, 3, 100);
    cr_assert_lt(timer_now() - start, 10);
}
