// One row of phase 6's table: a kernel on a format and a shape, checked against the reference and
// then, on a GPU, timed.
#ifndef NIBBLE_PHASE6_BENCH_H
#define NIBBLE_PHASE6_BENCH_H

#include "cuda/matrix.h"
#include "report/result.h"

struct bench {
    const struct cuda_backend *backend;
    struct cuda_description device;
    double copy_gb_s; // 0: nothing is timed
    size_t samples;   // runs per time
};

// Finds out about the device and, if kernels shall be timed and it can, measures its copy speed.
bool bench_init(struct bench *b, const struct cuda_backend *backend, bool timed, struct error *err);

// A matrix on the host in the file's layout and, where there is one, in the kernels'.
struct bench_matrix {
    struct cuda_sample sample;
    void *packed;
    size_t packed_bytes;
};
bool bench_matrix_init(struct bench_matrix *m, const char *format, unsigned n, unsigned k,
                       struct error *err);
void bench_matrix_free(struct bench_matrix *m);

// Fills rel_error and, where times mean something, us, us_p99, gb_s, gop_s and of_limit. False if
// the kernel fails, two runs of it differ in a bit, or its error is above its tolerance: then
// nothing is timed.
bool bench_row(const struct bench *b, const struct cuda_kernel *kernel,
               const struct bench_matrix *w, unsigned m, struct result_row *row, struct error *err);

#endif
