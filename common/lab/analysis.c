#include "lab/analysis.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

enum { TEXT_MAX = 1 << 30 };

bool lab_calibration(const struct lab *lab, struct token_list *out, struct error *err) {
    const char *given = lab->options.calib;
    char *path = given ? memory_strdup(given, err) : lab_project_path("data/calib.txt", err);
    size_t size;
    char *text = path ? file_read(path, TEXT_MAX, &size, err) : NULL;
    int32_t bos = tokenizer_bos(lab->tokenizer);
    *out = (struct token_list){0};
    bool ok = text && (bos < 0 || token_list_push(out, bos, err)) &&
              tokenizer_encode(lab->tokenizer, text, size, out, err);
    if (ok && out->n < 2)
        ok = error_set(err, "%s: %zu tokens, too few to calibrate on", path, out->n);
    free(text);
    free(path);
    if (!ok)
        token_list_free(out);
    return ok;
}

char *lab_results_folder(const struct lab *lab, struct error *err) {
    static const char bundled[] = "bundled";
    const char *name = lab->options.model ? lab->options.model : bundled;
    size_t n = strlen(name);
    while (n > 1 && name[n - 1] == '/')
        n--;
    size_t from = n;
    while (from && name[from - 1] != '/')
        from--;
    n -= from;
    bool committed = n == sizeof bundled - 1 && strncmp(name + from, bundled, n) == 0;
    return memory_printf(err, "%s/%.*s", committed ? "out" : "results", (int)n, name + from);
}

char *lab_analysis_folder(const struct lab *lab, const char *given, struct error *err) {
    char *folder = given ? memory_strdup(given, err) : lab_results_folder(lab, err);
    char *file = folder ? path_join(folder, "sensitivity.csv", err) : NULL;
    bool ok = file && file_check_writable(file, err);
    free(file);
    if (ok)
        return folder;
    free(folder);
    return NULL;
}

const struct quant_format **lab_formats(const char *names, size_t *n, struct error *err) {
    size_t most = 1;
    for (const char *c = names; *c; c++)
        most += *c == ',';
    const struct quant_format **formats = memory_alloc(most, sizeof(void *), "formats", err);
    char *copy = memory_strdup(names, err), *rest = NULL;
    bool ok = formats && copy;
    *n = 0;
    for (char *name = ok ? strtok_r(copy, ",", &rest) : NULL; ok && name;
         name = strtok_r(NULL, ",", &rest)) {
        const struct quant_format *f = quant_format_find(name);
        ok = f || error_set(err, "no weight format is called '%s'", name);
        for (size_t i = 0; ok && i < *n; i++)
            ok = formats[i] != f || error_set(err, "'%s' is named twice", name);
        formats[(*n)++] = f;
    }
    ok = ok && (*n || error_set(err, "no format is named"));
    free(copy);
    if (ok)
        return formats;
    free((void *)formats);
    return NULL;
}

struct watch {
    const struct lab *lab;
    const struct sensitivity *s;
    struct progress progress;
    bool seen, told;
};

// What the first cells tell: what is left to do, and how long that takes.
static void tell(struct watch *w, double seconds_left) {
    if (!w->seen && w->s->kept)
        cli_note(w->lab->program, "%zu of %zu matrices were measured by a run that was stopped",
                 w->s->kept, w->s->n_tensors);
    w->seen = true;
    if (w->told || seconds_left == 0)
        return;
    w->told = true;
    if (seconds_left > 60)
        cli_note(w->lab->program,
                 "this takes about %.0f minutes more; a run that is stopped can be "
                 "taken up again",
                 seconds_left / 60);
}

static void show(void *user, size_t done, size_t total, double seconds_left, const char *what) {
    struct watch *w = user;
    if (!w->lab->options.quiet)
        tell(w, seconds_left);
    w->progress.left = seconds_left;
    progress_update(&w->progress, done, total, what);
}

bool lab_sensitivity_measure(const struct lab *lab, const struct token_list *text,
                             const struct quant_format *const *formats, size_t n_formats,
                             const struct sensitivity_options *options, struct sensitivity *s,
                             struct error *err) {
    struct watch w = {.lab = lab, .s = s};
    // The first progress comes after a pass over the whole model.
    if (!lab->options.quiet)
        cli_note(lab->program, "measuring every matrix in %zu format%s, to be kept in %s",
                 n_formats, n_formats == 1 ? "" : "s", options->path);
    progress_start(&w.progress, "sensitivity", "cells");
    bool ok = sensitivity_measure(lab->model, formats, n_formats, text->ids, text->n, options, s,
                                  show, &w, err);
    progress_finish(&w.progress);
    return ok;
}

static bool has_formats(const struct sensitivity *s, const struct quant_format *const *formats,
                        size_t n) {
    for (size_t i = 0; i < n; i++) {
        size_t f = 0;
        while (f < s->n_formats && s->formats[f] != formats[i])
            f++;
        if (f == s->n_formats)
            return false;
    }
    return true;
}

// True with s filled if the file is there and will do; whatever is wrong with it, it is made again.
static bool read_again(const struct lab *lab, const struct token_list *calib,
                       const struct quant_format *const *formats, size_t n_formats,
                       const struct sensitivity_options *options, const char *path,
                       struct sensitivity *s) {
    struct error ignored;
    if (!file_exists(path) || !sensitivity_read_for(s, path, lab->model, &ignored))
        return false;
    if (s->text == sensitivity_text(calib->ids, calib->n) && s->search == options->search &&
        sensitivity_blocks_only(s) == options->blocks_only && has_formats(s, formats, n_formats))
        return true;
    sensitivity_free(s);
    return false;
}

static bool run(const struct lab *lab, const struct quant_format *const *formats, size_t n_formats,
                const struct sensitivity_options *options, const char *folder, bool reuse,
                struct sensitivity *s, struct error *err) {
    struct token_list calib;
    struct sensitivity_options o = *options;
    char *path = path_join(folder, "sensitivity.csv", err);
    bool ok = path && lab_calibration(lab, &calib, err);
    o.path = path;
    if (ok) {
        ok = (reuse && read_again(lab, &calib, formats, n_formats, &o, path, s)) ||
             lab_sensitivity_measure(lab, &calib, formats, n_formats, &o, s, err);
        token_list_free(&calib);
    }
    free(path);
    return ok;
}

bool lab_sensitivity(const struct lab *lab, const struct quant_format *const *formats,
                     size_t n_formats, const struct sensitivity_options *options,
                     const char *folder, struct sensitivity *s, struct error *err) {
    return run(lab, formats, n_formats, options, folder, false, s, err);
}

bool lab_sensitivity_reuse(const struct lab *lab, const struct quant_format *const *formats,
                           size_t n_formats, const struct sensitivity_options *options,
                           const char *folder, struct sensitivity *s, struct error *err) {
    return run(lab, formats, n_formats, options, folder, true, s, err);
}
