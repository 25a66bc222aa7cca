// Files: mapping them, reading small ones whole, and replacing them without ever leaving half.
#ifndef NIBBLE_CORE_FILE_H
#define NIBBLE_CORE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "core/error.h"

// A whole file, mapped read-only. Pages are read when they are touched.
struct mapping {
    const unsigned char *data; // NULL for an empty file
    size_t size;
};

bool mapping_open(struct mapping *m, const char *path, struct error *err);
void mapping_close(struct mapping *m);
// Tells the kernel that these bytes are not needed for now: their pages leave our resident set and
// come back from the file when touched again. p need not be page-aligned.
void mapping_drop(const void *p, size_t size);

// The whole file in memory with a terminating NUL that *size (may be NULL) does not count; the
// caller frees it. NULL if it is unreadable or larger than max_size.
char *file_read(const char *path, size_t max_size, size_t *size, struct error *err);

bool file_exists(const char *path);
// Whether both are there and one file, by whatever names and links.
bool file_same(const char *a, const char *b);
bool folder_exists(const char *path);
// Creates the folder and its parents; true if it already is there.
bool folder_create(const char *path, struct error *err);
// Creates the folder that `path` lies in, and its parents.
bool folder_create_for(const char *path, struct error *err);
// Whether a file could be written there, which may be there already: for a look before the work.
// Creates the folder that it lies in.
bool file_check_writable(const char *path, struct error *err);
// The same for a file that shall replace nothing: also fails if there is anything but an empty
// file.
bool file_check_new(const char *path, struct error *err);
// "folder/name" in a new string; the caller frees it.
char *path_join(const char *folder, const char *name, struct error *err);

// A file that takes its name only when it is complete: writes go to "<path>.tmp.<pid>", commit
// flushes, checks and renames; abort (or an error in commit) removes it and leaves what was there.
// Opening also removes what killed runs left of that path; the files of living ones are locked.
// A path that is no regular file (a pipe, /dev/null) is written to as it is.
struct file_writer {
    FILE *stream;
    char *path, *temporary; // temporary: NULL where the path itself is written to
};

bool file_writer_open(struct file_writer *w, const char *path, struct error *err);
bool file_writer_commit(struct file_writer *w, struct error *err);
void file_writer_abort(struct file_writer *w); // safe after commit, and on a zeroed struct

#endif
