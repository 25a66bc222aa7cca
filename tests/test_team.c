// kernels/cpu/team.c: every chunk once, whoever calls.
#include <criterion/criterion.h>
#include <omp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/cpu/team.h"

static void count(void *context, size_t chunk) {
    atomic_int *counts = context;
    atomic_fetch_add(&counts[chunk], 1);
}

static void each_once(size_t chunks) {
    atomic_int *counts = calloc(chunks + 1, sizeof *counts);
    team_run(chunks, count, counts);
    for (size_t i = 0; i < chunks; i++)
        cr_assert_eq(atomic_load(&counts[i]), 1);
    cr_assert_eq(atomic_load(&counts[chunks]), 0);
    free(counts);
}

Test(team, does_every_chunk_once) {
    for (int threads = 1; threads <= 5; threads++) {
        omp_set_num_threads(threads);
        for (size_t chunks = 0; chunks < 40; chunks++)
            each_once(chunks);
    }
    omp_set_num_threads(2);
    each_once(1000);
}

// Thousands of short calls: threads that come late must not touch the next call's chunks twice.
Test(team, of_many_short_calls) {
    omp_set_num_threads(4);
    for (size_t i = 0; i < 20000; i++)
        each_once(2 + i % 5);
}

static void sleep_once(void *context, size_t chunk) {
    if (chunk == 0)
        usleep(2000);
    count(context, chunk);
}

Test(team, waits_for_the_slowest) {
    omp_set_num_threads(3);
    for (int i = 0; i < 20; i++) {
        atomic_int counts[3] = {0};
        team_run(3, sleep_once, counts);
        for (int c = 0; c < 3; c++)
            cr_assert_eq(atomic_load(&counts[c]), 1);
    }
}

static void run_inside(void *context, size_t chunk) {
    (void)context, (void)chunk;
    each_once(7);
}

Test(team, within_itself_and_in_parallel_regions) {
    omp_set_num_threads(3);
    team_run(5, run_inside, NULL);
#pragma omp parallel num_threads(3)
    each_once(9);
}

Test(team, in_the_child_of_a_fork) {
    omp_set_num_threads(3);
    each_once(10);
    pid_t child = fork();
    if (child == 0) {
        atomic_int counts[10] = {0};
        team_run(10, count, counts);
        for (int i = 0; i < 10; i++)
            if (atomic_load(&counts[i]) != 1)
                _exit(1);
        _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
