// Estimates from anchors, in the plane log output_nmse → log kld:
//
//     kld                      * anchor        * measured in full
//      |              o ·*                     o between two anchors: on the line that joins them
//      |         * ·                           o outside: slope 1, the damage of small errors is
//      |    o ·                                  proportional to their energy
//      +------------------- output_nmse
#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "eval/sensitivity_part.h"

static bool usable(const struct sensitivity_cell *c) {
    return c->bytes && c->output_nmse > 0 && isfinite(c->output_nmse);
}

// ---- which cells to measure -------------------------------------------------------------------

// How many usable cells have a smaller output error (ties: come first).
static size_t rank_of(const struct sensitivity_cell *cells, size_t n, size_t i) {
    size_t rank = 0;
    for (size_t j = 0; j < n; j++)
        rank += usable(&cells[j]) && (cells[j].output_nmse < cells[i].output_nmse ||
                                      (cells[j].output_nmse == cells[i].output_nmse && j < i));
    return rank;
}

// The usable cell of that rank.
static size_t cell_of_rank(const struct sensitivity_cell *cells, size_t n, size_t rank) {
    size_t i = 0;
    while (!usable(&cells[i]) || rank_of(cells, n, i) != rank)
        i++;
    return i;
}

// The cell farthest from all chosen ones, as a ratio of errors; n if all are within 2 % of one:
// those would tell nothing new.
static size_t farthest(const struct sensitivity_cell *cells, size_t n, const bool *chosen) {
    size_t best = n;
    double most = log(1.02);
    for (size_t i = 0; i < n; i++) {
        double nearest = INFINITY;
        for (size_t j = 0; usable(&cells[i]) && j < n; j++)
            if (chosen[j])
                nearest = fmin(nearest, fabs(log(cells[i].output_nmse / cells[j].output_nmse)));
        if (usable(&cells[i]) && nearest > most) {
            best = i;
            most = nearest;
        }
    }
    return best;
}

void sensitivity_choose_anchors(const struct sensitivity_cell *cells, size_t n_formats, size_t n,
                                bool *chosen) {
    size_t n_usable = 0;
    for (size_t i = 0; i < n_formats; i++) {
        chosen[i] = false;
        n_usable += usable(&cells[i]);
    }
    if (!n_usable || !n)
        return;
    // One serves best in the middle; of several, the first is an end.
    chosen[cell_of_rank(cells, n_formats, n == 1 ? n_usable / 2 : 0)] = true;
    for (size_t k = 1; k < n; k++) {
        size_t next = farthest(cells, n_formats, chosen);
        if (next < n_formats)
            chosen[next] = true;
    }
}

// ---- what the others are worth ----------------------------------------------------------------

static bool has_damage(const struct sensitivity_cell *c, bool anchor) {
    return anchor && usable(c) && c->kld_measured > 0 && isfinite(c->kld_measured);
}

// The nearest anchors below and above an output error; NULL where there is none.
static void neighbours(const struct sensitivity_cell *cells, size_t n, const bool *anchors,
                       double nmse, const struct sensitivity_cell **below,
                       const struct sensitivity_cell **above) {
    *below = *above = NULL;
    for (size_t i = 0; i < n; i++) {
        const struct sensitivity_cell *c = &cells[i];
        if (!has_damage(c, anchors[i]))
            continue;
        if (c->output_nmse <= nmse && (!*below || c->output_nmse > (*below)->output_nmse))
            *below = c;
        if (c->output_nmse > nmse && (!*above || c->output_nmse < (*above)->output_nmse))
            *above = c;
    }
}

void sensitivity_estimate(struct sensitivity_cell *cells, size_t n_formats, const bool *anchors) {
    for (size_t i = 0; i < n_formats; i++) {
        struct sensitivity_cell *c = &cells[i];
        const struct sensitivity_cell *low, *high;
        c->kld_estimated = NAN;
        if (anchors[i] || !c->bytes)
            continue;
        neighbours(cells, n_formats, anchors, c->output_nmse, &low, &high);
        const struct sensitivity_cell *from = low ? low : high;
        if (c->output_nmse == 0)
            c->kld_estimated = 0;
        else if (from) {
            double slope = 1;
            if (low && high)
                slope = log(high->kld_measured / low->kld_measured) /
                        log(high->output_nmse / low->output_nmse);
            c->kld_estimated = from->kld_measured * pow(c->output_nmse / from->output_nmse, slope);
        }
    }
}

// ---- how well it works ------------------------------------------------------------------------

struct ranked {
    double value;
    size_t at;
};

static int compare(const void *a, const void *b) {
    double x = ((const struct ranked *)a)->value, y = ((const struct ranked *)b)->value;
    return x < y ? -1 : x > y;
}

// ranks[i]: the place of values[i] among them all, ties sharing the mean of theirs.
static void rank(const double *values, size_t n, struct ranked *space, double *ranks) {
    for (size_t i = 0; i < n; i++)
        space[i] = (struct ranked){values[i], i};
    qsort(space, n, sizeof *space, compare);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && space[end].value == space[i].value;)
            end++;
        for (size_t j = i; j < end; j++)
            ranks[space[j].at] = (double)(i + end - 1) / 2;
    }
}

static double correlation(const double *a, const double *b, size_t n) {
    double mean_a = 0, mean_b = 0, ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) {
        mean_a += a[i] / (double)n;
        mean_b += b[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        ab += (a[i] - mean_a) * (b[i] - mean_b);
        aa += (a[i] - mean_a) * (a[i] - mean_a);
        bb += (b[i] - mean_b) * (b[i] - mean_b);
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : NAN;
}

bool spearman(const double *a, const double *b, size_t n, double *out, struct error *err) {
    struct ranked *space = memory_alloc(n, sizeof *space, "ranks", err);
    double *ranks = memory_alloc(n, 2 * sizeof *ranks, "ranks", err);
    *out = NAN;
    if (space && ranks && n > 1) {
        rank(a, n, space, ranks);
        rank(b, n, space, ranks + n);
        *out = correlation(ranks, ranks + n, n);
    }
    bool ok = space && ranks;
    free(space);
    free(ranks);
    return ok;
}

bool sensitivity_judge(struct sensitivity *s, struct error *err) {
    size_t n_cells = s->n_tensors * s->n_formats, n = 0;
    double *pairs = memory_alloc(n_cells, 2 * sizeof *pairs, "estimates", err), off = 0;
    s->check = (struct sensitivity_check){.rank_correlation = NAN, .typical_factor = NAN};
    if (!pairs)
        return false;
    for (size_t i = 0; i < n_cells; i++) {
        double estimated = s->cells[i].kld_estimated, measured = s->cells[i].kld_measured;
        if (!(estimated > 0 && measured > 0 && isfinite(measured)))
            continue;
        pairs[n] = estimated;
        pairs[n_cells + n++] = measured;
        off += fabs(log(estimated / measured));
    }
    bool ok = spearman(pairs, pairs + n_cells, n, &s->check.rank_correlation, err);
    s->check.cells = n;
    if (n)
        s->check.typical_factor = exp(off / (double)n);
    free(pairs);
    return ok;
}
