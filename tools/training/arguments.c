#include "tools/training/arguments.h"

#include <getopt.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/memory.h"
#include "report/progress.h"

static const char usage[] =
    "usage: train --config FILE --out DIR (--data FILE --tokenizer DIR | --ids FILE) [options]\n"
    "Trains a Qwen2 or Qwen3 model of the shape in a config.json.\n"
    "  --config FILE     sizes, as in a checkpoint's config.json\n"
    "  --data FILE       UTF-8 text, with --tokenizer DIR (copied to the output); or\n"
    "  --ids FILE        its token ids, little-endian uint16\n"
    "  --valid FILE      text (or ids) held out: its loss is printed at the end\n"
    "  --out DIR         config.json, model.safetensors (bfloat16), tokenizer\n"
    "  --tokens N        tokens to train on, all epochs [30000000]\n"
    "  --context N       tokens of a window [512]\n"
    "  --batch N         windows per step [32]\n"
    "  --micro-batch N   windows at a time: less memory, the same step [8]\n"
    "  --lr F --min-lr F peak of the learning rate, and where its cosine ends [0.002, a tenth]\n"
    "  --muon F          peak for the layers' matrices, which Muon moves then, not AdamW [0: no]\n"
    "  --warmup N        steps until the peak [100]\n"
    "  --decay F --clip F weight decay of matrices; largest gradient norm [0.1, 1]\n"
    "  --init DIR        start from this checkpoint's weights [random ones]\n"
    "  --seed N          of the weights and the order of the text [1]\n"
    "  --documents       windows begin where documents do: behind an end token or a blank line\n"
    "  --first-lines F   share of the tokens in documents' first lines that is learned: less than\n"
    "                    one weighs up what follows, such as answers [1]\n"
    "  --recompute       gradient checkpointing: a quarter of the memory, a third more time\n"
    "  --float32         products in float32 even where the CPU has tiles of bfloat16 (AMX)\n"
    "  --state FILE      what --resume continues from [OUT/train.state; removed at the end]\n"
    "  --save-minutes F  how often it is saved [5]\n"
    "  --snapshot N      checkpoints of steps N, 2N, 4N … in OUT/step-N [none]\n"
    "  --log FILE        CSV: step, tokens, loss, learning rate, tokens/s [results/train.csv]\n"
    "  --resume          continue from --state if it is there\n"
    "  --threads N       [all cores]      --quiet, --help\n"
    "With OMP_WAIT_POLICY=passive in the environment threads don't wait busily: on a machine with\n"
    "other work to do, four times as fast.\n"
    "  train --config tools/bundled-model.json --data data/train/stories.txt \\\n"
    "        --tokenizer data/model --out data/train/mine --tokens 30000000\n";

enum kind { TEXT, WHOLE, NUMBER, SWITCH };

struct flag {
    const char *name;
    enum kind kind;
    union {
        const char **text;
        uint64_t *whole;
        double *number;
        bool *on;
    } target;
    double min, max;
};

// What is not a field of train_job as it is.
struct raw {
    const char *state;
    uint64_t tokens, context, batch, micro, threads;
    bool float32, quiet, help;
};

_Noreturn static void refuse(const char *message) {
    fprintf(stderr, "train: %s; see --help\n", message);
    exit(2);
}

static double parse_number(const struct flag *f, const char *text) {
    char *end, message[128];
    double x = strtod(text, &end);
    bool whole = f->kind == WHOLE;
    if (end != text && !*end && x >= f->min && x <= f->max && (!whole || x == floor(x)))
        return x;
    snprintf(message, sizeof message, "--%s '%.32s': expected %s from %.10g to %.10g", f->name,
             text, whole ? "a whole number" : "a number", f->min, f->max);
    refuse(message);
}

static void take(const struct flag *f, const char *text) {
    if (f->kind == TEXT)
        *f->target.text = text;
    else if (f->kind == SWITCH)
        *f->target.on = true;
    else if (f->kind == WHOLE)
        *f->target.whole = (uint64_t)parse_number(f, text);
    else
        *f->target.number = parse_number(f, text);
}

static void parse(const struct flag *flags, size_t n, int argc, char **argv) {
    struct option options[32] = {0}; // the last stays zero
    for (size_t i = 0; i < n; i++)
        options[i] = (struct option){
            flags[i].name, flags[i].kind == SWITCH ? no_argument : required_argument, NULL, 0};
    int index;
    for (int c; (c = getopt_long(argc, argv, "", options, &index)) != -1;) {
        if (c == '?')
            refuse("the command line is wrong");
        take(&flags[index], optarg);
    }
    if (optind < argc)
        refuse("expected no other words");
}

static void parse_all(struct train_job *job, struct raw *raw, int argc, char **argv) {
    struct train_options *o = &job->options;
    const struct flag flags[] = {
        {"config", TEXT, {.text = &job->config}, 0, 0},
        {"data", TEXT, {.text = &job->data}, 0, 0},
        {"ids", TEXT, {.text = &job->ids}, 0, 0},
        {"tokenizer", TEXT, {.text = &job->tokenizer}, 0, 0},
        {"valid", TEXT, {.text = &job->valid}, 0, 0},
        {"out", TEXT, {.text = &job->out}, 0, 0},
        {"init", TEXT, {.text = &job->init}, 0, 0},
        {"log", TEXT, {.text = &job->log}, 0, 0},
        {"state", TEXT, {.text = &raw->state}, 0, 0},
        {"tokens", WHOLE, {.whole = &raw->tokens}, 1, 1e15},
        {"context", WHOLE, {.whole = &raw->context}, 1, 1 << 20},
        {"batch", WHOLE, {.whole = &raw->batch}, 1, 1 << 20},
        {"micro-batch", WHOLE, {.whole = &raw->micro}, 1, 1 << 20},
        {"threads", WHOLE, {.whole = &raw->threads}, 1, 1024},
        {"warmup", WHOLE, {.whole = &o->warmup}, 0, 1e9},
        {"snapshot", WHOLE, {.whole = &job->snapshot}, 1, 1e9},
        {"seed", WHOLE, {.whole = &o->seed}, 0, 0x1p53},
        {"lr", NUMBER, {.number = &o->lr}, 1e-9, 10},
        {"min-lr", NUMBER, {.number = &o->min_lr}, 0, 10},
        {"muon", NUMBER, {.number = &o->muon_lr}, 0, 10},
        {"momentum", NUMBER, {.number = &o->momentum}, 0, 0.9999},
        {"decay", NUMBER, {.number = &o->decay}, 0, 10},
        {"clip", NUMBER, {.number = &o->clip}, 0, 1e9},
        {"save-minutes", NUMBER, {.number = &job->save_minutes}, 0, 1e6},
        {"first-lines", NUMBER, {.number = &job->first_lines}, 0, 1},
        {"documents", SWITCH, {.on = &job->documents}, 0, 0},
        {"recompute", SWITCH, {.on = &o->recompute}, 0, 0},
        {"float32", SWITCH, {.on = &raw->float32}, 0, 0},
        {"resume", SWITCH, {.on = &job->resume}, 0, 0},
        {"quiet", SWITCH, {.on = &raw->quiet}, 0, 0},
        {"help", SWITCH, {.on = &raw->help}, 0, 0},
    };
    parse(flags, sizeof flags / sizeof *flags, argc, argv);
}

static void fill_options(struct train_options *o, const struct raw *raw) {
    uint64_t per_step = raw->batch * raw->context;
    o->context = raw->context;
    o->batch = raw->batch;
    o->micro_batch = raw->micro < raw->batch ? raw->micro : raw->batch;
    o->min_lr = o->min_lr < 0 ? o->lr / 10 : o->min_lr;
    o->bf16 = !raw->float32;
    o->n_steps = (raw->tokens + per_step - 1) / per_step;
    o->warmup = o->warmup < o->n_steps ? o->warmup : o->n_steps - 1;
}

struct train_job train_job_parse(int argc, char **argv) {
    struct train_job job = {.log = "results/train.csv", .save_minutes = 5, .first_lines = 1};
    struct raw raw = {.tokens = 30000000, .context = 512, .batch = 32, .micro = 8};
    job.options = (struct train_options){.lr = 2e-3,
                                         .min_lr = -1,
                                         .warmup = 100,
                                         .beta1 = 0.9,
                                         .beta2 = 0.95,
                                         .eps = 1e-8,
                                         .momentum = 0.95,
                                         .decay = 0.1,
                                         .clip = 1,
                                         .seed = 1};
    parse_all(&job, &raw, argc, argv);
    if (raw.help) {
        fputs(usage, stdout);
        exit(0);
    }
    if (!job.config || !job.out)
        refuse("expected --config FILE and --out DIR");
    if (!job.ids == !job.data || !job.data != !job.tokenizer)
        refuse("expected either --data FILE with --tokenizer DIR or --ids FILE");
    if ((job.documents || job.first_lines < 1) && !job.tokenizer)
        refuse("--documents and --first-lines need --data and --tokenizer");
    fill_options(&job.options, &raw);
    if (raw.threads)
        omp_set_num_threads((int)raw.threads);
    progress_set_quiet(raw.quiet);
    job.state =
        raw.state ? memory_strdup(raw.state, NULL) : memory_printf(NULL, "%s/train.state", job.out);
    if (!job.state)
        refuse("out of memory");
    return job;
}
