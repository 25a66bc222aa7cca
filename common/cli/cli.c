#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/table.h"
#include "core/memory.h"
#include "kernels/cpu/kernels.h"

// ---- values ---------------------------------------------------------------------------

static bool bad_value(const struct cli_flag *f, const char *s, struct error *err) {
    const char *kind = f->kind == CLI_FLOAT ? "a number" : "a whole number";
    if (f->kind == CLI_CHOICE)
        return error_set(err, "--%s is '%s', expected one of %s", f->name, s, f->value);
    if (isinf(f->max) && f->kind != CLI_FLOAT)
        return error_set(err, "--%s is '%s', expected a whole number from %.0f to %" PRIu64,
                         f->name, s, f->min, UINT64_MAX);
    if (isinf(f->max))
        return error_set(err, "--%s is '%s', expected %s of at least %.10g", f->name, s, kind,
                         f->min);
    return error_set(err, "--%s is '%s', expected %s from %.10g to %.10g", f->name, s, kind, f->min,
                     f->max);
}

// Digits only, with a minus where min allows it: strtoull alone would take " +7" and wrap "-7".
static bool parse_whole(const char *s, double min, double max, uint64_t *magnitude,
                        bool *negative) {
    *negative = *s == '-' && min < 0;
    s += *negative;
    if (!*s || strspn(s, "0123456789") != strlen(s))
        return false;
    errno = 0;
    *magnitude = strtoull(s, NULL, 10);
    double value = *negative ? -(double)*magnitude : (double)*magnitude;
    return errno == 0 && value >= min && value <= max;
}

// No "inf", "nan" or "0x1p3": their letters are not in the set.
static bool parse_real(const char *s, double min, double max, float *out) {
    if (!*s || strspn(s, "0123456789.eE+-") != strlen(s))
        return false;
    char *end;
    double value = strtod(s, &end);
    *out = (float)value;
    return end != s && !*end && isfinite(*out) && value >= min && value <= max;
}

static bool parse_choice(const char *choices, const char *s, int *out) {
    size_t length = strlen(s);
    for (int i = 0; length; i++) {
        size_t n = strcspn(choices, "|");
        if (n == length && strncmp(choices, s, n) == 0) {
            *out = i;
            return true;
        }
        if (!choices[n])
            break;
        choices += n + 1;
    }
    return false;
}

static bool store_whole(const struct cli_flag *f, const char *s) {
    uint64_t magnitude;
    bool negative;
    if (!parse_whole(s, f->min, f->max, &magnitude, &negative))
        return false;
    if (f->kind == CLI_SIZE)
        *(size_t *)f->target = magnitude;
    else if (f->kind == CLI_U64)
        *(uint64_t *)f->target = magnitude;
    else if (magnitude > INT_MAX)
        return false;
    else
        *(int *)f->target = negative ? -(int)magnitude : (int)magnitude;
    return true;
}

static bool store(const struct cli_flag *f, const char *s, struct error *err) {
    bool ok = true;
    switch (f->kind) {
    case CLI_FLAG:
        *(bool *)f->target = true;
        break;
    case CLI_TEXT:
        if ((double)strlen(s) < f->min)
            return error_set(err, "--%s is '%s', expected a value (%s)", f->name, s, f->value);
        *(const char **)f->target = s;
        break;
    case CLI_SIZE:
    case CLI_INT:
    case CLI_U64:
        ok = store_whole(f, s);
        break;
    case CLI_FLOAT:
        ok = parse_real(s, f->min, f->max, f->target);
        break;
    case CLI_CHOICE:
        ok = parse_choice(f->value, s, f->target);
        break;
    }
    return ok || bad_value(f, s, err);
}

// ---- the command line -----------------------------------------------------------------

// getopt's codes for our rows: beyond every character that a short option could have.
enum { FIRST_CODE = 256 };

static struct option *long_options(const struct cli_table *t, struct error *err) {
    struct option *longs = memory_alloc(t->n + 1, sizeof *longs, "table of flags", err);
    for (size_t i = 0; longs && i < t->n; i++)
        longs[i] =
            (struct option){t->flags[i].name, t->flags[i].value ? required_argument : no_argument,
                            NULL, FIRST_CODE + (int)i};
    return longs;
}

// getopt says '?' for an unknown flag, an ambiguous one and one with a value too many; tell which.
static bool unknown_flag(const struct cli_table *t, const char *argument, int code,
                         struct error *err) {
    if (code >= FIRST_CODE)
        return error_set(err, "--%s takes no value, found '%s'", t->flags[code - FIRST_CODE].name,
                         argument);
    if (code)
        return error_set(err, "unknown flag '-%c'", code);
    size_t length = strcspn(argument, "=");
    if (length > 2 && cli_listed(t->without, argument + 2, length - 2))
        return error_set(err, "%.*s: this phase has no use for it", (int)length, argument);
    char matches[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < t->n; i++)
        if (strncmp(t->flags[i].name, argument + 2, length - 2) == 0 && used < sizeof matches)
            used += (size_t)snprintf(matches + used, sizeof matches - used, "%s--%s",
                                     used ? ", " : "", t->flags[i].name);
    if (used)
        return error_set(err, "'%.*s' is ambiguous: %s", (int)length, argument, matches);
    return error_set(err, "unknown flag '%.*s'", (int)length, argument);
}

// `--model --json out.json` has lost the model's name; a text that looks like a flag of ours is
// only taken as --prompt=--json.
static bool is_flag(const struct cli_table *t, const char *s) {
    for (size_t i = 0; i < t->n; i++)
        if (strncmp(s, "--", 2) == 0 && strcmp(s + 2, t->flags[i].name) == 0)
            return true;
    return false;
}

static bool take(const struct cli_table *t, int code, char **argv, struct error *err) {
    if (code == '?')
        return unknown_flag(t, argv[optind - 1], optopt, err);
    if (code == ':')
        return error_set(err, "--%s needs a value (%s)", t->flags[optopt - FIRST_CODE].name,
                         t->flags[optopt - FIRST_CODE].value);
    if (code == 1)
        return error_set(err, "unexpected argument '%s', expected a flag", optarg);
    const struct cli_flag *f = &t->flags[code - FIRST_CODE];
    if (optarg && optarg == argv[optind - 1] && is_flag(t, optarg))
        return error_set(err, "--%s needs a value (%s), found the flag '%s'", f->name, f->value,
                         optarg);
    return store(f, optarg, err);
}

static bool check_outputs(const struct cli_options *o, struct error *err) {
    const struct {
        const char *flag, *path;
    } outputs[] = {{"json", o->json}, {"csv", o->csv}, {"logits", o->logits}, {"out", o->out}};
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++)
        for (size_t j = 0; j < i; j++)
            if (outputs[i].path && outputs[j].path && !strcmp(outputs[i].path, outputs[j].path))
                return error_set(err, "--%s and --%s both write to '%s', expected different files",
                                 outputs[j].flag, outputs[i].flag, outputs[i].path);
    return true;
}

// What no row can say alone.
static bool check_together(const struct cli_options *o, struct error *err) {
    size_t n, least = o->ppl_mode == PPL_HALF ? 3 : 2;
    if (o->ctx && o->ctx < least)
        return error_set(err, "--ctx is '%zu', expected at least %zu so that a token is scored",
                         o->ctx, least);
    if (!check_outputs(o, err))
        return false;
    if (o->tokenize && o->detokenize)
        return error_set(err, "--tokenize and --detokenize exclude each other");
    if (!o->tokens != !o->logits)
        return error_set(err, "--%s needs --%s too", o->tokens ? "tokens" : "logits",
                         o->tokens ? "logits" : "tokens");
    if ((o->gpu_layers || o->emulate) && !o->cuda)
        return error_set(err, "--%s needs --device cuda too",
                         o->emulate ? "emulate" : "gpu-layers");
    if (o->system && !o->chat)
        return error_set(err, "--system needs --chat too");
    int32_t *ids = o->tokens ? cli_token_ids(o->tokens, "--tokens", &n, err) : NULL;
    free(ids);
    if (ids && !n)
        return error_set(err, "--tokens: expected token ids, found none");
    return !o->tokens || ids;
}

static bool parse(const struct cli_table *t, const struct option *longs, int argc, char **argv,
                  struct cli_values *v, struct error *err) {
    for (size_t i = 0; i < t->n; i++)
        if (t->flags[i].initial && !store(&t->flags[i], t->flags[i].initial, err))
            return false;
    optind = 0; // starts glibc's getopt afresh
    opterr = 0;
    while (!v->help && !v->version) {
        int code = getopt_long(argc, argv, "-:h", longs, NULL);
        if (code == -1)
            break;
        if (code == 'h')
            v->help = true;
        else if (!take(t, code, argv, err))
            return false;
    }
    if (optind < argc && !v->help && !v->version)
        return error_set(err, "unexpected argument '%s', expected a flag", argv[optind]);
    return true;
}

// A level that nothing has here would otherwise mean the best.
static bool check_isa(const struct cli_options *o, struct error *err) {
    enum cpu_level level = (enum cpu_level)(o->isa - 1);
    if (o->isa && !kernels_level_known(level))
        return error_set(err, "--isa is '%s', which processors of this kind never have",
                         kernels_level_name(level));
    return kernels_check_environment(err);
}

bool cli_parse_into(const struct cli_program *p, int argc, char **argv, struct cli_options *o,
                    enum cli_action *action, struct error *err) {
    struct cli_values v = {.options.threads = omp_get_num_procs()};
    struct cli_table t;
    *action = CLI_RUN;
    if (!cli_table_init(&t, p, &v, err))
        return false;
    struct option *longs = long_options(&t, err);
    bool ok = longs && parse(&t, longs, argc, argv, &v, err);
    free(longs);
    free(t.flags);
    if (v.help || v.version)
        *action = v.version ? CLI_VERSION : CLI_HELP;
    *o = v.options;
    o->ppl_mode = v.ppl_mode ? PPL_HALF : PPL_FULL;
    o->cuda = v.device == 1;
    o->int8_activations = v.activations == 1;
    return ok && (*action != CLI_RUN || (check_isa(o, err) && check_together(o, err)));
}

int32_t *cli_token_ids(const char *text, const char *what, size_t *n, struct error *err) {
    static const char blanks[] = " \t\r\n";
    int32_t *ids = memory_alloc(strlen(text) / 2 + 1, sizeof *ids, what, err);
    *n = 0;
    for (const char *s = text + strspn(text, blanks); ids && *s; s += strspn(s, blanks)) {
        size_t digits = strspn(s, "0123456789");
        errno = 0;
        long id = digits ? strtol(s, NULL, 10) : -1;
        const char *end = s + digits;
        if (id < 0 || id > INT32_MAX || errno || (*end && !strchr(", \t\r\n", *end)) ||
            (*end == ',' && !end[1 + strspn(end + 1, blanks)])) {
            error_set(err, "%s: expected token ids, found '%.20s'", what, s);
            free(ids);
            return NULL;
        }
        ids[(*n)++] = (int32_t)id;
        s = end + (*end == ',');
    }
    return ids;
}

bool cli_shape(const char *text, unsigned *n, unsigned *k) {
    int end = 0;
    return sscanf(text, "%5ux%6u%n", n, k, &end) == 2 && !text[end] && *n && *k;
}

// ---- printing and leaving -------------------------------------------------------------

// A line of its own even where a progress bar was being drawn.
static void print_line(const struct cli_program *p, const char *before, const char *message,
                       const char *after) {
    const char *clear = isatty(STDERR_FILENO) ? "\r\033[K" : "";
    fprintf(stderr, "%s%s: %s%s%s\n", clear, p->name, before, message, after);
}

// error_set keeps newlines and control bytes of what was typed off the terminal.
static void format_line(struct error *line, const char *fmt, va_list args) {
    char message[sizeof line->message];
    vsnprintf(message, sizeof message, fmt, args);
    error_set(line, "%s", message);
}

static void print_and_exit(const struct cli_program *p, enum cli_action action) {
    struct error err = {0};
    bool ok = true;
    if (action == CLI_VERSION)
        printf("nibble " NIBBLE_VERSION " (%s)\n", p->name);
    else
        ok = cli_print_help(p, stdout, &err);
    if (ok && (fflush(stdout) != 0 || ferror(stdout)))
        ok = error_set(&err, "stdout: cannot write: %s", strerror(errno));
    if (!ok)
        cli_fail(p, &err);
    exit(0);
}

void cli_wait_briefly(char **argv) {
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY") || !argv[0])
        return;
    if (setenv("GOMP_SPINCOUNT", "2000", 0) == 0)
        execv("/proc/self/exe", argv); // where that fails, threads only wait as before
}

// The first file that is opened would get the number of a closed stdout, and the table.
static void check_stdout(const struct cli_program *p) {
    struct error err;
    if (fcntl(STDOUT_FILENO, F_GETFD) >= 0)
        return;
    error_set(&err, "stdout: it is closed, expected a place to print to");
    cli_fail(p, &err);
}

void cli_parse(const struct cli_program *p, int argc, char **argv, struct cli_options *o) {
    struct error err = {0};
    enum cli_action action;
    check_stdout(p);
    if (!cli_parse_into(p, argc, argv, o, &action, &err))
        cli_usage_error(p, "%s", err.message);
    if (action != CLI_RUN)
        print_and_exit(p, action);
}

void cli_fail(const struct cli_program *p, const struct error *err) {
    print_line(p, "", err->message, "");
    exit(1);
}

void cli_usage_error(const struct cli_program *p, const char *fmt, ...) {
    struct error line;
    char hint[128];
    va_list args;
    va_start(args, fmt);
    format_line(&line, fmt, args);
    va_end(args);
    snprintf(hint, sizeof hint, "; try './%s --help'", p->name);
    print_line(p, "", line.message, hint);
    exit(2);
}

void cli_warn(const struct cli_program *p, const char *fmt, ...) {
    struct error line;
    va_list args;
    va_start(args, fmt);
    format_line(&line, fmt, args);
    va_end(args);
    print_line(p, "warning: ", line.message, "");
}

void cli_note(const struct cli_program *p, const char *fmt, ...) {
    struct error line;
    va_list args;
    va_start(args, fmt);
    format_line(&line, fmt, args);
    va_end(args);
    print_line(p, "", line.message, "");
}
