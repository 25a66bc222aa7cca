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

static bool run_study(struct lab *lab, struct error *err) {
    struct study st;
    bool all = !lab->options.tokens && !lab->options.config;
    bool ok = study_open(&st, lab, &options, err) && study_check_recipe(&st, err) &&
              lab_baseline(lab, err) && (lab->done || study_rows(&st, err)) &&
              (!all || study_report(&st, err)) && (!lab->options.out || save(&st, err));
    study_close(&st);
    return ok;
}

static bool run(struct lab *lab, struct error *err) {
    bool search, baseline = study_check_line(lab, &options);
    const struct quant_format *f = study_uniform_named(lab->options.config, &search, err);
    if (!study_check_out(lab, err))
        return false;
    if (!baseline && (!f || options.embeddings))
        return run_study(lab, err);
    return lab_baseline(lab, err) && (!f || lab->done || study_uniform_alone(lab, f, search, err));
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
