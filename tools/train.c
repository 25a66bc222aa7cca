// Trains a small model from a text and writes a checkpoint folder in the Hugging Face layout.
//
// A run that is interrupted (SIGINT, SIGTERM: it finishes the step and saves) or killed continues
// from its last saved state with --resume, and ends with the same bits as one that was left alone.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/timer.h"
#include "report/progress.h"
#include "text/tokenizer.h"
#include "tools/training/arguments.h"
#include "tools/training/documents.h"
#include "train/trainer.h"

// Set by the signal handler, read between steps.
static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    (void)number;
    interrupted = 1;
}

// ---- text ---------------------------------------------------------------------------------------

// The ids of a text file, or of an ids file if there is no tokenizer.
static int32_t *read_ids(const char *path, const struct tokenizer *tokenizer, size_t *n,
                         struct error *err) {
    if (!tokenizer)
        return token_data_read(path, n, err);
    struct mapping text;
    struct token_list list = {0};
    if (!mapping_open(&text, path, err))
        return NULL;
    bool ok = tokenizer_encode(tokenizer, (const char *)text.data, text.size, &list, err) &&
              (list.n > 0 || error_set(err, "%s: the text is empty", path));
    mapping_close(&text);
    if (!ok)
        token_list_free(&list);
    *n = list.n;
    return list.ids;
}

// --documents and --first-lines. *unscored is the caller's to free, after training.
static bool use_documents(struct token_data *d, const struct train_job *job,
                          const struct tokenizer *tokenizer, uint8_t **unscored,
                          struct error *err) {
    uint8_t *places = documents_find(d->ids, d->n, tokenizer, err);
    *unscored = places;
    if (!places || (job->documents && !documents_align(d, places, err)))
        return false;
    documents_skip_first_lines(places, d->n, job->first_lines, job->options.seed);
    d->unscored = places;
    return true;
}

static bool copy_file(const char *from_folder, const char *to_folder, const char *name,
                      struct error *err) {
    struct file_writer w = {0};
    size_t size;
    char *from = path_join(from_folder, name, err), *to = path_join(to_folder, name, err);
    bool ok = from && to;
    if (ok && file_exists(from) && strcmp(from, to) != 0) {
        char *text = file_read(from, 1 << 28, &size, err);
        ok = text && file_writer_open(&w, to, err);
        if (ok) {
            fwrite(text, 1, size, w.stream); // commit checks the stream
            ok = file_writer_commit(&w, err);
        }
        free(text);
    }
    free(from);
    free(to);
    return ok;
}

// ---- the log ------------------------------------------------------------------------------------

// Opens the CSV for appending; of an earlier run's rows it keeps those up to `step`, since what was
// done after the last saved state is done again.
static FILE *open_log(const char *path, uint64_t step, struct error *err) {
    struct file_writer w;
    bool keep = step > 0 && file_exists(path);
    char *old = keep ? file_read(path, 1 << 28, NULL, err) : NULL;
    if (keep && !old)
        return NULL;
    if (!folder_create_for(path, err) || !file_writer_open(&w, path, err)) {
        free(old);
        return NULL;
    }
    fputs("step,tokens,loss,lr,tokens_per_s\n", w.stream);
    char *rest = NULL;
    for (char *line = old ? strtok_r(old, "\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\n", &rest))
        if (*line >= '0' && *line <= '9' && strtoull(line, NULL, 10) <= step)
            fprintf(w.stream, "%s\n", line);
    free(old);
    if (!file_writer_commit(&w, err))
        return NULL;
    FILE *f = fopen(path, "a");
    if (!f)
        error_set(err, "%s: %s", path, strerror(errno));
    else
        setvbuf(f, NULL, _IOLBF, 0);
    return f;
}

// ---- training -----------------------------------------------------------------------------------

// A checkpoint folder, tokenizer included.
static bool export(const struct trainer *t, const struct train_job *job, const char *folder,
                   struct error *err) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "vocab.json",
                                        "merges.txt"};
    bool ok = folder_create(folder, err) && network_export(&t->network, folder, err);
    for (size_t i = 0; ok && job->tokenizer && i < sizeof names / sizeof *names; i++)
        ok = copy_file(job->tokenizer, folder, names[i], err);
    return ok;
}

// If this step is one of --snapshot's: N, 2N, 4N …
static bool take_snapshot(const struct trainer *t, const struct train_job *job, struct error *err) {
    uint64_t at = job->snapshot;
    while (at > 0 && at < t->step)
        at *= 2;
    if (at == 0 || at != t->step)
        return true;
    char *folder = memory_printf(err, "%s/step-%llu", job->out, (unsigned long long)t->step);
    bool ok = folder && export(t, job, folder, err);
    free(folder);
    return ok;
}

// Steps until the end or a signal; saves the state now and then, and when interrupted.
static bool run(struct trainer *t, const struct train_job *job, FILE *log,
                struct train_report *report, struct error *err) {
    const struct train_options *o = &t->options;
    uint64_t start = t->step, per_step = (uint64_t)o->batch * o->context;
    double saved = timer_now();
    struct progress progress;
    progress_start(&progress, "training", "tokens");
    while (t->step < o->n_steps && !interrupted) {
        double begin = timer_now();
        if (!trainer_step(t, report, err))
            return false;
        double now = timer_now();
        fprintf(log, "%llu,%llu,%.5f,%.4g,%.0f\n", (unsigned long long)t->step,
                (unsigned long long)(t->step * per_step), report->loss, report->lr,
                (double)per_step / (now - begin));
        char note[48];
        snprintf(note, sizeof note, "loss %.4f", report->loss);
        progress_update(&progress, (t->step - start) * per_step, (o->n_steps - start) * per_step,
                        note);
        if (!take_snapshot(t, job, err))
            return false;
        if (now - saved >= 60 * job->save_minutes && t->step < o->n_steps) {
            if (!trainer_save(t, job->state, err))
                return false;
            saved = now;
        }
    }
    progress_finish(&progress);
    return !interrupted || trainer_save(t, job->state, err);
}

static bool print_result(struct trainer *t, const struct train_job *job,
                         const struct tokenizer *tokenizer, double loss, double seconds,
                         uint64_t steps, struct error *err) {
    const struct train_options *o = &t->options;
    printf("%s: %zu parameters, %llu steps, loss %.4f", job->out, t->network.params.total,
           (unsigned long long)t->step, loss);
    size_t n = 0;
    int32_t *ids = job->valid ? read_ids(job->valid, tokenizer, &n, err) : NULL;
    struct token_data data = {0};
    bool ok = !job->valid ||
              (ids && token_data_init(&data, ids, n, o->context, t->network.shape.vocab, 0, err));
    if (ok && job->valid)
        printf(", held-out loss %.4f", trainer_evaluate(t, &data));
    printf(", %.1f minutes, %.0f tokens/s\n", seconds / 60,
           (double)(steps * o->batch * o->context) / seconds);
    token_data_free(&data);
    free(ids);
    return ok;
}

static bool finish(struct trainer *t, const struct train_job *job, struct error *err) {
    bool ok = export(t, job, job->out, err);
    if (ok)
        unlink(job->state);
    return ok;
}

// Exit status: 130 when interrupted (the state is saved), as shells have it.
static int train(const struct train_job *job, struct trainer *t, const struct tokenizer *tokenizer,
                 struct error *err) {
    if (job->resume && file_exists(job->state) && !trainer_restore(t, job->state, err))
        return 1;
    FILE *log = open_log(job->log, t->step, err);
    if (!log || !folder_create(job->out, err))
        return 1;
    struct train_report report = {0};
    double start = timer_now();
    uint64_t first = t->step;
    bool ok = run(t, job, log, &report, err);
    double seconds = timer_now() - start;
    if (fclose(log) != 0 && ok)
        ok = error_set(err, "%s: %s", job->log, strerror(errno));
    if (ok && interrupted && t->step < t->options.n_steps) {
        fprintf(stderr, "train: stopped after step %llu; --resume continues from %s\n",
                (unsigned long long)t->step, job->state);
        return 130;
    }
    ok = ok && finish(t, job, err) &&
         print_result(t, job, tokenizer, report.loss, seconds, t->step - first, err);
    return ok ? 0 : 1;
}

int main(int argc, char **argv) {
    struct train_job job = train_job_parse(argc, argv);
    struct error err = {0};
    struct train_shape shape;
    struct trainer t = {0};
    struct tokenizer *tokenizer = NULL;
    int32_t *ids = NULL;
    uint8_t *unscored = NULL;
    size_t n = 0;
    int status = 1;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    if (train_shape_read(&shape, job.config, &err) &&
        (!job.tokenizer || (tokenizer = tokenizer_load(job.tokenizer, &err))) &&
        (ids = read_ids(job.ids ? job.ids : job.data, tokenizer, &n, &err))) {
        if (tokenizer && shape.eos < 0)
            shape.eos = tokenizer_eos(tokenizer);
        if (trainer_init(&t, &shape, &job.options, ids, n, &err) &&
            ((!job.documents && job.first_lines == 1) ||
             use_documents(&t.data, &job, tokenizer, &unscored, &err)) &&
            (!job.init || network_import(&t.network, job.init, &err)))
            status = train(&job, &t, tokenizer, &err);
    }
    trainer_free(&t);
    tokenizer_free(tokenizer);
    free(ids);
    free(unscored);
    free(job.state);
    if (status == 1)
        fprintf(stderr, "train: %s\n", err.message);
    return status;
}
