// A piece of work timed over and over, and whether something else had the processor meanwhile.
#ifndef NIBBLE_LAB_BENCH_H
#define NIBBLE_LAB_BENCH_H

#include <stddef.h>

// Of n > 0 numbers, which it sorts.
double bench_median(double *x, size_t n);

// Seconds that this process's threads were ready to run and had no processor, since they started;
// 0 where the system does not count them.
double bench_waited(void);
// A measurement is disturbed, and taken again, when its threads waited longer than this share of
// it. After BENCH_TRIES the last one counts whatever it was.
#define BENCH_DISTURBED 0.02
enum { BENCH_TRIES = 5, BENCH_MAX_RUNS = 100 };

typedef void bench_run(void *context, size_t i); // i: 0, 1, … of this series
struct bench_times {
    double median, fastest; // seconds of one run
    size_t dropped;         // series that were disturbed
    double waited;          // share of the series that counts
};
// Runs at least `least` times, then until `seconds` are over or it was `most` (at most
// BENCH_MAX_RUNS) times.
struct bench_times bench_measure(bench_run *run, void *context, size_t least, size_t most,
                                 double seconds);

#endif
