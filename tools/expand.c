// Fills the marked places of Markdown files from the code and results they name; see
// common/report/expand.h for the markers.
//     build/tools/expand FILE…           rewrites the files where something changed
//     build/tools/expand --check FILE…   only says what drifted, and exits 1
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "report/expand.h"

static bool replace(const char *path, const char *text, struct error *err) {
    struct file_writer w;
    if (!file_writer_open(&w, path, err))
        return false;
    fputs(text, w.stream);
    return file_writer_commit(&w, err);
}

// One file; false if it cannot be expanded, or drifted and is only checked.
static bool handle(const char *path, bool check) {
    struct error err = {0};
    size_t line = 0;
    char *text = expand_file(path, &line, &err);
    bool ok = text != NULL;
    if (ok && line && check) {
        fprintf(stderr, "%s:%zu: drifted from its source; run: build/tools/expand %s\n", path, line,
                path);
        ok = false;
    } else if (ok && line) {
        ok = replace(path, text, &err);
        if (ok)
            printf("%s: updated\n", path);
    }
    if (*err.message)
        fprintf(stderr, "%s\n", err.message);
    free(text);
    return ok;
}

int main(int argc, char **argv) {
    bool check = argc > 1 && strcmp(argv[1], "--check") == 0;
    int first = check ? 2 : 1, status = 0;
    if (first >= argc || argv[first][0] == '-') {
        fprintf(stderr, "usage: expand [--check] FILE...\n");
        return 2;
    }
    for (int i = first; i < argc; i++)
        if (!handle(argv[i], check))
            status = 1;
    return status;
}
