// Folders that take their name only when they are complete, as files do (core/file.h).
#ifndef NIBBLE_CORE_FOLDER_H
#define NIBBLE_CORE_FOLDER_H

#include <stdbool.h>

#include "core/error.h"

// Everything is made in `temporary`, "<path>.tmp.<pid>"; commit renames it. What is at `path`
// already is never touched, unless it is an empty folder.
struct folder_writer {
    char *path, *temporary;
};

// Creates the temporary folder; fails if there is something at `path`, or no right to write there.
bool folder_writer_open(struct folder_writer *w, const char *path, struct error *err);
bool folder_writer_commit(struct folder_writer *w, struct error *err);
// Removes the temporary folder and the files in it; safe after commit, and on a zeroed struct.
void folder_writer_abort(struct folder_writer *w);

// The same questions as folder_writer_open asks, before the work; leaves at most parent folders.
bool folder_check_new(const char *path, struct error *err);

// Copies those files of folder `from` whose names `wanted` likes (NULL: all). Links are followed
// (the Hugging Face cache is made of them); folders in it are left out.
bool folder_copy_files(const char *from, const char *to, bool (*wanted)(const char *name),
                       struct error *err);

#endif
