// The story of a training run: its loss curve, and what its snapshots can do.
//     training_figures LOG.csv SNAPSHOTS.csv MODEL_FOLDER EVAL.txt RESULTS_FOLDER
// LOG is tools/train's, SNAPSHOTS the rows that phase1 wrote for each of its --snapshot folders
// (their names end in the step). The floor is the evaluation text's information, EVAL.json beside
// EVAL.txt, per token of MODEL_FOLDER's tokenizer. Writes training-loss.png and training.md.
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

// Means over stretches of the log, so that the line is not the noise of single batches.
enum { POINTS = 300 };

static bool draw_loss(const struct csv *log, const struct csv *snapshots, double floor,
                      const char *path, struct error *err) {
    double x[POINTS], y[POINTS], held_x[64], held_y[64], ends[2], floors[2] = {floor, floor};
    size_t rows = log->rows - 1, n = rows < POINTS ? rows : POINTS, held = 0;
    for (size_t p = 0; p < n; p++) {
        size_t first = p * rows / n, last = (p + 1) * rows / n;
        y[p] = 0;
        for (size_t r = first; r < last; r++)
            y[p] += csv_number(log, r, "loss") / (double)(last - first);
        x[p] = csv_number(log, last - 1, "tokens") * 1e-6;
    }
    for (size_t r = 0; r + 1 < snapshots->rows && held < 64; r++, held++) {
        const char *step = strrchr(csv_text(snapshots, r, "model"), '-');
        held_y[held] = csv_number(snapshots, r, "nll");
        held_x[held] = NAN;
        for (size_t l = 0; step && l < rows; l++)
            if (strcmp(csv_text(log, l, "step"), step + 1) == 0)
                held_x[held] = csv_number(log, l, "tokens") * 1e-6;
    }
    ends[0] = n ? x[0] : 0, ends[1] = n ? x[n - 1] : 1;
    struct chart_series series[] = {
        {.kind = CHART_LINE, .name = "training text", .x = x, .y = y, .n = n},
        {.kind = CHART_SCATTER, .name = "held-out text", .x = held_x, .y = held_y, .n = held},
        {.kind = CHART_LINE, .name = "floor", .x = ends, .y = floors, .n = 2},
    };
    struct chart chart = {.title = "Grammar first, memory later",
                          .x_title = "million tokens seen",
                          .y_title = "loss, nats per token",
                          .x_log = true,
                          .y_log = true,
                          .series = series,
                          .n_series = 3};
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

static bool write_all(char **argv, const struct csv *log, const struct csv *snapshots,
                      struct error *err) {
    double floor;
    char *chart = path_join(argv[5], "training-loss.png", err);
    char *table = path_join(argv[5], "training.md", err);
    bool ok = chart && table && read_floor(argv[3], argv[4], &floor, err) &&
              draw_loss(log, snapshots, floor, chart, err) &&
              write_table(snapshots, floor, table, err);
    if (ok)
        printf("%s\n%s\n", chart, table);
    free(chart);
    free(table);
    return ok;
}

int main(int argc, char **argv) {
    struct error err = {0};
    struct csv log = {0}, snapshots = {0};
    if (argc != 6) {
        fprintf(stderr, "usage: training_figures LOG.csv SNAPSHOTS.csv MODEL EVAL.txt RESULTS\n");
        return 2;
    }
    bool ok = csv_read(&log, argv[1], &err) && csv_read(&snapshots, argv[2], &err) &&
              write_all(argv, &log, &snapshots, &err);
    csv_free(&log);
    csv_free(&snapshots);
    if (!ok)
        fprintf(stderr, "training_figures: %s\n", err.message);
    return ok ? 0 : 1;
}
