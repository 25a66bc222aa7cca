#include "eval/sensitivity_report.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "eval/activations.h"
#include "quant/format.h"
#include "report/markdown.h"

// What the functions below share.
struct writer {
    const struct sensitivity_report *r;
    const struct sensitivity *s;
    FILE *f;
    size_t *order;                     // [n_tensors] the blocks' tensors, worst first
    size_t n;                          // of them
    struct sensitivity_group *kinds;   // [n_kinds]
    struct sensitivity_group *layers;  // [n_layers]
    size_t n_kinds, n_layers, weights; // weights: of all blocks
    double kld;                        // Σ over the blocks in the main format
    struct error *err;
};

static const struct sensitivity_cell *main_cell(const struct writer *w, size_t tensor) {
    return sensitivity_at(w->s, tensor, w->r->format);
}

// Of the damage per weight, in multiples of the average.
static double density(const struct writer *w, const struct sensitivity_group *g) {
    return w->kld > 0 ? g->kld / (double)g->weights / (w->kld / (double)w->weights) : NAN;
}

static double share(double part, double whole) {
    return whole > 0 ? 100 * part / whole : NAN;
}

// "model.layers.0.mlp.down_proj" of "model.layers.0.mlp.down_proj.weight".
static int short_length(const char *name) {
    size_t n = strlen(name);
    return (int)(n > 7 && strcmp(name + n - 7, ".weight") == 0 ? n - 7 : n);
}

// ---- a table cell by cell ---------------------------------------------------------------------

struct filling {
    struct markdown_table table;
    size_t row, col;
    bool ok;
    struct error *err;
};

static struct filling table_start(struct writer *w, size_t rows, const char *const *titles,
                                  size_t cols) {
    struct filling t = {.err = w->err};
    t.ok = markdown_table_init(&t.table, rows + 1, cols, w->err);
    for (size_t c = 0; t.ok && c < cols; c++)
        t.ok = markdown_table_set(&t.table, 0, c, titles[c], w->err);
    t.row = 1;
    return t;
}

__attribute__((format(printf, 2, 3))) static void put(struct filling *t, const char *fmt, ...) {
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    t->ok = t->ok && markdown_table_set(&t->table, t->row, t->col, text, t->err);
    if (++t->col == t->table.cols) {
        t->col = 0;
        t->row++;
    }
}

static void put_number(struct filling *t, double value, const char *fmt) {
    char text[64];
    snprintf(text, sizeof text, fmt, value);
    put(t, "%s", isnan(value) ? "–" : text);
}

static bool table_end(struct writer *w, struct filling *t) {
    if (t->ok)
        markdown_table_print(&t->table, w->f);
    markdown_table_free(&t->table);
    fputc('\n', w->f);
    return t->ok;
}

// ---- what stands out --------------------------------------------------------------------------

static void tell_worst(struct writer *w) {
    size_t worst = w->order[0], tenth = (w->n + 9) / 10, weights = 0;
    double kld = 0;
    for (size_t i = 0; i < tenth; i++) {
        const struct sensitivity_tensor *t = &w->s->tensors[w->order[i]];
        kld += sensitivity_kld(main_cell(w, w->order[i]));
        weights += t->n * t->k;
    }
    fprintf(w->f,
            "- **%s** `%.*s` alone is %.0f %% of it, the worst tenth (%zu of %zu tensors, %.0f %% "
            "of the weights) %.0f %%.\n",
            share(kld, w->kld) > 50 ? "A few tensors do most of the damage."
                                    : "The damage is spread over many tensors.",
            short_length(w->s->tensors[worst].name), w->s->tensors[worst].name,
            share(sensitivity_kld(main_cell(w, worst)), w->kld), tenth, w->n,
            share((double)weights, (double)w->weights), share(kld, w->kld));
}

static const struct sensitivity_group *extreme(const struct sensitivity_group *groups, size_t n,
                                               bool most) {
    const struct sensitivity_group *best = groups;
    for (size_t i = 1; i < n; i++) {
        double a = groups[i].kld / (double)groups[i].weights, b = best->kld / (double)best->weights;
        if (most ? a > b : a < b)
            best = &groups[i];
    }
    return best;
}

static void tell_kinds(struct writer *w) {
    const struct sensitivity_group *most = extreme(w->kinds, w->n_kinds, true),
                                   *least = extreme(w->kinds, w->n_kinds, false);
    fprintf(
        w->f,
        "- **Kinds of tensors differ%s.** All `%s` together are %.0f %% of the damage with %.0f "
        "%% of the weights: %.1f times the average per weight. At the other end, `%s` does "
        "%.2f times the average.\n",
        density(w, most) > 1.5 ? "" : " little", most->kind, share(most->kld, w->kld),
        share((double)most->weights, (double)w->weights), density(w, most), least->kind,
        density(w, least));
}

static void tell_layers(struct writer *w) {
    if (w->n_layers < 3)
        return;
    const struct sensitivity_group *first = &w->layers[0], *last = &w->layers[w->n_layers - 1],
                                   *most = &w->layers[0];
    for (size_t i = 1; i < w->n_layers; i++)
        if (w->layers[i].kld > most->kld)
            most = &w->layers[i];
    double even = 100.0 * 2 / (double)w->n_layers, ends = share(first->kld + last->kld, w->kld);
    fprintf(
        w->f,
        "- **Layer %zu hurts most**, with %.0f %% of the damage. The old rule \"spare the first "
        "and the last layer\" would save %.0f %%; any two of these layers would save %.0f %% if "
        "all were alike. %s\n",
        most->layer, share(most->kld, w->kld), ends, even,
        ends > 1.5 * even ? "So it is a good rule here." : "So it is no good rule here.");
}

typedef double tensor_number(const struct writer *w, size_t tensor);

static double damage_of(const struct writer *w, size_t t) {
    return sensitivity_kld(main_cell(w, t));
}
static double weight_error_of(const struct writer *w, size_t t) {
    return main_cell(w, t)->weight_nmse;
}
static double output_error_of(const struct writer *w, size_t t) {
    return main_cell(w, t)->output_nmse;
}
static double kurtosis_of(const struct writer *w, size_t t) {
    return w->s->tensors[t].weight_kurtosis;
}
static double outliers_of(const struct writer *w, size_t t) {
    return w->s->tensors[t].input_outlier_ratio;
}

// How well a number that is cheap to have ranks the tensors by damage.
static bool ranks_like_damage(struct writer *w, tensor_number *number, double *rho) {
    double *pairs = memory_alloc(w->n, 2 * sizeof *pairs, "ranks", w->err);
    size_t n = 0;
    for (size_t i = 0; pairs && i < w->n; i++) {
        double a = number(w, w->order[i]), b = damage_of(w, w->order[i]);
        if (isnan(a) || isnan(b))
            continue;
        pairs[n] = a;
        pairs[w->n + n++] = b;
    }
    bool ok = pairs && spearman(pairs, pairs + w->n, n, rho, w->err);
    free(pairs);
    return ok;
}

static bool tell_shortcuts(struct writer *w) {
    double weight, out, kurtosis, outliers;
    if (!ranks_like_damage(w, weight_error_of, &weight) ||
        !ranks_like_damage(w, output_error_of, &out) ||
        !ranks_like_damage(w, kurtosis_of, &kurtosis) ||
        !ranks_like_damage(w, outliers_of, &outliers))
        return false;
    fprintf(
        w->f,
        "- **Can it be had cheaper?** Rank correlation with the damage, over the tensors: the "
        "weights' error (NMSE) %.2f, the outputs' error %.2f, the weights' kurtosis %.2f, the "
        "inputs' largest channel against the median one %.2f. 1 would be as good as measuring.\n",
        weight, out, kurtosis, outliers);
    return true;
}

static void tell_outliers(struct writer *w) {
    size_t with = 0, worst = SIZE_MAX;
    for (size_t i = 0; i < w->n; i++) {
        const struct sensitivity_tensor *t = &w->s->tensors[w->order[i]];
        with += t->input_outliers > 0;
        if (!isnan(t->input_outlier_ratio) &&
            (worst == SIZE_MAX ||
             t->input_outlier_ratio > w->s->tensors[worst].input_outlier_ratio))
            worst = w->order[i];
    }
    if (worst == SIZE_MAX)
        return;
    const struct sensitivity_tensor *t = &w->s->tensors[worst];
    fprintf(
        w->f,
        "- **Outlier channels**: %zu of %zu tensors read inputs with a channel at least %d times "
        "the median one. The largest is channel %zu before `%.*s`: %.0f times (its weights' "
        "kurtosis is %.1f; a normal distribution has 3).\n",
        with, w->n, OUTLIER_RATIO, t->input_worst_channel, short_length(t->name), t->name,
        t->input_outlier_ratio, t->weight_kurtosis);
}

// The one change of format that saves most damage per byte it costs.
static void tell_repair(struct writer *w) {
    const struct sensitivity *s = w->s;
    size_t best_tensor = 0, best_format = w->r->format, bytes = 0;
    double best = 0;
    for (size_t i = 0; i < w->n; i++) {
        const struct sensitivity_cell *from = main_cell(w, w->order[i]);
        for (size_t f = 0; f < s->n_formats; f++) {
            const struct sensitivity_cell *to = sensitivity_at(s, w->order[i], f);
            double saved = sensitivity_kld(from) - sensitivity_kld(to);
            if (to->bytes > from->bytes && saved / (double)(to->bytes - from->bytes) > best) {
                best = saved / (double)(to->bytes - from->bytes);
                best_tensor = w->order[i];
                best_format = f;
            }
        }
    }
    for (size_t i = 0; i < w->n; i++)
        bytes += main_cell(w, w->order[i])->bytes;
    if (best == 0 || bytes == 0)
        return;
    const struct sensitivity_cell *from = main_cell(w, best_tensor),
                                  *to = sensitivity_at(s, best_tensor, best_format);
    fprintf(
        w->f,
        "- **The best first repair** is `%.*s` in %s: %.1f kB more (%.2f %% of the blocks) take "
        "away %.0f %% of the damage.\n",
        short_length(s->tensors[best_tensor].name), s->tensors[best_tensor].name,
        s->formats[best_format]->label, 1e-3 * (double)(to->bytes - from->bytes),
        share((double)(to->bytes - from->bytes), (double)bytes),
        share(sensitivity_kld(from) - sensitivity_kld(to), w->kld));
}

static void tell_sum(struct writer *w) {
    double measured = w->r->uniform ? w->r->uniform[w->r->format] : NAN,
           off = w->kld / measured - 1;
    if (isnan(off))
        return;
    fprintf(w->f,
            "- **Do the parts add up?** In %s they sum to %.3g nats; all blocks in it at once, on "
            "the same text, are %.3g. The sum is %.0f %% too %s.\n",
            w->s->formats[w->r->format]->label, w->kld, measured, fabs(100 * off),
            off < 0 ? "low" : "high");
}

static bool write_findings(struct writer *w) {
    if (!(w->kld > 0)) {
        const char *format = w->s->formats[w->r->format]->label;
        if (isnan(w->kld))
            fprintf(w->f, "Nothing that adds up: %s cannot hold every tensor.\n", format);
        else
            fputs("Nothing: no tensor does any damage.\n", w->f);
        return true;
    }
    tell_worst(w);
    tell_kinds(w);
    tell_layers(w);
    bool ok = tell_shortcuts(w);
    tell_outliers(w);
    tell_repair(w);
    tell_sum(w);
    return ok;
}

// ---- the tables -------------------------------------------------------------------------------

static void write_method(struct writer *w) {
    const struct sensitivity *s = w->s;
    size_t measured, cells = sensitivity_cells(s, &measured);
    double error = 0; // of log kld
    for (size_t i = 0; i < s->n_tensors * s->n_formats; i++) {
        const struct sensitivity_cell *c = &s->cells[i];
        error += c->kld_error > 0 && isfinite(c->kld_measured) ? c->kld_error / c->kld_measured : 0;
    }
    fprintf(
        w->f,
        "# Which tensors hurt: %s\n\n"
        "Each tensor was quantized alone%s, everything else left as it was, and the model's "
        "next-token distribution compared with the original's (KL divergence, in nats) over %zu "
        "tokens of %s, in windows of %zu. Of %zu combinations of tensor and format, %zu were "
        "measured",
        w->r->model, s->search ? ", with scales of least error" : "", s->tokens, w->r->text,
        s->window, cells, measured);
    if (measured < cells)
        fprintf(w->f, " and %zu estimated from those", cells - measured);
    fprintf(w->f, ". The tokens' scatter makes a measurement uncertain by %.0f %% on average.",
            measured ? 100 * error / (double)measured : 0);
    if (s->check.cells > 1)
        fprintf(
            w->f,
            " Where there is both, the rank correlation of estimate and measurement is %.3f over "
            "%zu cells, and an estimate is typically off by a factor of %.2f.",
            s->check.rank_correlation, s->check.cells, s->check.typical_factor);
    fputs("\n\n", w->f);
}

static bool write_formats(struct writer *w) {
    static const char *const titles[] = {"Format",      "Bits/weight",     "Σ of tensors, nats",
                                         "All at once", "Σ / all at once", "Mean output NMSE",
                                         "Mean SNR, dB"};
    const struct sensitivity *s = w->s;
    struct filling t = table_start(w, s->n_formats, titles, 7);
    for (size_t f = 0; f < s->n_formats; f++) {
        double bytes = 0, nmse = 0, snr = 0;
        for (size_t i = 0; i < w->n; i++) {
            const struct sensitivity_cell *c = sensitivity_at(s, w->order[i], f);
            bytes += c->bytes ? (double)c->bytes : NAN;
            nmse += c->output_nmse / (double)w->n;
            snr += c->weight_snr_db / (double)w->n;
        }
        double sum = sensitivity_sum(s, f), all = w->r->uniform ? w->r->uniform[f] : NAN;
        put(&t, "%s", s->formats[f]->label);
        put_number(&t, 8 * bytes / (double)w->weights, "%.3f");
        put_number(&t, sum, "%.3g");
        put_number(&t, all, "%.3g");
        put_number(&t, all > 0 ? sum / all : NAN, "%.2f");
        put_number(&t, nmse, "%.3g");
        put_number(&t, snr, "%.1f");
    }
    if (t.ok)
        t.table.left[0] = true;
    fputs("## Formats\n\n", w->f);
    return table_end(w, &t);
}

static bool write_groups(struct writer *w, const char *title, const char *what,
                         const struct sensitivity_group *groups, size_t n) {
    const char *titles[] = {what,        "Tensors",         "Weights",
                            "KLD, nats", "Share of damage", "Per weight, × average"};
    struct filling t = table_start(w, n, titles, 6);
    for (size_t g = 0; g < n; g++) {
        if (groups[g].kind)
            put(&t, "%s", groups[g].kind);
        else
            put(&t, "%zu", groups[g].layer);
        put(&t, "%zu", groups[g].tensors);
        put(&t, "%.1f %%", share((double)groups[g].weights, (double)w->weights));
        put_number(&t, groups[g].kld, "%.3g");
        put_number(&t, share(groups[g].kld, w->kld), "%.1f %%");
        put_number(&t, density(w, &groups[g]), "%.2f");
    }
    if (t.ok)
        t.table.left[0] = true;
    fprintf(w->f, "## %s, in %s\n\n", title, w->s->formats[w->r->format]->label);
    return table_end(w, &t);
}

static bool write_ranking(struct writer *w) {
    static const char *const titles[] = {"#",
                                         "Tensor",
                                         "KLD, nats",
                                         "Share",
                                         "Summed",
                                         "Weight NMSE",
                                         "SNR, dB",
                                         "Cosine",
                                         "Output NMSE",
                                         "Output cos",
                                         "Kurtosis",
                                         "Input outliers",
                                         "Largest / median channel"};
    const struct sensitivity *s = w->s;
    struct filling t = table_start(w, s->n_tensors, titles, 13);
    size_t *order = memory_alloc(s->n_tensors, sizeof *order, "ranks", w->err);
    double summed = 0;
    if (order)
        sensitivity_rank(s, w->r->format, order);
    for (size_t i = 0; order && i < s->n_tensors; i++) {
        const struct sensitivity_tensor *tensor = &s->tensors[order[i]];
        const struct sensitivity_cell *c = main_cell(w, order[i]);
        bool block = tensor->layer != SENSITIVITY_NO_LAYER;
        double kld = sensitivity_kld(c);
        summed += block ? kld : 0;
        put(&t, "%zu", i + 1);
        put(&t, "%.*s%s", short_length(tensor->name), tensor->name,
            isnan(c->kld_measured) && c->bytes ? " ≈" : "");
        put_number(&t, kld, "%.3g");
        put_number(&t, block ? share(kld, w->kld) : NAN, "%.1f %%");
        put_number(&t, block ? share(summed, w->kld) : NAN, "%.1f %%");
        put_number(&t, c->weight_nmse, "%.3g");
        put_number(&t, c->weight_snr_db, "%.1f");
        put_number(&t, c->weight_cosine, "%.5f");
        put_number(&t, c->output_nmse, "%.3g");
        put_number(&t, c->output_cosine, "%.5f");
        put_number(&t, tensor->weight_kurtosis, "%.1f");
        put(&t, "%zu", tensor->input_outliers);
        put_number(&t, tensor->input_outlier_ratio, "%.1f");
    }
    if (t.ok)
        t.table.left[1] = true;
    fprintf(w->f,
            "## Every tensor, in %s\n\nShares are of the blocks' tensors; ≈ marks an estimate.\n\n",
            s->formats[w->r->format]->label);
    bool ok = table_end(w, &t) && order;
    free(order);
    return ok;
}

// ---- the whole --------------------------------------------------------------------------------

static bool writer_init(struct writer *w) {
    const struct sensitivity *s = w->s;
    w->order = memory_alloc(s->n_tensors, sizeof *w->order, "ranks", w->err);
    w->kinds = memory_alloc(s->n_tensors, sizeof *w->kinds, "groups", w->err);
    w->layers = memory_alloc(s->n_tensors, sizeof *w->layers, "groups", w->err);
    if (!w->order || !w->kinds || !w->layers)
        return false;
    w->n_kinds = sensitivity_by_kind(w->r, w->kinds);
    w->n_layers = sensitivity_by_layer(w->r, w->layers);
    for (size_t i = 0; i < w->n_layers; i++) {
        w->weights += w->layers[i].weights;
        w->kld += w->layers[i].kld;
    }
    sensitivity_rank(s, w->r->format, w->order);
    for (size_t i = 0; i < s->n_tensors; i++) // the blocks' move to the front
        if (s->tensors[w->order[i]].layer != SENSITIVITY_NO_LAYER)
            w->order[w->n++] = w->order[i];
    return w->n > 0 || error_set(w->err, "no tensor of a block was measured: nothing to report");
}

static bool write_all(struct writer *w) {
    static const char *const charts[] = {"damage", "output-error", "layers", "formats", "outliers"};
    write_method(w);
    fprintf(w->f, "## What stands out, in %s\n\n", w->s->formats[w->r->format]->label);
    if (!write_findings(w))
        return false;
    fputc('\n', w->f);
    for (size_t i = 0; i < sizeof charts / sizeof *charts; i++)
        fprintf(w->f, "![%s](sensitivity-%s.png)\n", charts[i], charts[i]);
    fputc('\n', w->f);
    return write_formats(w) && write_groups(w, "Kinds of tensors", "Kind", w->kinds, w->n_kinds) &&
           write_groups(w, "Layers", "Layer", w->layers, w->n_layers) && write_ranking(w);
}

static bool write_file(struct writer *w, const char *folder, const char *name,
                       bool (*write)(struct writer *)) {
    struct file_writer out;
    char *path = path_join(folder, name, w->err);
    bool ok = path && file_writer_open(&out, path, w->err);
    if (ok) {
        w->f = out.stream;
        ok = write(w) ? file_writer_commit(&out, w->err) : (file_writer_abort(&out), false);
    }
    free(path);
    return ok;
}

bool sensitivity_write_report(const struct sensitivity_report *r, const char *folder,
                              struct error *err) {
    struct writer w = {.r = r, .s = r->s, .err = err};
    bool ok = writer_init(&w) && folder_create(folder, err) &&
              write_file(&w, folder, "lbl_analysis.md", write_all) &&
              write_file(&w, folder, "lbl_findings.md", write_findings);
    free(w.order);
    free(w.kinds);
    free(w.layers);
    return ok;
}
