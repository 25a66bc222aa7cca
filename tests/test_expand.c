// report/expand: write-ups are filled from code and results, and drift is found.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "report/expand.h"

static void write_file(const char *path, const char *text) {
    struct error err = {0};
    cr_assert(folder_create_for(path, &err), "%s", err.message);
    FILE *f = fopen(path, "w");
    cr_assert(f);
    fputs(text, f);
    fclose(f);
}

static const char source[] = "#include <x.h>\n"
                             "\n"
                             "// Declared here, defined below; a call or two.\n"
                             "static int scale(int a);\n"
                             "int unscale(int a);\n"
                             "\n"
                             "// Why it is so;\n"
                             "// in two lines.\n"
                             "static int\n"
                             "scale(int a,\n"
                             "      int b) {\n"
                             "    if (a) {\n"
                             "        // [inner]\n"
                             "        a += scale(b);\n"
                             "\n"
                             "            return a;\n"
                             "        // [/inner]\n"
                             "    }\n"
                             "}\n"
                             "int rescale(int a) {\n"
                             "    return scale(a);\n"
                             "}\n"
                             "struct block *block(struct block *b) {\n"
                             "    return b;\n"
                             "}\n"
                             "// Two bytes.\n"
                             "struct block {\n"
                             "    char bytes[2]; // a ``` in a comment\n"
                             "};\n";

static void enter(void) {
    char folder[] = "/tmp/nibble-expand-XXXXXX";
    cr_assert(mkdtemp(folder) && chdir(folder) == 0);
    write_file("common/x.c", source);
    write_file("results/x.csv", "config,ppl,note\nfp16,9.00,\n\"int4, \"\"naive\"\"\",6645,a|b\n");
    write_file("results/x.md", "| a |\n|---|\n| 1 |\n\n");
    write_file("results/x.txt", "$ ./phase1\n  42\n");
}

static void leave(void) {
    char folder[1024], command[1100];
    cr_assert(getcwd(folder, sizeof folder) && strncmp(folder, "/tmp/nibble-", 12) == 0);
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    cr_assert(chdir("/") == 0 && system(command) == 0);
}

// Expands a write-up with this marker in it; what stands between marker and end, for free().
static char *expanded(const char *marker) {
    char text[1024];
    struct error err = {0};
    snprintf(text, sizeof text, "# Title\n\n%s\nold\n<!-- end -->\nafter\n", marker);
    write_file("notes/01.md", text);
    char *all = expand_file("notes/01.md", NULL, &err);
    cr_assert(all, "%s", err.message);
    char *begin = strchr(strstr(all, "<!--"), '\n') + 2,
         *end = strstr(all, "\n<!-- end -->\nafter\n");
    cr_assert(end && end[strlen("\n<!-- end -->\nafter\n")] == '\0', "%s", all);
    *end = '\0';
    char *part = strdup(begin);
    free(all);
    return part;
}

static void assert_expanded(const char *marker, const char *expected) {
    char *text = expanded(marker);
    cr_assert_str_eq(text, expected);
    free(text);
}

static void assert_error(const char *text, const char *expected) {
    struct error err = {0};
    write_file("01.md", text);
    cr_assert_null(expand_file("01.md", NULL, &err));
    cr_assert_str_eq(err.message, expected);
}

Test(expand, a_function_comes_with_its_comment, .init = enter, .fini = leave) {
    assert_expanded("<!-- code: common/x.c#fn:scale -->",
                    "```c\n"
                    "// Why it is so;\n"
                    "// in two lines.\n"
                    "static int\n"
                    "scale(int a,\n"
                    "      int b) {\n"
                    "    if (a) {\n"
                    "        a += scale(b);\n"
                    "\n"
                    "            return a;\n"
                    "    }\n"
                    "}\n"
                    "```\n"
                    "\n"
                    "[common/x.c](../common/x.c)\n");
    assert_expanded("<!-- code: common/x.c#fn:rescale -->",
                    "```c\nint rescale(int a) {\n    return scale(a);\n}\n```\n\n"
                    "[common/x.c](../common/x.c)\n");
}

Test(expand, a_struct_is_not_a_function_returning_it, .init = enter, .fini = leave) {
    assert_expanded("<!-- code: common/x.c#struct:block -->",
                    "````c\n// Two bytes.\nstruct block {\n"
                    "    char bytes[2]; // a ``` in a comment\n};\n````\n\n"
                    "[common/x.c](../common/x.c)\n");
}

Test(expand, an_anchor_loses_its_indentation, .init = enter, .fini = leave) {
    assert_expanded("<!-- code: common/x.c#inner -->",
                    "```c\na += scale(b);\n\n    return a;\n```\n\n"
                    "[common/x.c](../common/x.c)\n");
}

Test(expand, tables_and_outputs, .init = enter, .fini = leave) {
    assert_expanded("<!-- table: results/x.md -->", "| a |\n|---|\n| 1 |\n");
    assert_expanded("<!-- output: results/x.txt -->", "```text\n$ ./phase1\n  42\n```\n");
    assert_expanded("<!-- table: results/x.csv -->", "| config        |  ppl | note |\n"
                                                     "|:--------------|-----:|:-----|\n"
                                                     "| fp16          | 9.00 |      |\n"
                                                     "| int4, \"naive\" | 6645 | a\\|b |\n");
    assert_expanded("<!-- table: results/x.csv columns=ppl,config -->",
                    "|  ppl | config        |\n"
                    "|-----:|:--------------|\n"
                    "| 9.00 | fp16          |\n"
                    "| 6645 | int4, \"naive\" |\n");
}

Test(expand, what_is_expanded_stays, .init = enter, .fini = leave) {
    struct error err = {0};
    size_t line = 99;
    write_file("a.md", "one\n<!-- output: results/x.txt -->\n<!-- end -->\ntwo\n");
    char *text = expand_file("a.md", &line, &err);
    cr_assert(text, "%s", err.message);
    cr_assert_eq(line, 3);
    write_file("a.md", text);
    char *again = expand_file("a.md", &line, &err);
    cr_assert_eq(line, 0);
    cr_assert_str_eq(again, text);
    write_file("results/x.txt", "$ ./phase1\n  43\n");
    free(again);
    again = expand_file("a.md", &line, &err);
    cr_assert_eq(line, 6, "the first line that drifted, found %zu", line);
    free(again);
    free(text);
}

Test(expand, markers_in_fences_are_only_shown, .init = enter, .fini = leave) {
    struct error err = {0};
    size_t line = 99;
    write_file("a.md", "````\n```c\n<!-- code: missing.c -->\n```\n<!-- end -->\n````\nx\n");
    char *text = expand_file("a.md", &line, &err);
    cr_assert(text && line == 0, "%s", err.message);
    free(text);
    write_file("a.md", "");
    text = expand_file("a.md", &line, &err);
    cr_assert(text && !*text && line == 0);
    free(text);
}

Test(expand, errors_name_file_and_line, .init = enter, .fini = leave) {
    assert_error("\n<!-- code: none.c -->\n<!-- end -->\n",
                 "01.md:2: none.c: No such file or directory");
    assert_error("<!-- code: common/x.c#fn:cale -->\n<!-- end -->\n",
                 "01.md:1: common/x.c: has no definition of function 'cale'");
    assert_error("<!-- code: common/x.c#fn: -->\n<!-- end -->\n",
                 "01.md:1: common/x.c: has no definition of function ''");
    assert_error("<!-- code: common/x.c#fn:unscale -->\n<!-- end -->\n",
                 "01.md:1: common/x.c: has no definition of function 'unscale'");
    assert_error("<!-- code: common/x.c#struct:x -->\n<!-- end -->\n",
                 "01.md:1: common/x.c: has no definition of struct 'x'");
    assert_error("<!-- code: common/x.c#outer -->\n<!-- end -->\n",
                 "01.md:1: common/x.c: '// [outer]' occurs 0 and '// [/outer]' 0 times, "
                 "expected one pair");
    assert_error("<!-- output: results/x.txt -->\ntext\n",
                 "01.md:1: no '<!-- end -->' closes this marker");
    assert_error("<!-- output: results/x.txt -->\n<!-- output: results/x.txt -->\n<!-- end -->\n",
                 "01.md:1: no '<!-- end -->' closes this marker");
    assert_error("<!-- end -->\n", "01.md:1: an end without its beginning");
    assert_error("<!-- code: -->\n<!-- end -->\n", "01.md:1: 'code:' names no file");
    assert_error("<!-- table: results/x.md columns=a -->\n<!-- end -->\n",
                 "01.md:1: 'columns=' is not understood here");
    assert_error("<!-- table: results/x.csv column=a -->\n<!-- end -->\n",
                 "01.md:1: 'column=a' is not understood here");
    assert_error("<!-- table: results/x.csv columns=ppl,kld -->\n<!-- end -->\n",
                 "01.md:1: results/x.csv: has no column 'kld'");
    write_file("bad.csv", "a,b\n1\n");
    assert_error("<!-- table: bad.csv -->\n<!-- end -->\n",
                 "01.md:1: bad.csv: row 2 has 1 fields, expected 2");
    write_file("bad.csv", "a,\"b\n1");
    assert_error("<!-- table: bad.csv -->\n<!-- end -->\n",
                 "01.md:1: bad.csv: row 1: a quote is not closed");
    write_file("bad.csv", "");
    assert_error("<!-- table: bad.csv -->\n<!-- end -->\n",
                 "01.md:1: bad.csv: is empty, expected a CSV header");
    write_file("bad.txt", "x\n<!-- end -->\n");
    assert_error("<!-- output: bad.txt -->\n<!-- end -->\n",
                 "01.md:1: the text to be shown contains a marker itself");
}
