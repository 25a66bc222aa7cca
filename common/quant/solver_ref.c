#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "quant/solver.h"

static void weigh(const struct solver_item *items, size_t n, const size_t *picks,
                  struct solver_solution *s) {
    s->bytes = 0;
    s->cost = 0;
    for (size_t i = 0; i < n; i++) {
        s->bytes += items[i].choices[picks[i]].bytes;
        s->cost += items[i].choices[picks[i]].cost;
    }
}

// The next mix, as an odometer counts; false after the last.
static bool next_mix(const struct solver_item *items, size_t n, size_t *picks) {
    for (size_t i = 0; i < n; i++) {
        if (++picks[i] < items[i].n)
            return true;
        picks[i] = 0;
    }
    return false;
}

bool solver_solve_ref(const struct solver_item *items, size_t n, size_t budget,
                      struct solver_solution *solution, struct error *err) {
    struct solver_solution s = {.picks = memory_alloc(n, sizeof(size_t), "mix", err)};
    *solution = (struct solver_solution){.cost = INFINITY};
    solution->picks = memory_alloc(n, sizeof(size_t), "mix", err);
    bool more = s.picks && solution->picks;
    for (; more; more = next_mix(items, n, s.picks)) {
        weigh(items, n, s.picks, &s);
        if (s.bytes > budget || s.cost >= solution->cost)
            continue;
        solution->bytes = s.bytes;
        solution->cost = solution->bound = s.cost;
        for (size_t i = 0; i < n; i++)
            solution->picks[i] = s.picks[i];
    }
    free(s.picks);
    if (isfinite(solution->cost))
        return true;
    solver_solution_free(solution);
    return error_set(err, "no mix fits in %zu bytes", budget);
}
