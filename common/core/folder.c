#include "core/folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"

static void remove_folder(const char *folder) {
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(folder);
}

static bool is_free(const char *path) {
    DIR *d = opendir(path);
    if (!d)
        return access(path, F_OK) != 0;
    size_t entries = 0;
    while (readdir(d))
        entries++;
    closedir(d);
    return entries <= 2; // "." and ".."
}

bool folder_writer_open(struct folder_writer *w, const char *path, struct error *err) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    *w = (struct folder_writer){0};
    if (!is_free(path))
        return error_set(err, "%s: is there already; remove it first", path);
    char *temporary = memory_printf(err, "%.*s.tmp.%ld", (int)length, path, (long)getpid());
    w->path = temporary ? memory_strdup(path, err) : NULL;
    bool ok = w->path && folder_create_for(temporary, err);
    if (ok && mkdir(temporary, 0777) != 0)
        ok = error_set(err, "%s: cannot create the folder: %s", path, strerror(errno));
    if (ok) {
        w->temporary = temporary;
        return true;
    }
    free(temporary);
    folder_writer_abort(w);
    return false;
}

// rename() replaces an empty folder and nothing else.
bool folder_writer_commit(struct folder_writer *w, struct error *err) {
    bool ok = rename(w->temporary, w->path) == 0 ||
              error_set(err, "%s: cannot rename to %s: %s", w->temporary, w->path, strerror(errno));
    if (ok) {
        free(w->temporary);
        w->temporary = NULL;
    }
    folder_writer_abort(w);
    return ok;
}

void folder_writer_abort(struct folder_writer *w) {
    if (w->temporary)
        remove_folder(w->temporary);
    free(w->temporary);
    free(w->path);
    *w = (struct folder_writer){0};
}

bool folder_check_new(const char *path, struct error *err) {
    struct folder_writer w;
    bool ok = folder_writer_open(&w, path, err);
    folder_writer_abort(&w);
    return ok;
}

static bool copy_file(const char *from, const char *to, struct error *err) {
    struct mapping m;
    struct file_writer w;
    if (!mapping_open(&m, from, err))
        return false;
    bool ok = file_writer_open(&w, to, err);
    if (ok) {
        if (m.size)
            fwrite(m.data, 1, m.size, w.stream);
        ok = file_writer_commit(&w, err);
    }
    mapping_close(&m);
    return ok;
}

bool folder_copy_files(const char *from, const char *to, bool (*wanted)(const char *name),
                       struct error *err) {
    DIR *d = opendir(from);
    if (!d)
        return error_set(err, "%s: %s", from, strerror(errno));
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));) {
        char *source = path_join(from, e->d_name, err), *copy = path_join(to, e->d_name, err);
        ok = source && copy &&
             ((wanted && !wanted(e->d_name)) || !file_exists(source) ||
              copy_file(source, copy, err));
        free(source);
        free(copy);
    }
    closedir(d);
    return ok;
}
