#include "core/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"

bool mapping_open(struct mapping *m, const char *path, struct error *err) {
    *m = (struct mapping){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, "%s: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return error_set(err, "%s: not a regular file", path);
    }
    m->size = (size_t)st.st_size;
    if (m->size) {
        void *p = mmap(NULL, m->size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            close(fd);
            return error_set(err, "%s: cannot map %zu bytes: %s", path, m->size, strerror(errno));
        }
#ifdef MADV_HUGEPAGE
        // A wish for pages of 2 MB, which ext4 and XFS grant on Linux 6.16 and later to files that
        // are not yet in the page cache: decode reads 22 instead of 21 GB/s, and the first touch of
        // 3 GB is 1,500 faults instead of 50,000.
        madvise(p, m->size, MADV_HUGEPAGE);
#endif
        m->data = p;
    }
    close(fd);
    return true;
}

void mapping_close(struct mapping *m) {
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->size);
    *m = (struct mapping){0};
}

void mapping_drop(const void *p, size_t size) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)p + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)p + size) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}

// All of f, which may be a pipe and not know its size, and a NUL behind it.
static char *read_stream(FILE *f, size_t max_size, size_t *size, const char *path,
                         struct error *err) {
    struct stat st;
    size_t capacity = 4096, n = 0, got = 0;
    if (fstat(fileno(f), &st) == 0 && st.st_size > 0 && (size_t)st.st_size <= max_size)
        capacity += (size_t)st.st_size;
    char *text = NULL;
    do {
        n += got;
        if (!text || n + 1 == capacity) {
            capacity *= text ? 2 : 1;
            char *grown = realloc(text, capacity);
            if (!grown) {
                free(text);
                error_set(err, "%s: out of memory for %zu bytes", path, capacity);
                return NULL;
            }
            text = grown;
        }
        got = fread(text + n, 1, capacity - 1 - n, f);
    } while (got && n + got <= max_size);
    if (ferror(f) || got) {
        free(text);
        if (got)
            error_set(err, "%s: more than the %zu bytes expected at most", path, max_size);
        else
            error_set(err, "%s: %s", path, strerror(errno));
        return NULL;
    }
    text[n] = '\0';
    *size = n;
    return text;
}

char *file_read(const char *path, size_t max_size, size_t *size, struct error *err) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        error_set(err, "%s: %s", path, strerror(errno));
        return NULL;
    }
    size_t n;
    char *text = read_stream(f, max_size, &n, path, err);
    fclose(f);
    if (text && size)
        *size = n;
    return text;
}

bool file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool file_same(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool folder_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool folder_create(const char *path, struct error *err) {
    char *copy = memory_strdup(path, err);
    if (!copy)
        return false;
    bool ok = true;
    for (char *c = copy + (*copy == '/'); ok; c++) {
        if (*c && *c != '/')
            continue;
        char end = *c;
        *c = '\0';
        if (mkdir(copy, 0777) != 0 && !folder_exists(copy))
            ok = error_set(err, "%s: cannot create the folder: %s", copy,
                           errno == EEXIST ? "it is a file" : strerror(errno));
        *c = end;
        if (!end)
            break;
    }
    free(copy);
    return ok;
}

bool folder_create_for(const char *path, struct error *err) {
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return true;
    char *folder = memory_printf(err, "%.*s", (int)(slash - path), path);
    bool ok = folder && folder_create(folder, err);
    free(folder);
    return ok;
}

char *path_join(const char *folder, const char *name, struct error *err) {
    return memory_printf(err, "%s/%s", folder, name);
}

// A pipe or a device is there to be written to, not to be replaced by a file of its name.
static bool takes_bytes_as_they_come(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

// The process that writes a temporary file holds a lock on it, which ends with the process however
// that ends. The number in the name would not do: it is used again, and other machines and
// containers that share the folder have their own. Where a file system has no locks, no file counts
// as left behind.
static bool lock(int fd) {
    return flock(fd, LOCK_EX | LOCK_NB) == 0;
}

// "model.gguf.tmp.1234" that nobody writes any more: removed, or every killed run would leave its
// gigabytes.
static void remove_leftovers(const char *path) {
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup("./");
    DIR *entries = folder ? opendir(folder) : NULL;
    size_t length = strlen(name);
    for (struct dirent *e; entries && (e = readdir(entries));) {
        const char *rest = e->d_name + length;
        if (strncmp(e->d_name, name, length) || strncmp(rest, ".tmp.", 5) || !rest[5] ||
            rest[5 + strspn(rest + 5, "0123456789")])
            continue;
        int fd = openat(dirfd(entries), e->d_name, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 && lock(fd))
            unlinkat(dirfd(entries), e->d_name, 0);
        if (fd >= 0)
            close(fd);
    }
    if (entries)
        closedir(entries);
    free(folder);
}

static FILE *open_temporary(const char *path) {
    struct stat st;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return NULL;
    bool lost = !lock(fd) && errno == EWOULDBLOCK;
    lost |= fstat(fd, &st) != 0 || !st.st_nlink; // removed by another run before it was locked
    FILE *f = !lost && ftruncate(fd, 0) == 0 ? fdopen(fd, "wb") : NULL;
    if (lost)
        errno = EBUSY;
    if (!f)
        close(fd);
    return f;
}

bool file_writer_open(struct file_writer *w, const char *path, struct error *err) {
    *w = (struct file_writer){0};
    bool direct = takes_bytes_as_they_come(path);
    w->path = memory_strdup(path, err);
    char *temporary = direct ? NULL : memory_printf(err, "%s.tmp.%ld", path, (long)getpid());
    if (w->path && (direct || temporary)) {
        if (!direct)
            remove_leftovers(path);
        w->stream = direct ? fopen(path, "wb") : open_temporary(temporary);
        if (!w->stream)
            error_set(err, "%s: cannot write: %s", path,
                      errno == EBUSY ? "another run is writing it" : strerror(errno));
    }
    if (w->stream) {
        w->temporary = temporary;
        return true;
    }
    free(temporary); // it may be another run's
    file_writer_abort(w);
    return false;
}

bool file_writer_commit(struct file_writer *w, struct error *err) {
    bool ok = !ferror(w->stream) && fflush(w->stream) == 0;
    if (w->temporary) // renamed while it is open, for closing it ends the lock; fsync saw all errors
        ok = ok && fsync(fileno(w->stream)) == 0 && rename(w->temporary, w->path) == 0;
    ok = fclose(w->stream) == 0 && ok;
    w->stream = NULL;
    if (!ok)
        error_set(err, "%s: cannot write: %s", w->path, strerror(errno));
    if (ok) {
        free(w->temporary);
        w->temporary = NULL;
    }
    file_writer_abort(w);
    return ok;
}

void file_writer_abort(struct file_writer *w) {
    if (w->stream)
        fclose(w->stream);
    if (w->temporary)
        unlink(w->temporary);
    free(w->temporary);
    free(w->path);
    *w = (struct file_writer){0};
}

bool file_check_writable(const char *path, struct error *err) {
    struct file_writer w;
    if (!folder_create_for(path, err))
        return false;
    if (folder_exists(path))
        return error_set(err, "%s: a folder, expected a file to write", path);
    if (access(path, F_OK) == 0)
        return access(path, W_OK) == 0 ||
               error_set(err, "%s: cannot write: %s", path, strerror(errno));
    if (!file_writer_open(&w, path, err))
        return false;
    file_writer_abort(&w);
    return true;
}

bool file_check_new(const char *path, struct error *err) {
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
        if (!S_ISREG(st.st_mode))
            return error_set(err, "%s: not a regular file", path);
        if (st.st_size)
            return error_set(err, "%s: is there already; remove it first", path);
    }
    return file_check_writable(path, err);
}
