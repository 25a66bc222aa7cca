// Development data that is not part of the project: real models, texts, tokenizers, recorded
// answers. Tests that use it skip, with one line, where it is absent. $NIBBLE_SHARED, else
// ../shared.
#ifndef NIBBLE_TESTS_SHARED_H
#define NIBBLE_TESTS_SHARED_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

// The path of a file or folder there, written to buffer; skips the test if absent.
static inline const char *shared_path_in(char *buffer, size_t buffer_size, const char *relative) {
    const char *root = getenv("NIBBLE_SHARED");
    snprintf(buffer, buffer_size, "%s/%s", root && *root ? root : "../shared", relative);
    if (access(buffer, R_OK) != 0)
        cr_skip_test("no %s", buffer);
    return buffer;
}

#define shared_path(relative) shared_path_in((char[1024]){0}, 1024, relative)

#endif
