#include "kernels/cpu/kernels.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIMD_BODY "limits_simd.h"
#include "simd.h"
#include "kernels/cpu/matmul_tiles.h"
#include "kernels/cpu/matmul_weave_tiles.h"
#include "threads.h"
#include "core/timer.h"

enum { PASSES = 3 };

static double best(double a, double b) {
    return a > b ? a : b;
}

// Four times the last-level cache and at least 1 GiB, but no more than half of the free memory.
static size_t buffer_size(void) {
    long cache = -1;
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    size_t size = (size_t)1 << 30;
    if (cache > 0 && (size_t)cache * 4 > size)
        size = (size_t)cache * 4;
    long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (pages > 0 && page > 0)
        size = min_size(size, (size_t)pages / 2 * (size_t)page);
    return size;
}

// Memory is measured by every thread on its own part of the buffer.
static void measure_memory(struct machine_limits *limits, char *buffer, size_t size) {
    size_t threads = threads_max(), part = size / threads / 4096 * 4096;
    volatile float sink = 0;
#pragma omp parallel for schedule(static)
    for (size_t t = 0; t < threads;
         t++) // makes the pages: untouched ones would all be one zero page
        memset(buffer + t * part, 1, part);
    for (int pass = 0; pass < PASSES; pass++) {
        double start = timer_now();
#pragma omp parallel for schedule(static)
        for (size_t t = 0; t < threads; t++)
            memcpy(buffer + t * part, buffer + t * part + part / 2, part / 2);
        double copied = timer_now();
#pragma omp parallel for schedule(static)
        for (size_t t = 0; t < threads; t++)
            sink = sink + SIMD_CALL(read_streams, (float *)(buffer + t * part), part / 16);
        double bytes = (double)(part * threads);
        limits->copy_gb_s = best(limits->copy_gb_s, bytes / (copied - start) * 1e-9);
        limits->read_gb_s = best(limits->read_gb_s, bytes / (timer_now() - copied) * 1e-9);
    }
}

// About 20 ms of work per pass on each thread.
static double measure_operations(bool integer) {
    const size_t steps = 3000000;
    volatile float factor = 0.5f;
    double rate = 0;
    for (int pass = 0; pass <= PASSES; pass++) {
        double operations = 0, start = timer_now();
#pragma omp parallel for schedule(static) reduction(+ : operations)
        for (size_t t = 0; t < threads_max(); t++) {
            float sink = 0;
            operations += integer ? SIMD_CALL(i8_operations, steps, (int)factor + 1, &sink)
                                  : SIMD_CALL(f32_operations, steps, factor, &sink);
            __asm__ volatile("" : : "r"(&sink) : "memory");
        }
        rate = best(rate, operations / (timer_now() - start) * 1e-9);
    }
    return rate;
}

static double measure_tiles(double (*run)(size_t steps)) {
    double rate = 0;
    for (int pass = 0; pass <= PASSES; pass++) {
        double operations = 0, start = timer_now();
#pragma omp parallel for schedule(static) reduction(+ : operations)
        for (size_t t = 0; t < threads_max(); t++)
            operations += run(1000000);
        rate = best(rate, operations / (timer_now() - start) * 1e-9);
    }
    return rate;
}

static bool has_i8(void) {
#if defined(__x86_64__)
    return kernels_isa() == ISA_AVX2 ||
           (kernels_isa() == ISA_AVX512 && __builtin_cpu_supports("avx512vnni"));
#else
    return false;
#endif
}

void machine_limits_measure(struct machine_limits *limits) {
    *limits = (struct machine_limits){0};
    limits->f32_gflop_s = measure_operations(false);
    limits->i8_gop_s = has_i8() ? measure_operations(true) : 0;
    if (kernels_level() >= LEVEL_AMX) {
        limits->i8_tiles_gop_s = measure_tiles(weave_tiles_operations);
        limits->i8_fed_gop_s = measure_tiles(weave_tiles_fed_operations);
        limits->bf16_gflop_s = measure_tiles(matmul_tiles_operations);
    }
    size_t size = buffer_size();
    char *buffer = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED)
        return;
    madvise(buffer, size, MADV_HUGEPAGE);
    measure_memory(limits, buffer, size);
    munmap(buffer, size);
    // Once more: the first of all measurements also waits for the threads and the clock to get
    // going (145 instead of 316 Gop/s in some runs).
    limits->f32_gflop_s = best(limits->f32_gflop_s, measure_operations(false));
}
