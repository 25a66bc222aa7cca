// Lagrangian relaxation, then the gap that it leaves, closed.
//
// With a price λ >= 0 per byte, item i alone would take the choice with the least cost + λ bytes.
// The regret of any other choice is what it costs beyond that:
//
//     regret[i][j] = cost[i][j] + λ bytes[i][j] - min over j of the same           (>= 0)
//
// and for every mix, with `spare` = budget - its bytes,
//
//     its cost = bound(λ) + Σ regret + λ spare      bound(λ) = Σ min(cost + λ bytes) - λ budget
//
// Both terms behind the bound are >= 0 for a mix that fits: so bound(λ) is one, and the best mix is
// the one with the least Σ regret + λ spare, its gap. λ is chosen where the items' own choices just
// fit, which makes the bound as high as it can be and the gap small: of 4,800 choices some dozens
// have a regret below it, all others can be forgotten.
//
// The search asks for a mix with a gap below `limit`, four times more at each try, until one is
// found. States (bytes, regret) are extended item by item; one that has more bytes and more cost
// than another is dropped, and so is one that cannot end below the limit.
#include "quant/solver.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "core/memory.h"

enum { MAX_NODES = 1 << 22, FIRST_LIMIT = 1024, BISECTIONS = 200 };

// A way to leave an item's own choice.
struct departure {
    int64_t bytes; // more than the own choice has; negative: fewer
    double regret;
    size_t choice;
};

// An item that has any below the limit.
struct core_item {
    size_t item, first, n; // departures [first, first + n); the first is to stay
    double ratio;          // the least regret per byte among them
    double down, up;       // … per byte saved and per byte used, of this and all later items
};

struct state {
    int64_t excess; // bytes beyond the budget; negative: to spare
    double regret;
    uint32_t parent, choice; // index into nodes; departure of the item
};

struct search {
    const struct solver_item *items;
    size_t n, budget;
    double lambda;
    size_t *own; // [n] the choices at λ
    int64_t own_excess;
    double own_gap;

    struct departure *departures;
    struct core_item *core;
    size_t n_core, n_departures;
    struct state *nodes; // one layer after another
    size_t n_nodes, capacity;
    struct state *next; // a layer being made
    size_t next_capacity;
    double dropped; // the least gap among states that memory had no room for; else infinite
};

void solver_solution_free(struct solver_solution *s) {
    free(s->picks);
    *s = (struct solver_solution){0};
}

// ---- the price of a byte ----------------------------------------------------------------------

static size_t choose_at(const struct solver_item *item, double lambda) {
    const struct solver_choice *c = item->choices;
    size_t best = 0;
    for (size_t j = 1; j < item->n; j++) {
        double price = c[j].cost + lambda * (double)c[j].bytes;
        double least = c[best].cost + lambda * (double)c[best].bytes;
        if (price < least || (price == least && c[j].bytes < c[best].bytes))
            best = j;
    }
    return best;
}

static bool fits_at(const struct search *s, double lambda) {
    size_t bytes = 0;
    for (size_t i = 0; i < s->n; i++)
        bytes += s->items[i].choices[choose_at(&s->items[i], lambda)].bytes;
    return bytes <= s->budget;
}

// The lowest price at which the items' own choices fit.
static double find_lambda(const struct search *s) {
    double low = 0, high = 1;
    if (fits_at(s, 0))
        return 0;
    while (!fits_at(s, high) && high < 1e300)
        high *= 2;
    for (int i = 0; i < BISECTIONS; i++) {
        double middle = low + (high - low) / 2;
        *(fits_at(s, middle) ? &high : &low) = middle;
    }
    return high;
}

static void settle_own_choices(struct search *s) {
    s->lambda = find_lambda(s);
    s->own_excess = -(int64_t)s->budget;
    for (size_t i = 0; i < s->n; i++) {
        s->own[i] = choose_at(&s->items[i], s->lambda);
        s->own_excess += (int64_t)s->items[i].choices[s->own[i]].bytes;
    }
    s->own_gap = s->lambda * -(double)s->own_excess;
}

// ---- what is worth trying below a limit -------------------------------------------------------

// What it means that item i takes choice j and not its own.
static struct departure departure_of(const struct search *s, size_t i, size_t j) {
    const struct solver_choice *to = &s->items[i].choices[j];
    const struct solver_choice *from = &s->items[i].choices[s->own[i]];
    struct departure d = {.bytes = (int64_t)to->bytes - (int64_t)from->bytes, .choice = j};
    d.regret = fmax(0, to->cost - from->cost + s->lambda * (double)d.bytes);
    return d;
}

static void collect_item(struct search *s, size_t i, double limit) {
    struct core_item *c = &s->core[s->n_core];
    *c = (struct core_item){.item = i, .first = s->n_departures, .n = 1, .ratio = INFINITY};
    s->departures[c->first] = departure_of(s, i, s->own[i]);
    for (size_t j = 0; j < s->items[i].n; j++) {
        struct departure d = departure_of(s, i, j);
        if (j == s->own[i] || d.bytes == 0 || d.regret >= limit)
            continue;
        s->departures[c->first + c->n++] = d;
        c->ratio = fmin(c->ratio, d.regret / fabs((double)d.bytes));
    }
    if (c->n > 1) {
        s->n_departures += c->n;
        s->n_core++;
    }
}

static int by_ratio(const void *a, const void *b) {
    const struct core_item *x = a, *y = b;
    if (x->ratio != y->ratio)
        return x->ratio < y->ratio ? -1 : 1;
    return x->item < y->item ? -1 : 1;
}

// Flexible items first: what the later ones can do about bytes then soon is dear, and states that
// count on it are dropped.
static void collect(struct search *s, double limit) {
    s->n_core = s->n_departures = 0;
    for (size_t i = 0; i < s->n; i++)
        collect_item(s, i, limit);
    qsort(s->core, s->n_core, sizeof *s->core, by_ratio);
    double down = INFINITY, up = INFINITY;
    for (size_t i = s->n_core; i-- > 0;) {
        struct core_item *c = &s->core[i];
        for (size_t j = c->first; j < c->first + c->n; j++) {
            const struct departure *d = &s->departures[j];
            if (d->bytes < 0)
                down = fmin(down, d->regret / -(double)d->bytes);
            if (d->bytes > 0)
                up = fmin(up, d->regret / (double)d->bytes);
        }
        c->down = down;
        c->up = up;
    }
}

// ---- the frontier -----------------------------------------------------------------------------

// The least gap a mix can end with that begins with this state, when items from `i` on are left:
// bytes too many must be saved, bytes to spare either stay spare or are used.
static double least_gap(const struct search *s, const struct state *state, size_t i) {
    double down = i < s->n_core ? s->core[i].down : INFINITY;
    double up = i < s->n_core ? fmin(s->core[i].up, s->lambda) : s->lambda;
    if (state->excess > 0)
        return state->regret + down * (double)state->excess;
    return state->regret - up * (double)state->excess;
}

// What the state has cost so far, up to a constant.
static double cost_of(const struct search *s, const struct state *state) {
    return state->regret - s->lambda * (double)state->excess;
}

static int by_bytes(const void *a, const void *b) {
    const struct state *x = a, *y = b;
    if (x->excess != y->excess)
        return x->excess < y->excess ? -1 : 1;
    return x->regret < y->regret ? -1 : x->regret > y->regret;
}

// Keeps of n states in s->next those that are cheaper than all with fewer bytes.
static size_t keep_frontier(struct search *s, size_t n) {
    qsort(s->next, n, sizeof *s->next, by_bytes);
    size_t kept = 0;
    double least = INFINITY;
    for (size_t i = 0; i < n; i++) {
        double cost = cost_of(s, &s->next[i]);
        if (cost < least) {
            least = cost;
            s->next[kept++] = s->next[i];
        }
    }
    return kept;
}

static int by_number(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

// More states than there is room for: keeps the `room` most promising and remembers what the others
// might have reached.
static bool thin_out(struct search *s, size_t *n, size_t room, size_t next_item,
                     struct error *err) {
    double *gaps = memory_alloc(*n, sizeof *gaps, "solver", err);
    if (!gaps)
        return false;
    for (size_t i = 0; i < *n; i++)
        gaps[i] = least_gap(s, &s->next[i], next_item);
    qsort(gaps, *n, sizeof *gaps, by_number);
    double worst = gaps[room];
    size_t below = 0, ties = 0, tie = 0, kept = 0;
    for (size_t i = 0; i < *n; i++) {
        below += gaps[i] < worst;
        ties += gaps[i] == worst;
    }
    free(gaps);
    s->dropped = fmin(s->dropped, worst);
    for (size_t i = 0; i < *n; i++) {
        double gap = least_gap(s, &s->next[i], next_item);
        bool keep = gap < worst;
        if (gap == worst) { // as many as there is room for, spread over all of them
            keep = (tie + 1) * (room - below) / ties > tie * (room - below) / ties;
            tie++;
        }
        if (keep)
            s->next[kept++] = s->next[i];
    }
    *n = kept;
    return true;
}

static bool reserve(struct state **states, size_t *capacity, size_t n, struct error *err) {
    if (n <= *capacity)
        return true;
    struct state *grown = memory_alloc(2 * n, sizeof *grown, "solver", err);
    if (!grown)
        return false;
    for (size_t i = 0; i < *capacity; i++)
        grown[i] = (*states)[i];
    free(*states);
    *states = grown;
    *capacity = 2 * n;
    return true;
}

// Extends the layer nodes[begin, n_nodes) by every departure of core item i.
static bool extend(struct search *s, size_t begin, size_t i, double limit, struct error *err) {
    const struct core_item *c = &s->core[i];
    size_t end = s->n_nodes, n = 0, room = MAX_NODES / s->n_core;
    if (!reserve(&s->next, &s->next_capacity, (end - begin) * c->n, err))
        return false;
    for (size_t j = 0; j < c->n; j++) {
        const struct departure *d = &s->departures[c->first + j];
        for (size_t p = begin; p < end; p++) {
            struct state to = {.excess = s->nodes[p].excess + d->bytes,
                               .regret = s->nodes[p].regret + d->regret,
                               .parent = (uint32_t)p,
                               .choice = (uint32_t)d->choice};
            if (least_gap(s, &to, i + 1) < limit)
                s->next[n++] = to;
        }
    }
    n = keep_frontier(s, n);
    if ((n > room && !thin_out(s, &n, room, i + 1, err)) ||
        !reserve(&s->nodes, &s->capacity, end + n, err))
        return false;
    for (size_t k = 0; k < n; k++)
        s->nodes[end + k] = s->next[k];
    s->n_nodes = end + n;
    return true;
}

// Looks for the mix of the least gap below the limit; if there is one it goes into picks, which
// must hold the own choices.
static bool search_below(struct search *s, double limit, size_t *picks, bool *found,
                         struct error *err) {
    collect(s, limit);
    s->dropped = INFINITY;
    s->n_nodes = 1;
    s->nodes[0] = (struct state){.excess = s->own_excess};
    size_t begin = 0;
    for (size_t i = 0; i < s->n_core; i++) {
        size_t end = s->n_nodes;
        if (!extend(s, begin, i, limit, err))
            return false;
        begin = end;
    }
    // The last state of a frontier is its cheapest. None that does not fit is left.
    *found = begin < s->n_nodes && least_gap(s, &s->nodes[s->n_nodes - 1], s->n_core) < limit;
    if (!*found)
        return true;
    size_t at = s->n_nodes - 1;
    for (size_t i = s->n_core; i-- > 0; at = s->nodes[at].parent)
        picks[s->core[i].item] = s->nodes[at].choice;
    return true;
}

static bool close_gap(struct search *s, size_t *picks, double *unproven, struct error *err) {
    bool found = s->own_gap == 0;
    *unproven = INFINITY;
    for (double limit = s->own_gap / FIRST_LIMIT; !found; limit *= 4) {
        limit = fmin(limit, s->own_gap);
        if (!search_below(s, limit, picks, &found, err))
            return false;
        *unproven = s->dropped;
        if (limit >= s->own_gap)
            break; // nothing beats the own choices
    }
    return true;
}

// ---- the whole --------------------------------------------------------------------------------

static size_t smallest_choice(const struct solver_item *item) {
    size_t bytes = item->choices[0].bytes;
    for (size_t j = 1; j < item->n; j++)
        bytes = item->choices[j].bytes < bytes ? item->choices[j].bytes : bytes;
    return bytes;
}

bool solver_smallest(const struct solver_item *items, size_t n, size_t *bytes) {
    *bytes = 0;
    for (size_t i = 0; i < n; i++)
        if (!size_add(*bytes, smallest_choice(&items[i]), bytes))
            return false;
    return true;
}

static size_t divisor(size_t a, size_t b) {
    return b ? divisor(b, a % b) : a;
}

// The budget, less what no mix can use: all mixes are the smallest one plus a multiple of this.
static size_t usable_budget(const struct solver_item *items, size_t n, size_t smallest,
                            size_t budget) {
    size_t step = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < items[i].n; j++)
            step = divisor(items[i].choices[j].bytes - smallest_choice(&items[i]), step);
    return step ? smallest + (budget - smallest) / step * step : smallest;
}

static bool check_items(const struct solver_item *items, size_t n, size_t budget, size_t *smallest,
                        struct error *err) {
    size_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        size_t most = 0;
        for (size_t j = 0; j < items[i].n; j++) {
            const struct solver_choice *c = &items[i].choices[j];
            if (!isfinite(c->cost))
                return error_set(err, "item %zu, choice %zu: cost is %g, expected a finite number",
                                 i, j, c->cost);
            most = c->bytes > most ? c->bytes : most;
        }
        if (!items[i].n)
            return error_set(err, "item %zu has no choice, expected at least one", i);
        if (!size_add(largest, most, &largest) || largest > INT64_MAX / 4)
            return error_set(err, "the items' bytes overflow");
    }
    solver_smallest(items, n, smallest);
    return *smallest <= budget ||
           error_set(err, "a budget of %zu bytes cannot be met: the smallest mix takes %zu", budget,
                     *smallest);
}

static bool search_init(struct search *s, struct error *err) {
    size_t choices = 0;
    for (size_t i = 0; i < s->n; i++)
        choices += s->items[i].n;
    s->own = memory_alloc(s->n, sizeof *s->own, "solver", err);
    s->core = memory_alloc(s->n + 1, sizeof *s->core, "solver", err);
    s->departures = memory_alloc(choices + 1, sizeof *s->departures, "solver", err);
    return s->own && s->core && s->departures && reserve(&s->nodes, &s->capacity, 1024, err) &&
           reserve(&s->next, &s->next_capacity, 1024, err);
}

static void search_free(struct search *s) {
    free(s->own);
    free(s->core);
    free(s->departures);
    free(s->nodes);
    free(s->next);
}

static void report(const struct search *s, double unproven, struct solver_solution *solution) {
    double base = -s->lambda * (double)s->budget;
    solution->lambda = s->lambda;
    for (size_t i = 0; i < s->n; i++) {
        const struct solver_choice *own = &s->items[i].choices[s->own[i]];
        const struct solver_choice *pick = &s->items[i].choices[solution->picks[i]];
        base += own->cost + s->lambda * (double)own->bytes;
        solution->bytes += pick->bytes;
        solution->cost += pick->cost;
    }
    solution->bound = fmin(solution->cost, base + unproven);
}

bool solver_solve(const struct solver_item *items, size_t n, size_t budget,
                  struct solver_solution *solution, struct error *err) {
    size_t smallest;
    *solution = (struct solver_solution){0};
    if (!check_items(items, n, budget, &smallest, err))
        return false;
    budget = budget < INT64_MAX / 4 ? budget : INT64_MAX / 4;
    struct search s = {.items = items, .n = n};
    s.budget = usable_budget(items, n, smallest, budget);
    double unproven;
    solution->picks = memory_alloc(n, sizeof(size_t), "mix", err);
    bool ok = solution->picks && search_init(&s, err);
    if (ok) {
        settle_own_choices(&s);
        for (size_t i = 0; i < n; i++)
            solution->picks[i] = s.own[i];
        ok = close_gap(&s, solution->picks, &unproven, err);
    }
    if (ok)
        report(&s, unproven, solution);
    else
        solver_solution_free(solution);
    search_free(&s);
    return ok;
}
