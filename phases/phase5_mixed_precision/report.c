// What the study found, as files: how well predictions hold, what other budgets would give, and the
// mix itself.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "report/chart.h"
#include "study.h"

enum { MIXES = 32, MAX_POINTS = 32 };

struct point {
    char name[64];
    size_t bytes; // of all weights
    double predicted, measured;
};

// ---- predictions against measurements
// -------------------------------------------------------------

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
        p->n += at->predicted > 0 && at->measured > 0; // logarithms follow
        progress_update(&progress, (uint64_t)i + 1, (uint64_t)mixes, NULL);
    }
    progress_finish(&progress);
    free(picks);
    return ok && judge(p, err);
}

// ---- other budgets
// --------------------------------------------------------------------------------

struct front {
    struct point solver[MAX_POINTS], uniform[MAX_POINTS];
    size_t n_solver, n_uniform;
};

static bool add_point(struct study *st, struct probe *text, struct point *at, const char *name,
                      const size_t *picks, struct error *err) {
    snprintf(at->name, sizeof at->name, "%s", name);
    at->bytes = st->budget.rest + mix_bytes(&st->mix, picks);
    at->predicted = mix_cost(&st->mix, picks);
    return mix_measure(&st->mix, text, picks, &at->measured, err);
}

static bool solver_points(struct study *st, struct probe *text, struct front *front, size_t *picks,
                          struct error *err) {
    static const double bits[] = {2.5, 3, 3.5, 4, 4.5, 5, 6, 8};
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++) {
        size_t bytes = (size_t)(bits[i] * (double)mix_weights(&st->mix) / 8);
        char name[64];
        snprintf(name, sizeof name, "solver %g bits", bits[i]);
        if (bytes < mix_smallest(&st->mix))
            continue;
        if (!study_solve_at(st, bytes, picks, err) ||
            !add_point(st, text, &front->solver[front->n_solver++], name, picks, err))
            return false;
    }
    return true;
}

// Whether another format for all is predicted to do less damage with no more bytes.
static bool dominated(const struct study *st, size_t format) {
    double cost = sensitivity_sum(&st->s, format), other;
    size_t bytes = sensitivity_at(&st->s, st->mix.tensors[0], format)->bytes;
    for (size_t f = 0; f + 1 < st->s.n_formats; f++) {
        other = sensitivity_sum(&st->s, f);
        if (f != format && other < cost &&
            sensitivity_at(&st->s, st->mix.tensors[0], f)->bytes <= bytes)
            return true;
    }
    return false;
}

static bool uniform_points(struct study *st, struct probe *text, struct front *front, size_t *picks,
                           struct error *err) {
    for (size_t f = 0; f + 1 < st->s.n_formats && front->n_uniform < MAX_POINTS; f++) {
        for (size_t i = 0; i < st->mix.n; i++)
            picks[i] = f;
        if (!isnan(mix_cost(&st->mix, picks)) && !dominated(st, f) &&
            !add_point(st, text, &front->uniform[front->n_uniform++], st->s.formats[f]->name, picks,
                       err))
            return false;
    }
    return true;
}

// On the evaluation text, as the table's rows, but on fewer tokens of it.
static bool measure_front(struct study *st, struct front *front, struct error *err) {
    struct lab *lab = st->lab;
    struct probe text;
    size_t *picks = memory_alloc(st->mix.n, sizeof *picks, "mix", err);
    if (!picks || !probe_open(&text, lab->model, lab->model, lab->text.ids, lab->text.n,
                              st->n_check, lab->options.ctx, err)) {
        free(picks);
        return false;
    }
    bool ok =
        solver_points(st, &text, front, picks, err) && uniform_points(st, &text, front, picks, err);
    probe_close(&text);
    free(picks);
    return ok;
}

// ---- files
// ----------------------------------------------------------------------------------------

static bool write_points(const char *folder, const char *name, const struct point *a, size_t n_a,
                         const struct point *b, size_t n_b, struct error *err) {
    struct file_writer w;
    char *path = path_join(folder, name, err);
    bool ok = path && file_writer_open(&w, path, err);
    free(path);
    if (!ok)
        return false;
    fprintf(w.stream, "mix,model_bytes,kld_predicted,kld_measured\n");
    for (size_t i = 0; i < n_a + n_b; i++) {
        const struct point *p = i < n_a ? &a[i] : &b[i - n_a];
        fprintf(w.stream, "%s,%zu,%.9g,%.9g\n", p->name, p->bytes, p->predicted, p->measured);
    }
    return file_writer_commit(&w, err);
}

struct columns {
    double bytes[MAX_POINTS + MIXES], predicted[MAX_POINTS + MIXES], measured[MAX_POINTS + MIXES];
};

static size_t fill_columns(struct columns *c, const struct point *points, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n && kept < MAX_POINTS + MIXES; i++) {
        if (!(points[i].predicted > 0 && points[i].measured > 0))
            continue; // the axes are logarithmic
        c->bytes[kept] = (double)points[i].bytes / 1e6;
        c->predicted[kept] = points[i].predicted;
        c->measured[kept++] = points[i].measured;
    }
    return kept;
}

static bool draw(const struct study *st, const char *name, struct chart *chart, struct error *err) {
    char *path = path_join(st->folder, name, err);
    bool ok = path && chart_write_png(chart, path, err);
    free(path);
    return ok;
}

static bool draw_front(const struct study *st, const struct front *front, struct error *err) {
    struct columns solver, uniform;
    size_t n = fill_columns(&solver, front->solver, front->n_solver);
    size_t m = fill_columns(&uniform, front->uniform, front->n_uniform);
    if (!n)
        return true;
    const struct chart_series series[] = {
        {.kind = CHART_LINE,
         .name = "solver, measured",
         .x = solver.bytes,
         .y = solver.measured,
         .n = n},
        {.kind = CHART_LINE,
         .name = "solver, predicted",
         .x = solver.bytes,
         .y = solver.predicted,
         .n = n},
        {.kind = CHART_SCATTER,
         .name = "one format for all, measured",
         .x = uniform.bytes,
         .y = uniform.measured,
         .n = m},
    };
    struct chart chart = {.title = "Damage against bytes",
                          .subtitle = st->lab->table.model,
                          .x_title = "all weights, MB",
                          .y_title = "KL divergence, nats",
                          .y_log = true,
                          .series = series,
                          .n_series = 3};
    return draw(st, "pareto.png", &chart, err);
}

static bool draw_mixes(const struct study *st, const struct prediction *p, struct error *err) {
    struct columns mixes;
    size_t n = fill_columns(&mixes, p->points, p->n);
    if (n < 2)
        return true;
    double ends[2] = {mixes.predicted[0], mixes.predicted[n - 1]};
    const struct chart_series series[] = {
        {.kind = CHART_SCATTER,
         .name = "random mixes",
         .x = mixes.predicted,
         .y = mixes.measured,
         .n = n},
        {.kind = CHART_LINE, .name = "as predicted", .x = ends, .y = ends, .n = 2},
    };
    struct chart chart = {.title = "Does the damage of tensors add up?",
                          .subtitle = st->lab->table.model,
                          .x_title = "sum of the tensors' damages, nats",
                          .y_title = "KL divergence measured, nats",
                          .x_log = true,
                          .y_log = true,
                          .series = series,
                          .n_series = 2};
    return draw(st, "mixes.png", &chart, err);
}

static bool write_recipe(const struct study *st, struct error *err) {
    struct recipe r;
    char *path = path_join(st->folder, "recipe.txt", err);
    bool ok = path && mix_recipe(&st->mix, st->found[0].picks, &r, err);
    if (ok) {
        ok = recipe_write(&r, path, err);
        recipe_free(&r);
    }
    free(path);
    return ok;
}

// ---- in words
// -------------------------------------------------------------------------------------

static void write_predictions(const struct prediction *p, FILE *f) {
    if (p->n < 2)
        return;
    fprintf(f,
            "## Does damage add up?\n\n"
            "%zu random mixes, measured on calibration tokens that no sensitivity was measured on: "
            "rank correlation with the sum of their tensors' damages %.3f. Measured is %.2f times "
            "the sum (%.2f in the less damaged half of the mixes, %.2f in the other).\n\n"
            "![](mixes.png)\n\n",
            p->n, p->rank_correlation, p->bias, p->low, p->high);
}

static void write_found(const struct study *st, FILE *f) {
    const struct solver_solution *s = &st->solution;
    size_t bytes = mix_bytes(&st->mix, st->found[0].picks);
    fprintf(f,
            "# The best mix: %s\n\n"
            "Budget: %s, that is %zu bytes for %zu tensors and %zu for the rest. The mix takes %zu "
            "(%.4g bits per weight).\n\n"
            "The optimum of the additive model costs %.6g nats, and no mix costs less than %.6g: "
            "%s. A byte more would save about %.2g nats.\n\n",
            st->lab->table.model, st->budget.words, st->budget.bytes, st->mix.n, st->budget.rest,
            bytes, 8 * (double)bytes / (double)mix_weights(&st->mix), s->cost, s->bound,
            s->bound < s->cost ? "a gap is left" : "proven", s->lambda);
    fprintf(f,
            "Candidates, on %zu calibration tokens kept for this; the first is the row 'solver'"
            ":\n\n| mix | predicted | measured |\n|:----|----:|----:|\n",
            st->check.n);
    for (size_t i = 0; i < st->n_found; i++)
        fprintf(f, "| %s | %.6f | %.6f |\n", st->found[i].name, st->found[i].predicted,
                st->found[i].checked);
    fprintf(f, "\n");
}

static void write_tensors(const struct study *st, FILE *f) {
    fprintf(f, "## The mix\n\n| tensor | format | bits per weight | damage alone |\n"
               "|:-------|:-------|----:|----:|\n");
    for (size_t i = 0; i < st->mix.n; i++) {
        const struct sensitivity_tensor *t = &st->s.tensors[st->mix.tensors[i]];
        size_t pick = st->found[0].picks[i];
        double bits =
            8 * (double)mix_tensor_bytes(&st->mix, i, pick) / ((double)t->n * (double)t->k);
        fprintf(f, "| %s | %s | %.3f | %.2g |\n", t->name, st->s.formats[pick]->name, bits,
                st->mix.cost[mix_cell(&st->mix, i, pick)]);
    }
}

static bool write_words(const struct study *st, const struct prediction *p, struct error *err) {
    struct file_writer w;
    char *path = path_join(st->folder, "mixed.md", err);
    bool ok = path && file_writer_open(&w, path, err);
    free(path);
    if (!ok)
        return false;
    write_found(st, w.stream);
    fprintf(w.stream, "![](pareto.png)\n\n");
    write_predictions(p, w.stream);
    write_tensors(st, w.stream);
    return file_writer_commit(&w, err);
}

bool study_report(struct study *st, struct error *err) {
    struct prediction p = {0};
    struct front front = {0};
    bool ok = folder_create(st->folder, err) && write_recipe(st, err) &&
              measure_mixes(st, &p, err) && measure_front(st, &front, err) &&
              write_points(st->folder, "mixes.csv", p.points, p.n, NULL, 0, err) &&
              write_points(st->folder, "pareto.csv", front.solver, front.n_solver, front.uniform,
                           front.n_uniform, err) &&
              draw_front(st, &front, err) && draw_mixes(st, &p, err) && write_words(st, &p, err);
    free(p.points);
    return ok;
}
