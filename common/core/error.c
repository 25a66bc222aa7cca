#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>

bool error_set(struct error *err, const char *fmt, ...) {
    if (!err)
        return false;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    // File names and tensor names come from outside: keep the promise of one clean line.
    for (char *c = err->message; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = '?';
    return false;
}
