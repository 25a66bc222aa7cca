// What the benchmarks share beside lab/bench.h: memory, numbers and the end of a program.
#ifndef NIBBLE_TOOLS_BENCH_H
#define NIBBLE_TOOLS_BENCH_H

#include <stddef.h>

#include "lab/bench.h"

// What a tool does first: refuses a NIBBLE_ISA that means nothing, with status 2.
void bench_start(void);
// Ends the program with one line and status 1.
_Noreturn void bench_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
// Zeroed memory for count items; ends the program when it is short.
void *bench_alloc(size_t count, size_t size);
// n normal numbers, always the same; the caller frees them.
float *bench_normals(size_t n);

#endif
