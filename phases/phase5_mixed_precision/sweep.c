// Other budgets: what the solver, the best format for all and the heuristics make of the same
// bytes.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "report/chart.h"
#include "report/markdown.h"
#include "study.h"

static const double FIRST_BITS = 2.5, LAST_BITS = 8.5;

// One mix, and what it does to the evaluation text.
struct point {
    size_t bytes;               // of all weights
    double predicted, measured; // NaN: there is no such mix
};

struct row {
    double bits;
    struct point solver, first_last, k_m;
    const struct uniform *uniform; // the best of all formats of at most 1 % more bytes, or NULL
};

struct sweep {
    struct study *st;
    struct probe text;
    struct uniform *uniforms;
    size_t n_uniforms;
    struct row *rows;
    size_t n;
};

// ---- measuring ----------------------------------------------------------------------------------

// Mixes were chosen without the evaluation text; only the best format for all is chosen with it.
static bool measure_point(struct sweep *w, const struct found *f, struct point *p,
                          struct error *err) {
    *p = (struct point){.predicted = NAN, .measured = NAN};
    if (!f)
        return true;
    p->bytes = w->st->budget.rest + mix_bytes(&w->st->mix, f->picks);
    p->predicted = f->predicted;
    return mix_measure(&w->st->mix, &w->text, f->picks, &p->measured, err);
}

static bool measure_row(struct sweep *w, double bits, int rounds, struct row *row,
                        struct error *err) {
    struct study *st = w->st;
    struct shortlist l;
    size_t bytes = (size_t)(bits * (double)mix_weights(&st->mix) / 8);
    if (!study_search(st, bytes, rounds, &l, err))
        return false;
    *row = (struct row){.bits = bits};
    bool ok = measure_point(w, &l.list[0], &row->solver, err) &&
              measure_point(w, shortlist_find(&l, "heuristic first-last"), &row->first_last, err) &&
              measure_point(w, shortlist_find(&l, "heuristic k_m"), &row->k_m, err);
    shortlist_free(&l);
    double most = 1.01 * (double)(st->budget.rest + bytes);
    for (size_t i = 0; i < w->n_uniforms; i++) {
        const struct uniform *u = &w->uniforms[i];
        if ((double)(st->budget.rest + u->bytes) <= most &&
            (!row->uniform || u->checked < row->uniform->checked))
            row->uniform = u;
    }
    return ok;
}

static bool is_candidate(const struct study *st, const struct quant_format *f) {
    for (size_t i = 0; i < st->s.n_formats; i++)
        if (st->s.formats[i] == f)
            return true;
    return false;
}

static bool measure_uniforms(struct sweep *w, bool all, struct error *err) {
    struct study *st = w->st;
    size_t capacity = 0;
    struct progress p;
    bool ok = true;
    progress_start(&p, "one format for all", "formats");
    for (size_t i = 0; ok && quant_formats[i]; i++) {
        struct uniform u = {.format = quant_formats[i]};
        if (u.format->dtype == DTYPE_BLOCK && (all || is_candidate(st, u.format)) &&
            study_uniform_bytes(st, u.format, &u.bytes))
            ok = study_uniform_try(st, &w->text, &u, &w->uniforms, &w->n_uniforms, &capacity, err);
        progress_update(&p, i + 1, 0, u.format->name);
    }
    progress_finish(&p);
    return ok;
}

static bool measure_rows(struct sweep *w, double step, bool quick, struct error *err) {
    struct study *st = w->st;
    size_t n = (size_t)((LAST_BITS - FIRST_BITS) / step + 1e-6) + 1;
    double smallest = 8 * (double)mix_smallest(&st->mix) / (double)mix_weights(&st->mix);
    struct progress p;
    bool ok = (w->rows = memory_alloc(n, sizeof *w->rows, "budgets", err)) != NULL;
    progress_start(&p, "other budgets", "budgets");
    for (size_t i = 0; ok && i < n; i++) {
        double bits = FIRST_BITS + step * (double)i;
        if (bits >= smallest)
            ok = measure_row(w, bits, quick && st->options->rounds ? -1 : 0, &w->rows[w->n++], err);
        progress_update(&p, i + 1, n, NULL);
    }
    progress_finish(&p);
    return ok;
}

// ---- files --------------------------------------------------------------------------------------

static bool open_file(const struct sweep *w, const char *name, struct file_writer *f,
                      struct error *err) {
    char *path = path_join(w->st->folder, name, err);
    bool ok = path && file_writer_open(f, path, err);
    free(path);
    return ok;
}

static void print_point(FILE *f, const char *name, double bits, const struct point *p) {
    if (p->bytes)
        fprintf(f, "%s %.4g bits,%zu,%.9g,%.9g\n", name, bits, p->bytes, p->predicted, p->measured);
}

static bool write_csv(const struct sweep *w, struct error *err) {
    struct file_writer f;
    if (!open_file(w, "pareto.csv", &f, err))
        return false;
    fprintf(f.stream, "mix,model_bytes,kld_predicted,kld_measured\n");
    for (size_t i = 0; i < w->n; i++)
        print_point(f.stream, "solver", w->rows[i].bits, &w->rows[i].solver);
    for (size_t i = 0; i < w->n; i++)
        print_point(f.stream, "heuristic first-last", w->rows[i].bits, &w->rows[i].first_last);
    for (size_t i = 0; i < w->n; i++)
        print_point(f.stream, "heuristic k_m", w->rows[i].bits, &w->rows[i].k_m);
    for (size_t i = 0; i < w->n_uniforms; i++) {
        const struct uniform *u = &w->uniforms[i];
        fprintf(f.stream, "uniform %s%s,%zu,,%.9g\n", u->format->name, u->search ? " search" : "",
                w->st->budget.rest + u->bytes, u->checked);
    }
    return file_writer_commit(&f, err);
}

// The least damage of anything but the solver.
static double best_other(const struct row *r) {
    double uniform = r->uniform ? r->uniform->checked : NAN;
    return fmin(uniform, fmin(r->first_last.measured, r->k_m.measured)); // fmin passes NaNs over
}

static bool set_number(struct markdown_table *t, size_t row, size_t col, const char *format,
                       double x, struct error *err) {
    char text[64];
    snprintf(text, sizeof text, format, x);
    return markdown_table_set(t, row, col, isnan(x) ? "–" : text, err);
}

static bool fill_row(struct markdown_table *t, size_t at, const struct sweep *w,
                     const struct row *r, struct error *err) {
    char name[96] = "–";
    const struct uniform *u = r->uniform;
    if (u)
        snprintf(name, sizeof name, "%s%s", u->format->name, u->search ? " search" : "");
    double budget = (double)w->st->budget.rest + r->bits * (double)mix_weights(&w->st->mix) / 8;
    return set_number(t, at, 0, "%.4g", r->bits, err) &&
           set_number(t, at, 1, "%.2f", budget / 1e6, err) &&
           set_number(t, at, 2, "%.3g", r->solver.predicted, err) &&
           set_number(t, at, 3, "%.3g", r->solver.measured, err) &&
           set_number(t, at, 4, "%.3g", r->first_last.measured, err) &&
           set_number(t, at, 5, "%.3g", r->k_m.measured, err) &&
           set_number(t, at, 6, "%.3g", u ? u->checked : NAN, err) &&
           markdown_table_set(t, at, 7, name, err) &&
           set_number(t, at, 8, "%.2f", r->solver.measured / best_other(r), err);
}

static bool print_table(const struct sweep *w, FILE *f, struct error *err) {
    static const char *const titles[] = {
        "Bits",       "MB",    "Solver, predicted",  "Solver, measured", "First-last", "K_M",
        "One format", "which", "Solver / best other"};
    enum { COLUMNS = sizeof titles / sizeof *titles };
    struct markdown_table t;
    if (!markdown_table_init(&t, w->n + 1, COLUMNS, err))
        return false;
    bool ok = true;
    for (size_t c = 0; ok && c < COLUMNS; c++)
        ok = markdown_table_set(&t, 0, c, titles[c], err);
    t.left[7] = true;
    for (size_t i = 0; ok && i < w->n; i++)
        ok = fill_row(&t, i + 1, w, &w->rows[i], err);
    if (ok)
        markdown_table_print(&t, f);
    markdown_table_free(&t);
    return ok;
}

static void print_verdict(const struct sweep *w, FILE *f) {
    size_t worse = 0, n = 0;
    const struct row *closest = NULL;
    double least = INFINITY, most = 0, logs = 0;
    for (size_t i = 0; i < w->n; i++) {
        double ratio = w->rows[i].solver.measured / best_other(&w->rows[i]);
        if (!(ratio > 0) || isinf(ratio)) // nothing to compare with, or no damage
            continue;
        n++;
        worse += ratio > 1;
        logs += log(ratio);
        least = fmin(least, ratio);
        closest = ratio > most ? &w->rows[i] : closest;
        most = fmax(most, ratio);
    }
    if (!n)
        return;
    fprintf(f,
            "\nThe solver's mix does %.2f to %.2f times the damage of the best of the others (%.2f "
            "in the geometric mean; the closest budget is %.4g bits), and is worse at %zu of %zu "
            "budgets.\n",
            least, most, exp(logs / (double)n), closest->bits, worse, n);
}

static bool write_words(const struct sweep *w, struct error *err) {
    struct file_writer f;
    if (!open_file(w, "sweep.md", &f, err))
        return false;
    fprintf(
        f.stream,
        "%s: KL divergence in nats on %zu tokens of the evaluation text, at budgets from %g to "
        "%g bits a weight. MB are those of the whole model; the best single format is chosen in "
        "hindsight among %zu%s and may take 1 %% more.\n\n",
        study_name(w->st), w->text.n, w->rows[0].bits, w->rows[w->n - 1].bits, w->n_uniforms,
        w->st->options->plain ? "" : ", with and without a search for scales,");
    if (!print_table(w, f.stream, err)) {
        file_writer_abort(&f);
        return false;
    }
    print_verdict(w, f.stream);
    return file_writer_commit(&f, err);
}

// ---- the chart ----------------------------------------------------------------------------------

enum { LINES = 5 };

struct columns {
    double *x, *y; // [n]
    size_t n;
};

static void add_column(struct columns *c, size_t bytes, double kld) {
    if (!(kld > 0) || isinf(kld)) // the axis is logarithmic
        return;
    c->x[c->n] = (double)bytes / 1e6;
    c->y[c->n++] = kld;
}

static void fill_columns(const struct sweep *w, struct columns lines[LINES]) {
    for (size_t i = 0; i < w->n; i++) {
        const struct row *r = &w->rows[i];
        add_column(&lines[0], r->solver.bytes, r->solver.measured);
        add_column(&lines[1], r->solver.bytes, r->solver.predicted);
        add_column(&lines[2], r->first_last.bytes, r->first_last.measured);
        add_column(&lines[3], r->k_m.bytes, r->k_m.measured);
    }
    double worst = lines[0].n ? lines[0].y[0] : INFINITY; // what lies far above hides the rest
    for (size_t i = 0; i < w->n_uniforms; i++) {
        const struct uniform *u = &w->uniforms[i];
        size_t bytes = w->st->budget.rest + u->bytes;
        if (u->checked <= 10 * worst && bytes <= w->rows[w->n - 1].solver.bytes)
            add_column(&lines[4], bytes, u->checked);
    }
}

static bool draw(const struct sweep *w, const struct columns lines[LINES], struct error *err) {
    static const char *const names[LINES] = {"solver, measured", "solver, predicted",
                                             "heuristic first-last", "heuristic k_m",
                                             "one format for all"};
    struct chart_series series[LINES];
    size_t n = 0;
    for (size_t i = 0; i < LINES; i++)
        if (lines[i].n)
            series[n++] = (struct chart_series){.kind = i == 4 ? CHART_SCATTER : CHART_LINE,
                                                .name = names[i],
                                                .x = lines[i].x,
                                                .y = lines[i].y,
                                                .n = lines[i].n};
    struct chart chart = {.title = "Damage against bytes",
                          .subtitle = study_name(w->st),
                          .x_title = "all weights, MB",
                          .y_title = "KL divergence, nats",
                          .y_log = true,
                          .series = series,
                          .n_series = n};
    char *path = path_join(w->st->folder, "pareto.png", err);
    bool ok = path && (n == 0 || chart_write_png(&chart, path, err));
    free(path);
    return ok;
}

static bool draw_chart(const struct sweep *w, struct error *err) {
    size_t most = w->n + w->n_uniforms;
    double *values = memory_alloc(most, 2 * LINES * sizeof *values, "chart", err);
    struct columns lines[LINES];
    if (!values)
        return false;
    for (size_t i = 0; i < LINES; i++)
        lines[i] = (struct columns){values + 2 * i * most, values + (2 * i + 1) * most, 0};
    fill_columns(w, lines);
    bool ok = draw(w, lines, err);
    free(values);
    return ok;
}

// ---- the whole ----------------------------------------------------------------------------------

bool study_sweep(struct study *st, bool *any, struct error *err) {
    struct lab *lab = st->lab;
    struct sweep w = {.st = st};
    double step = (double)st->options->sweep;
    // 25 budgets are about 240 passes; who asks for them waits four times as long as for the rest.
    bool quick = study_affords(st, 60, st->n_check);
    *any = step > 0;
    if (!*any)
        return true;
    bool ok = probe_open(&w.text, lab->model, lab->model, lab->text.ids, lab->text.n, st->n_check,
                         lab->options.ctx, err) &&
              measure_uniforms(&w, quick, err) && measure_rows(&w, step, quick, err);
    *any = w.n > 0;
    ok = ok && (!*any || (write_csv(&w, err) && write_words(&w, err) && draw_chart(&w, err)));
    probe_close(&w.text);
    free(w.uniforms);
    free(w.rows);
    return ok;
}
