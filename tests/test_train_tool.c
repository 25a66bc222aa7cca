// tools/train: its command line, and a few steps on stories that tools/make_stories writes.
#include <criterion/criterion.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/file.h"
#include "temp.h"

// The exit status of a tool built beside these tests.
static int run(const char *name, const char *arguments) {
    char folder[PATH_MAX] = "", command[3 * PATH_MAX];
    cr_assert_gt(readlink("/proc/self/exe", folder, sizeof folder - 1), 0);
    *strrchr(folder, '/') = '\0';
    snprintf(command, sizeof command, "%s/tools/%s", folder, name);
    if (access(command, X_OK) != 0)
        cr_skip_test("no %s: make tools", command);
    snprintf(command, sizeof command, "%.4000s/tools/%s %.8000s >/dev/null 2>&1", folder, name,
             arguments);
    return WEXITSTATUS(system(command));
}

Test(train_tool, a_wrong_command_line_is_status_2) {
    static const char *const wrong[] = {"",
                                        "--config a",
                                        "--config a --out b --data c",
                                        "--config a --out b --ids c --documents",
                                        "--config a --out b --ids c --first-lines 0.5",
                                        "--config a --out b --data c --tokenizer d --first-lines 2",
                                        "--config a --out b --ids c --muon -1"};
    cr_assert_eq(run("train", "--help"), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert_eq(run("train", wrong[i]), 2, "%s", wrong[i]);
    cr_assert_eq(run("train", "--config /nonexistent --out b --ids c"), 1);
}

Test(train_tool, an_empty_text_is_named) {
    char command[2 * PATH_MAX], said[PATH_MAX] = "";
    struct error err = {0};
    const char *text = temp_file("empty", "", 0);
    snprintf(command, sizeof command,
             "--config tools/bundled-model.json --tokenizer data/model --data %s --out %s/out "
             "--log %s/log.csv 2>%s/said #",
             text, temp_folder(), temp_folder(), temp_folder());
    cr_assert_eq(run("train", command), 1);
    snprintf(said, sizeof said, "%s/said", temp_folder());
    char *message = file_read(said, 1 << 16, NULL, &err);
    cr_assert(message && strstr(message, "empty: the text is empty"), "%s", message);
    free(message);
}

static void make_text(const char *arguments) {
    char command[2 * PATH_MAX];
    snprintf(command, sizeof command, "%s --bytes 40kB --out %s/text", arguments, temp_folder());
    cr_assert_eq(run("make_stories", command), 0);
}

// Two steps on the text; returns the log's first loss.
static double first_loss(const char *more) {
    char command[3 * PATH_MAX], path[PATH_MAX];
    snprintf(path, sizeof path, "%s/log.csv", temp_folder());
    snprintf(command, sizeof command,
             "--config tools/bundled-model.json --tokenizer data/model --data %s/text --out %s/out "
             "--log %s --context 256 --batch 2 --tokens 1024 --muon 0.001 %s",
             temp_folder(), temp_folder(), path, more);
    cr_assert_eq(run("train", command), 0, "%s", command);
    struct error err = {0};
    char *log = file_read(path, 1 << 20, NULL, &err), *line = log ? strchr(log, '\n') : NULL;
    double loss = 0;
    cr_assert(line && sscanf(line + 1, "%*d,%*d,%lf", &loss) == 1, "%s", err.message);
    free(log);
    return loss;
}

// What is not scored counts as 0; before the first step all tokens cost about ln 2048.
Test(train_tool, first_lines_can_be_left_out) {
    if (access("data/model/tokenizer.json", R_OK) != 0)
        cr_skip_test("skipped: no data/model");
    make_text("--parts --facts 16");
    double all = first_loss("--documents"), answers = first_loss("--documents --first-lines 0");
    double half = first_loss("--documents --first-lines 0.5");
    cr_assert(all > 6 && all < 9, "%g", all);
    cr_assert(answers > 0.05 * all && answers < 0.9 * all, "%g of %g", answers, all);
    cr_assert(half > answers && half < all, "%g", half);
    double float32 = first_loss("--documents --float32");
    cr_assert(fabs(float32 - all) <= 2e-3 * all, "%g %g: only rounded differently", float32, all);
}
