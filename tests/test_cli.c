// cli/: what every flag does, its default, and what a wrong command line is told.
#include <criterion/criterion.h>
#include <limits.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "io/hub.h"

static const struct cli_program plain = {
    .name = "phase2", .phase = 2, .summary = "AbsMax INT8.", .examples = "./phase2   runs\n"};

enum { MAX_ARGS = 16 };

// Parses words split at '^', so that arguments may hold spaces and be empty.
static bool parse_as(const struct cli_program *p, const char *line, struct cli_options *o,
                     enum cli_action *action, struct error *err) {
    static char words[512]; // options point into it
    char *argv[MAX_ARGS + 1] = {"./phase2"};
    int argc = 1;
    cr_assert_lt(strlen(line), sizeof words);
    strcpy(words, line);
    for (char *s = words; *line; s = strchr(s, '\0') + 1) {
        argv[argc++] = s;
        char *end = strchr(s, '^');
        if (!end)
            break;
        *end = '\0';
        cr_assert_lt(argc, MAX_ARGS);
    }
    return cli_parse_into(p, argc, argv, o, action, err);
}

static struct cli_options options(const char *line) {
    struct cli_options o;
    enum cli_action action;
    struct error err = {0};
    cr_assert(parse_as(&plain, line, &o, &action, &err), "%s: %s", line, err.message);
    cr_assert_eq(action, CLI_RUN);
    return o;
}

static void refused(const char *line, const char *message) {
    struct cli_options o;
    enum cli_action action;
    struct error err = {0};
    cr_assert_not(parse_as(&plain, line, &o, &action, &err), "'%s' was accepted", line);
    cr_expect_str_eq(err.message, message);
}

Test(cli, defaults_are_those_of_the_manual) {
    struct cli_options o = options("");
    cr_expect_null(o.model);
    cr_expect_null(o.text);
    cr_expect_null(o.calib);
    cr_expect_null(o.prompt);
    cr_expect_null(o.system);
    cr_expect_null(o.json);
    cr_expect_null(o.csv);
    cr_expect_null(o.out);
    cr_expect_null(o.tokens);
    cr_expect_null(o.logits);
    cr_expect_null(o.config);
    cr_expect_null(o.tokenize);
    cr_expect_null(o.detokenize);
    cr_expect_null(o.only);
    cr_expect_null(o.skip);
    cr_expect_eq(o.ctx, 0);
    cr_expect_eq(o.limit, 0);
    cr_expect_eq(o.ppl_mode, PPL_FULL);
    cr_expect_eq(o.threads, omp_get_num_procs());
    cr_expect_eq(o.max_tokens, 64);
    cr_expect_eq(o.sampling.temperature, 0.0f);
    cr_expect_eq(o.sampling.top_k, 40);
    cr_expect_eq(o.sampling.top_p, 0.95f);
    cr_expect_eq(o.sampling.repeat_penalty, 1.0f);
    cr_expect_eq(o.sampling.seed, 0);
    cr_expect_not(o.bench || o.quiet || o.chat || o.limits || o.cuda);
}

Test(cli, every_text_flag_lands_in_its_field) {
    struct cli_options o = options("--model^m^--text^t^--calib^c^--prompt^a b^--out^o^--config^int8"
                                   "^--only^*q*");
    cr_expect_str_eq(o.model, "m");
    cr_expect_str_eq(o.text, "t");
    cr_expect_str_eq(o.calib, "c");
    cr_expect_str_eq(o.prompt, "a b");
    cr_expect_str_eq(o.out, "o");
    cr_expect_str_eq(o.config, "int8");
    cr_expect_str_eq(o.only, "*q*");
    o = options("--skip=*k*^--json=j^--csv=c^--tokens=1,2^--logits=l.npy^--chat^--system=");
    cr_expect_str_eq(o.skip, "*k*");
    cr_expect_str_eq(o.json, "j");
    cr_expect_str_eq(o.csv, "c");
    cr_expect_str_eq(o.tokens, "1,2");
    cr_expect_str_eq(o.logits, "l.npy");
    cr_expect_str_eq(o.system, "");
    cr_expect(o.chat);
    cr_expect_str_eq(options("--tokenize^f").tokenize, "f");
    cr_expect_str_eq(options("--detokenize^f").detokenize, "f");
}

Test(cli, every_switch_is_off_until_given) {
    cr_expect(options("--bench").bench);
    cr_expect(options("--quiet").quiet);
    cr_expect(options("--chat").chat);
    cr_expect(options("--limits").limits);
    cr_expect(options("--device^cuda").cuda);
    cr_expect_not(options("--device^cpu").cuda);
}

Test(cli, numbers_and_choices_are_read_whole) {
    struct cli_options o = options("--ctx=512^--limit^123456789012^--threads^3^--max-tokens^7"
                                   "^--ppl-mode^half");
    cr_expect_eq(o.ctx, 512);
    cr_expect_eq(o.limit, 123456789012);
    cr_expect_eq(o.threads, 3);
    cr_expect_eq(o.max_tokens, 7);
    cr_expect_eq(o.ppl_mode, PPL_HALF);
    o = options("--temp^8e-1^--top-k^0^--top-p^.5^--repeat-penalty^1.25"
                "^--seed^18446744073709551615");
    cr_expect_eq(o.sampling.temperature, 0.8f);
    cr_expect_eq(o.sampling.top_k, 0);
    cr_expect_eq(o.sampling.top_p, 0.5f);
    cr_expect_eq(o.sampling.repeat_penalty, 1.25f);
    cr_expect_eq(o.sampling.seed, UINT64_MAX);
    cr_expect_eq(options("--ctx^0").ctx, 0);
    cr_expect_eq(options("--threads^1024").threads, 1024);
}

Test(cli, last_of_a_name_counts_and_unique_prefixes_do) {
    cr_expect_eq(options("--ctx^16^--ctx^32").ctx, 32);
    cr_expect_eq(options("--max^9").max_tokens, 9);
    cr_expect_str_eq(options("--prompt=--json").prompt, "--json");
    cr_expect_str_eq(options("--prompt^-5 degrees").prompt, "-5 degrees");
}

Test(cli, bad_numbers_name_flag_value_and_range) {
    const char *sizes[] = {
        "", " 5", "5 ", "+5", "-5", "5x", "0x10", "1e3", "5.0", "16777217", "99999999999999999999"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char line[64], message[128];
        snprintf(line, sizeof line, "--ctx=%s", sizes[i]);
        snprintf(message, sizeof message,
                 "--ctx is '%s', expected a whole number from 0 to 16777216", sizes[i]);
        refused(line, message);
    }
    const char *shares[] = {"", "x", "1.01", "-0.1", "nan", "inf", "0x1p-1", "0.5,", "1e", "--"};
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        char line[64], message[128];
        snprintf(line, sizeof line, "--top-p=%s", shares[i]);
        snprintf(message, sizeof message, "--top-p is '%s', expected a number from 0 to 1",
                 shares[i]);
        refused(line, message);
    }
    refused("--threads^0", "--threads is '0', expected a whole number from 1 to 1024");
    refused("--threads^1025", "--threads is '1025', expected a whole number from 1 to 1024");
    refused("--threads^4294967297",
            "--threads is '4294967297', expected a whole number from 1 to 1024");
    refused("--max-tokens^0", "--max-tokens is '0', expected a whole number from 1 to 16777216");
    refused("--top-k^-1", "--top-k is '-1', expected a whole number from 0 to 16777216");
    refused("--temp^101", "--temp is '101', expected a number from 0 to 100");
    refused("--temp^1e999", "--temp is '1e999', expected a number from 0 to 100");
    refused("--repeat-penalty^0", "--repeat-penalty is '0', expected a number from 0.1 to 10");
    refused("--seed^-1", "--seed is '-1', expected a whole number from 0 to 18446744073709551615");
    refused("--limit^18446744073709551616", "--limit is '18446744073709551616', expected a whole "
                                            "number from 0 to 18446744073709551615");
}

Test(cli, bad_flags_are_told_apart) {
    refused("--bogus", "unknown flag '--bogus'");
    refused("--bogus=3", "unknown flag '--bogus'");
    refused("-x", "unknown flag '-x'");
    refused("--top^1", "'--top' is ambiguous: --top-k, --top-p");
    refused("--ctx", "--ctx needs a value (N)");
    refused("--ppl-mode", "--ppl-mode needs a value (full|half)");
    refused("--model^--json^-", "--model needs a value (M), found the flag '--json'");
    refused("--model^", "--model is '', expected a value (M)");
    refused("--bench=1", "--bench takes no value, found '--bench=1'");
    refused("file", "unexpected argument 'file', expected a flag");
    refused("--ctx^5^file", "unexpected argument 'file', expected a flag");
    refused("--^file", "unexpected argument 'file', expected a flag");
    refused("-", "unexpected argument '-', expected a flag");
    refused("--model=a\nb^--bo\nus", "unknown flag '--bo?us'");
}

Test(cli, bad_choices_list_the_good_ones) {
    refused("--ppl-mode^ful", "--ppl-mode is 'ful', expected one of full|half");
    refused("--ppl-mode=", "--ppl-mode is '', expected one of full|half");
    refused("--ppl-mode^full|half", "--ppl-mode is 'full|half', expected one of full|half");
    refused("--device^gpu", "--device is 'gpu', expected one of cpu|cuda");
}

Test(cli, flags_that_exclude_or_need_each_other) {
    refused("--json^-^--csv^-", "--json and --csv both write to '-', expected different files");
    refused("--csv^a^--json^a", "--json and --csv both write to 'a', expected different files");
    refused("--out^a^--csv^a", "--csv and --out both write to 'a', expected different files");
    refused("--tokenize^a^--detokenize^b", "--tokenize and --detokenize exclude each other");
    refused("--tokens^1", "--tokens needs --logits too");
    refused("--logits^f", "--logits needs --tokens too");
    refused("--system^s", "--system needs --chat too");
    refused("--ctx^1", "--ctx is '1', expected at least 2 so that a token is scored");
    refused("--ctx^2^--ppl-mode^half",
            "--ctx is '2', expected at least 3 so that a token is scored");
    cr_expect_eq(options("--ctx^2").ctx, 2);
    cr_expect_eq(options("--ctx^3^--ppl-mode^half").ctx, 3);
    cr_expect_str_eq(options("--json^-^--csv^a").json, "-");
}

Test(cli, token_ids_are_whole_numbers_apart) {
    struct error err = {0};
    size_t n;
    int32_t *ids = cli_token_ids("1,22,2147483647", "--tokens", &n, &err);
    cr_assert(ids && n == 3, "%s", err.message);
    cr_expect(ids[0] == 1 && ids[1] == 22 && ids[2] == INT32_MAX);
    free(ids);
    ids = cli_token_ids(" 7 8,\n9\n", "ids.txt", &n, &err); // as --tokenize prints them
    cr_assert(ids && n == 3 && ids[1] == 8 && ids[2] == 9, "%s", err.message);
    free(ids);
    ids = cli_token_ids("\n", "ids.txt", &n, &err);
    cr_assert(ids && n == 0);
    free(ids);
    const char *bad[] = {",", "1,", "1, ", ",1", "1,,2", "1-2", "-1", "1.5", "2147483648", "x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_null(cli_token_ids(bad[i], "--tokens", &n, &err), "'%s'", bad[i]);
    refused("--tokens^1,x^--logits^f", "--tokens: expected token ids, found 'x'");
    refused("--tokens^ ^--logits^f", "--tokens: expected token ids, found none");
}

Test(cli, help_and_version_win_over_what_follows) {
    struct cli_options o;
    enum cli_action action;
    struct error err = {0};
    cr_assert(parse_as(&plain, "--help^--bogus^x", &o, &action, &err) && action == CLI_HELP);
    cr_assert(parse_as(&plain, "-h", &o, &action, &err) && action == CLI_HELP);
    cr_assert(parse_as(&plain, "--tokens^1^--version", &o, &action, &err));
    cr_assert_eq(action, CLI_VERSION);
    cr_assert_not(parse_as(&plain, "--bogus^--help", &o, &action, &err));
}

Test(cli, no_arguments_at_all) {
    struct cli_options o;
    enum cli_action action;
    struct error err = {0};
    char *argv[] = {NULL};
    cr_assert(cli_parse_into(&plain, 0, argv, &o, &action, &err));
    cr_assert_eq(o.max_tokens, 64);
}

// ---- a phase's own rows ----------------------------------------------------------------

struct own {
    int shift, scheme;
    float budget;
    const char *file;
    bool fast;
};

static bool parse_own(struct own *own, const char *line, struct cli_options *o, struct error *err) {
    const struct cli_flag flags[] = {
        {"shift", "N", CLI_INT, &own->shift, -8, 8, "-2", "bits to move by", "Phase"},
        {"scheme", "absmax|mse|percentile", CLI_CHOICE, &own->scheme, 0, 0, "mse", "s", "Phase"},
        {"budget", "F", CLI_FLOAT, &own->budget, 0.5, INFINITY, NULL, "GB [all]", "Phase"},
        {"out", "FILE", CLI_TEXT, &own->file, 1, 0, NULL, "the file", "Phase"},
        {"fast", NULL, CLI_FLAG, &own->fast, 0, 0, NULL, "be quick", "Phase"},
    };
    const struct cli_program p = {.name = "phase5", .flags = flags, .n_flags = 5};
    enum cli_action action;
    return parse_as(&p, line, o, &action, err);
}

Test(cli, a_phase_adds_rows_and_replaces_common_ones) {
    struct own own = {.budget = 7};
    struct cli_options o;
    struct error err = {0};
    cr_assert(parse_own(&own, "", &o, &err), "%s", err.message);
    cr_expect(own.shift == -2 && own.scheme == 1 && own.budget == 7 && !own.fast);
    cr_assert(parse_own(&own, "--shift^-8^--scheme^percentile^--budget^2.5^--out^x^--fast^--ctx^9",
                        &o, &err),
              "%s", err.message);
    cr_expect(own.shift == -8 && own.scheme == 2 && own.budget == 2.5f && own.fast);
    cr_expect_str_eq(own.file, "x");
    cr_expect_null(o.out);
    cr_expect_eq(o.ctx, 9);
    cr_assert_not(parse_own(&own, "--shift^-9", &o, &err));
    cr_expect_str_eq(err.message, "--shift is '-9', expected a whole number from -8 to 8");
    cr_assert_not(parse_own(&own, "--budget^0.4", &o, &err));
    cr_expect_str_eq(err.message, "--budget is '0.4', expected a number of at least 0.5");
}

// ---- what is printed -------------------------------------------------------------------

static char *help_text(const struct cli_program *p) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    struct error err = {0};
    cr_assert(cli_print_help(p, f, &err), "%s", err.message);
    fclose(f);
    return text;
}

Test(cli, help_shows_everything_in_100_columns) {
    char *text = help_text(&plain);
    const char *wanted[] = {"usage: ./phase2 [flags]\n\nAbsMax INT8.\n",
                            "\nModel:\n",
                            "\nEvaluation:\n",
                            "\nGeneration:\n",
                            "\nOutput:\n",
                            "\nRuntime:\n",
                            "\nDebugging:\n",
                            "\nExamples:\n",
                            "\n  ./phase2   runs\n",
                            "\nEnvironment:\n",
                            "NIBBLE_MODELS",
                            "HF_HOME",
                            "HF_HUB_CACHE",
                            "HF_ENDPOINT",
                            "HF_TOKEN",
                            "HF_HUB_OFFLINE",
                            "SAVE_EVAL_RESULTS",
                            "NIBBLE_ISA",
                            "NO_COLOR",
                            "\nExit status:\n  0                       done\n",
                            "--model M ",
                            "--text FILE ",
                            "--calib FILE ",
                            "--ctx N ",
                            "--limit N ",
                            "--ppl-mode full|half ",
                            "--threads N ",
                            "--device cpu|cuda ",
                            "--prompt TEXT ",
                            "--max-tokens N          generate at most N tokens "
                            "[64]\n",
                            "--temp F ",
                            "--top-k N ",
                            "--top-p F ",
                            "--repeat-penalty F ",
                            "--seed N ",
                            "--bench ",
                            "--json FILE ",
                            "--csv FILE ",
                            "--out PATH ",
                            "--quiet ",
                            "--help ",
                            "--version ",
                            "--tokens IDS ",
                            "--logits FILE ",
                            "--tokenize FILE ",
                            "--detokenize FILE ",
                            "--limits ",
                            "--config NAME ",
                            "--only PATTERNS ",
                            "--skip PATTERNS ",
                            "--chat ",
                            "--system TEXT "};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        cr_expect(strstr(text, wanted[i]), "no '%s'", wanted[i]);
    for (size_t i = 0; i < hub_n_aliases; i++)
        cr_expect(strstr(text, hub_aliases[i].alias) && strstr(text, hub_aliases[i].repo));
    for (const char *s = text; *s; s += strcspn(s, "\n") + 1)
        cr_expect_leq(strcspn(s, "\n"), 100);
    free(text);
}

Test(cli, help_of_a_phase_begins_with_its_own_flags) {
    const struct cli_flag flags[] = {
        {"a-name-that-leaves-no-room", "VALUE", CLI_TEXT, NULL, 0, 0, "x", "help", "Phase"},
        {"out", "FILE", CLI_TEXT, NULL, 0, 0, NULL, "the file", "Output"}};
    const struct cli_program p = {.name = "phase5", .flags = flags, .n_flags = 2};
    char *text = help_text(&p);
    cr_expect(strstr(text, "\n\nPhase:\n  --a-name-that-leaves-no-room VALUE\n"
                           "                          help [x]\n\nOutput:\n"
                           "  --out FILE              the file\n  --json FILE"));
    cr_expect_null(strstr(text, "--out PATH"));
    cr_expect_null(strstr(text, "Examples:"));
    free(text);
}

// Keeps what runs at exit (a leak checker's report) out of the child's streams.
static void leave(int status, void *unused) {
    (void)unused;
    fflush(NULL);
    _exit(status);
}

// Runs `body` in a child whose stdout and stderr go to files; returns its exit status.
static int child(void (*body)(void), char *out, char *errors, size_t size) {
    FILE *files[2] = {tmpfile(), tmpfile()};
    char *buffers[2] = {out, errors};
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fileno(files[0]), STDOUT_FILENO);
        dup2(fileno(files[1]), STDERR_FILENO);
        on_exit(leave, NULL);
        body();
        _exit(99);
    }
    int status;
    waitpid(pid, &status, 0);
    for (int i = 0; i < 2; i++) {
        rewind(files[i]);
        buffers[i][fread(buffers[i], 1, size - 1, files[i])] = '\0';
        fclose(files[i]);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void parse_words(char *one, char *two) {
    struct cli_options o;
    char *argv[] = {"./phase2", one, two, NULL};
    cli_parse(&plain, 3, argv, &o);
    _exit(o.quiet ? 42 : 43);
}
static void do_help(void) {
    parse_words("--quiet", "--help");
}
static void do_version(void) {
    parse_words("--version", "--quiet");
}
static void do_bad(void) {
    parse_words("--quiet", "--ctx=x");
}
static void do_run(void) {
    parse_words("--quiet", "--bench");
}
static void do_fail(void) {
    struct error err = {0};
    error_set(&err, "a.txt: 3 bytes, expected 4");
    cli_fail(&plain, &err);
}
static void do_usage(void) {
    cli_usage_error(&plain, "--device cuda: no %s here\n", "GPU");
}
static void do_warn(void) {
    cli_warn(&plain, "the text has %d tokens", 9);
    _exit(7);
}
static void do_full(void) {
    if (!freopen("/dev/full", "w", stdout))
        _exit(98);
    parse_words("--help", NULL);
}

Test(cli, exit_status_and_streams) {
    static char out[16384], errors[1024];
    cr_expect_eq(child(do_help, out, errors, sizeof errors), 0);
    cr_expect(strstr(out, "usage: ./phase2") && !*errors);
    cr_expect_eq(child(do_version, out, errors, sizeof errors), 0);
    cr_expect_str_eq(out, "nibble 0.1.0 (phase2)\n");
    cr_expect_str_eq(errors, "");
    cr_expect_eq(child(do_run, out, errors, sizeof errors), 42);
    cr_expect(!*out && !*errors);
    cr_expect_eq(child(do_bad, out, errors, sizeof errors), 2);
    cr_expect_str_eq(errors, "phase2: --ctx is 'x', expected a whole number from 0 to 16777216; "
                             "try './phase2 --help'\n");
    cr_expect_str_eq(out, "");
    cr_expect_eq(child(do_fail, out, errors, sizeof errors), 1);
    cr_expect_str_eq(errors, "phase2: a.txt: 3 bytes, expected 4\n");
    cr_expect_eq(child(do_usage, out, errors, sizeof errors), 2);
    cr_expect_str_eq(errors, "phase2: --device cuda: no GPU here?; try './phase2 --help'\n");
    cr_expect_eq(child(do_warn, out, errors, sizeof errors), 7);
    cr_expect_str_eq(errors, "phase2: warning: the text has 9 tokens\n");
    if (access("/dev/full", W_OK) == 0) {
        cr_expect_eq(child(do_full, out, errors, sizeof errors), 1);
        cr_expect(strstr(errors, "phase2: stdout: cannot write: "), "%s", errors);
    }
}

Test(cli, flags_a_program_has_no_use_for_are_refused) {
    const struct cli_program p = {.name = "phase1", .without = "calib out only"};
    static const char *const lines[][2] = {
        {"--calib^x", "--calib: this phase has no use for it"},
        {"--out=x", "--out: this phase has no use for it"},
        {"--only^x", "--only: this phase has no use for it"},
        {"--onl^x", "unknown flag '--onl'"},
        {"--outt", "unknown flag '--outt'"},
    };
    struct cli_options o;
    enum cli_action action;
    struct error err = {0};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        cr_assert_not(parse_as(&p, lines[i][0], &o, &action, &err), "%s", lines[i][0]);
        cr_expect_str_eq(err.message, lines[i][1]);
    }
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    cr_assert(parse_as(&p, "--skip^x", &o, &action, &err), "%s", err.message);
    cr_assert(cli_print_help(&p, f, &err) && fclose(f) == 0);
    cr_expect(!strstr(text, "--calib") && !strstr(text, "--out") && strstr(text, "--skip"));
    free(text);
}

Test(cli, instruction_sets_that_nothing_has_here_are_refused) {
    setenv("NIBBLE_ISA", "scalar", 1);
    options("");
    setenv("NIBBLE_ISA", "", 1); // as good as unset
    options("");
    setenv("NIBBLE_ISA", "Scalar", 1);
#if defined(__x86_64__)
    refused("", "NIBBLE_ISA is 'Scalar', expected best, scalar, avx2, avx512, vnni or amx");
    unsetenv("NIBBLE_ISA");
    refused("--isa^neon", "--isa is 'neon', which processors of this kind never have");
#else
    refused("", "NIBBLE_ISA is 'Scalar', expected best, scalar, neon, dotprod or i8mm");
    unsetenv("NIBBLE_ISA");
    refused("--isa^amx", "--isa is 'amx', which processors of this kind never have");
#endif
}
