// What the study found, as files: how well predictions hold, and the mix itself.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "report/chart.h"
#include "study.h"

enum { MIXES = 32 };

struct point {
    char name[64];
    size_t bytes; // of all weights
    double predicted, measured;
};

// ---- predictions against measurements -----------------------------------------------------------

struct prediction {
    struct point *points; // [n]
    size_t n;
    double rank_correlation, bias; // measured / predicted, geometric mean
    double low, high;              // the same for the lesser and the greater half of damages
};

static int by_predicted(const void *a, const void *b) {
    double x = ((const struct point *)a)->predicted, y = ((const struct point *)b)->predicted;
    return x < y ? -1 : x > y;
}

static double mean_ratio(const struct point *points, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += log(points[i].measured / points[i].predicted);
    return n ? exp(sum / (double)n) : NAN;
}

static bool judge(struct prediction *p, struct error *err) {
    double *pairs = memory_alloc(p->n, 2 * sizeof *pairs, "mixes", err);
    if (!pairs)
        return false;
    qsort(p->points, p->n, sizeof *p->points, by_predicted);
    for (size_t i = 0; i < p->n; i++) {
        pairs[i] = p->points[i].predicted;
        pairs[p->n + i] = p->points[i].measured;
    }
    p->bias = mean_ratio(p->points, p->n);
    p->low = mean_ratio(p->points, p->n / 2);
    p->high = mean_ratio(p->points + p->n / 2, p->n - p->n / 2);
    bool ok = spearman(pairs, pairs + p->n, p->n, &p->rank_correlation, err);
    free(pairs);
    return ok;
}

static bool measure_mixes(struct study *st, struct prediction *p, struct error *err) {
    int mixes = st->options->mixes;
    if (mixes < 0)
        mixes = study_affords(st, MIXES, st->n_check) ? MIXES : 0;
    size_t *picks = memory_alloc(st->mix.n, sizeof *picks, "mix", err);
    p->points = memory_alloc((size_t)mixes, sizeof *p->points, "mixes", err);
    bool ok = picks && p->points;
    struct progress progress;
    progress_start(&progress, "random mixes", "mixes");
    for (int i = 0; ok && i < mixes; i++) {
        struct point *at = &p->points[p->n];
        mix_random(&st->mix, (uint64_t)i + 1, picks);
        snprintf(at->name, sizeof at->name, "random %d", i + 1);
        at->bytes = st->budget.rest + mix_bytes(&st->mix, picks);
        at->predicted = mix_cost(&st->mix, picks);
        ok = mix_measure(&st->mix, &st->check, picks, &at->measured, err);
        p->n += at->predicted > 0 && at->measured > 0 && isfinite(at->measured); // for logarithms
        progress_update(&progress, (uint64_t)i + 1, (uint64_t)mixes, NULL);
    }
    progress_finish(&progress);
    free(picks);
    return ok && judge(p, err);
}

// ---- files --------------------------------------------------------------------------------------

static bool write_points(const char *folder, const struct prediction *all, struct error *err) {
    struct file_writer w;
    char *path = path_join(folder, "mixes.csv", err);
    bool ok = path && file_writer_open(&w, path, err);
    free(path);
    if (!ok)
        return false;
    fprintf(w.stream, "mix,model_bytes,kld_predicted,kld_measured\n");
    for (size_t i = 0; i < all->n; i++) {
        const struct point *p = &all->points[i];
        fprintf(w.stream, "%s,%zu,%.9g,%.9g\n", p->name, p->bytes, p->predicted, p->measured);
    }
    return file_writer_commit(&w, err);
}

static bool draw_mixes(const struct study *st, const struct prediction *p, struct error *err) {
    double *x = memory_alloc(p->n, 2 * sizeof *x, "mixes", err), *y = x ? x + p->n : NULL;
    char *path = path_join(st->folder, "mixes.png", err);
    for (size_t i = 0; x && i < p->n; i++) {
        x[i] = p->points[i].predicted;
        y[i] = p->points[i].measured;
    }
    bool ok = x && path;
    if (ok && p->n >= 2) {
        double ends[2] = {x[0], x[p->n - 1]};
        const struct chart_series series[] = {
            {.kind = CHART_SCATTER, .name = "random mixes", .x = x, .y = y, .n = p->n},
            {.kind = CHART_LINE, .name = "as predicted", .x = ends, .y = ends, .n = 2},
        };
        struct chart chart = {.title = "Does the damage of tensors add up?",
                              .subtitle = study_name(st),
                              .x_title = "sum of the tensors' damages, nats",
                              .y_title = "KL divergence measured, nats",
                              .x_log = true,
                              .y_log = true,
                              .series = series,
                              .n_series = 2};
        ok = chart_write_png(&chart, path, err);
    }
    free(path);
    free(x);
    return ok;
}

static bool write_recipe(const struct study *st, struct error *err) {
    struct recipe r;
    char *path = path_join(st->folder, "recipe.txt", err);
    bool ok = path && mix_recipe(&st->mix, st->found.list[0].picks, &r, err);
    if (ok) {
        ok = recipe_write(&r, path, err);
        recipe_free(&r);
    }
    free(path);
    return ok;
}

// ---- in words -----------------------------------------------------------------------------------

static void tell_predictions(const struct prediction *p, FILE *f) {
    fprintf(f,
            "%zu random mixes, measured on calibration tokens that no sensitivity was measured on: "
            "rank correlation with the sum of their tensors' damages %.3f. Measured is %.2f times "
            "the sum (%.2f in the less damaged half of the mixes, %.2f in the other).\n",
            p->n, p->rank_correlation, p->bias, p->low, p->high);
}

// mixes.md: the paragraph alone, for other pages to show.
static bool write_predictions(const char *folder, const struct prediction *p, struct error *err) {
    struct file_writer w;
    if (p->n < 2)
        return true;
    char *path = path_join(folder, "mixes.md", err);
    bool ok = path && file_writer_open(&w, path, err);
    free(path);
    if (!ok)
        return false;
    tell_predictions(p, w.stream);
    return file_writer_commit(&w, err);
}

static void write_found(const struct study *st, FILE *f) {
    const struct solver_solution *s = &st->found.solution;
    size_t bytes = mix_bytes(&st->mix, st->found.list[0].picks);
    fprintf(f,
            "# The best mix: %s\n\n"
            "Budget: %s, that is %zu bytes for %zu tensors and %zu for the rest. The mix takes %zu "
            "(%.4g bits per weight).\n\n"
            "The optimum of the additive model costs %.6g nats, and no mix costs less than %.6g: "
            "%s. A byte more would save about %.2g nats.\n\n",
            study_name(st), st->budget.words, st->budget.bytes, st->mix.n, st->budget.rest, bytes,
            8 * (double)bytes / (double)mix_weights(&st->mix), s->cost, s->bound,
            s->bound < s->cost ? "a gap is left" : "proven", s->lambda);
    fprintf(f,
            "Candidates, on %zu calibration tokens kept for this; the first is the row 'solver'"
            ":\n\n| mix | predicted, nats | measured, nats |\n|:----|----:|----:|\n",
            st->check.n);
    for (size_t i = 0; i < st->found.n; i++)
        fprintf(f, "| %s | %.4g | %.4g |\n", st->found.list[i].name, st->found.list[i].predicted,
                st->found.list[i].checked);
    fprintf(f, "\n");
}

static void write_tensors(const struct study *st, FILE *f) {
    fprintf(f, "## The mix\n\n| tensor | format | bits per weight | damage alone, nats |\n"
               "|:-------|:-------|----:|----:|\n");
    for (size_t i = 0; i < st->mix.n; i++) {
        const struct sensitivity_tensor *t = &st->s.tensors[st->mix.tensors[i]];
        size_t pick = st->found.list[0].picks[i];
        double bits =
            8 * (double)mix_tensor_bytes(&st->mix, i, pick) / ((double)t->n * (double)t->k);
        fprintf(f, "| %s | %s | %.3f | %.2g |\n", t->name, st->s.formats[pick]->name, bits,
                st->mix.cost[mix_cell(&st->mix, i, pick)]);
    }
}

static bool write_words(const struct study *st, const struct prediction *p, bool swept,
                        struct error *err) {
    struct file_writer w;
    char *path = path_join(st->folder, "mixed.md", err);
    bool ok = path && file_writer_open(&w, path, err);
    free(path);
    if (!ok)
        return false;
    write_found(st, w.stream);
    if (swept)
        fprintf(w.stream, "Other budgets are in [sweep.md](sweep.md).\n\n![](pareto.png)\n\n");
    if (p->n >= 2) {
        fprintf(w.stream, "## Does damage add up?\n\n");
        tell_predictions(p, w.stream);
        fprintf(w.stream, "\n![](mixes.png)\n\n");
    }
    write_tensors(st, w.stream);
    return file_writer_commit(&w, err);
}

bool study_report(struct study *st, struct error *err) {
    struct prediction p = {0};
    bool swept;
    bool ok = write_recipe(st, err) && measure_mixes(st, &p, err) &&
              write_points(st->folder, &p, err) && write_predictions(st->folder, &p, err) &&
              draw_mixes(st, &p, err) && study_sweep(st, &swept, err) &&
              write_words(st, &p, swept, err);
    free(p.points);
    if (ok && !st->options->folder && !st->lab->options.quiet)
        cli_note(st->lab->program, "mixed.md, recipe.txt and charts are in %s", st->folder);
    return ok;
}
