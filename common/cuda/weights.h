// Weight matrices on their way to the GPU. For this folder.
#ifndef NIBBLE_CUDA_WEIGHTS_H
#define NIBBLE_CUDA_WEIGHTS_H

#include "cuda/placement.h"

// Memory of the device, freed together.
struct cuda_arena {
    const struct cuda_backend *b;
    void **arrays;
    size_t n, capacity, bytes;
};
// Zeroed; NULL and a message naming `what` when the device is full.
void *cuda_arena_take(struct cuda_arena *a, size_t bytes, const char *what, struct error *err);
// A copy of an array of the host's.
void *cuda_arena_copy(struct cuda_arena *a, const void *from, size_t bytes, const char *what,
                      struct error *err);
void cuda_arena_free(struct cuda_arena *a);

// Several matrices that read the same x, one below the other, as far as their formats allow one;
// y[m, n] = x[m, k] · wᵀ without bias.
struct cuda_part {
    struct cuda_matrix w;
    unsigned row; // of y where its outputs start
    bool int8;    // x becomes int8 first
    void *workspace;
};
struct cuda_linear {
    struct cuda_part *parts;
    size_t n_parts;
    unsigned n, k;
    float *bias; // [n] on the device; NULL: none
};

enum { CUDA_JOINED = 3 };
// Bytes that the matrices will take there.
bool cuda_linear_bytes(const struct linear *const *l, size_t n, size_t *bytes, struct error *err);
bool cuda_linear_upload(struct cuda_linear *out, struct cuda_arena *a,
                        const struct linear *const *l, size_t n, struct cuda_report *report,
                        struct error *err);
void cuda_linear_free(struct cuda_linear *l);
// Rows of a matrix for the embedding: as it lies in the file where a kernel reads that, else (or
// where it must be) in float16.
bool cuda_table_bytes(const struct linear *l, size_t *bytes, struct error *err);
bool cuda_table_upload(struct cuda_matrix *out, struct cuda_arena *a, const struct linear *l,
                       bool float16, struct error *err);
// x rows are so many halves apart.
static inline unsigned cuda_stride(size_t k) {
    return (unsigned)((k + 255) / 256 * 256);
}

#endif
