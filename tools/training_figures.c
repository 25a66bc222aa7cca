// The story of a training in two runs: its loss curve, and what its snapshots can do.
//     training_figures FIRST.csv SECOND.csv SNAPSHOTS.csv MODEL_FOLDER EVAL.txt RESULTS_FOLDER
// FIRST and SECOND are tools/train's logs, SNAPSHOTS the rows that phase1 wrote for the --snapshot
// folders of both (…/first/step-N, …/model/step-N) and for the model at the end. The floor is the
// evaluation text's information, EVAL.json beside EVAL.txt, per token of MODEL_FOLDER's tokenizer.
// Writes training-loss.png and training.md.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "io/json.h"
#include "report/chart.h"
#include "report/csv.h"
#include "text/tokenizer.h"

// Nats per token that no model can on average go below.
static bool read_floor(const char *model, const char *text_path, double *floor, struct error *err) {
    size_t size = 0, stem = strlen(text_path);
    stem -= stem > 4 ? 4 : 0;
    char *path = memory_printf(err, "%.*s.json", (int)stem, text_path);
    cJSON *json = path ? json_parse_file(path, err) : NULL;
    struct tokenizer *t = tokenizer_load(model, err);
    char *text = t ? file_read(text_path, 1 << 28, &size, err) : NULL;
    struct token_list list = {0};
    bool ok = json && text && tokenizer_encode(t, text, size, &list, err) && list.n > 0;
    double nats = 0;
    ok = ok && json_get_number(json, "nats", &nats, path, err) &&
         (nats > 0 || error_set(err, "%s: 'nats' is not there, or not positive", path));
    *floor = nats / (double)list.n;
    token_list_free(&list);
    free(text);
    tokenizer_free(t);
    cJSON_Delete(json);
    free(path);
    return ok;
}

// Means over stretches of a log, so that the line is not the noise of single batches.
enum { POINTS = 300, MAX_SNAPSHOTS = 64 };

struct curve {
    const struct csv *log;
    double before; // tokens seen before this run
    double x[POINTS], y[POINTS];
    size_t n;
};

static double tokens_at(const struct curve *c, size_t row) {
    return (c->before + csv_number(c->log, row, "tokens")) * 1e-6;
}

static void fill_curve(struct curve *c) {
    size_t rows = c->log->rows - 1;
    c->n = rows < POINTS ? rows : POINTS;
    for (size_t p = 0; p < c->n; p++) {
        size_t first = p * rows / c->n, last = (p + 1) * rows / c->n;
        c->y[p] = 0;
        for (size_t r = first; r < last; r++)
            c->y[p] += csv_number(c->log, r, "loss") / (double)(last - first);
        c->x[p] = tokens_at(c, last - 1);
    }
}

// When a snapshot was taken, in million tokens: at step N of its run, or at the end.
static double snapshot_time(const struct curve *first, const struct curve *second,
                            const char *folder) {
    const struct curve *c = strstr(folder, "/first") ? first : second;
    const char *step = strrchr(folder, '-');
    size_t rows = c->log->rows - 1;
    if (!step)
        return tokens_at(c, rows - 1);
    for (size_t r = 0; r < rows; r++)
        if (strcmp(csv_text(c->log, r, "step"), step + 1) == 0)
            return tokens_at(c, r);
    return NAN;
}

static bool draw_loss(const struct csv *logs, const struct csv *snapshots, double floor,
                      const char *path, struct error *err) {
    struct curve first = {.log = &logs[0]}, second = {.log = &logs[1]};
    double held_x[MAX_SNAPSHOTS], held_y[MAX_SNAPSHOTS], ends[2], floors[2] = {floor, floor};
    size_t held = 0;
    second.before = csv_number(first.log, first.log->rows - 2, "tokens");
    fill_curve(&first);
    fill_curve(&second);
    for (size_t r = 0; r + 1 < snapshots->rows && held < MAX_SNAPSHOTS; r++, held++) {
        held_x[held] = snapshot_time(&first, &second, csv_text(snapshots, r, "model"));
        held_y[held] = csv_number(snapshots, r, "nll");
    }
    ends[0] = first.x[0], ends[1] = second.x[second.n - 1];
    struct chart_series series[] = {
        {.kind = CHART_LINE,
         .name = "parts of stories (4 in 10 tokens)",
         .x = first.x,
         .y = first.y,
         .n = first.n},
        {.kind = CHART_LINE, .name = "whole stories", .x = second.x, .y = second.y, .n = second.n},
        {.kind = CHART_SCATTER, .name = "held-out stories", .x = held_x, .y = held_y, .n = held},
        {.kind = CHART_LINE, .name = "floor of held-out stories", .x = ends, .y = floors, .n = 2},
    };
    struct chart chart = {.title = "Parts of stories, then whole ones",
                          .x_title = "million tokens seen",
                          .y_title = "loss, nats per token",
                          .x_log = true,
                          .y_log = true,
                          .series = series,
                          .n_series = sizeof series / sizeof series[0]};
    return chart_write_png(&chart, path, err);
}

static bool write_table(const struct csv *s, double floor, const char *path, struct error *err) {
    struct file_writer w;
    if (!file_writer_open(&w, path, err))
        return false;
    fprintf(w.stream,
            "Measured by `make results` on the checkpoints `make train` leaves; the floor is "
            "%.4f nats, perplexity %.3f.\n\n",
            floor, exp(floor));
    fprintf(w.stream, "| model | loss | perplexity | questions right |\n|:--|--:|--:|--:|\n");
    for (size_t r = 0; r + 1 < s->rows; r++)
        fprintf(w.stream, "| %s | %.3f | %.3f | %.1f %% |\n", csv_text(s, r, "model"),
                csv_number(s, r, "nll"), csv_number(s, r, "ppl"),
                100 * csv_number(s, r, "accuracy"));
    for (size_t r = 0; r + 1 < s->rows; r++)
        fprintf(w.stream, "\n**%s** …%s\n", csv_text(s, r, "model"), csv_text(s, r, "generated"));
    return file_writer_commit(&w, err);
}

static bool write_all(char **argv, const struct csv *logs, const struct csv *snapshots,
                      struct error *err) {
    double floor;
    char *chart = path_join(argv[6], "training-loss.png", err);
    char *table = path_join(argv[6], "training.md", err);
    bool ok = chart && table && read_floor(argv[4], argv[5], &floor, err) &&
              draw_loss(logs, snapshots, floor, chart, err) &&
              write_table(snapshots, floor, table, err);
    if (ok)
        printf("%s\n%s\n", chart, table);
    free(chart);
    free(table);
    return ok;
}

static bool read_log(struct csv *log, const char *path, struct error *err) {
    return csv_read(log, path, err) &&
           (log->rows > 1 || error_set(err, "%s has no rows: no step was made", path));
}

int main(int argc, char **argv) {
    struct error err = {0};
    struct csv logs[2] = {{0}, {0}}, snapshots = {0};
    if (argc != 7) {
        fprintf(stderr, "usage: training_figures FIRST.csv SECOND.csv SNAPSHOTS.csv MODEL EVAL.txt "
                        "RESULTS\n");
        return 2;
    }
    bool ok = read_log(&logs[0], argv[1], &err) && read_log(&logs[1], argv[2], &err) &&
              csv_read(&snapshots, argv[3], &err) && write_all(argv, logs, &snapshots, &err);
    csv_free(&logs[0]);
    csv_free(&logs[1]);
    csv_free(&snapshots);
    if (!ok)
        fprintf(stderr, "training_figures: %s\n", err.message);
    return ok ? 0 : 1;
}
