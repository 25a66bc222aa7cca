// tools/outliers: its command line. What it does is tested in test_outliers.c.
#include <criterion/criterion.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared.h"
#include "temp.h"

// The exit status of the tool built beside these tests.
static int run(const char *arguments) {
    char tool[PATH_MAX] = "", command[2 * PATH_MAX];
    cr_assert_gt(readlink("/proc/self/exe", tool, sizeof tool - 1), 0);
    *strrchr(tool, '/') = '\0';
    snprintf(command, sizeof command, "%s/tools/outliers", tool);
    if (access(command, X_OK) != 0)
        cr_skip_test("no %s: make tools", command);
    snprintf(command, sizeof command, "%.4000s/tools/outliers %s >/dev/null 2>&1", tool, arguments);
    return WEXITSTATUS(system(command));
}

Test(outliers_tool, exit_status_tells_a_wrong_command_line_from_failed_work) {
    static const char *const wrong[] = {"",
                                        "--add a",
                                        "--report a b",
                                        "--add --undo a b",
                                        "--add --columns 0 a b",
                                        "--add --columns 1x a b",
                                        "--add --scale 3 a b",
                                        "--add --scale 8..4 a b",
                                        "--add --scale 2..2048 a b",
                                        "--add --seed -1 a b",
                                        "--add --layers two a b",
                                        "--sideways a b"};
    cr_assert_eq(run("--help"), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        cr_assert_eq(run(wrong[i]), 2, "%s", wrong[i]);
    cr_assert_eq(run("--report /nonexistent"), 1);
}

Test(outliers_tool, adds_and_reports) {
    const char *folder = shared_path("fixtures/qwen2-tied-bf16");
    char arguments[2048], record[512];
    snprintf(arguments, sizeof arguments, "--add --seed 3 --scale 8..16 --layers 1 '%s' '%s/out'",
             folder, temp_folder());
    cr_assert_eq(run(arguments), 0);
    snprintf(record, sizeof record, "%s/out/outliers.json", temp_folder());
    cr_assert_eq(access(record, R_OK), 0);
    snprintf(arguments, sizeof arguments, "--report '%s/out'", temp_folder());
    cr_assert_eq(run(arguments), 0);
}
