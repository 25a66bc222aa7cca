// A temporary folder for one test; removed when the test's process ends.
#ifndef NIBBLE_TESTS_TEMP_H
#define NIBBLE_TESTS_TEMP_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"

static char temp_folder_path[64];

static inline void temp_remove(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", temp_folder_path);
    if (system(command) != 0)
        perror(command);
}

static inline const char *temp_folder(void) {
    if (!temp_folder_path[0]) {
        strcpy(temp_folder_path, "/tmp/nibble-test-XXXXXX");
        cr_assert_not_null(mkdtemp(temp_folder_path));
        atexit(temp_remove);
    }
    return temp_folder_path;
}

// Writes bytes to <temporary folder>/name; gives the path, valid until the next call.
static inline const char *temp_file(const char *name, const void *data, size_t size) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", temp_folder(), name);
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(data, 1, size, f) == size && fclose(f) == 0);
    return path;
}

// The text of <temporary folder>/name in a new string.
static inline char *temp_text(const char *name) {
    char path[512];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s", temp_folder(), name);
    char *text = file_read(path, 1 << 24, NULL, &err);
    cr_assert_not_null(text, "%s", err.message);
    return text;
}

#endif
