// Which mix of formats is best in the memory there is: the multiple-choice knapsack.
//
// Every item (a tensor, or several that must share a format) takes exactly one of its choices; a
// choice has bytes and a cost (the damage measured for it). Costs add up:
//
//     minimise Σ cost[i][pick[i]]    subject to    Σ bytes[i][pick[i]] <= budget
//
// The answer is exact. How: give bytes a price λ, and every item chooses for itself; that is the
// Lagrangian solution, and its value is a bound that no mix can beat. Every departure from it costs
// a known regret, and regrets may only add up to the gap between the bound and the best mix known.
// So few departures are left to try, and a Pareto frontier over bytes tries them all.
#ifndef NIBBLE_QUANT_SOLVER_H
#define NIBBLE_QUANT_SOLVER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

struct solver_choice {
    size_t bytes;
    double cost; // finite
};

struct solver_item {
    const struct solver_choice *choices;
    size_t n; // at least 1
};

struct solver_solution {
    size_t *picks; // [n items], owned
    size_t bytes;
    double cost;
    double bound;  // no mix within the budget costs less; cost itself where that is proven
    double lambda; // the price of a byte: about what one more byte of budget would save
};

// The cheapest mix within the budget. Where an instance is so hard that memory for the frontier
// (MAX_NODES states) runs out, solution->bound < cost says what is left unproven. Fails if no mix
// fits, naming the smallest that does.
bool solver_solve(const struct solver_item *items, size_t n, size_t budget,
                  struct solver_solution *solution, struct error *err);
// The same by trying every mix: for a handful of items.
bool solver_solve_ref(const struct solver_item *items, size_t n, size_t budget,
                      struct solver_solution *solution, struct error *err);
void solver_solution_free(struct solver_solution *s);

// Σ of the smallest choices: the least budget that can be met. False on overflow.
bool solver_smallest(const struct solver_item *items, size_t n, size_t *bytes);

#endif
