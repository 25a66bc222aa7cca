// What is wrong with a command line, noticed before minutes are spent.
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/folder.h"
#include "study.h"

static const char UNIFORM[] = "uniform ", SEARCH[] = " search";

const struct quant_format *study_uniform_named(const char *config, bool *search,
                                               struct error *err) {
    char name[96];
    *search = false;
    if (!config || strncmp(config, UNIFORM, sizeof UNIFORM - 1) != 0)
        return NULL;
    snprintf(name, sizeof name, "%s", config + sizeof UNIFORM - 1);
    size_t length = strlen(name), n = sizeof SEARCH - 1;
    *search = length > n && strcmp(name + length - n, SEARCH) == 0;
    if (*search)
        name[length - n] = '\0';
    const struct quant_format *f = quant_format_find(name);
    if (!f)
        error_set(err, "--config '%s': no weight format is called '%s'", config, name);
    return f;
}

// --out is for the row 'solver'.
bool study_check_out(const struct lab *lab, struct error *err) {
    const struct cli_options *o = &lab->options;
    if (!o->out)
        return true;
    if (o->tokens)
        cli_usage_error(lab->program, "--out and --tokens exclude each other");
    if (o->config && strcmp(o->config, "solver") != 0)
        cli_usage_error(lab->program, "--out saves the row 'solver', but --config is '%s'",
                        o->config);
    return folder_check_new(o->out, err);
}

// The report brings a recipe.txt of its own.
bool study_check_recipe(const struct study *st, struct error *err) {
    const struct cli_options *o = &st->lab->options;
    if (!o->recipe || o->config || o->tokens)
        return true;
    char *own = path_join(st->folder, "recipe.txt", err);
    if (own && file_same(own, o->recipe))
        cli_usage_error(st->lab->program,
                        "--recipe %s: this run writes its own there; copy the file, or name "
                        "another folder with --lbl-dump-dir",
                        o->recipe);
    free(own);
    return own != NULL;
}

// Whether --config names a row of lab_baseline's.
static bool check_config(const struct lab *lab, const struct study_options *o) {
    const char *config = lab->options.config;
    char keep[48], solved[80];
    snprintf(keep, sizeof keep, "keep %zu", study_keep(lab, o));
    snprintf(solved, sizeof solved, "solver, bytes of %s", keep);
    const char *const rows[] = {"uniform FORMAT", "uniform FORMAT search", keep,    solved,
                                "heuristic k_m",  "heuristic first-last",  "solver"};
    if (config && strncmp(config, UNIFORM, sizeof UNIFORM - 1) == 0)
        return false;
    return lab_check_config(lab, rows, sizeof rows / sizeof *rows);
}

bool study_check_line(const struct lab *lab, const struct study_options *o) {
    struct error err = {0};
    bool search;
    if (!study_check(lab, o, &err))
        cli_usage_error(lab->program, "%s", err.message);
    if (!study_uniform_named(lab->options.config, &search, &err) && *err.message)
        cli_usage_error(lab->program, "%s", err.message);
    return check_config(lab, o);
}
