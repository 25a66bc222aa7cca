// Phase 5: surgery by budget.
//
// Phase 4 says what each tensor costs in each format. So the question of every user, "which mix is
// best in the memory I have?", is a knapsack: solved, measured, and put beside what others guess.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/folder.h"
#include "core/memory.h"
#include "eval/sensitivity_report.h"
#include "lab/mixed.h"
#include "model/packed.h"
#include "quant/quantize.h"
#include "study.h"

static const char FORMATS[] =
    "int2-g64-zp,int2-g32-zp,int2-g16-zp,int3-g128,int3-g128-zp,int3-g64,int3-g32-zp,int4-g128,"
    "int4-g128-zp,int4-g64,int4-g64-zp,int4-g32-zp,int5-g128,int5-g64,int5-g64-zp,int6-g128,"
    "int6-g64,int8-g128,int8-g32,q2_k,q3_k,q4_k,q5_k,q6_k,iq4_xs,nf4";

static struct study_options options = {.formats = FORMATS, .rounds = -1, .mixes = -1};
static int target;

// clang-format off
static const struct cli_flag flags[] = {
    {"bits", "F", CLI_FLOAT, &options.budget.bits, 1, 32, NULL,
     "bits per weight, of the weights that are chosen for [the bytes of uniform int4-g128]",
     "Budget"},
    {"size", "BYTES", CLI_TEXT, &options.budget.size, 1, 0, NULL,
     "bytes of the whole model: 2.4GB, 300MB", "Budget"},
    {"fit", "BYTES", CLI_TEXT, &options.budget.fit, 1, 0, NULL,
     "weights, the cache of --ctx positions and work buffers must fit", "Budget"},
    {"keep", "N", CLI_SIZE, &options.keep, 0, 10000, "0",
     "layers that stay in 16 bit for the row 'keep N', the most sensitive (0: an eighth)",
     "Budget"},
    {"base", "FORMAT", CLI_TEXT, &options.base, 1, 0, NULL,
     "the format of the others in that row, which gets a row of its own too [int4-g128]", "Budget"},
    {"formats", "LIST", CLI_TEXT, &options.formats, 1, 0, NULL,
     "candidates, joined by ','; the checkpoint's own 16 bits are always one [26 from 2 to 8 bits]",
     "Mixing"},
    {"target", "any|gguf", CLI_CHOICE, &target, 0, 0, "any",
     "gguf: only candidates that have a type in GGUF files", "Mixing"},
    {"group-kernels", NULL, CLI_FLAG, &options.share_kernels, 0, 0, NULL,
     "q, k and v of a layer share a format, gate and up too: one kernel reads them", "Mixing"},
    {"embeddings", "LOW-HIGH", CLI_TEXT, &options.embeddings, 1, 0, NULL,
     "the embedding and the head take part, with so many bits a weight: 4-8 [they stay 16 bit]",
     "Mixing"},
    {"plain", NULL, CLI_FLAG, &options.plain, 0, 0, NULL,
     "round to nearest, without a search for the scales of least error", "Mixing"},
    {"probe", "N", CLI_SIZE, &options.probe, 0, 1 << 20, "0",
     "calibration tokens to measure damage on (0: by the model's size, at most half of --limit); "
     "twice as many check the candidates",
     "Mixing"},
    {"rounds", "N", CLI_INT, &options.rounds, 0, 100, NULL,
     "times the tensors are measured again around the solution [1 if that is quick, else 0]",
     "Mixing"},
    {"mixes", "N", CLI_INT, &options.mixes, 0, 10000, NULL,
     "random mixes to check predictions on [32 if that is quick, else 0]", "Mixing"},
    {"sweep", "BITS", CLI_FLOAT, &options.sweep, 0, 8, "0",
     "solve and measure other budgets too, from 2.5 to 8.5 bits, so far apart (0.25 takes longer "
     "than the rest together); 0: none",
     "Mixing"},
    {"lbl-dump-dir", "DIR", CLI_TEXT, &options.folder, 1, 0, NULL,
     "folder for mixed.md, sweep.md, recipe.txt and charts [results/<model>; the bundled model: "
     "out/bundled]",
     "Mixing"},
};
// clang-format on

static const struct cli_program program = {
    .name = "phase5",
    .phase = 5,
    .summary = "Mixed precision: the best mix of formats for the bytes there are.",
    .examples =
        "./phase5                                        the bytes of uniform INT4\n"
        "./phase5 --bits 3.5 --group-kernels\n"
        "./phase5 --base nf4 --keep 1 --bits 4.5        the original study's mix, and what\n"
        "                                               else its bytes can do\n"
        "./phase5 --model qwen2.5-3b --limit 20000 --fit 4GB --ctx 4096 --out models/mix\n"
        "./phase3 --recipe out/bundled/recipe.txt        what it found, in any phase\n",
    .flags = flags,
    .n_flags = sizeof flags / sizeof *flags,
};

// ---- rows -------------------------------------------------------------------------------------

// Bits per weight of a mix are those of all tensors that were chosen for, the ones that stay 16 bit
// included.
static bool mix_row(struct study *st, const size_t *picks, const char *label, struct error *err) {
    struct lab *lab = st->lab;
    struct recipe r;
    size_t rows = lab->table.n_rows;
    if (lab->done || !lab_wanted(lab, label))
        return true;
    if (!mix_recipe(&st->mix, picks, &r, err))
        return false;
    bool ok = lab_mixed(lab, &r, label, err);
    recipe_free(&r);
    if (ok && lab->table.n_rows > rows)
        lab->table.rows[rows].bits_per_weight =
            8 * (double)mix_bytes(&st->mix, picks) / (double)mix_weights(&st->mix);
    return ok;
}

static bool uniform_row(struct study *st, const struct quant_format *f, bool search,
                        struct error *err) {
    char label[96];
    struct recipe r;
    snprintf(label, sizeof label, "uniform %s%s", f->name, search ? " search" : "");
    if (st->lab->done || !lab_wanted(st->lab, label))
        return true;
    if (!study_uniform_recipe(st, f, search, &r, err))
        return false;
    bool ok = lab_mixed(st->lab, &r, label, err);
    recipe_free(&r);
    return ok;
}

// The format that --config 'uniform int4-g128 search' names; NULL if it names no uniform row.
static const struct quant_format *uniform_named(const char *config, bool *search,
                                                struct error *err) {
    static const char prefix[] = "uniform ", suffix[] = " search";
    char name[96];
    *search = false;
    if (!config || strncmp(config, prefix, sizeof prefix - 1) != 0)
        return NULL;
    snprintf(name, sizeof name, "%s", config + sizeof prefix - 1);
    size_t length = strlen(name), n = sizeof suffix - 1;
    *search = length > n && strcmp(name + length - n, suffix) == 0;
    if (*search)
        name[length - n] = '\0';
    const struct quant_format *f = quant_format_find(name);
    if (!f)
        error_set(err, "--config '%s': no weight format is called '%s'", config, name);
    return f;
}

// For a uniform row alone nothing need be analysed.
static bool run_uniform(struct lab *lab, const struct quant_format *f, bool search,
                        struct error *err) {
    struct recipe r;
    if (!recipe_uniform(&r, f, lab->options.only, lab->options.skip, err))
        return false;
    r.rules[r.n_rules - 1].search = search;
    bool ok = lab_mixed(lab, &r, lab->options.config, err);
    recipe_free(&r);
    return ok;
}

static bool uniform_rows(struct study *st, struct error *err) {
    struct uniform rows[MAX_UNIFORMS];
    size_t n = 0;
    bool ok = st->lab->options.tokens || study_uniforms(st, rows, &n, err);
    for (size_t i = 0; ok && i < n; i++)
        ok = uniform_row(st, rows[i].format, rows[i].search, err);
    return ok;
}

// The picks of the original study: four bits everywhere, but for the N layers that they hurt most,
// which stay in 16.
static bool keep_picks(const struct study *st, size_t n, size_t *picks, struct error *err) {
    size_t layers = st->lab->model->config.n_layers, low = 0;
    size_t high = st->s.n_formats - 1; // the checkpoint's own
    while (st->s.formats[low] != st->base)
        low++;
    double *damage = memory_alloc(layers, sizeof *damage, "layers", err);
    if (!damage)
        return false;
    for (size_t i = 0; i < st->mix.n; i++) {
        const struct sensitivity_tensor *t = &st->s.tensors[st->mix.tensors[i]];
        if (t->layer != SENSITIVITY_NO_LAYER)
            damage[t->layer] += sensitivity_kld(sensitivity_at(&st->s, st->mix.tensors[i], low));
        bool fits = mix_tensor_bytes(&st->mix, i, low) > 0;
        picks[i] = t->layer == SENSITIVITY_NO_LAYER || !fits ? high : low;
    }
    for (size_t k = 0; k < n && k < layers; k++) {
        size_t worst = 0;
        for (size_t l = 1; l < layers; l++)
            worst = damage[l] > damage[worst] ? l : worst;
        damage[worst] = -1;
        for (size_t i = 0; i < st->mix.n; i++)
            if (st->s.tensors[st->mix.tensors[i]].layer == worst)
                picks[i] = high;
    }
    free(damage);
    return true;
}

// And what the solver does with the same bytes.
static bool keep_rows(struct study *st, struct error *err) {
    size_t layers = st->lab->model->config.n_layers;
    size_t n = options.keep ? options.keep : layers < 8 ? 1 : layers / 8;
    size_t *picks = memory_alloc(st->mix.n, sizeof *picks, "mix", err);
    char label[96];
    snprintf(label, sizeof label, "keep %zu", n);
    bool search = st->mix.search;
    st->mix.search = false;
    bool ok = picks && keep_picks(st, n, picks, err) && mix_row(st, picks, label, err);
    st->mix.search = search;
    snprintf(label, sizeof label, "solver, bytes of keep %zu", n);
    ok = ok && study_solve_at(st, mix_bytes(&st->mix, picks), picks, err) &&
         mix_row(st, picks, label, err);
    free(picks);
    return ok;
}

static bool heuristic_rows(struct study *st, struct error *err) {
    bool ok = true;
    for (size_t i = 0; ok && i < st->found.n; i++)
        if (strncmp(st->found.list[i].name, "heuristic", 9) == 0)
            ok = mix_row(st, st->found.list[i].picks, st->found.list[i].name, err);
    return ok;
}

// ---- the whole --------------------------------------------------------------------------------

static bool save(struct study *st, struct error *err) {
    struct lab *lab = st->lab;
    struct recipe r;
    struct quantize_stats stats;
    size_t bytes;
    const struct quantize_options how = {0};
    struct recipe own = {0};
    bool ok = mix_recipe(&st->mix, st->found.list[0].picks, &own, err) &&
              lab_resolve_recipe(lab, &own, &r, err);
    recipe_free(&own);
    if (!ok)
        return false;
    struct model *m = model_quantize_with(lab->model, &r, &how, &stats, err);
    ok = m && packed_save(m, &r, lab->folder, lab->options.out, &bytes, err);
    for (size_t i = 0; ok && i < lab->table.n_rows; i++)
        if (strcmp(lab->table.rows[i].config, "solver") == 0)
            lab->table.rows[i].file_bytes = (double)bytes;
    model_free(m);
    recipe_free(&r);
    return ok;
}

// --out is for the row 'solver'.
static bool check_out(const struct lab *lab, struct error *err) {
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
static bool check_recipe(const struct study *st, struct error *err) {
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

// A command line that is wrong is noticed before minutes are spent.
static void check_command_line(const struct lab *lab) {
    struct error err = {0};
    static const char *const known[] = {
        "fp16", "fp32", "uniform ", "keep ", "heuristic first-last", "heuristic k_m", "solver"};
    const char *config = lab->options.config, *recipe = lab_recipe_label(lab);
    bool search, uniform = config && strncmp(config, "uniform ", 8) == 0;
    bool found = !config || (recipe && strcmp(config, recipe) == 0);
    for (size_t i = 0; config && i < sizeof known / sizeof *known; i++)
        found |= strncmp(config, known[i], strlen(known[i])) == 0;
    if (!found)
        cli_usage_error(lab->program, "--config is '%s', which is no row of this phase", config);
    if (!study_check(lab, &options, &err) || (uniform && !uniform_named(config, &search, &err)))
        cli_usage_error(lab->program, "%s", err.message);
}

static bool study_rows(struct study *st, struct error *err) {
    struct lab *lab = st->lab;
    bool all = !lab->options.tokens && !lab->options.config;
    bool ok = study_measure(st, err) && uniform_rows(st, err) && keep_rows(st, err) &&
              (lab->done || study_solve(st, err)) && heuristic_rows(st, err) &&
              (lab->done || mix_row(st, st->found.list[0].picks, "solver", err));
    return ok && (!all || study_report(st, err)) && (!lab->options.out || save(st, err));
}

static bool run_study(struct lab *lab, struct error *err) {
    struct study st;
    bool ok = study_open(&st, lab, &options, err) && check_recipe(&st, err) &&
              lab_baseline(lab, err) && (lab->done || study_rows(&st, err));
    study_close(&st);
    return ok;
}

static bool run(struct lab *lab, struct error *err) {
    const char *recipe = lab_recipe_label(lab), *config = lab->options.config;
    bool search;
    check_command_line(lab);
    if (!check_out(lab, err))
        return false;
    const struct quant_format *f = uniform_named(config, &search, err);
    if (f && !options.embeddings)
        return lab_baseline(lab, err) && (lab->done || run_uniform(lab, f, search, err));
    if (recipe && config && strcmp(recipe, config) == 0)
        return lab_baseline(lab, err);
    return run_study(lab, err);
}

int main(int argc, char **argv) {
    struct error err = {0};
    struct lab lab;
    cli_wait_briefly(argv);
    bool ok = lab_open(&lab, &program, argc, argv, &err);
    options.gguf_only = target == 1;
    ok = ok && (lab.done || run(&lab, &err));
    if (!lab_close(&lab, ok, &err))
        cli_fail(&program, &err);
    return 0;
}
