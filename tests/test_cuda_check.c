// What ./phase6 --check asks of a GPU: errors, no times. A GPU that counts stands in for one.
#include <criterion/criterion.h>
#include <math.h>

#include "phases/phase6_cuda_kernels/bench.c" // a phase's own file: no library has it

static size_t speeds, times;

static const char *count_speed(double *gb_s) {
    speeds++;
    *gb_s = 100;
    return NULL;
}

static const char *count_time(const struct cuda_kernel *kernel, const struct cuda_call *calls,
                              size_t n, size_t samples, double *us, double *us_p99) {
    (void)kernel, (void)calls, (void)n, (void)samples;
    times++;
    *us = *us_p99 = 1;
    return NULL;
}

// A row of kernel 2, with times or without.
static struct result_row measured(bool timed) {
    struct error err = {0};
    struct cuda_backend counting = cuda_emulator;
    struct bench b;
    struct bench_matrix w;
    struct result_row row;
    const struct cuda_kernel *const *k = counting.kernels;
    counting.copy_speed = count_speed, counting.time = count_time;
    while (*k && (*k)->number != 2)
        k++;
    cr_assert(*k && bench_init(&b, &counting, timed, &err), "%s", err.message);
    cr_assert(bench_matrix_init(&w, "int8", 33, 77, &err), "%s", err.message);
    result_row_init(&row, "row", "int8");
    cr_assert(bench_row(&b, *k, &w, 3, &row, &err), "%s", err.message);
    bench_matrix_free(&w);
    return row;
}

Test(cuda_check, nothing_is_timed_where_only_errors_are_asked_for) {
    struct result_row row = measured(false);
    cr_expect(row.rel_error > 0 && isnan(row.us) && speeds == 0 && times == 0);
    row = measured(true);
    cr_expect(row.rel_error > 0 && row.us == 1 && speeds == 1 && times == 1);
}
