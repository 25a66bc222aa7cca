// How library functions fail: they return false or NULL and leave one line in a struct error.
// They never print and never exit; only main does (see cli/cli.h).
//
// A message names the file (or the flag), what was found and what was expected:
//     model.safetensors: tensor 'x.weight' ends at byte 812 of a 640-byte file
#ifndef NIBBLE_CORE_ERROR_H
#define NIBBLE_CORE_ERROR_H

#include <stdbool.h>

struct error {
    char message[1024]; // "" until something fails; never contains a newline
};

// Formats the message (truncating, newlines and control bytes replaced) and returns false, so that
// a failing function ends with `return error_set(err, "...");`. err may be NULL.
bool error_set(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
