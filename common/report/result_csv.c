#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"
#include "report/result_key.h"

// RFC 4180: a field with a comma, a quote or a line end is quoted, quotes inside are doubled.
static void print_field(const char *s, char separator, FILE *f) {
    bool quoted = s && s[strcspn(s, ",\"\r\n")];
    if (quoted)
        fputc('"', f);
    for (; s && *s; s++) {
        if (*s == '"')
            fputc('"', f);
        fputc(*s, f);
    }
    if (quoted)
        fputc('"', f);
    fputc(separator, f);
}

static void print_number(double value, bool whole, FILE *f) {
    if (isnan(value))
        fputs("nan", f); // printf may say -nan
    else
        fprintf(f, whole ? "%.0f" : "%.9g", value);
}

static void print_header(const char *time, FILE *f) {
    fputs(time ? "time," : "", f);
    fputs("phase,model,arch,text,ctx,ppl_mode,threads,device,config,format", f);
    for (size_t k = 0; k < RESULT_N_KEYS; k++)
        fprintf(f, ",%s", result_keys[k].name);
    fputs(",generated\n", f); // a row's text: here "text" is the evaluated one
}

static void print_row(const struct result_table *t, const struct result_row *row, const char *time,
                      FILE *f) {
    if (time)
        print_field(time, ',', f);
    fprintf(f, "%d,", t->phase);
    print_field(t->model, ',', f);
    print_field(t->arch, ',', f);
    print_field(t->text, ',', f);
    fprintf(f, "%zu,", t->ctx);
    print_field(t->ppl_mode, ',', f);
    fprintf(f, "%d,", t->threads);
    print_field(t->device, ',', f);
    print_field(row->config, ',', f);
    print_field(row->format, ',', f);
    for (size_t k = 0; k < RESULT_N_KEYS; k++) {
        if (result_measured(row, result_keys[k].offset))
            print_number(result_number(row, result_keys[k].offset), result_keys[k].whole, f);
        fputc(',', f);
    }
    print_field(row->text, '\n', f);
}

static bool print_table(const struct result_table *t, bool header, const char *time, FILE *f,
                        struct error *err) {
    if (header)
        print_header(time, f);
    for (size_t i = 0; i < t->n_rows; i++)
        print_row(t, &t->rows[i], time, f);
    return (fflush(f) == 0 && !ferror(f)) ||
           error_set(err, "results: cannot write the CSV: %s", strerror(errno));
}

bool result_print_csv(const struct result_table *t, bool header, FILE *f, struct error *err) {
    return print_table(t, header, NULL, f, err);
}

// The table as one string, so that it reaches the file in a single write.
static char *table_text(const struct result_table *t, bool header, const char *time, size_t *size,
                        struct error *err) {
    char *text = NULL;
    FILE *f = open_memstream(&text, size);
    bool ok = f && print_table(t, header, time, f, err);
    if (f && fclose(f) == 0 && ok)
        return text;
    free(text);
    error_set(err, "results: out of memory for the CSV");
    return NULL;
}

// Whether the file starts with the header that this version writes.
static bool header_matches(int fd, const char *path, const char *time, struct error *err) {
    size_t size = 0;
    char *header = table_text(&(struct result_table){0}, true, time, &size, err);
    char *found = header ? memory_alloc(size, 1, path, err) : NULL;
    bool ok = found && pread(fd, found, size, 0) == (ssize_t)size && !memcmp(found, header, size);
    if (found && !ok)
        error_set(err, "%s: starts with '%.60s', expected the columns '%.60s…'", path, found,
                  header);
    free(header);
    free(found);
    return ok;
}

static bool write_whole(int fd, const char *path, const char *text, size_t size, off_t old_size,
                        struct error *err) {
    errno = ENOSPC; // what a short write, which sets no error, means
    if (write(fd, text, size) == (ssize_t)size)
        return true;
    error_set(err, "%s: cannot write: %s", path, strerror(errno));
    (void)!ftruncate(fd, old_size); // takes back a half-written row; a pipe has none to take
    return false;
}

// Holds the lock from reading the header to writing the rows: two programs may share one file.
static bool append_locked(const struct result_table *t, int fd, const char *path, const char *time,
                          struct error *err) {
    struct stat st;
    if (fstat(fd, &st) != 0 || (S_ISREG(st.st_mode) && flock(fd, LOCK_EX) != 0) ||
        fstat(fd, &st) != 0)
        return error_set(err, "%s: cannot lock: %s", path, strerror(errno));
    bool empty = !S_ISREG(st.st_mode) || st.st_size == 0;
    if (!empty && !header_matches(fd, path, time, err))
        return false;
    size_t size = 0;
    char *text = table_text(t, empty, time, &size, err);
    bool ok = text && write_whole(fd, path, text, size, st.st_size, err);
    free(text);
    return ok;
}

static bool append(const struct result_table *t, const char *path, const char *time,
                   struct error *err) {
    if (!folder_create_for(path, err))
        return false;
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0)
        return error_set(err, "%s: cannot write: %s", path, strerror(errno));
    bool ok = append_locked(t, fd, path, time, err);
    if (close(fd) != 0 && ok)
        ok = error_set(err, "%s: cannot write: %s", path, strerror(errno));
    return ok;
}

bool result_write_csv(const struct result_table *t, const char *path, struct error *err) {
    if (strcmp(path, "-") == 0)
        return result_print_csv(t, true, stdout, err);
    return append(t, path, NULL, err);
}

bool result_save_metrics(const struct result_table *t, struct error *err) {
    const char *wanted = getenv("SAVE_EVAL_RESULTS");
    if (!wanted || !*wanted || strcmp(wanted, "0") == 0)
        return true;
    char stamp[32];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return append(t, "results/metrics.csv", stamp, err);
}
