// How fast whole models run, beside what this machine's memory and arithmetic allow.
//
//     build/tools/bench_models [FLAGS] MODEL [FORMAT…]
//         MODEL: a folder or a GGUF file; FORMAT: a name of quant/format.h, or keep (the default)
//
// Each format is written to build/bench/ once and read from there, as a user would. Every
// measurement of it is made by a fresh process: formats take turns, round after round, and medians
// over rounds count. What waited for a processor is dropped and taken again.
//
//     load         from opening the file to a model that is ready to run; no tokenizer
//     first token  from opening the file to the logits of a first token. A format that was written
//                  here lies in the kernels' order and is mapped: nothing is read before the token
//                  does. Others, GGUF files too (keep), are woven into memory while they load.
//     own memory   what is allocated by then, beside the mapped file
//     prefill      512 tokens
//     decode       128 tokens, one after another, from position 0 on
//     deep         a few behind 4096 cached positions
//     batch N      one token each of N sequences together; tokens per second of all
//     neighbour    decode while another process keeps one of the processors busy
//
// Ceilings come from limits measured beside each row: for decode the read bandwidth over the bytes
// of weights (and cache) that a step reads; for N sequences N times that; for prefill the fastest
// unit that could do it (matrix tiles: bfloat16 for 16-bit weights, int8 for others; without
// tiles float32 and int8) over its operations.
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/timer.h"
#include "kernels/cpu/kernels.h"
#include "model/packed.h"
#include "quant/woven.h"
#include "report/markdown.h"
#include "tools/bench/bench.h"
#include "tools/bench/model.h"
#include "tools/bench/neighbour.h"

enum { MAX_FORMATS = 16, MAX_ROUNDS = 31, MAX_SEQUENCES = 16 };
static const size_t batches[] = {4, 8, 16};
enum { N_BATCHES = sizeof batches / sizeof *batches };

static struct {
    const char *csv, *name; // name: what the table calls the model; NULL: the path's last part
    size_t rounds, prefill, decode, depth;
    bool brief; // load, prefill and decode only
} flags = {.rounds = 3, .prefill = 512, .decode = 128, .depth = 4096};

// What one process measures, in the order of the CSV's columns. Rates are tokens per second; 0
// where it was not measured.
#define FIGURES(X)                                                                                 \
    X(weight_bytes)                                                                                \
    X(load_s)                                                                                      \
    X(first_token_s)                                                                               \
    X(peak_rss_bytes)                                                                              \
    X(anonymous_bytes)                                                                             \
    X(prefill_tps)                                                                                 \
    X(prefill_ceiling)                                                                             \
    X(decode_tps)                                                                                  \
    X(decode_ceiling)                                                                              \
    X(deep_tps)                                                                                    \
    X(deep_ceiling)                                                                                \
    X(batch_4_tps)                                                                                 \
    X(batch_8_tps)                                                                                 \
    X(batch_16_tps)                                                                                \
    X(neighbour_tps)                                                                               \
    X(dropped)                                                                                     \
    X(read_gb_s)                                                                                   \
    X(i8_gop_s)                                                                                    \
    X(i8_tiles_gop_s)                                                                              \
    X(bf16_gflop_s)                                                                                \
    X(f32_gflop_s)

struct figures {
#define X(key) double key;
    FIGURES(X)
#undef X
};
#define X(key) +1
enum { N_FIGURES = FIGURES(X) };
#undef X
static const char *const figure_names[] = {
#define X(key) #key,
    FIGURES(X)
#undef X
};

static void check(bool ok, const struct error *err) {
    if (!ok)
        bench_fail("%s", err->message);
}

// ---- one process --------------------------------------------------------------------------------

struct bench {
    struct model *m;
    float *logits; // [MAX_SEQUENCES, V]
    struct figures f;
};

// n tokens, all the same, of as many sequences from `position`; or one sequence's, where they
// follow each other.
static void step(struct bench *b, struct kv_cache *kv, size_t n, size_t position, bool sequences) {
    struct error err = {0};
    int32_t tokens[n], positions[n], sequence[n];
    uint8_t wants[n];
    for (size_t i = 0; i < n; i++) {
        tokens[i] = 1;
        positions[i] = (int32_t)(position + (sequences ? 0 : i));
        sequence[i] = sequences ? (int32_t)i : 0;
        wants[i] = sequences || i + 1 == n;
    }
    const struct batch batch = {n, tokens, positions, sequence, wants};
    check(model_forward(b->m, kv, &batch, b->logits, &err), &err);
}

struct part {
    struct bench *b;
    struct kv_cache kv;
    size_t n, sequences, position, steps; // n tokens of one sequence, or one of each
};

static void run_part(void *context, size_t i) {
    struct part *p = context;
    (void)i;
    for (size_t s = 0; s < p->steps; s++)
        step(p->b, &p->kv, p->n * p->sequences, p->position + s, p->sequences > 1);
}

// Tokens per second, after a step that warms up.
static double rate(struct bench *b, struct part p, bool alone) {
    struct error err = {0};
    p.b = b;
    check(kv_cache_init(&p.kv, &b->m->config, p.sequences, p.position + p.steps + p.n, &err), &err);
    if (p.position)
        bench_fill_cache(&p.kv);
    step(b, &p.kv, p.n * p.sequences, p.position, p.sequences > 1);
    struct bench_times t;
    if (alone) {
        t = bench_measure(run_part, &p, 1, 1, 0);
        b->f.dropped += (double)t.dropped;
    } else {
        double start = timer_now();
        run_part(&p, 0);
        t.median = timer_now() - start;
    }
    kv_cache_free(&p.kv);
    return (double)(p.steps * p.n * p.sequences) / t.median;
}

static double rate_beside_neighbour(struct bench *b) {
    pid_t neighbour = neighbour_start();
    size_t steps = (flags.decode + 3) / 4;
    double tps = rate(b, (struct part){.n = 1, .sequences = 1, .steps = steps}, false);
    neighbour_stop(neighbour);
    return tps;
}

static bool has_16_bits(const struct model *m) {
    return m->layers[0].up.w.dtype != DTYPE_BLOCK;
}

// The bandwidth, which a neighbour takes from, is the mean of that before and that after the
// measurements.
static void compute_ceilings(struct bench *b, const struct machine_limits *before,
                             const struct machine_limits *after) {
    struct figures *f = &b->f;
    double position = bench_position_bytes(&b->m->config);
    double read = (before->read_gb_s + after->read_gb_s) / 2 * 1e9;
    double i8 = before->i8_tiles_gop_s > 0 ? before->i8_tiles_gop_s : before->i8_gop_s;
    double floats = before->bf16_gflop_s > 0 ? before->bf16_gflop_s : before->f32_gflop_s;
    double peak = has_16_bits(b->m) || i8 <= 0 ? floats : i8;
    f->prefill_ceiling = peak * 1e9 / bench_token_operations(b->m, (double)flags.prefill / 2);
    f->decode_ceiling = read / (f->weight_bytes + position * (double)flags.decode / 2);
    f->deep_ceiling = read / (f->weight_bytes + position * (double)flags.depth);
    f->read_gb_s = read * 1e-9;
    f->i8_gop_s = before->i8_gop_s;
    f->i8_tiles_gop_s = before->i8_tiles_gop_s;
    f->bf16_gflop_s = before->bf16_gflop_s;
    f->f32_gflop_s = before->f32_gflop_s;
}

static void load(struct bench *b, const char *path) {
    struct error err = {0};
    struct kv_cache kv;
    double start = timer_now();
    check((b->m = model_load(path, &err)) && model_weave(b->m, &err), &err);
    b->f.load_s = timer_now() - start;
    b->logits = bench_alloc(b->m->config.vocab, MAX_SEQUENCES * sizeof *b->logits);
    check(kv_cache_init(&kv, &b->m->config, 1, 1, &err), &err);
    step(b, &kv, 1, 0, false);
    b->f.first_token_s = timer_now() - start;
    b->f.peak_rss_bytes = (double)memory_use().peak;
    b->f.anonymous_bytes = (double)memory_use().anonymous;
    b->f.weight_bytes = bench_weight_bytes(b->m);
    kv_cache_free(&kv);
}

static struct figures measure(const char *path) {
    struct bench b = {0};
    struct figures *f = &b.f;
    struct machine_limits before, after;
    load(&b, path);
    machine_limits_measure(&before);
    f->prefill_tps = rate(&b, (struct part){.n = flags.prefill, .sequences = 1, .steps = 1}, true);
    f->decode_tps = rate(&b, (struct part){.n = 1, .sequences = 1, .steps = flags.decode}, true);
    if (!flags.brief) {
        double *const batch_tps[] = {&f->batch_4_tps, &f->batch_8_tps, &f->batch_16_tps};
        f->deep_tps = rate(
            &b,
            (struct part){
                .n = 1, .sequences = 1, .steps = (flags.decode + 7) / 8, .position = flags.depth},
            true);
        for (size_t i = 0; i < N_BATCHES; i++)
            *batch_tps[i] = rate(
                &b,
                (struct part){.n = 1, .sequences = batches[i], .steps = (flags.decode + 15) / 16},
                true);
    }
    machine_limits_measure(&after);
    compute_ceilings(&b, &before, &after);
    if (!flags.brief)
        f->neighbour_tps = rate_beside_neighbour(&b);
    model_free(b.m);
    free(b.logits);
    return *f;
}

// ---- processes ----------------------------------------------------------------------------------

// This process computes nothing itself: the threads of a parent are lost in its children.
static pid_t start(int *pipe_ends) {
    fflush(stdout);
    pid_t child = pipe_ends && pipe(pipe_ends) != 0 ? -1 : fork();
    if (child < 0)
        bench_fail("a process cannot be started: %s", strerror(errno));
    return child;
}

static void wait_for(pid_t child) {
    int status;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
        bench_fail("a measurement did not end by itself");
    if (WEXITSTATUS(status) != 0)
        exit(WEXITSTATUS(status)); // it said why
}

static struct figures measure_in_child(const char *path) {
    int ends[2];
    struct figures f;
    pid_t child = start(ends);
    if (child == 0) {
        f = measure(path);
        exit(write(ends[1], &f, sizeof f) == sizeof f ? 0 : 1);
    }
    close(ends[1]);
    bool complete = read(ends[0], &f, sizeof f) == sizeof f;
    close(ends[0]);
    wait_for(child);
    if (!complete)
        bench_fail("a measurement is incomplete");
    return f;
}

static void write_format(const char *from, const char *format, const char *to) {
    struct error err = {0};
    pid_t child = start(NULL);
    if (child == 0) {
        struct model *loaded = model_load(from, &err);
        check(loaded, &err);
        struct model *m = bench_in_format(loaded, format);
        check(packed_save(m, NULL, from, to, NULL, &err), &err);
        exit(0);
    }
    wait_for(child);
}

// Where the model in that format is; the caller frees it.
static char *find_format(const char *model, const char *name, const char *format) {
    struct error err = {0};
    bool keep = strcmp(format, "keep") == 0;
    char *path =
        keep ? memory_strdup(model, &err) : memory_printf(&err, "build/bench/%s-%s", name, format);
    check(path && (keep || folder_create("build/bench", &err)), &err);
    if (!keep && !folder_exists(path))
        write_format(model, format, path);
    return path;
}

// ---- the table ----------------------------------------------------------------------------------

struct row {
    const char *format;
    char *path;
    struct figures rounds[MAX_ROUNDS], median;
};

static void take_medians(struct row *row) {
    for (size_t k = 0; k < N_FIGURES; k++) {
        double x[MAX_ROUNDS];
        for (size_t r = 0; r < flags.rounds; r++)
            x[r] = ((const double *)&row->rounds[r])[k];
        ((double *)&row->median)[k] = bench_median(x, flags.rounds);
    }
    row->median.dropped = 0; // a count: of all rounds
    for (size_t r = 0; r < flags.rounds; r++)
        row->median.dropped += row->rounds[r].dropped;
}

// Appends, under a header where the file is new.
static void write_csv(const char *path, const char *name, const struct row *rows, size_t n) {
    bool new_file = !file_exists(path);
    FILE *f = fopen(path, "a");
    if (!f)
        bench_fail("%s: %s", path, strerror(errno));
    if (new_file) {
        fputs("model,format,rounds", f);
        for (size_t k = 0; k < N_FIGURES; k++)
            fprintf(f, ",%s", figure_names[k]);
        fputc('\n', f);
    }
    for (size_t i = 0; i < n; i++) {
        fprintf(f, "%s,%s,%zu", name, rows[i].format, flags.rounds);
        for (size_t k = 0; k < N_FIGURES; k++)
            fprintf(f, ",%.6g", ((const double *)&rows[i].median)[k]);
        fputc('\n', f);
    }
    if (fclose(f) != 0)
        bench_fail("%s: %s", path, strerror(errno));
}

// "412 (16 %)", the share of a ceiling; "–" where nothing was measured.
static void set_rate(struct markdown_table *t, size_t row, size_t col, double tps, double ceiling) {
    struct error err = {0};
    char cell[64];
    snprintf(cell, sizeof cell, tps < 100 ? "%.1f (%.0f %%)" : "%.0f (%.0f %%)", tps,
             100 * tps / ceiling);
    check(markdown_table_set(t, row, col, tps > 0 ? cell : "–", &err), &err);
}

static void set_text(struct markdown_table *t, size_t row, size_t col, const char *fmt,
                     double value) {
    struct error err = {0};
    char cell[64];
    snprintf(cell, sizeof cell, fmt, value);
    check(markdown_table_set(t, row, col, cell, &err), &err);
}

static void print_row(struct markdown_table *t, size_t at, const struct row *row) {
    const struct figures *f = &row->median;
    struct error err = {0};
    check(markdown_table_set(t, at, 0, row->format, &err), &err);
    set_text(t, at, 1, "%.0f MB", f->weight_bytes * 1e-6);
    set_text(t, at, 2, "%.3f s", f->load_s);
    set_text(t, at, 3, "%.3f s", f->first_token_s);
    set_text(t, at, 4, "%.0f MB", f->peak_rss_bytes * 1e-6);
    set_text(t, at, 5, "%.0f MB", f->anonymous_bytes * 1e-6);
    set_rate(t, at, 6, f->prefill_tps, f->prefill_ceiling);
    set_rate(t, at, 7, f->decode_tps, f->decode_ceiling);
    set_rate(t, at, 8, f->deep_tps, f->deep_ceiling);
    set_rate(t, at, 9, f->batch_4_tps, 4 * f->decode_ceiling);
    set_rate(t, at, 10, f->batch_8_tps, 8 * f->decode_ceiling);
    set_rate(t, at, 11, f->batch_16_tps, 16 * f->decode_ceiling);
    set_rate(t, at, 12, f->neighbour_tps, f->decode_tps);
    set_text(t, at, 13, "%.0f", f->dropped);
}

static void print_table(const char *name, const struct row *rows, size_t n) {
    const char *const titles[] = {
        "Format", "Read a token", "Load",    "First token", "Peak RSS", "Own memory", "Prefill",
        "Decode", "Deep",         "Batch 4", "Batch 8",     "Batch 16", "Neighbour",  "Dropped"};
    enum { COLUMNS = sizeof titles / sizeof *titles };
    struct error err = {0};
    struct markdown_table t;
    const struct figures *f = &rows[0].median;
    printf(
        "%s, %s, limits beside the first row: read %.1f GB/s, int8 %.0f, int8 in tiles %.0f, "
        "bfloat16 in tiles %.0f, float32 %.0f Gop/s; prefill of %zu tokens, decode of %zu, deep: "
        "behind %zu; tokens per second and the share of the ceiling (neighbour: of decode), ",
        name, kernels_level_name(kernels_level()), f->read_gb_s, f->i8_gop_s, f->i8_tiles_gop_s,
        f->bf16_gflop_s, f->f32_gflop_s, flags.prefill, flags.decode, flags.depth);
    printf(flags.rounds > 1 ? "medians of %zu rounds\n\n" : "one round\n\n", flags.rounds);
    check(markdown_table_init(&t, n + 1, COLUMNS, &err), &err);
    t.left[0] = true;
    for (size_t c = 0; c < COLUMNS; c++)
        check(markdown_table_set(&t, 0, c, titles[c], &err), &err);
    for (size_t i = 0; i < n; i++)
        print_row(&t, i + 1, &rows[i]);
    markdown_table_print(&t, stdout);
    markdown_table_free(&t);
}

// ---- the command line ---------------------------------------------------------------------------

_Noreturn static void usage(void) {
    fprintf(stderr, "usage: bench_models [--csv FILE] [--name NAME] [--rounds N] [--prefill N] "
                    "[--decode N] [--depth N] [--brief] [--prepare] MODEL [FORMAT…]\n");
    exit(2);
}

static size_t number(const char *text, size_t least, size_t most) {
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*end || end == text || n < least || n > most) {
        fprintf(stderr, "bench_models: %s: expected a number from %zu to %zu\n", text, least, most);
        exit(2);
    }
    return n;
}

static bool parse(int argc, char **argv) { // whether only to write the formats
    const struct option options[] = {{"csv", required_argument, NULL, 'c'},
                                     {"name", required_argument, NULL, 'n'},
                                     {"rounds", required_argument, NULL, 'r'},
                                     {"prefill", required_argument, NULL, 'p'},
                                     {"decode", required_argument, NULL, 'd'},
                                     {"depth", required_argument, NULL, 'k'},
                                     {"brief", no_argument, NULL, 'b'},
                                     {"prepare", no_argument, NULL, 'w'},
                                     {NULL, 0, NULL, 0}};
    bool prepare = false;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (o) {
        case 'c':
            flags.csv = optarg;
            break;
        case 'n':
            flags.name = optarg;
            break;
        case 'r':
            flags.rounds = number(optarg, 1, MAX_ROUNDS);
            break;
        case 'p':
            flags.prefill = number(optarg, 1, 8192);
            break;
        case 'd':
            flags.decode = number(optarg, 1, 8192);
            break;
        case 'k':
            flags.depth = number(optarg, 1, 1 << 20);
            break;
        case 'b':
            flags.brief = true;
            break;
        case 'w':
            prepare = true;
            break;
        default:
            usage();
        }
    if (optind == argc || argc - optind - 1 > MAX_FORMATS)
        usage();
    return prepare;
}

int main(int argc, char **argv) {
    static struct row rows[MAX_FORMATS];
    bench_start();
    bool prepare = parse(argc, argv);
    const char *model = argv[optind];
    size_t n = (size_t)(argc - optind - 1);
    const char *last = strrchr(model, '/');
    const char *name = flags.name ? flags.name : last ? last + 1 : model;
    for (size_t i = 0; i < (n ? n : 1); i++) {
        rows[i].format = n ? argv[optind + 1 + (int)i] : "keep";
        rows[i].path = find_format(model, name, rows[i].format);
    }
    n = n ? n : 1;
    for (size_t r = 0; !prepare && r < flags.rounds; r++)
        for (size_t i = 0; i < n; i++)
            rows[i].rounds[r] = measure_in_child(rows[i].path);
    for (size_t i = 0; i < n; i++) {
        take_medians(&rows[i]);
        free(rows[i].path);
    }
    if (prepare)
        return 0;
    print_table(name, rows, n);
    if (flags.csv)
        write_csv(flags.csv, name, rows, n);
    return 0;
}
