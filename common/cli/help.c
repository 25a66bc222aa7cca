// --help, printed from the same table that parses.
//
//       --ctx N                 window length in tokens [2048, or the model's own limit if
//                               smaller]
//       ^2                      ^26                                                  100 at most
#include <stdlib.h>
#include <string.h>

#include "cli/table.h"
#include "io/hub.h"
#include "kernels/cpu/kernels.h"

enum { INDENT = 26, WIDTH = 100 };

// Prints text from column `at` on, breaking at spaces.
static void print_wrapped(FILE *f, const char *text, int indent, int at) {
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (at > indent && at + 1 + n > WIDTH) {
            fprintf(f, "\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            fputc(' ', f);
            at++;
        }
        fprintf(f, "%.*s", n, text);
        at += n;
        text += n;
        text += strspn(text, " ");
    }
    fputc('\n', f);
}

static void print_row(FILE *f, const char *left, const char *right) {
    int at = fprintf(f, "  %s", left);
    if (at > INDENT - 2) {
        fputc('\n', f);
        at = 0;
    }
    fprintf(f, "%*s", INDENT - at, "");
    print_wrapped(f, right, INDENT, INDENT);
}

static void print_flag(FILE *f, const struct cli_flag *flag) {
    char left[80], right[512];
    snprintf(left, sizeof left, "--%s%s%s", flag->name, flag->value ? " " : "",
             flag->value ? flag->value : "");
    snprintf(right, sizeof right, flag->initial ? "%s [%s]" : "%s", flag->help, flag->initial);
    print_row(f, left, right);
}

// Headings in the order in which the table first names them.
static void print_groups(FILE *f, const struct cli_table *t) {
    for (size_t i = 0; i < t->n; i++) {
        const char *group = t->flags[i].group;
        bool seen = false;
        for (size_t j = 0; j < i; j++)
            seen |= strcmp(t->flags[j].group, group) == 0;
        if (seen)
            continue;
        fprintf(f, "\n%s:\n", group);
        for (size_t j = i; j < t->n; j++)
            if (strcmp(t->flags[j].group, group) == 0)
                print_flag(f, &t->flags[j]);
    }
}

static void print_examples(FILE *f, const char *examples) {
    if (!examples || !*examples)
        return;
    fputs("\nExamples:\n", f);
    while (*examples) {
        int n = (int)strcspn(examples, "\n");
        fprintf(f, "  %.*s\n", n, examples);
        examples += n + (examples[n] == '\n');
    }
}

static void print_names(FILE *f) {
    fputs("\nModel names (any ORG/NAME of the hub will do too):\n", f);
    for (size_t i = 0; i < hub_n_aliases; i++)
        print_row(f, hub_aliases[i].alias, hub_aliases[i].repo);
}

static void print_environment(FILE *f) {
    fputs("\nEnvironment:\n", f);
    print_row(f, "NIBBLE_MODELS", "where named models are kept [the Hugging Face cache]");
    print_row(f, "HF_HUB_CACHE, HF_HOME",
              "that cache, or the folder that holds it as hub/ "
              "[~/.cache/huggingface]");
    print_row(f, "HF_ENDPOINT", "where models are downloaded from [https://huggingface.co]");
    print_row(f, "HF_TOKEN", "an access token, for models behind a licence");
    print_row(f, "HF_HUB_OFFLINE", "1: never download");
    print_row(f, "SAVE_EVAL_RESULTS", "1: append every run's rows to results/metrics.csv");
    char found[128];
    snprintf(found, sizeof found, "like --isa [this CPU has %s]",
             kernels_level_name(kernels_level_best()));
    print_row(f, "NIBBLE_ISA", found);
    print_row(f, "NO_COLOR", "set: no colours");
    fputs("\nExit status:\n", f);
    print_row(f, "0", "done");
    print_row(f, "1", "the work failed: a broken file, no memory, no network");
    print_row(f, "2", "the command line is wrong");
}

bool cli_print_help(const struct cli_program *p, FILE *f, struct error *err) {
    struct cli_values v;
    struct cli_table t;
    if (!cli_table_init(&t, p, &v, err))
        return false;
    fprintf(f, "usage: ./%s [flags]\n\n", p->name);
    print_wrapped(f, p->summary ? p->summary : "", 0, 0);
    print_groups(f, &t);
    print_examples(f, p->examples);
    print_names(f);
    print_environment(f);
    free(t.flags);
    return true;
}
