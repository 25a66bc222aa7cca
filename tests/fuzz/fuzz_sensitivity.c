// eval/sensitivity: any bytes as a file of sensitivities; what is read can be ranked.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "eval/sensitivity_report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int fd = memfd_create("csv", 0);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct error err = {0};
    struct sensitivity s;
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    if (sensitivity_read(&s, path, 0xff, &err)) {
        size_t *order = malloc(s.n_tensors * sizeof *order);
        sensitivity_rank(&s, sensitivity_main_format(&s), order);
        for (size_t i = 0; i < s.n_tensors; i++)
            if (order[i] >= s.n_tensors)
                abort();
        free(order);
        sensitivity_free(&s);
    } else if (!*err.message) {
        abort();
    }
    close(fd);
    return 0;
}
