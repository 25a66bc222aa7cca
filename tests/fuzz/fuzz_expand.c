// Any bytes as a write-up, as a CSV file and as a source whose first line names the part wanted.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "report/expand.h"
#include "report/expand_part.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void find_part(const char *path) {
    struct text_lines t;
    struct error err;
    size_t first, end;
    if (!text_lines_read(&t, path, &err))
        return;
    if (t.n && expand_find_part(&t, path, t.lines[0], &first, &end, &err) &&
        (first > end || end > t.n))
        abort();
    text_lines_free(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    struct error err;
    int fd = memfd_create("fuzz", 0);
    FILE *sink = fopen("/dev/null", "w");
    if (fd < 0 || !sink || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    free(expand_file(path, NULL, &err));
    expand_print_csv(path, NULL, sink, &err);
    expand_print_csv(path, "a,b", sink, &err);
    find_part(path);
    fclose(sink);
    close(fd);
    return 0;
}
