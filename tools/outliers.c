// Gives a small model the outlier columns that large ones grow, or takes them away again; what the
// model computes stays the same (common/model/outliers.h).
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/outliers.h"

static const char usage[] =
    "usage: outliers --add [options] IN OUT | --undo IN OUT | --report MODEL\n"
    "Folders in the Hugging Face layout; OUT must not exist. --add writes OUT/outliers.json,\n"
    "which --undo reads.\n"
    "  --seed N            which columns (0)\n"
    "  --columns F         share of the columns that stand out (0.01)\n"
    "  --scale LO..HI      of down_proj's columns, powers of two (32..32)\n"
    "  --shoulder LO..HI   of the rest of their group of 128 (2..4)\n"
    "  --norm-scale LO..HI of the columns behind the norms, 1..1 for none (2..4)\n"
    "  --layers N          the first N layers get columns in down_proj (all)\n"
    "  build/tools/outliers --add --seed 1 plain data/model\n"
    "  build/tools/outliers --report data/model\n";

_Noreturn static void fail(int status, const char *message) {
    fprintf(stderr, "outliers: %s%s\n", message,
            status == 2 ? "; try 'build/tools/outliers --help'" : "");
    exit(status);
}

_Noreturn static void fail_value(const char *flag, const char *text, const char *expected) {
    char message[256];
    snprintf(message, sizeof message, "--%s: '%s', expected %s", flag, text, expected);
    fail(2, message);
}

static uint64_t parse_count(const char *flag, const char *text, char **end) {
    errno = 0;
    uint64_t n = strtoull(text, end, 10);
    if (errno || *end == text || *text == '-')
        fail_value(flag, text, "a whole number");
    return n;
}

static uint64_t parse_whole(const char *flag, const char *text) {
    char *end;
    uint64_t n = parse_count(flag, text, &end);
    if (*end)
        fail_value(flag, text, "a whole number");
    return n;
}

// The exponent of a power of two.
static unsigned parse_log2(const char *flag, const char *text, char **end) {
    uint64_t n = parse_count(flag, text, end);
    for (unsigned e = 0; e <= OUTLIER_MAX_LOG2; e++)
        if (n == (uint64_t)1 << e)
            return e;
    fail_value(flag, text, "powers of two from 1 to 1024");
}

static struct outlier_range parse_range(const char *flag, const char *text) {
    char *end;
    struct outlier_range r = {.lo = parse_log2(flag, text, &end)};
    r.hi = r.lo;
    if (strncmp(end, "..", 2) == 0)
        r.hi = parse_log2(flag, end + 2, &end);
    if (*end || r.lo > r.hi)
        fail_value(flag, text, "LO..HI, powers of two");
    return r;
}

static double parse_share(const char *flag, const char *text) {
    char *end;
    double f = strtod(text, &end);
    if (end == text || *end || !(f > 0 && f <= 0.25))
        fail_value(flag, text, "more than 0, at most 0.25");
    return f;
}

static bool report(const char *folder, struct error *err) {
    struct outlier_row rows[OUTLIER_ROWS];
    if (!outliers_measure(folder, rows, err))
        return false;
    printf("| matrix | largest column / median | columns over 6x | kurtosis | INT4 per channel: "
           "rounded to 0 | group 128 |\n| --- | --- | --- | --- | --- | --- |\n");
    for (int i = 0; i < OUTLIER_ROWS; i++)
        printf("| %s | %.1f | %.1f | %.1f | %.1f %% | %.1f %% |\n", rows[i].name, rows[i].peak,
               rows[i].columns, rows[i].kurtosis, 100 * rows[i].lost, 100 * rows[i].lost128);
    return true;
}

int main(int argc, char **argv) {
    enum { ADD = 1, UNDO, REPORT, SEED, COLUMNS, SCALE, SHOULDER, NORM, LAYERS, HELP };
    static const struct option flags[] = {
        {"add", no_argument, NULL, ADD},
        {"undo", no_argument, NULL, UNDO},
        {"report", no_argument, NULL, REPORT},
        {"seed", required_argument, NULL, SEED},
        {"columns", required_argument, NULL, COLUMNS},
        {"scale", required_argument, NULL, SCALE},
        {"shoulder", required_argument, NULL, SHOULDER},
        {"norm-scale", required_argument, NULL, NORM},
        {"layers", required_argument, NULL, LAYERS},
        {"help", no_argument, NULL, HELP},
        {NULL, 0, NULL, 0},
    };
    struct outlier_options o = outlier_defaults;
    int action = 0;
    for (int c; (c = getopt_long(argc, argv, "", flags, NULL)) != -1;)
        switch (c) {
        case SEED:
            o.seed = parse_whole("seed", optarg);
            break;
        case COLUMNS:
            o.columns = parse_share("columns", optarg);
            break;
        case SCALE:
            o.down = parse_range("scale", optarg);
            break;
        case SHOULDER:
            o.shoulder = parse_range("shoulder", optarg);
            break;
        case NORM:
            o.norm = parse_range("norm-scale", optarg);
            break;
        case LAYERS:
            o.layers = (size_t)parse_whole("layers", optarg);
            break;
        case HELP:
            fputs(usage, stdout);
            return 0;
        case '?':
            return 2;
        default:
            if (action && action != c)
                fail(2, "expected one of --add, --undo, --report");
            action = c;
        }
    char **names = argv + optind;
    int n_names = argc - optind;
    if (!action || n_names != (action == REPORT ? 1 : 2))
        fail(2, "expected --add IN OUT, --undo IN OUT or --report MODEL");
    struct error err = {0};
    size_t rounded = 0;
    bool ok = action == ADD    ? outliers_add(names[0], names[1], &o, &rounded, &err)
              : action == UNDO ? outliers_undo(names[0], names[1], &rounded, &err)
                               : report(names[0], &err);
    if (!ok)
        fail(1, err.message);
    if (rounded)
        fprintf(stderr, "outliers: warning: %zu weights were rounded\n", rounded);
    return 0;
}
