// Compares a reader's results with the committed ones, figure by figure.
//     build/tools/reproduce results/bundled/phase3.csv mine.csv
// Rows belong together by phase and name. What a program computes must agree within the tolerance
// below; how fast and in how much memory it did depends on the machine and is only shown. Exit
// status 1 if a figure or a row of the reader's has no counterpart or is not within tolerance.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/csv.h"

// Equal means |mine - ours| <= absolute + relative * |ours|. Instruction sets round differently,
// which moves a perplexity in its fifth digit, a KL divergence of 1e-4 in its second, and now and
// then turns an answer.
static const struct figure {
    const char *key;
    double relative, absolute;
    bool of_machine;
} figures[] = {
    {"bits_per_weight", 1e-6, 0, false}, {"model_bytes", 0, 0, false},
    {"file_bytes", 1e-3, 0, false},      {"ppl", 2e-3, 0, false},
    {"kld_mean", 0.03, 2e-5, false},     {"top1_agree", 0, 0.005, false},
    {"accuracy", 0, 0.01, false},        {"prefill_tps", 0, 0, true},
    {"decode_tps", 0, 0, true},          {"peak_rss_bytes", 0, 0, true},
};
enum { N_FIGURES = sizeof figures / sizeof figures[0] };

struct tally {
    size_t equal, different, missing;
};

static size_t find_row(const struct csv *c, const char *phase, const char *config) {
    size_t row = 0;
    while (row + 1 < c->rows && (strcmp(csv_text(c, row, "phase"), phase) != 0 ||
                                 strcmp(csv_text(c, row, "config"), config) != 0))
        row++;
    return row;
}

static void compare(const char *config, const struct figure *f, double ours, double mine,
                    struct tally *t) {
    if (isnan(ours) && isnan(mine))
        return;
    bool equal = fabs(mine - ours) <= f->absolute + f->relative * fabs(ours); // false for a NaN
    if (!f->of_machine) {
        t->equal += equal;
        t->different += !equal;
    }
    printf("| %s | %s | %.6g | %.6g | ", config, f->key, ours, mine);
    if (ours != 0 && isfinite(mine / ours))
        printf("%+.2f %% | ", 100 * (mine / ours - 1));
    else
        printf("| ");
    printf("%s |\n", f->of_machine ? "machine" : equal ? "equal" : "**different**");
}

static void compare_rows(const struct csv *ours, const struct csv *mine, struct tally *t) {
    printf("| config | figure | committed | here | difference | |\n");
    printf("|:--|:--|--:|--:|--:|:--|\n");
    for (size_t row = 0; row + 1 < mine->rows; row++) {
        const char *config = csv_text(mine, row, "config");
        size_t other = find_row(ours, csv_text(mine, row, "phase"), config);
        if (other + 1 >= ours->rows) {
            t->missing++;
            printf("| %s | | | | | **not among the committed rows** |\n", config);
            continue;
        }
        for (size_t i = 0; i < N_FIGURES; i++)
            compare(config, &figures[i], csv_number(ours, other, figures[i].key),
                    csv_number(mine, row, figures[i].key), t);
    }
}

int main(int argc, char **argv) {
    struct error err = {0};
    struct csv ours = {0}, mine = {0};
    struct tally t = {0};
    bool brief = argc == 4 && strcmp(argv[1], "--brief") == 0;
    if (argc != 3 + brief) {
        fprintf(stderr, "usage: reproduce [--brief] COMMITTED.csv MINE.csv\n");
        return 2;
    }
    if (brief && !freopen("/dev/null", "w", stdout))
        return 1;
    if (!csv_read(&ours, argv[1 + brief], &err) || !csv_read(&mine, argv[2 + brief], &err)) {
        fprintf(stderr, "reproduce: %s\n", err.message);
        csv_free(&ours);
        return 1;
    }
    compare_rows(&ours, &mine, &t);
    bool ok = t.different + t.missing == 0 && t.equal > 0;
    fflush(stdout);
    fprintf(stderr, "%s: %zu figures equal the committed ones of %s",
            ok ? "reproduced" : "reproduce", t.equal, argv[1 + brief]);
    if (!ok)
        fprintf(stderr, ", %zu differ, %zu rows are not among them", t.different, t.missing);
    fprintf(stderr, "\n");
    csv_free(&ours);
    csv_free(&mine);
    return ok ? 0 : 1;
}
